"""JSON texts as files and servers send them: what is not one clear object is refused."""

from __future__ import annotations

import json
import re
import time
from typing import Annotated, Literal

import msgspec
import pytest

from pxdbg_runtime.errors import CardError, JsonFieldError
from pxdbg_runtime.json_records import (
    FiniteNumber,
    Fraction,
    PositiveInteger,
    Record,
    Sha256,
    Text,
    convert_record,
    decode_record,
    parse_json,
)
from pxdbg_runtime.model.card import ModelCard
from tests.graphs import LATENT_CARD

MANY = 200_000


class Inner(Record, frozen=True, kw_only=True):
    """Nested fields."""

    count: PositiveInteger
    share: Fraction = 1.0

    def __post_init__(self) -> None:
        if self.count == 13:
            raise JsonFieldError("count", "count must not be 13.")


class Outer(Record, frozen=True, kw_only=True):
    """One field of each kind."""

    kind: Literal["a", "b"] = "a"
    name: Text = "x"
    digest: Sha256 | None = None
    number: FiniteNumber = 0.0
    inner: Inner | None = None
    listed: Annotated[tuple[Inner, ...], msgspec.Meta(min_length=1)] | None = None
    choices: tuple[Literal["x", "y"], ...] = ()
    samples: dict[Text, int] = msgspec.field(default_factory=dict)


def refuse(text: str, kind: type = Outer) -> JsonFieldError:
    with pytest.raises(JsonFieldError, match=r"\.$") as caught:
        decode_record(text, kind)
    return caught.value


def test_a_record_is_decoded() -> None:
    text = '{"kind": "b", "number": 2, "inner": {"count": 1}, "listed": [{"count": 2, "share": 0}], "choices": ["y"]}'
    assert decode_record(text, Outer) == Outer(
        kind="b", number=2.0, inner=Inner(count=1), listed=(Inner(count=2, share=0.0),), choices=("y",)
    )


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ('{"kind": "c"}', "kind", 'kind must be one of a, b, but is "c".'),
        ('{"kind": 1}', "kind", "kind must be one of a, b, but is 1."),
        ('{"name": ""}', "name", 'name must be text that is not empty, but is "".'),
        ('{"name": null}', "name", "name must be text, but is null."),
        ('{"digest": "0a"}', "digest", 'digest must be a SHA-256 of 64 hexadecimal digits, but is "0a".'),
        ('{"number": 1e400}', "number", "number must be a number, but is Infinity."),
        ('{"number": -1e400}', "number", "number must be a number, but is -Infinity."),
        ('{"number": "1"}', "number", 'number must be a number, but is "1".'),
        ('{"inner": 1}', "inner", "inner must be an object or null, but is 1."),
        ('{"inner": {}}', "inner.count", "the field inner.count is missing."),
        ('{"inner": {"count": 0}}', "inner.count", "inner.count must be an integer >= 1, but is 0."),
        ('{"inner": {"count": 1.0}}', "inner.count", "inner.count must be an integer, but is 1.0."),
        ('{"inner": {"count": 1, "share": 2}}', "inner.share", "inner.share must be a number <= 1.0, but is 2."),
        ('{"inner": {"count": 1, "colour": 2}}', "inner.colour", "the field inner.colour is unknown."),
        ('{"listed": []}', "listed", "listed must be a list of length >= 1, but is []."),
        ('{"listed": [{"count": 1}, {}]}', "listed[1].count", "the field listed[1].count is missing."),
        ('{"listed": [{"count": 13}]}', "listed[0].count", "listed[0].count must not be 13."),
        ('{"choices": ["x", "z"]}', "choices[1]", 'choices[1] must be one of x, y, but is "z".'),
        (
            '{"samples": {"": 1}}',
            "samples",
            'a name in samples must be text that is not empty, but samples is {"": 1}.',
        ),
        (r'{"kind": "\ud800"}', "", "it has text that is not valid Unicode."),
        (r'{"digest": "\ud800"}', "digest", r'digest must be a SHA-256 of 64 hexadecimal digits, but is "\ud800".'),
        ("[1]", "", "it must be an object, but is [1]."),
        ("", "", "it is not JSON: Expecting value: line 1 column 1 (char 0)."),
        *(
            (f'{{"number": {text}}}', "", f"it is not JSON: {text} is not a number.")
            for text in ("NaN", "Infinity", "-Infinity")
        ),
    ],
)
def test_what_is_not_valid_is_named_with_what_was_expected(text: str, field: str, message: str) -> None:
    error = refuse(text)
    assert (error.field, str(error)) == (field, message)


@pytest.mark.parametrize("digest", ["0" * 63, "0" * 65, "A" * 64, "0" * 64 + "\\n"])
def test_a_sha256_is_64_hexadecimal_digits(digest: str) -> None:
    assert refuse(f'{{"digest": "{digest}"}}').field == "digest"


def test_a_value_that_json_cannot_hold_is_shown() -> None:
    """SQLite gives bytes where a text was expected."""
    with pytest.raises(JsonFieldError, match=r"b'\\\\xc5'"):
        convert_record({"kind": b"\xc5"}, Outer)


def test_a_long_value_is_shown_in_part() -> None:
    message = str(refuse(f'{{"kind": "{"x" * 10_000}"}}'))
    assert message.endswith("….")
    assert len(message) < 100


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('{"seed": 7, "model": "a", "seed": 9}', "seed"),
        ('{"seed": 7, "seed": 7}', "seed"),
        ('[{"a": [{"b": {"c": 1, "c": 2}}]}]', "c"),
        ('{"": 1, "": 2}', ""),
        (r'{"\u0061": 1, "a": 2}', "a"),
    ],
)
def test_a_field_that_is_there_twice_is_refused(text: str, name: str) -> None:
    with pytest.raises(JsonFieldError, match=rf"^it has the field '{name}' more than once\.$") as caught:
        parse_json(text)
    assert caught.value.field == name


def test_a_card_with_a_field_twice_is_refused() -> None:
    text = LATENT_CARD.to_json()
    with pytest.raises(CardError, match=r"The model card is not valid: it has the field 'min_charge' more than once"):
        ModelCard.from_json(text.replace('"min_charge": 1', '"min_charge": 3, "min_charge": 1'))


def test_many_fields_are_quickly_read() -> None:
    pairs = ", ".join(f'"{number}": 0' for number in range(MANY))
    start = time.monotonic()
    assert len(decode_record(f"{{{pairs}}}", dict)) == MANY
    with pytest.raises(JsonFieldError, match=f"'{MANY - 1}' more than once"):
        parse_json(f'{{{pairs}, "{MANY - 1}": 0}}')
    assert time.monotonic() - start < 60


@pytest.mark.parametrize("depth", [500, 900, 100_000])
def test_a_value_that_is_deeply_nested_is_refused(depth: int) -> None:
    error = refuse(f'{{"name": {"[" * depth + "]" * depth}}}')
    assert len(str(error)) < 200


@pytest.mark.parametrize(
    ("name", "shown"), [("two\nlines", r'"two\\nlines"'), ("x" * 1000, f'"{"x" * 59}…'), ("plain", "plain")]
)
def test_an_odd_name_of_a_field_is_shown_on_one_line(name: str, shown: str) -> None:
    error = refuse(json.dumps({name: 1}))
    assert re.fullmatch(rf"the field {shown} is unknown\.", str(error))
    assert error.field == name
