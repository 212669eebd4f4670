"""The model card field by field: what is missing, of another type, out of range or not known is named."""

from __future__ import annotations

import copy
import json
import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from pxdbg_runtime.errors import CardError
from pxdbg_runtime.model.card import SCHEMA, Draw, Fidelity, GraphInput, ModelCard, PackageVersion, Parity
from pxdbg_runtime.model.known_answers import KnownAnswers, KnownImage
from tests.graphs import EVENT_WIDE_CARD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pxdbg_runtime.json_records import Record

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Path = tuple[str | int, ...]
"""Keys and indices from the card down to a value."""

FIDELITY: Final = Fidelity(images=800, charge_w1_adu=0.125, occupancy_ratio=1.0078125, identical_digits=0.75)
ANSWERS: Final = KnownAnswers(
    compared="charges",
    seed=-3,
    event=0,
    tolerance=0.0,
    mean_tolerance=0.0,
    images=(
        KnownAnswers.encode_image("charges", 5, np.array([0, 767, 191_999]), np.array([0, 7, 255])),
        KnownAnswers.encode_image("charges", 39, np.array([12]), np.array([9])),
    ),
)
INT8_CARD: Final = structs.replace(
    EVENT_WIDE_CARD,
    precision="int8",
    weight_bits=7,
    passes=("fold batch norms", "8-bit integers"),
    fidelity=FIDELITY,
    known_answers=ANSWERS,
)
CARD: Final[dict[str, Json]] = json.loads(INT8_CARD.to_json())
NESTED: Final[dict[Path, type[Record]]] = {
    (): ModelCard,
    ("parity",): Parity,
    ("fidelity",): Fidelity,
    ("draws", 1): Draw,
    ("inputs", 0): GraphInput,
    ("made_with", 1): PackageVersion,
    ("known_answers",): KnownAnswers,
    ("known_answers", "images", 1): KnownImage,
}
CHOICE: Final = r"one of \w[\w -]+(, [\w -]+)+"
NOT_TEXT: Final[list[Json]] = [None, 1, True, [], {}, ""]
NOT_INTEGERS: Final[list[Json]] = [None, "1", True, 1.5, 1.0, [], {}]
NOT_NUMBERS: Final[list[Json]] = [None, "1", True, [], {}, 10**400]
NOT_OBJECTS: Final[list[Json]] = [None, 1, "x", []]
NOT_OBJECT_LISTS: Final[list[Json]] = [None, 1, "x", {}, [], [1], [{}, None]]

