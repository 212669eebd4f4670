"""Decode JSON into msgspec structs; an error names the field, what was expected and what came."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import msgspec

from pxdbg_runtime.errors import JsonFieldError

if TYPE_CHECKING:
    from msgspec import inspect

__all__ = [
    "FiniteNumber",
    "Fraction",
    "NonNegativeNumber",
    "PositiveInteger",
    "Record",
    "Sha256",
    "Text",
    "convert_record",
    "decode_record",
    "parse_json",
    "show_name",
]

T = TypeVar("T")
_LARGEST: Final = sys.float_info.max
_SHA256_PATTERN: Final = r"\A[0-9a-f]{64}\Z"
_TEXT_PATTERN: Final = r"\A[^\ud800-\udfff]+\Z"
"""JSON can spell half a surrogate pair, which is not a character."""
Sha256 = Annotated[str, msgspec.Meta(pattern=_SHA256_PATTERN)]
Text = Annotated[str, msgspec.Meta(pattern=_TEXT_PATTERN)]
PositiveInteger = Annotated[int, msgspec.Meta(ge=1)]
FiniteNumber = Annotated[float, msgspec.Meta(ge=-_LARGEST, le=_LARGEST)]
NonNegativeNumber = Annotated[float, msgspec.Meta(ge=0, le=_LARGEST)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
_LOCATION: Final = re.compile(r" - at (`key` in )?`\$(.*)`$", re.DOTALL)
_STEP: Final = re.compile(r"\.([^.\[]+)|\[(\d+)\]")
_MISSING: Final = re.compile(r"^Object missing required field `(.*)`$", re.DOTALL)
_UNKNOWN: Final = re.compile(r"^Object contains unknown field `(.*)`$", re.DOTALL)
_SHOWN_LENGTH: Final = 60
_TYPE_NAMES: Final = {
    "int": "an integer",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
}
_PHRASES: Final = {
    f"`str` matching regex {_SHA256_PATTERN!r}": "a SHA-256 of 64 hexadecimal digits",
    f"`str` matching regex {_TEXT_PATTERN!r}": "text that is not empty",
    f" <= {_LARGEST!r}": "",
    f" >= {-_LARGEST!r}": "",
    "Number out of range": "`float`",
}


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the descriptions that are stored as JSON: frozen, without unknown fields.

    Derived classes set ``frozen=True, kw_only=True`` again: msgspec does not inherit the latter, type checkers neither.
    """


def decode_record(text: str, kind: type[T]) -> T:
    """Read a JSON text as a struct, or as another type that msgspec knows.

    Raises
    ------
    JsonFieldError
        If the text is not JSON, or a field is missing, unknown, there twice or invalid.
    """
    return convert_record(parse_json(text), kind)


def convert_record(value: object, kind: type[T]) -> T:
    """Check what `parse_json` read against a type; raises as `decode_record`."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _explain(error, value, kind) from error.__cause__
    except UnicodeEncodeError:
        raise JsonFieldError("", "it has text that is not valid Unicode.") from None


def parse_json(text: str) -> object:
    """Read a JSON text of plain objects; raises `JsonFieldError` if it is not one, or has a field twice."""
    try:
        return json.loads(text, object_pairs_hook=_build_object, parse_constant=_refuse_constant)
    except JsonFieldError:
        raise
    except ValueError as error:
        raise JsonFieldError("", f"it is not JSON: {error}.") from None
    except RecursionError:
        raise JsonFieldError("", "it is not JSON that can be read: it is nested too deeply.") from None


def _build_object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        name = next(name for name, count in counts.items() if count > 1)
        raise JsonFieldError(name, f"it has the field {name[:_SHOWN_LENGTH]!r} more than once.")
    return values


def _refuse_constant(name: str) -> float:
    message = f"{name} is not a number"
    raise ValueError(message)


def _explain(error: msgspec.ValidationError, value: object, kind: type) -> JsonFieldError:
    """Turn msgspec's message, which ends with a path, into a sentence that shows the value found there."""
    message = str(error)
    location = _LOCATION.search(message)
    reason, path = (message[: location.start()], location[2]) if location else (message, "")
    field = path.lstrip(".")
    if isinstance(error.__cause__, JsonFieldError):  # of a __post_init__; its message begins with the field's name
        return JsonFieldError(f"{field}.{error.__cause__.field}".lstrip("."), f"{field}.{reason}".lstrip("."))
    for pattern, sentence in ((_MISSING, "is missing"), (_UNKNOWN, "is unknown")):
        found = pattern.match(reason)
        if found:
            name = f"{field}.{found[1]}".lstrip(".")
            return JsonFieldError(name, f"the field {show_name(name)} {sentence}.")
    if reason.startswith(("Expected", "Invalid enum value", "Number out of range")):
        expected = _describe_choices(path, kind) or _describe_type(reason)
        shown, name = _show(_follow(path, value)), show_name(field) or "it"
        if location and location[1]:  # of a name in a mapping, which msgspec leaves open
            return JsonFieldError(field, f"a name in {name} must be {expected}, but {name} is {shown}.")
        return JsonFieldError(field, f"{name} must be {expected}, but is {shown}.")
    return JsonFieldError(field, reason)


def _describe_type(reason: str) -> str:
    """Write msgspec's "Expected `int | null` >= 1, got ..." in words."""
    expected = reason.removeprefix("Expected ").partition(", got")[0]
    for phrase, words in _PHRASES.items():
        expected = expected.replace(phrase, words)
    return re.sub(
        r"`([^`]*)`", lambda names: " or ".join(_TYPE_NAMES.get(name, name) for name in names[1].split(" | ")), expected
    )


def _follow(path: str, value: object) -> object:
    for name, index in _STEP.findall(path):
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and index:
            value = value[int(index)]
    return value


def _describe_choices(path: str, kind: type) -> str | None:
    """List what a field of a few texts may be; None for any other field."""
    from msgspec import inspect

    found = _inspect_type(kind)
    for name, _ in _STEP.findall(path):
        options = found.types if isinstance(found, inspect.UnionType) else (found,)
        found = next(each for each in options if not isinstance(each, inspect.NoneType))
        if isinstance(found, inspect.StructType):
            found = next(field.type for field in found.fields if field.encode_name == name)
        elif isinstance(found, inspect.VarTupleType | inspect.ListType):
            found = found.item_type
    options = found.types if isinstance(found, inspect.UnionType) else (found,)
    values = [value for each in options if isinstance(each, inspect.LiteralType) for value in each.values]
    listed = ", ".join(map(str, values))
    return f"one of {listed}" if len(values) > 1 else listed or None


@functools.cache
def _inspect_type(kind: type) -> inspect.Type:
    from msgspec import inspect

    return inspect.type_info(kind)


def show_name(name: str) -> str:
    """Write the name of a field as it is, unless it is as no name of ours."""
    return name if name.isprintable() and len(name) <= _SHOWN_LENGTH else _show(name)


def _show(value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, default=repr).encode(errors="backslashreplace").decode()
    except RecursionError:
        return "a value that is nested too deeply"
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}…"
