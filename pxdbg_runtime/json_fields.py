"""Reading a JSON object field by field, so that an error names the field, what was expected and what came."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from typing import TypeGuard, TypeVar

from pxdbg_runtime.errors import JsonFieldError

__all__ = ["Fields", "NumberRange"]

Choice = TypeVar("Choice", bound=str)
_SHOWN_LENGTH = 60


@dataclass(frozen=True)
class NumberRange:
    """The closed range that a number must lie in; None is open."""

    minimum: float | None = None
    maximum: float | None = None

    def __contains__(self, number: float) -> bool:
        return (self.minimum is None or number >= self.minimum) and (self.maximum is None or number <= self.maximum)

    def __str__(self) -> str:
        if self.minimum is not None and self.maximum is not None:
            return f" between {_format(self.minimum)} and {_format(self.maximum)}"
        if self.minimum is not None:
            return f" of {_format(self.minimum)} or more"
        return f" of {_format(self.maximum)} or less" if self.maximum is not None else ""


def _format(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


_ANY_NUMBER = NumberRange()


class Fields:
    """The fields of one JSON object, each taken once."""

    def __init__(self, values: dict[str, object], prefix: str = "") -> None:
        self._values = dict(values)
        self._prefix = prefix

    @classmethod
    def parse(cls, text: str) -> Fields:
        """Read a JSON object.

        Raises
        ------
        JsonFieldError
            If the text is not one.
        """
        values = _parsed(text)
        if not isinstance(values, dict):
            message = f"it must be a JSON object, but is {_shown(values)}."
            raise JsonFieldError("", message)
        return cls(values)

    @classmethod
    def parse_list(cls, text: str) -> tuple[Fields, ...]:
        """Read a JSON list of objects, which may be empty.

        Raises
        ------
        JsonFieldError
            If the text is not one.
        """
        values = _parsed(text)
        objects = [each for each in values if isinstance(each, dict)] if isinstance(values, list) else []
        if not isinstance(values, list) or len(objects) != len(values):
            message = f"it must be a JSON list of objects, but is {_shown(values)}."
            raise JsonFieldError("", message)
        return tuple(cls(each, f"[{place}].") for place, each in enumerate(objects))

    def path(self, name: str) -> str:
        """Name of a field as an error gives it, dotted where the object is nested."""
        return f"{self._prefix}{name}"

    def names(self) -> tuple[str, ...]:
        """Names of the fields that were not taken yet, in the order of the text."""
        return tuple(self._values)

    def nothing_else(self) -> None:
        """Check that all fields were taken.

        Raises
        ------
        JsonFieldError
            If one was not.
        """
        for name in self._values:
            message = f"it has a field that is not known, {self.path(name)}."
            raise JsonFieldError(self.path(name), message)

    def text(self, name: str) -> str:
        """Take a string that is not empty, and that can be written in UTF-8: JSON can spell half a character."""
        value = self._take(name)
        if not _is_text(value):
            raise self._error(name, "text", value)
        return value

    def text_or_none(self, name: str) -> str | None:
        """Take a string that is not empty, or null."""
        return None if self._is_null(name) else self.text(name)

    def one_of(self, name: str, choices: tuple[Choice, ...]) -> Choice:
        """Take one of several strings."""
        value = self._take(name)
        for choice in choices:
            if value == choice:
                return choice
        raise self._error(name, f"one of {', '.join(choices)}", value)

    def one_of_or_none(self, name: str, choices: tuple[Choice, ...]) -> Choice | None:
        """Take one of several strings, or null."""
        return None if self._is_null(name) else self.one_of(name, choices)

    def sha256(self, name: str) -> str:
        """Take a SHA-256, 64 hexadecimal digits in lower case."""
        value = self._take(name)
        if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
            raise self._error(name, "a SHA-256 of 64 hexadecimal digits", value)
        return value

    def sha256_or_none(self, name: str) -> str | None:
        """Take a SHA-256, or null."""
        return None if self._is_null(name) else self.sha256(name)

    def integer(self, name: str, allowed: NumberRange = _ANY_NUMBER) -> int:
        """Take an integer."""
        value = self._take(name)
        if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
            raise self._error(name, f"an integer{allowed}", value)
        return value

    def integer_or_none(self, name: str, allowed: NumberRange = _ANY_NUMBER) -> int | None:
        """Take an integer, or null."""
        return None if self._is_null(name) else self.integer(name, allowed)

    def number(self, name: str, allowed: NumberRange = _ANY_NUMBER) -> float:
        """Take a number."""
        value = self._take(name)
        # NaN and infinities are no JSON, but Python reads them.
        if not _is_finite(value) or value not in allowed:
            raise self._error(name, f"a number{allowed}", value)
        return float(value)

    def number_or_none(self, name: str, allowed: NumberRange = _ANY_NUMBER) -> float | None:
        """Take a number, or null."""
        return None if self._is_null(name) else self.number(name, allowed)

    def integers(self, name: str) -> tuple[int, ...]:
        """Take a list of integers."""
        value = self._list(name)
        for each in value:
            if isinstance(each, bool) or not isinstance(each, int):
                raise self._error(name, "a list of integers", value)
        return tuple(each for each in value if isinstance(each, int))

    def numbers(self, name: str) -> tuple[float, ...]:
        """Take a list of numbers."""
        value = self._list(name)
        numbers = tuple(float(each) for each in value if _is_finite(each))
        if len(numbers) != len(value):
            raise self._error(name, "a list of numbers", value)
        return numbers

    def texts(self, name: str) -> tuple[str, ...]:
        """Take a list of strings that are not empty."""
        value = self._list(name)
        texts = tuple(each for each in value if _is_text(each))
        if len(texts) != len(value):
            raise self._error(name, "a list of texts", value)
        return texts

    def nested_or_none(self, name: str) -> Fields | None:
        """Take an object, or null."""
        return None if self._is_null(name) else self.nested(name)

    def nested(self, name: str) -> Fields:
        """Take an object."""
        value = self._take(name)
        if not isinstance(value, dict):
            raise self._error(name, "an object", value)
        return Fields(value, f"{self.path(name)}.")

    def list_of_nested(self, name: str) -> tuple[Fields, ...]:
        """Take a list of objects that is not empty."""
        value = self._list(name)
        objects = [each for each in value if isinstance(each, dict)]
        if not value or len(objects) != len(value):
            raise self._error(name, "a list of one object or more", value)
        return tuple(Fields(each, f"{self.path(name)}[{place}].") for place, each in enumerate(objects))

    def _take(self, name: str) -> object:
        try:
            return self._values.pop(name)
        except KeyError:
            message = f"it lacks the field {self.path(name)}."
            raise JsonFieldError(self.path(name), message) from None

    def _is_null(self, name: str) -> bool:
        if name in self._values and self._values[name] is None:
            del self._values[name]
            return True
        return False

    def _list(self, name: str) -> list[object]:
        value = self._take(name)
        if not isinstance(value, list):
            raise self._error(name, "a list", value)
        return value

    def _error(self, name: str, expected: str, value: object) -> JsonFieldError:
        message = f"{self.path(name)} must be {expected}, but is {_shown(value)}."
        return JsonFieldError(self.path(name), message)


def _parsed(text: str) -> object:
    try:
        values: object = json.loads(text, object_pairs_hook=_make_object)
    except JsonFieldError:
        raise
    except (ValueError, RecursionError) as error:
        message = f"it is not JSON ({error})."
        raise JsonFieldError("", message) from None
    return values


def _make_object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Make an object of its fields, each of which must be there once: which of two is meant, nobody can tell."""
    values: dict[str, object] = {}
    for name, value in pairs:
        if name in values:
            message = f"it has the field {_shown(name)} more than once."
            raise JsonFieldError(name, message)
        values[name] = value
    return values


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value) and not any("\ud800" <= each <= "\udfff" for each in value)


def _is_finite(value: object) -> TypeGuard[int | float]:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and abs(value) <= sys.float_info.max  # false for NaN
    )


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except RecursionError:
        return "a value that is nested too deeply"
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}…"