WRONG: Final[dict[Path, tuple[str, list[Json]]]] = {
    ("schema",): ("an integer", [*NOT_INTEGERS, 0, -1]),
    ("name",): ("text", NOT_TEXT),
    ("family",): ("text", NOT_TEXT),
    ("nature",): (CHOICE, [*NOT_TEXT, "Checkpoint", "real"]),
    ("provenance",): ("text", NOT_TEXT),
    ("latent_size",): ("an integer", [*NOT_INTEGERS, 0, -3]),
    ("draws",): ("a list|an object", NOT_OBJECT_LISTS),
    ("draws", 1, "name"): ("text", NOT_TEXT),
    ("draws", 0, "shape"): (
        "a list|an integer",
        [None, 1, "x", {}, [], [40], [39, 2], [40, 0], [40, 2, 1], [40, 2.0], [True, 2], [2, 40]],
    ),
    ("inputs",): ("a list|an object", NOT_OBJECT_LISTS),
    ("inputs", 2, "name"): ("text", NOT_TEXT),
    ("inputs", 1, "role"): (CHOICE, [*NOT_TEXT, "noise"]),
    ("inputs", 1, "draw"): ("text", [1, True, [], {}, ""]),
    ("output",): ("text", NOT_TEXT),
    ("output_kind",): (CHOICE, [*NOT_TEXT, "Values", "digits"]),
    ("sensors",): ("a list|an integer", [None, 1, "x", {}, ["8480"], [8480.0], [True]]),
    ("precision",): (CHOICE, [*NOT_TEXT, "float64", "auto"]),
    ("target",): (CHOICE, [*NOT_TEXT, "CPU", "rocm", "auto"]),
    ("weight_bits",): ("an integer", [*NOT_INTEGERS[1:], 0, 1, 9, -7]),
    ("passes",): ("a list|text", [None, 1, "x", {}, [1], [None], ["x", 1], [["x"]], [""], ["half a character \ud800"]]),
    ("opset",): ("an integer", [*NOT_INTEGERS, 0]),
    ("thresholds",): ("a list|a number", [None, 1, "x", {}, ["0"], [True], [10**400], [None]]),
    ("cut",): ("a number", [*NOT_NUMBERS[1:], -1.5, 2]),
    ("min_charge",): ("an integer", [*NOT_INTEGERS, 0, 256, -7]),
    ("checkpoint_sha256",): (
        "a SHA-256 of 64 hexadecimal digits|text",
        [*NOT_TEXT, "0" * 63, "0" * 65, "g" * 64, "A" * 64, "0" * 64 + "\n"],
    ),
    ("made_with",): ("a list|an object", NOT_OBJECT_LISTS),
    ("made_with", 0, "package"): ("text", NOT_TEXT),
    ("made_with", 1, "version"): ("text", NOT_TEXT),
    ("parity",): ("an object", NOT_OBJECTS),
    ("parity", "images"): ("an integer", [*NOT_INTEGERS, 0]),
    ("parity", "max_abs_difference"): ("a number", [*NOT_NUMBERS, -1e-9]),
    ("parity", "max_float64_difference"): ("a number", [*NOT_NUMBERS, -1e-9]),
    ("parity", "pytorch_float64_difference"): ("a number", [*NOT_NUMBERS, -1e-9]),
    ("parity", "equal_charges"): ("a number", [*NOT_NUMBERS, -0.1, 1.1]),
    ("fidelity",): ("an object", NOT_OBJECTS[1:]),
    ("fidelity", "images"): ("an integer", [*NOT_INTEGERS, 0]),
    ("fidelity", "charge_w1_adu"): ("a number", [*NOT_NUMBERS, -1e-9]),
    ("fidelity", "occupancy_ratio"): ("a number", [*NOT_NUMBERS, -1e-9]),
    ("fidelity", "identical_digits"): ("a number", [*NOT_NUMBERS, -0.1, 1.1]),
    ("known_answers",): ("an object", NOT_OBJECTS[1:]),
    ("known_answers", "compared"): (CHOICE, [*NOT_TEXT, "digits"]),
    ("known_answers", "seed"): ("an integer", [*NOT_INTEGERS, 2**63]),
    ("known_answers", "event"): ("an integer", [*NOT_INTEGERS, -1, 2**63]),
    ("known_answers", "tolerance"): ("a number", [*NOT_NUMBERS, -1e-9]),
    ("known_answers", "mean_tolerance"): ("a number", [*NOT_NUMBERS, -1e-9]),
    ("known_answers", "images"): ("a list|an object", NOT_OBJECT_LISTS),
    ("known_answers", "images", 1, "sensor"): ("an integer", [*NOT_INTEGERS, -1, 40]),
    ("known_answers", "images", 1, "pixels"): ("text", NOT_TEXT),
    ("known_answers", "images", 0, "outputs"): ("text", NOT_TEXT),
}


