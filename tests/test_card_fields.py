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
from tests.graphs import EVENT_WIDE_CARD, FIDELITY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pxdbg_runtime.json_records import Record

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Path = tuple[str | int, ...]
"""Keys and indices from the card down to a value."""

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

TEXTS: Final[list[Path]] = [
    *((name,) for name in ("name", "family", "provenance", "output")),
    *(("draws", 1, "name"), ("inputs", 2, "name"), ("made_with", 0, "package"), ("made_with", 1, "version")),
    *(("known_answers", "images", 1, "pixels"), ("known_answers", "images", 0, "outputs")),
]
DIFFERENCES: Final[list[Path]] = [
    *(("parity", f"{name}_difference") for name in ("max_abs", "max_float64", "pytorch_float64")),
    *(("fidelity", "charge_w1_adu"), ("fidelity", "occupancy_ratio")),
    *(("known_answers", "tolerance"), ("known_answers", "mean_tolerance")),
]
OBJECT_LISTS: Final[list[Path]] = [("draws",), ("inputs",), ("made_with",), ("known_answers", "images")]
WRONG: Final[dict[Path, tuple[str, list[Json]]]] = {
    **dict.fromkeys(TEXTS, ("text", [1, ""])),
    **dict.fromkeys(DIFFERENCES, ("a number", ["1", -1e-9])),
    **dict.fromkeys(OBJECT_LISTS, ("a list|an object", [{}, [], [{}, None]])),
    ("schema",): ("an integer", [True, 0, -1]),
    ("nature",): (CHOICE, [1, "Checkpoint", "real"]),
    ("latent_size",): ("an integer", ["1", 0, -3]),
    ("draws", 0, "shape"): (
        "a list|an integer",
        [1, [], [40], [39, 2], [40, 0], [40, 2, 1], [40, 2.0], [True, 2], [2, 40]],
    ),
    ("inputs", 1, "role"): (CHOICE, [1, "noise"]),
    ("inputs", 1, "draw"): ("text", [1, ""]),
    ("output_kind",): (CHOICE, [1, "Values", "digits"]),
    ("sensors",): ("a list|an integer", [1, ["8480"], [8480.0], [True]]),
    ("precision",): (CHOICE, [None, "float64", "auto"]),
    ("target",): (CHOICE, [1, "CPU", "rocm", "auto"]),
    ("weight_bits",): ("an integer", [1.5, 0, 4, 6, 9, -7]),
    ("passes",): ("a list|text", ["x", [1], [""], ["half a character \ud800"]]),
    ("opset",): ("an integer", [17.0, 0]),
    ("thresholds",): ("a list|a number", [1, ["0"], [True], [10**400], [None]]),
    ("cut",): ("a number", ["1", 10**400, -1.5, 2]),
    ("min_charge",): ("an integer", [1.5, 0, 256, -7]),
    ("checkpoint_sha256",): ("a SHA-256 of 64 hexadecimal digits|text", [1, "0" * 63]),
    ("parity",): ("an object", [1]),
    ("parity", "images"): ("an integer", [1.5, 0]),
    ("parity", "equal_charges"): ("a number", ["1", -0.1, 1.1]),
    ("fidelity",): ("an object", [1]),
    ("fidelity", "images"): ("an integer", [1.5, 0]),
    ("fidelity", "identical_digits"): ("a number", ["1", -0.1, 1.1]),
    ("known_answers",): ("an object", [1]),
    ("known_answers", "compared"): (CHOICE, [1, "digits"]),
    ("known_answers", "seed"): ("an integer", [1.5, 2**63]),
    ("known_answers", "event"): ("an integer", [1.5, -1, 2**63]),
    ("known_answers", "images", 1, "sensor"): ("an integer", [1.5, -1, 40]),
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


def test_fields_that_contradict_each_other_are_refused() -> None:
    error = refuse_card(change_card(("fidelity",), None))
    assert error.field == "fidelity"
    assert "fidelity must be null for float32 and given for any other precision" in str(error)


@pytest.mark.parametrize("pixels", [[7, 7], [-1, 7], [7, 192_000], [2**31 - 1, -(2**31)], []], ids=str)
def test_pixels_that_do_not_ascend_within_an_image_are_refused(pixels: list[int]) -> None:
    image = KnownAnswers.encode_image("charges", 5, np.array(pixels), np.full(len(pixels), 7))
    with pytest.raises(CardError, match=r"images\[0\] must hold one output per pixel, and pixels that ascend from 0"):
        structs.replace(ANSWERS, images=(image,))


@given(text=st.text(max_size=40))
def test_any_text_is_refused_in_one_sentence(text: str) -> None:
    assert refuse_card(text).field in ("", "schema")


@given(
    values=st.dictionaries(
        st.sampled_from([*CARD, "other"]),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(max_size=5),
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
