"""All passes in their order, on small generators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export import graph as package
from export.graph import Pass, Stage, count_multiply_accumulates, list_passes, run_passes
from export.graph.compiler import INT8_PASSES, SIMPLIFYING_PASSES
from tests.compiled_graphs import compile_graph, simplify_graph
from tests.small_graphs import (
    BATCHES,
    SEEDS,
    SmallGraph,
    conditional_generator,
    evaluate,
    list_operators,
    plain_generator,
    read_initializers,
    residual_generator,
    run_by_onnxruntime,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir

    from pxdbg_runtime.model.card import Target

    Writer = Callable[[SmallGraph, int, Sequence[int], tuple[int, int]], onnx.ModelProto]

TARGETS: Final[tuple[Target, ...]] = ("cpu", "cuda")
WRITERS: Final[tuple[Writer, ...]] = (plain_generator, residual_generator, conditional_generator)
CHANNELS: Final = st.lists(st.integers(1, 6), min_size=2, max_size=3)
KERNELS: Final = st.sampled_from([(3, 3), (5, 5), (1, 3)])
FEW: Final = settings(max_examples=8)
"""Few examples: each generator takes some tenths of a second."""
ROUNDING: Final = 1e-5
"""Bound on the rounding of several layers, in tanh values."""


def check_same_images(made: onnx.ModelProto, plain: onnx.ModelProto, graph: SmallGraph, batch: int) -> None:
    """Check that both evaluators compute the images of the plain graph."""
    onnx.checker.check_model(made, full_check=True)
    feeds = graph.feeds(batch)
    (expected,) = evaluate(plain, feeds)
    for (found,) in (evaluate(made, feeds), run_by_onnxruntime(made, feeds)):
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        assert np.abs(found - expected).max() <= ROUNDING


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("write", WRITERS)
@FEW
@given(seed=SEEDS, batch=BATCHES, n_latents=st.integers(1, 5), channels=CHANNELS, kernel=KERNELS)
@pytest.mark.slow
def test_compiled_graphs_give_the_same_images(
    target: Target, write: Writer, seed: int, batch: int, n_latents: int, channels: list[int], kernel: tuple[int, int]
) -> None:
    graph = SmallGraph(seed, whole=False)
    plain = write(graph, n_latents, channels, kernel)
    made = compile_graph(plain, target)
    check_same_images(made, plain, graph, batch)
    # The Resize of a shortcut stays; it comes after the products.
    n_doublings = len(channels) - 1 if write is not plain_generator else 0
    assert list_operators(made).count("Resize") <= n_doublings
    # On a GPU a conditional norm is a batch norm; on a CPU too, but inside the Scan.
    has_norms = (target, write) == ("cuda", conditional_generator)
    assert ("BatchNormalization" in list_operators(made)) is has_norms


@pytest.mark.parametrize("write", WRITERS)
@FEW
@given(seed=SEEDS, batch=BATCHES, n_latents=st.integers(1, 5), channels=CHANNELS, kernel=KERNELS)
@pytest.mark.slow
def test_simplified_graphs_give_the_same_images_and_cost_less(
    write: Writer, seed: int, batch: int, n_latents: int, channels: list[int], kernel: tuple[int, int]
) -> None:
    graph = SmallGraph(seed, whole=False)
    plain = write(graph, n_latents, channels, kernel)
    made = simplify_graph(plain)
    check_same_images(made, plain, graph, batch)
    # The last pass makes a batch norm a convolution of each channel, whose products count.
    *_, before = run_passes(plain, INT8_PASSES[:-1])
    assert before.cost.multiply_accumulates <= count_multiply_accumulates(plain)
    assert {node.domain for node in made.graph.node} == {""}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("write", WRITERS)
@FEW
@given(seed=SEEDS, batch=BATCHES, channels=CHANNELS)
@pytest.mark.slow
def test_each_stage_gives_the_same_images(
    target: Target, write: Writer, seed: int, batch: int, channels: list[int]
) -> None:
    graph = SmallGraph(seed, whole=False)
    plain = write(graph, 3, channels, (3, 3))
    feeds = graph.feeds(batch)
    (expected,) = evaluate(plain, feeds)
    before: Stage | None = None
    for stage in run_passes(plain, list_passes(target)):
        assert (stage.n_changes == 0) == (before is None or stage.model == before.model)
        if stage.n_changes:
            (found,) = evaluate(stage.model, feeds)
            assert np.abs(found - expected).max() <= ROUNDING
        before = stage


@pytest.mark.parametrize(
    ("target", "write", "n_changes"),
    [
        ("cpu", residual_generator, (0, 0, 5, 0, 2, 2, 0, 0, 1, 0, 2, 0, 0)),
        ("cuda", residual_generator, (0, 0, 5, 0, 2, 2, 0, 0, 1, 0, 2, 0)),
        ("cpu", plain_generator, (0, 0, 2, 1, 0, 2, 0, 0, 1, 0, 2, 0, 0)),
        ("cuda", plain_generator, (0, 0, 2, 1, 0, 2, 0, 0, 1, 0, 2, 0)),
        ("cpu", conditional_generator, (0, 8, 0, 0, 0, 2, 2, 1, 1, 0, 2, 1, 14)),
        ("cuda", conditional_generator, (0, 8, 0, 0, 0, 2, 2, 1, 1, 0, 2, 8)),
    ],
)
def test_the_stages_of_a_generator(target: Target, write: Writer, n_changes: tuple[int, ...]) -> None:
    plain = write(SmallGraph(whole=False), 3, (8, 6, 5), (3, 3))
    made = list(run_passes(plain, list_passes(target)))
    names = [
        "plain",
        "merge conditional norms",
        "fold batch norms",
        "compose linear layers",
        "move work before upsampling",
        "crop early",
        "row tables",
        "batch norms of sums",
        "last layer in blocks",
        "phases of shared terms",
        "phase convolutions",
        *(["sums in blocks", "image by image"] if target == "cpu" else ["norms as batch norms"]),
    ]
    assert [stage.name for stage in made] == names
    assert [stage.name for stage in made[1:]] == [each.name for each in list_passes(target)]
    assert tuple(stage.n_changes for stage in made) == n_changes
    assert compile_graph(plain, target).SerializeToString() == made[-1].model.SerializeToString()


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_rewritten_graphs_hold_standard_operators_alone(target: Target) -> None:
    plain = residual_generator(SmallGraph(whole=False), 3, (8, 6, 5))
    for made in (compile_graph(plain, target), simplify_graph(plain)):
        assert {each.domain: each.version for each in made.opset_import} == {"": 18}
        assert {node.domain for node in made.graph.node} == {""}


def test_each_target_has_its_form() -> None:
    plain = plain_generator(SmallGraph(whole=False), 3, (8, 6, 5))
    assert list_operators(compile_graph(plain, "cuda")).count("DepthToSpace") == 3
    assert list_operators(compile_graph(plain, "cpu")).count("DepthToSpace") == 1


def test_the_passes_that_simplify_come_first() -> None:
    plain = residual_generator(SmallGraph(whole=False), 3, (8, 6, 5))
    n_first = 1 + len(SIMPLIFYING_PASSES)
    for target in TARGETS:
        assert list_passes(target)[: len(SIMPLIFYING_PASSES)] == SIMPLIFYING_PASSES
        *_, last = list(run_passes(plain, list_passes(target)))[:n_first]
        assert simplify_graph(plain).SerializeToString() == last.model.SerializeToString()


def test_other_passes_may_be_given() -> None:
    seen: list[str] = []

    def watch(model: ir.Model) -> int:
        seen.extend(node.op_type for node in model.graph)
        return 0

    graph = SmallGraph()
    graph.node("Abs", graph.input(3))
    plain, after = run_passes(graph.model(), (Pass(name="watch", apply=watch),))
    assert seen == ["Abs"]
    assert (after.name, after.n_changes, after.model, after.cost) == ("watch", 0, plain.model, plain.cost)


def test_no_passes_leave_the_plain_graph() -> None:
    graph = SmallGraph()
    graph.node("Abs", graph.input(3))
    (plain,) = run_passes(graph.model(), ())
    assert (plain.name, plain.n_changes) == ("plain", 0)
    assert plain.model.graph.node == graph.model().graph.node


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("write", WRITERS)
def test_the_graph_that_is_given_does_not_change(target: Target, write: Writer) -> None:
    plain = write(SmallGraph(whole=False), 3, (6, 5), (3, 3))
    before = plain.SerializeToString()
    compile_graph(plain, target)
    simplify_graph(plain)
    assert plain.SerializeToString() == before


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("write", WRITERS)
def test_two_runs_give_the_same_bytes(target: Target, write: Writer) -> None:
    first, second = (
        compile_graph(write(SmallGraph(7, whole=False), 3, (8, 6, 5), (3, 3)), target).SerializeToString()
        for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize("target", TARGETS)
def test_the_batch_may_be_another_axis(target: Target) -> None:
    graph = SmallGraph()
    turned = graph.node("Relu", graph.node("Transpose", graph.input(5), perm=[1, 0]))
    plain = graph.model(graph.node("Transpose", turned, perm=[1, 0]))
    plain.graph.ClearField("value_info")  # which name the batch only where it is the first axis
    check_same_images(compile_graph(plain, target), plain, graph, 3)
    assert {stage.cost.bytes_moved for stage in run_passes(plain, list_passes(target))} == {3 * 2 * 5 * 4}


def test_the_cost_is_counted_only_when_it_is_read() -> None:
    """It needs the number of axes of each value, which ONNX may not know; the export does not."""
    graph = SmallGraph()
    value = graph.node("Reshape", graph.input(5), graph.input(name="shape"))
    plain = graph.model(value)
    plain.graph.output[0].type.tensor_type.ClearField("shape")
    assert list_operators(compile_graph(plain, "cpu")) == ["Reshape"]


def nothing_to_match() -> onnx.ModelProto:
    graph = SmallGraph(whole=False)
    image = graph.conv(graph.input(2, 5, 7), 2, 6)
    image = graph.node("Softmax", graph.node("Relu", image), axis=1)
    graph.node("Tanh", graph.conv(image, 6, 5, strides=[2, 2]))
    return graph.model()


@pytest.mark.parametrize("target", TARGETS)
def test_a_graph_with_nothing_to_match_comes_out_as_it_was(target: Target) -> None:
    model = nothing_to_match()
    made = list(run_passes(model, list_passes(target)))
    assert all(stage.n_changes == 0 for stage in made)
    for stage in made:
        assert list(stage.model.graph.node) == list(model.graph.node)
        assert list(stage.model.graph.input) == list(model.graph.input)
        assert list(stage.model.graph.output) == list(model.graph.output)
        assert list(stage.model.opset_import) == list(model.opset_import)
        shapes = {value.name: value.type for value in stage.model.graph.value_info}
        assert all(shapes[value.name] == value.type for value in model.graph.value_info)
        expected = read_initializers(model)
        found = read_initializers(stage.model)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_compiled_already_is_left_untouched(target: Target) -> None:
    plain = residual_generator(SmallGraph(whole=False), 3, (8, 6, 5))
    once = compile_graph(plain, target)
    again = list(run_passes(once, list_passes(target)))
    assert [stage.n_changes for stage in again] == [0] * len(again)
    assert list(again[-1].model.graph.node) == list(once.graph.node)


def test_names_of_values_stay_unique() -> None:
    """The names that passes invent look like those that PyTorch's exporter gives."""
    graph = SmallGraph(whole=False)
    plain = residual_generator(graph, 3, (8, 6, 5))
    for target in TARGETS:
        made = compile_graph(plain, target)
        names = [name for node in made.graph.node for name in node.output]
        names += [each.name for each in (*made.graph.initializer, *made.graph.input)]
        assert len(set(names)) == len(names)
        assert made.graph.output[0].name == plain.graph.output[0].name


def test_the_package_says_what_it_offers() -> None:
    assert all(hasattr(package, name) for name in package.__all__)


@pytest.mark.parametrize("write", WRITERS)
def test_small_generators_give_lively_images(write: Writer) -> None:
    """Nearly constant or saturated images would make the comparisons above meaningless."""
    spreads, shares = [], []
    for seed in range(20):
        graph = SmallGraph(seed, whole=False)
        (images,) = evaluate(write(graph, 3, (8, 6, 5), (3, 3)), graph.feeds(8))
        assert images.shape == (8, 7, 12)
        spreads.append(images.std())
        shares.append(np.mean(np.abs(images) < 0.99))
    assert np.median(spreads) > 0.05
    assert np.median(shares) > 0.5
