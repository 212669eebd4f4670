"""The model card as an object: its JSON, its table of thresholds, and what does not fit together."""

from __future__ import annotations

import json
from typing import Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from pxdbg_runtime.errors import CardError
from pxdbg_runtime.model.card import N_THRESHOLDS, SCHEMA, Draw, Fidelity, GraphInput, ModelCard, Precision
from tests.graphs import EVENT_WIDE_CARD, LATENT_CARD, THRESHOLDS

LATENT_INPUT: Final = LATENT_CARD.inputs[0]
SENSOR_INPUT: Final = GraphInput(name="number", role="sensor", draw=None)
FIDELITY: Final = Fidelity(images=800, charge_w1_adu=0.125, occupancy_ratio=0.9921875, identical_digits=0.75)
INT8_CARD: Final = structs.replace(
    LATENT_CARD, name="tiny-int8", precision="int8", weight_bits=7, passes=(), fidelity=FIDELITY
)
CUDA_CARD: Final = structs.replace(
    LATENT_CARD, name="tiny-cuda", precision="float16", target="cuda", output_kind="charges", fidelity=FIDELITY
)


@pytest.mark.parametrize("card", [LATENT_CARD, EVENT_WIDE_CARD, INT8_CARD, CUDA_CARD], ids=lambda card: card.name)
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


def test_json_holds_what_a_graph_of_another_precision_is_worth() -> None:
    values = json.loads(INT8_CARD.to_json())
    assert values["weight_bits"] == 7
    assert values["fidelity"] == {
        "images": 800,
        "charge_w1_adu": 0.125,
        "occupancy_ratio": 0.9921875,
        "identical_digits": 0.75,
    }


def test_fields_may_stand_in_any_order() -> None:
    values = json.loads(LATENT_CARD.to_json())
    assert ModelCard.from_json(json.dumps(dict(reversed(values.items())), indent=4)) == LATENT_CARD


def test_text_beyond_ascii_survives() -> None:
    card = structs.replace(LATENT_CARD, provenance='Prüfung π \N{SNOWMAN} \x00 \\ "quoted"')
    assert ModelCard.from_json(card.to_json()) == card


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_card_with_a_number_that_json_lacks_is_not_written(number: float) -> None:
    card = structs.replace(LATENT_CARD, parity=structs.replace(LATENT_CARD.parity, max_abs_difference=number))
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        card.to_json()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is not JSON"),
        ("{", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ('{"schema": ' + "1" * 5000 + "}", "it is not JSON"),
        ("null", "it must be an object, but is null"),
        ("[1, 2]", r"it must be an object, but is \[1, 2\]"),
        ('"card"', 'it must be an object, but is "card"'),
    ],
    ids=["empty", "half", "nested", "digits", "null", "list", "text"],
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


@pytest.mark.parametrize("n_thresholds", [0, 1, 254, 256])
def test_thresholds_must_be_255(n_thresholds: int) -> None:
    thresholds = tuple(np.linspace(-0.5, 0.5, n_thresholds).astype(np.float32).tolist())
    with pytest.raises(CardError, match=f"thresholds must be 255 numbers, but are {n_thresholds}") as caught:
        structs.replace(LATENT_CARD, thresholds=thresholds)
    assert caught.value.field == "thresholds"


@pytest.mark.parametrize("place", [0, 100, 254])
@pytest.mark.parametrize("offset", [1e-12, -1e-12])
def test_thresholds_must_be_float32_values(place: int, offset: float) -> None:
    with pytest.raises(CardError, match="thresholds must be float32 values, but rounding") as caught:
        structs.replace(LATENT_CARD, thresholds=with_threshold(place, THRESHOLDS[place] + offset))
    assert caught.value.field == "thresholds"


def test_thresholds_beyond_float32_are_refused() -> None:
    with pytest.raises(CardError, match="thresholds must be float32 values, but rounding"):
        structs.replace(LATENT_CARD, thresholds=with_threshold(254, 1e300))


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, -1.0), (0, -2.0), (254, 1.5), (3, THRESHOLDS[2]), (3, THRESHOLDS[4]), (200, 0.0), (0, THRESHOLDS[1])],
)
def test_thresholds_must_ascend_within_the_range_of_tanh(place: int, value: float) -> None:
    with pytest.raises(CardError, match=r"thresholds must ascend strictly within \(-1, 1\]") as caught:
        structs.replace(LATENT_CARD, thresholds=with_threshold(place, value))
    assert caught.value.field == "thresholds"


def with_threshold(place: int, value: float) -> tuple[float, ...]:
    return (*THRESHOLDS[:place], value, *THRESHOLDS[place + 1 :])


