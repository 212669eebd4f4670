"""Charges that a graph outputs are those of its values, and known answers refuse images without hits."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest

from export.errors import GraphError
from export.graph import append_charges
from export.reference_outputs import build_known_answers, check_charges
from tests.tiny_models import THRESHOLDS, Tiny, TinyConvNet, tiny_of

if TYPE_CHECKING:
    from pxdbg_runtime.model.card import OutputKind, Precision


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return tiny_of(TinyConvNet, 1)


def test_charges_by_the_thresholds_of_the_card_are_accepted_and_no_others(tiny: Tiny) -> None:
    charges = append_charges(tiny.plain, THRESHOLDS)
    check_charges(tiny.references, tiny.plain, charges, THRESHOLDS)
    expected = r"^The graph computes wrong charges of its values in [\d,]+ of 1,536,000 pixels, by up to \d+ ADU: "
    with pytest.raises(GraphError, match=expected):
        check_charges(tiny.references, tiny.plain, charges, THRESHOLDS + np.float32(1e-3))


@pytest.mark.parametrize(
    ("precision", "output_kind", "expected"),
    [
        ("float32", "charges", r"by up to \d+ ADU, .* without hits: nothing was written\. Try other releases of torch"),
        ("float16", "charges", r"by up to \d+ ADU, .* without hits: nothing was written\. Export it in float32\.$"),
        ("float16", "values", r"by up to \S+ in tanh, .* without hits: nothing was written\. Export it in float32\.$"),
    ],
)
def test_known_answers_that_accept_images_without_hits_are_refused(
    tiny: Tiny, precision: Precision, output_kind: OutputKind, expected: str
) -> None:
    other = dataclasses.replace(tiny.references, exact=np.roll(tiny.references.exact, 300, axis=2))
    graph = tiny.plain if output_kind == "values" else append_charges(tiny.plain, THRESHOLDS)
    build_known_answers(tiny.references, graph, THRESHOLDS, precision, output_kind)
    with pytest.raises(GraphError, match=expected):
        build_known_answers(other, graph, THRESHOLDS, precision, output_kind)


def test_a_model_without_hits_has_known_answers_all_the_same(tiny: Tiny) -> None:
    shape = tiny.references.exact.shape
    empty = dataclasses.replace(
        tiny.references,
        exact=np.full(shape, -0.9),
        float32=np.full(shape, -0.8, np.float32),
        folded=np.full(shape, -0.9, np.float32),
    )
    answers = build_known_answers(empty, tiny.plain, THRESHOLDS, "float32", "values")
    assert answers.mean_tolerance == pytest.approx(0.8)
