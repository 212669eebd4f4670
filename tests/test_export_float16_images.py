"""Images of float16 graphs: each result equals NumPy's float16 bit for bit, and one that is too large is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from onnx import TensorProto, helper, numpy_helper

from export import precisions
from export.errors import GraphError
from export.families.resnet import FAMILY
from export.float16_images import compute_float16_images
from export.graph import convert_to_float16
from export.inference import compute_images, draw_feeds
from tests.small_graphs import FEW, SEEDS, SmallGraph, evaluate
from tests.tiny_models import N_IMAGES, THRESHOLDS, few_images

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    import onnx
    from numpy.typing import NDArray

    from export.families import Feed


def compute(model: onnx.ModelProto, inputs: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Compute the images of a float32 graph in float16."""
    feed: Feed = {**inputs}
    (images,) = compute_float16_images(convert_to_float16(model), [feed])
    return images


@FEW
@given(seed=SEEDS)
def test_results_of_a_chain_are_numpys(seed: int) -> None:
    """Values from below the smallest subnormal number of float16 to the hundreds, and sums of both signs."""
    graph = SmallGraph(seed, whole=False)
    first = graph.input(6, 40)
    value = graph.node("Add", first, graph.constant(graph.values(6, 40) * np.float32(1e-5)))
    for operator in ("Mul", "Sub", "Mul"):
        value = graph.node(operator, value, graph.constant(graph.values(6, 1)))
        value = graph.node("Gather", value, graph.constant(graph.random.permutation(6)), axis=1)
        value = graph.node("Transpose", graph.node("Transpose", value, perm=[0, 2, 1]), perm=[0, 2, 1])
        value = graph.node("Add", graph.node("Relu", value), graph.node("Mul", value, first))
    model = convert_to_float16(graph.model())
    size = 10 ** graph.random.uniform(-9, 1, (2, 6, 40))
    feed: Feed = {"z": (size * graph.random.choice([-1, 1], size.shape)).astype(np.float32)}
    (expected,) = evaluate(model, feed)
    assert ((expected != 0) & (np.abs(expected) < 2.0**-14)).any(), "no subnormal number"
    (found,) = compute_float16_images(model, [feed])
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)


def test_a_sum_is_added_in_float32_and_rounded_once() -> None:
    graph = SmallGraph()
    weights = graph.constant(np.full((1, 8, 1, 1), 257, np.float32))
    graph.node("Conv", graph.input(8, 3, 4), weights)
    feed = {"z": np.arange(96, dtype=np.float32).reshape(1, 8, 3, 4) % 7}
    exact = 257 * feed["z"].sum(1, keepdims=True)
    found = compute(graph.model(), feed)
    assert np.array_equal(found, exact.astype(np.float16))
    assert not np.array_equal(found, exact)


def test_a_convolution_is_rounded_before_and_after_its_bias() -> None:
    graph = SmallGraph(whole=False)
    weight, bias = graph.values(6, 1, 1, 1), graph.values(6)
    graph.node("Conv", graph.input(1, 3, 4), graph.constant(weight), graph.constant(bias))
    feed = graph.feeds(2)
    image, factor, offset = (
        each.astype(np.float16) for each in (feed["z"], weight.reshape(1, 6, 1, 1), bias.reshape(1, 6, 1, 1))
    )
    assert np.array_equal(compute(graph.model(), feed), image * factor + offset)


def test_the_last_pointwise_operator_is_computed_in_float32() -> None:
    graph = SmallGraph()
    graph.node("Tanh", graph.node("Add", graph.input(5), graph.constant(np.array([0.25], np.float32))))
    feed = {"z": np.linspace(-1, 1, 5, dtype=np.float32).reshape(1, 5)}
    sums = (feed["z"].astype(np.float16) + np.float16(0.25)).astype(np.float32)
    assert np.abs(compute(graph.model(), feed) - np.tanh(sums)).max() < 1e-6


@pytest.mark.parametrize(
    ("value", "reached"), [(127.9375, None), (-127.9375, None), (128.0, r"6\.55e\+04"), (-1871.0, r"9\.58e\+05")]
)
def test_a_value_beyond_float16_is_refused(value: float, reached: str | None) -> None:
    """512 times the value is up to 65,504 or more."""
    graph = SmallGraph()
    large = graph.node("Mul", graph.input(3), graph.constant(np.array([512], np.float32)))
    small = graph.node("Mul", graph.node("Relu", large), graph.constant(np.array([2.0**-17], np.float32)))
    model, feed = graph.model(graph.node("Tanh", small)), {"z": np.array([[0, value, 1]], np.float32)}
    if reached is None:
        assert np.isfinite(compute(model, feed)).all()
        return
    message = rf"^float16 cannot hold the values {large}, which reach {reached}: export in float32\.$"
    with pytest.raises(GraphError, match=message):
        compute(model, feed)


def write_generator(factor: float) -> onnx.ModelProto:
    """Write a graph of two convolutions of the latents, the first of which multiplies by a factor, and a tanh."""
    weights: dict[str, NDArray[Any]] = {
        "first": np.full((1, 1, 1, 1), factor, np.float32),
        "second": np.full((1, 1, 1, 1), 0.5 / factor, np.float32),
        "axes": np.array([1, 2], np.int64),
    }
    nodes = [
        helper.make_node("Unsqueeze", ["latent", "axes"], ["image"]),
        helper.make_node("Conv", ["image", "first"], ["large"]),
        helper.make_node("Conv", ["large", "second"], ["small"]),
        helper.make_node("Tanh", ["small"], ["images"]),
    ]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["n", 96])],
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 1, 1, 96])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_fidelity_in_float16_is_that_of_rounded_results(monkeypatch: pytest.MonkeyPatch) -> None:
    few_images(monkeypatch)
    plain = write_generator(4096)
    built = precisions.build_graph(plain, FAMILY, "float16", "cuda", thresholds=THRESHOLDS, min_charge=1)
    assert built.fidelity is not None
    assert built.fidelity.is_within_bounds
    feeds = draw_feeds(FAMILY, precisions._FIDELITY_SEED, N_IMAGES)
    exact, rounded = (
        np.searchsorted(THRESHOLDS, np.concatenate(list(images)), side="right")
        for images in (compute_images(plain, feeds), compute_float16_images(built.model, feeds))
    )
    assert built.fidelity.identical_digits == (exact == rounded)[(exact > 0) | (rounded > 0)].mean() < 1


def test_a_graph_whose_values_are_too_large_has_no_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    few_images(monkeypatch)
    with pytest.raises(GraphError, match=r"^float16 cannot hold the values large, which reach .*: export in float32\."):
        precisions.build_graph(write_generator(60_000), FAMILY, "float16", "cuda", thresholds=THRESHOLDS, min_charge=1)