def format_path(path: Path) -> str:
    """Name a field as an error gives it: dotted, with the index of a list in brackets."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def change_card(path: Path, value: Json = None, *, remove: bool = False) -> str:
    """Write the card with one field changed or taken away."""
    values = copy.deepcopy(CARD)
    owner: Any = values
    for step in path[:-1]:
        owner = owner[step]
    if remove:
        del owner[path[-1]]
    else:
        owner[path[-1]] = value
    return json.dumps(values)


def refuse_card(text: str) -> CardError:
    with pytest.raises(CardError, match=r"^The model card is not valid: .*\.$") as caught:
        ModelCard.from_json(text)
    return caught.value


def list_fields() -> Iterator[Path]:
    for place, kind in NESTED.items():
        for name in kind.__struct_fields__:
            yield (*place, name)


def list_wrong_values() -> Iterator[object]:
    for path, (expected, values) in WRONG.items():
        for value in values:
            yield pytest.param(path, expected, value, id=f"{format_path(path)}={str(value)[:20]!r}")


def test_the_table_of_wrong_values_leaves_out_no_field() -> None:
    named = {tuple(step for step in path if isinstance(step, str)) for path in list_fields()}
    assert {tuple(step for step in path if isinstance(step, str)) for path in WRONG} == named


@pytest.mark.parametrize("path", list(list_fields()), ids=format_path)
def test_a_missing_field_is_named(path: Path) -> None:
    error = refuse_card(change_card(path, remove=True))
    assert error.field == format_path(path)
    assert f"the field {format_path(path)} is missing." in str(error)


@pytest.mark.parametrize("place", list(NESTED), ids=lambda place: format_path(place) or "card")
def test_a_field_that_is_not_known_is_named(place: Path) -> None:
    unknown = (*place, "colour")
    error = refuse_card(change_card(unknown, "red"))
    assert error.field == format_path(unknown)
    assert f"the field {format_path(unknown)} is unknown." in str(error)


@pytest.mark.parametrize(("path", "expected", "value"), list(list_wrong_values()))
def test_a_field_with_a_wrong_value_is_named(path: Path, expected: str, value: Json) -> None:
    error = refuse_card(change_card(path, value))
    assert re.fullmatch(rf"{re.escape(format_path(path))}(\[\d\](\..*)?)?", error.field)
    assert re.search(rf"{re.escape(error.field)} (must be ({expected})\b.*, but is|is missing)", str(error))


@pytest.mark.parametrize("unwritten", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("path", [("cut",), ("parity", "max_abs_difference"), ("thresholds", 0)], ids=format_path)
def test_numbers_that_json_lacks_are_refused(path: Path, unwritten: str) -> None:
    error = refuse_card(change_card(path, "HERE").replace('"HERE"', unwritten))
    assert str(error).endswith(f"it is not JSON: {unwritten} is not a number.")


@pytest.mark.parametrize("unwritten", ["1e400", "-1e400"])
@pytest.mark.parametrize("path", [("cut",), ("parity", "max_abs_difference"), ("thresholds", 0)], ids=format_path)
def test_numbers_beyond_float64_are_refused(path: Path, unwritten: str) -> None:
    error = refuse_card(change_card(path, "HERE").replace('"HERE"', unwritten))
    assert error.field == format_path(path)


def test_a_long_value_is_shown_in_part() -> None:
    error = refuse_card(change_card(("nature",), "x" * 10_000))
    assert str(error).endswith("….")
    assert len(str(error)) < 250


def test_a_cut_may_be_none() -> None:
    assert ModelCard.from_json(change_card(("cut",), None)).cut is None


def test_weight_bits_and_fidelity_may_be_none_of_float32() -> None:
    card = ModelCard.from_json(EVENT_WIDE_CARD.to_json())
    assert (card.precision, card.weight_bits, card.fidelity) == ("float32", None, None)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("weight_bits", "weight_bits must be a number for int8 and null for any other precision"),
        ("fidelity", "fidelity must be null for float32 and given for any other precision"),
    ],
)
def test_weight_bits_and_fidelity_may_not_be_none_of_int8(field: str, message: str) -> None:
    error = refuse_card(change_card((field,), None))
    assert error.field == field
    assert message in str(error)


def test_passes_may_be_none() -> None:
    assert ModelCard.from_json(change_card(("passes",), [])).passes == ()


def test_an_integer_is_a_number_but_a_number_is_no_integer() -> None:
    assert ModelCard.from_json(change_card(("cut",), 0)).cut == 0.0
    assert refuse_card(change_card(("opset",), 17.0)).field == "opset"


@given(text=st.text(max_size=40))
def test_any_text_is_refused_in_one_sentence(text: str) -> None:
    assert refuse_card(text).field in ("", "schema")


@given(
    values=st.dictionaries(
        st.sampled_from([*CARD, "other"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=5,
        ),
        min_size=1,
    )
)
def test_any_values_are_refused_naming_one_of_the_fields(values: dict[str, Json]) -> None:
    # Something is wrong in every such card: at the least, no draw that was made up fits its inputs.
    with pytest.raises(CardError, match=r"^The model card is not valid: ") as caught:
        ModelCard.from_json(json.dumps({"schema": SCHEMA, "name": "x", **values, "draws": [{}]}))
    assert caught.value.field
