"""JSON texts as files and servers bring them: what cannot be one clear object is refused."""

from __future__ import annotations

import dataclasses
import time

import pytest

from pxdbg_runtime.errors import CardError, JsonFieldError
from pxdbg_runtime.json_fields import Fields
from pxdbg_runtime.model.card import ModelCard
from tests.graphs import LATENT_CARD

MANY = 200_000


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('{"seed": 7, "model": "a", "seed": 9}', "seed"),
        ('{"seed": 7, "seed": 7}', "seed"),
        ('{"a": [{"b": {"c": 1, "c": 2}}]}', "c"),
        ('{"": 1, "": 2}', ""),
        (r'{"\u0061": 1, "a": 2}', "a"),
    ],
)
def test_a_field_that_is_there_twice_is_refused(text: str, name: str) -> None:
    with pytest.raises(JsonFieldError, match=rf"^it has the field '{name}' more than once\.$") as caught:
        Fields.parse(text)
    assert caught.value.field == name
    with pytest.raises(JsonFieldError, match="more than once"):
        Fields.parse_list(f"[{text}]")


def test_a_card_with_a_field_twice_is_refused() -> None:
    text = dataclasses.replace(LATENT_CARD, min_charge=7).to_json()
    with pytest.raises(CardError, match=r"The model card is not valid: it has the field 'min_charge' more than once"):
        ModelCard.from_json(text.replace('"min_charge": 7', '"min_charge": 3, "min_charge": 7'))


def test_many_fields_are_quickly_read() -> None:
    pairs = ", ".join(f'"{number}": 0' for number in range(MANY))
    start = time.monotonic()
    assert len(Fields.parse(f"{{{pairs}}}").names()) == MANY
    with pytest.raises(JsonFieldError, match=f"'{MANY - 1}' more than once"):
        Fields.parse(f'{{{pairs}, "{MANY - 1}": 0}}')
    assert time.monotonic() - start < 60


@pytest.mark.parametrize("depth", [500, 900, 100_000])
def test_a_value_that_is_deeply_nested_is_refused(depth: int) -> None:
    nested = "[" * depth + "]" * depth
    with pytest.raises(JsonFieldError, match=r"it is not JSON|a must be text, but is \[\[|nested too deeply") as caught:
        Fields.parse(f'{{"a": {nested}}}').text("a")
    assert len(str(caught.value)) < 200
