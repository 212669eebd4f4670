"""The model card as an object: its JSON, its table of thresholds, and what does not fit together."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from pxdbg_runtime.errors import CardError
from pxdbg_runtime.model.card import N_THRESHOLDS, SCHEMA, Draw, Fidelity, GraphInput, InputRole, ModelCard, Precision
from tests.graphs import EVENT_WIDE_CARD, FIDELITY, LATENT_CARD, THRESHOLDS

if TYPE_CHECKING:
    from collections.abc import Mapping

LATENT_INPUT: Final = LATENT_CARD.inputs[0]
SENSOR_INPUT: Final = GraphInput(name="number", role="sensor", draw=None)
INT8_CARD: Final = structs.replace(
    LATENT_CARD, name="tiny-int8", precision="int8", weight_bits=7, passes=(), fidelity=FIDELITY
)
CUDA_CARD: Final = structs.replace(
    LATENT_CARD, name="tiny-cuda", precision="float16", target="cuda", output_kind="charges", fidelity=FIDELITY
)


UNICODE_CARD: Final = structs.replace(LATENT_CARD, name="é", provenance='Prüfung π \N{SNOWMAN} \x00 \\ "quoted"')


@pytest.mark.parametrize(
    "card", [LATENT_CARD, EVENT_WIDE_CARD, INT8_CARD, CUDA_CARD, UNICODE_CARD], ids=lambda card: card.name
)
def test_json_round_trip(card: ModelCard) -> None:
    text = card.to_json()
    again = ModelCard.from_json(text)
    assert again == card
    assert hash(again) == hash(card)
    assert again.to_json() == text


def test_json_holds_the_schema_and_every_field() -> None:
    values = json.loads(EVENT_WIDE_CARD.to_json())
    assert list(values) == list(ModelCard.__struct_fields__)
    assert values["schema"] == SCHEMA == 3
    assert values["draws"] == [{"name": "latent", "shape": [40, 2]}, {"name": "mood", "shape": [40, 3]}]
    assert values["inputs"][0] == {"name": "number", "role": "sensor", "draw": None}
    assert values["cut"] == -0.26
    assert (values["output_kind"], values["target"], values["weight_bits"]) == ("values", "cpu", None)
    assert (values["passes"], values["fidelity"]) == (["fold batch norms"], None)
    values = json.loads(INT8_CARD.to_json())
    assert (values["weight_bits"], values["fidelity"]) == (7, structs.asdict(FIDELITY))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize(("part", "field"), [("parity", "max_abs_difference"), ("fidelity", "charge_w1_adu")])
def test_a_card_with_a_number_that_json_lacks_is_not_written(part: str, field: str, number: float) -> None:
    changed = structs.replace(getattr(INT8_CARD, part), **{field: number})
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        structs.replace(INT8_CARD, **{part: changed}).to_json()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ('{"schema": ' + "1" * 5000 + "}", "it is not JSON"),
        ("null", "it must be an object, but is null"),
    ],
    ids=["half", "nested", "digits", "null"],
)
def test_what_is_no_json_object_is_refused(text: str, message: str) -> None:
    with pytest.raises(CardError, match=f"^The model card is not valid: {message}") as caught:
        ModelCard.from_json(text)
    assert caught.value.field == ""


@pytest.mark.parametrize(
    ("schema", "action"),
    [(1, "export the checkpoint again"), (2, "export the checkpoint again"), (4, "upgrade pxdbg-runtime")],
)
def test_another_schema_is_refused_before_any_other_field(schema: int, action: str) -> None:
    message = rf"schema {schema}, but this release .* reads schema 3: {action}\.$"
    with pytest.raises(CardError, match=message) as caught:
        ModelCard.from_json(f'{{"schema": {schema}, "weights": "elsewhere"}}')
    assert caught.value.field == "schema"


def test_charge_table_without_a_cut_is_the_thresholds() -> None:
    table = LATENT_CARD.compute_charge_table()
    assert table.dtype == np.float32
    assert table.tolist() == list(THRESHOLDS)


def test_charge_table_with_a_cut_holds_nothing_at_or_below_it() -> None:
    table = EVENT_WIDE_CARD.compute_charge_table()
    cut = np.float32(-0.26)
    assert table.dtype == np.float32
    assert table.shape == (N_THRESHOLDS,)
    assert table[0] == np.nextafter(cut, np.float32(1))
    # Charge 7 starts at -0.25, charge 6 below the cut.
    assert np.all(table[:6] == table[0])
    assert table[6:].tolist() == list(THRESHOLDS[6:])


@given(cut=st.floats(-1, 1))
def test_charge_table_ascends_and_lies_above_any_cut(cut: float) -> None:
    table = structs.replace(LATENT_CARD, cut=cut).compute_charge_table()
    assert np.all(table > np.float32(cut))
    assert np.all(np.diff(table) >= 0)
    assert np.array_equal(table, np.maximum(table, LATENT_CARD.compute_charge_table()))


def replace_threshold(place: int, value: float) -> dict[str, object]:
    return {"thresholds": (*THRESHOLDS[:place], value, *THRESHOLDS[place + 1 :])}


def replace_precision(precision: Precision, weight_bits: int | None, fidelity: Fidelity | None) -> dict[str, object]:
    return {"precision": precision, "weight_bits": weight_bits, "fidelity": fidelity}


NOT_FLOAT32: Final = "thresholds must be float32 values, but rounding"
NOT_ASCENDING: Final = r"thresholds must ascend strictly within \(-1, 1\]"
VXD_IDS: Final = LATENT_CARD.sensors
NOT_THE_PXD: Final = "sensors must be the 40 VxdIDs of the PXD in the order of"
NOT_ONE_LATENT: Final = "inputs must hold one latent, fed by a draw of {} values a sensor"
WRONG_BITS: Final = "weight_bits must be a number for int8 and null for any other precision"
WRONG_FIDELITY: Final = "fidelity must be null for float32 and given for any other precision"
WRONG_DRAWS: Final[list[tuple[InputRole, str | None, str]]] = [
    ("event_latent", "mood", r"one of \['latent'\]"),
    ("event_latent", None, "one of"),
    ("sensor", "latent", "none"),
    ("sensor", "mood", "none"),
]
CONTRADICTIONS: Final[list[tuple[Mapping[str, object], str, str]]] = [
    *(
        (
            {"thresholds": tuple(np.linspace(-0.5, 0.5, n, dtype=np.float32).tolist())},
            "thresholds",
            f"must be 255 numbers, but are {n}",
        )
        for n in (0, 1, 254, 256)
    ),
    *(
        (replace_threshold(place, THRESHOLDS[place] + offset), "thresholds", NOT_FLOAT32)
        for place in (0, 100, 254)
        for offset in (1e-12, -1e-12)
    ),
    (replace_threshold(254, 1e300), "thresholds", NOT_FLOAT32),
    *(
        (replace_threshold(place, value), "thresholds", NOT_ASCENDING)
        for place, values in {0: (-1, -2, THRESHOLDS[1]), 3: THRESHOLDS[2:5:2], 200: (0,), 254: (1.5,)}.items()
        for value in values
    ),
    *(
        ({"sensors": tuple(sensors)}, "sensors", NOT_THE_PXD)
        for sensors in ((), VXD_IDS[:39], VXD_IDS[::-1], range(40), (*VXD_IDS, 8480))
    ),
    ({"inputs": ()}, "inputs", NOT_ONE_LATENT.format(2)),
    ({"inputs": (SENSOR_INPUT,)}, "inputs", NOT_ONE_LATENT.format(2)),
    ({"inputs": (LATENT_INPUT, structs.replace(LATENT_INPUT, name="z2"))}, "inputs", NOT_ONE_LATENT.format(2)),
    ({"latent_size": 96}, "inputs", NOT_ONE_LATENT.format(96)),
    (
        {"inputs": (LATENT_INPUT, structs.replace(SENSOR_INPUT, name=LATENT_INPUT.name))},
        "inputs",
        "inputs must have different names",
    ),
    ({"draws": (*LATENT_CARD.draws, Draw(name="latent", shape=(40, 3)))}, "draws", "draws must have different names"),
    *(
        (
            {"inputs": (LATENT_INPUT, GraphInput(name="e", role=role, draw=draw))},
            "inputs",
            rf"input 'e' with role '{role}' names the draw {draw!r}, but expected {expected}",
        )
        for role, draw, expected in WRONG_DRAWS
    ),
    (replace_precision("int8", None, FIDELITY), "weight_bits", WRONG_BITS),
    (replace_precision("float32", 7, None), "weight_bits", WRONG_BITS),
    (replace_precision("float16", 8, FIDELITY), "weight_bits", WRONG_BITS),
    (replace_precision("int8", 7, None), "fidelity", WRONG_FIDELITY),
    (replace_precision("float16", None, None), "fidelity", WRONG_FIDELITY),
    (replace_precision("float32", None, FIDELITY), "fidelity", WRONG_FIDELITY),
]


@pytest.mark.parametrize(("changes", "field", "message"), CONTRADICTIONS)
def test_fields_that_contradict_each_other_are_refused(changes: Mapping[str, object], field: str, message: str) -> None:
    with pytest.raises(CardError, match=f"^The model card is not valid: .*{message}") as caught:
        structs.replace(LATENT_CARD, **changes)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("charge_w1_adu", "occupancy_ratio", "is_within"),
    [
        (0.0, 1.0, True),
        (0.2999, 1.0099, True),
        (0.2999, 0.9901, True),
        (0.3, 1.0, False),
        (0.0, 1.0101, False),
        (0.0, 0.9899, False),
        (float("nan"), 1.0, False),
        (0.0, float("nan"), False),
    ],
)
def test_bounds_are_on_the_spectrum_and_on_the_occupancy(
    charge_w1_adu: float, occupancy_ratio: float, is_within: bool
) -> None:
    for identical_digits in (0.0, 1.0):
        of_spectra = {"charge_w1_adu": charge_w1_adu, "occupancy_ratio": occupancy_ratio}
        fidelity = structs.replace(FIDELITY, **of_spectra, identical_digits=identical_digits)
        assert fidelity.is_within_bounds == is_within


def test_a_card_is_frozen() -> None:
    with pytest.raises(AttributeError, match="immutable type: 'ModelCard'"):
        LATENT_CARD.min_charge = 2  # type: ignore[misc]  # the point of the test