@pytest.mark.parametrize(
    "sensors",
    [(), LATENT_CARD.sensors[:39], LATENT_CARD.sensors[::-1], tuple(range(40)), (*LATENT_CARD.sensors, 8480)],
    ids=["none", "39", "reversed", "indices", "41"],
)
def test_sensors_must_be_those_of_the_pxd_in_order(sensors: tuple[int, ...]) -> None:
    with pytest.raises(CardError, match=r"sensors must be the 40 VxdIDs of the PXD in the order of") as caught:
        structs.replace(LATENT_CARD, sensors=sensors)
    assert caught.value.field == "sensors"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (GraphInput(name="e", role="event_latent", draw="mood"), r"names the draw 'mood', but expected one of \['lat"),
        (GraphInput(name="e", role="event_latent", draw=None), "names the draw None, but expected one of"),
        (GraphInput(name="s", role="sensor", draw="latent"), "names the draw 'latent', but expected none"),
        (GraphInput(name="s", role="sensor", draw="mood"), "names the draw 'mood', but expected none"),
    ],
)
def test_inputs_must_name_the_draws_of_their_role(wrong: GraphInput, message: str) -> None:
    with pytest.raises(CardError, match=f"input '{wrong.name}' with role '{wrong.role}' {message}") as caught:
        structs.replace(LATENT_CARD, inputs=(LATENT_INPUT, wrong))
    assert caught.value.field == "inputs"


@pytest.mark.parametrize(
    "inputs",
    [(), (SENSOR_INPUT,), (LATENT_INPUT, structs.replace(LATENT_INPUT, name="z2"))],
    ids=["none", "sensor alone", "two latents"],
)
def test_inputs_must_hold_one_latent(inputs: tuple[GraphInput, ...]) -> None:
    with pytest.raises(CardError, match="inputs must hold one latent, fed by a draw of 2 values a sensor") as caught:
        structs.replace(LATENT_CARD, inputs=inputs)
    assert caught.value.field == "inputs"


def test_inputs_must_have_different_names() -> None:
    twice = structs.replace(SENSOR_INPUT, name=LATENT_INPUT.name)
    with pytest.raises(CardError, match="inputs must have different names") as caught:
        structs.replace(LATENT_CARD, inputs=(LATENT_INPUT, twice))
    assert caught.value.field == "inputs"


def test_the_latents_draw_must_have_as_many_values_as_the_card_says() -> None:
    with pytest.raises(CardError, match="inputs must hold one latent, fed by a draw of 96 values a sensor"):
        structs.replace(LATENT_CARD, latent_size=96)


def test_draws_must_have_different_names() -> None:
    twice = Draw(name="latent", shape=(40, 3))
    with pytest.raises(CardError, match="draws must have different names") as caught:
        structs.replace(LATENT_CARD, draws=(*LATENT_CARD.draws, twice))
    assert caught.value.field == "draws"


@pytest.mark.parametrize(("precision", "weight_bits"), [("int8", None), ("float32", 7), ("float16", 8)])
def test_weight_bits_are_those_of_int8_alone(precision: Precision, weight_bits: int | None) -> None:
    fidelity = None if precision == "float32" else FIDELITY
    with pytest.raises(CardError, match="weight_bits must be a number for int8 and null for any other prec") as caught:
        structs.replace(LATENT_CARD, precision=precision, weight_bits=weight_bits, fidelity=fidelity)
    assert caught.value.field == "weight_bits"


@pytest.mark.parametrize(("precision", "fidelity"), [("int8", None), ("float16", None), ("float32", FIDELITY)])
def test_fidelity_is_measured_of_all_but_float32(precision: Precision, fidelity: Fidelity | None) -> None:
    weight_bits = 7 if precision == "int8" else None
    with pytest.raises(CardError, match="fidelity must be null for float32 and given for any other prec") as caught:
        structs.replace(LATENT_CARD, precision=precision, weight_bits=weight_bits, fidelity=fidelity)
    assert caught.value.field == "fidelity"


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_fidelity_that_json_lacks_is_not_written(number: float) -> None:
    card = structs.replace(INT8_CARD, fidelity=structs.replace(FIDELITY, charge_w1_adu=number))
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        card.to_json()


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
        fidelity = Fidelity(
            images=1,
            charge_w1_adu=charge_w1_adu,
            occupancy_ratio=occupancy_ratio,
            identical_digits=identical_digits,
        )
        assert fidelity.is_within_bounds == is_within


def test_a_card_is_frozen() -> None:
    with pytest.raises(AttributeError, match="immutable type: 'ModelCard'"):
        LATENT_CARD.min_charge = 2  # type: ignore[misc]  # the point of the test
