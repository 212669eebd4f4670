"""Convolutions of upsampled images with many channels become sums of terms that the phases share."""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.graph import count_multiply_accumulates
from export.graph.compiler import SHARED_TERMS, list_passes, run_passes
from export.graph.phase_convolutions import PhaseForm, make_phases_of_terms
from tests.small_graphs import (
    FEW,
    SEEDS,
    SmallGraph,
    apply_pass,
    assert_close,
    assert_same_function,
    check_untouched,
    draw_pads,
    find_same_pads,
    list_operators,
    read_initializers,
    run_by_onnxruntime,
)

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from pxdbg_runtime.model.card import Precision, Target
    from tests.small_graphs import Pads, Rewriting

BATCHES: Final = st.integers(1, 2)
SIZES: Final = st.tuples(st.integers(2, 4), st.integers(3, 5))
MIN_CHANNELS: Final = {
    (3, 3): 53,  # 16 - 9 products are saved for each pair of channels: 7 c > 16 (8 + 15)
    (5, 5): 11,  # 36 - 25: 11 c > 16 (3 + 4)
    (7, 7): 25,  # 64 - 49: 15 c > 16 (8 + 15)
    (3, 5): 25,  # 24 - 15: 9 c > 16 (5 + 9)
    (5, 3): 24,  # 24 - 15: 9 c > 16 (5 + 8)
    (5, 7): 17,  # 48 - 35: 13 c > 16 (5 + 8)
    (7, 3): 34,  # 32 - 21: 11 c > 16 (8 + 15)
}
"""Least c with which terms are used for c channels in and out and symmetric pads.

The products saved must be more than 16 for each further element: differences, and terms and their sums.
"""
ENOUGH_CHANNELS: Final = {kernel: 53 if 3 in kernel else 34 for kernel in MIN_CHANNELS}
"""Number of channels with which terms are used, whatever the pads."""
N_TERMS: Final = {3: 3, 5: 2, 7: 3}
"""Number of terms along an axis, for symmetric pads."""
N_IMAGES: Final = {3: 3, 5: 2, 7: 3}
"""Number of images that the terms take along an axis: the small one and its differences with each of their pads."""
N_SUMS: Final = {3: 2, 5: 1, 7: 2}


FORMS: Final[tuple[PhaseForm, ...]] = ("rows", "apart")


def apply_phases(model: onnx.ModelProto, form: PhaseForm = "rows") -> Rewriting:
    return apply_pass(functools.partial(make_phases_of_terms, form=form), model)


def check_terms(rewriting: Rewriting) -> None:
    assert rewriting.n_changes == 1
    assert "Resize" not in list_operators(rewriting.after)
    assert is_of_terms(rewriting)


def is_of_terms(rewriting: Rewriting) -> bool:
    """Whether the rewritten graph takes differences, channel by channel."""
    return any(attribute.name == "group" for node in rewriting.after.graph.node for attribute in node.attribute)


@FEW
@given(
    seed=SEEDS, batch=BATCHES, size=SIZES, bias=st.booleans(), is_rectified=st.booleans(), whole=st.booleans(),
    kernel_and_pads=st.sampled_from(sorted(MIN_CHANNELS)).flatmap(
        lambda kernel: st.tuples(st.just(kernel), draw_pads(kernel))
    ),
)  # fmt: skip
@pytest.mark.slow
def test_any_pads(
    seed: int,
    batch: int,
    size: tuple[int, int],
    bias: bool,
    is_rectified: bool,
    whole: bool,
    kernel_and_pads: tuple[tuple[int, int], Pads],
) -> None:
    kernel, pads = kernel_and_pads
    graph, n_channels = SmallGraph(seed, whole=whole), ENOUGH_CHANNELS[kernel]
    image = graph.upsample(graph.input(n_channels, *size))
    result = graph.conv(image, n_channels, n_channels, kernel, bias=bias, pads=pads)
    if is_rectified:
        graph.node("Relu", result)
    rewriting = apply_phases(graph.model())
    check_terms(rewriting)
    assert list_operators(rewriting.after).count("Relu") == 4 * is_rectified
    assert list_operators(rewriting.after)[-1] == "Transpose"
    assert count_multiply_accumulates(rewriting.after) < count_multiply_accumulates(rewriting.before)
    assert_same_function(rewriting, graph, batch)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (3, 1)])
@pytest.mark.parametrize("kernel", [(5, 5), (7, 7)])
def test_images_smaller_than_the_kernel(kernel: tuple[int, int], size: tuple[int, int], form: PhaseForm) -> None:
    graph, n_channels = SmallGraph(), MIN_CHANNELS[kernel]
    graph.conv(graph.upsample(graph.input(n_channels, *size)), n_channels, n_channels, kernel)
    rewriting = apply_phases(graph.model(), form)
    check_terms(rewriting)
    assert list_operators(rewriting.after)[-1] == ("Transpose" if form == "rows" else "DepthToSpace")
    assert_same_function(rewriting, graph, 2)


@pytest.mark.parametrize("kernel", MIN_CHANNELS)
def test_few_channels_are_left_to_phases_apart(kernel: tuple[int, int]) -> None:
    n_channels = MIN_CHANNELS[kernel]
    rewritings = []
    for each in (n_channels - 1, n_channels):
        graph = SmallGraph()
        graph.conv(graph.upsample(graph.input(each, 2, 3)), each, each, kernel)
        rewritings.append(apply_phases(graph.model()))
        assert_same_function(rewritings[-1], graph, 2)
    assert [each.n_changes for each in rewritings] == [0, 1]
    assert [is_of_terms(each) for each in rewritings] == [False, True]


@pytest.mark.parametrize("kernel", [(1, 1), (1, 3), (5, 1), (1, 7)])
def test_kernels_of_one_row_or_column_have_no_terms(kernel: tuple[int, int]) -> None:
    graph = SmallGraph()
    graph.conv(graph.upsample(graph.input(80, 2, 3)), 80, 80, kernel)
    check_untouched(functools.partial(make_phases_of_terms, form="rows"), graph.model())


@pytest.mark.parametrize(
    ("target", "precision", "is_used"),
    [("cpu", "float32", True), ("cpu", "float16", False), ("cuda", "float32", True), ("cuda", "float16", False)],
)
def test_only_float32_has_terms(target: Target, precision: Precision, is_used: bool) -> None:
    names = [each.name for each in list_passes(target, precision)]
    assert names.count(SHARED_TERMS) == is_used
    # What it leaves is computed phase by phase.
    assert names[names.index("phase convolutions") - 1] == (SHARED_TERMS if is_used else "last layer in blocks")


@pytest.mark.parametrize("kernel", MIN_CHANNELS)
def test_operators(kernel: tuple[int, int]) -> None:
    graph, n_channels = SmallGraph(), MIN_CHANNELS[kernel]
    graph.conv(graph.upsample(graph.input(n_channels, 2, 3)), n_channels, n_channels, kernel)
    operators = list_operators(apply_phases(graph.model()).after)
    height, width = kernel
    # A term for each pair of terms along the axes, and the differences of the pairs of images but the small one.
    assert operators.count("Conv") == N_TERMS[height] * N_TERMS[width] + N_IMAGES[height] * N_IMAGES[width] - 1
    # Sums over columns in each row of terms, then over rows for both columns.
    assert operators.count("Add") == N_TERMS[height] * N_SUMS[width] + 2 * N_SUMS[height]


@pytest.mark.parametrize(
    ("kernel", "taps", "differences"),
    [
        # Of 2 x 3 pixels. Along an axis of n pixels, the small image and the differences with a pad before or behind,
        # each n differences of two pixels: n (1 + 2 + 2) products.
        ((3, 3), 9, 10 * 15),
        # Differences with a pad before and a pad behind: n + 1.
        ((5, 5), 25, (2 + 2 * 3) * (3 + 2 * 4)),
        # Differences with three pads, twice: n + 2.
        ((7, 7), 49, (2 + 2 * 4 + 2 * 4) * (3 + 2 * 5 + 2 * 5)),
        ((3, 5), 15, 10 * (3 + 2 * 4)),
        ((5, 3), 15, (2 + 2 * 3) * 15),
    ],
)
def test_how_many_products_are_left(kernel: tuple[int, int], taps: int, differences: int) -> None:
    graph, n_channels = SmallGraph(), MIN_CHANNELS[kernel]
    graph.conv(graph.upsample(graph.input(n_channels, 2, 3)), n_channels, n_channels, kernel)
    rewriting = apply_phases(graph.model())
    before = 6 * 4 * kernel[0] * kernel[1] * n_channels**2
    assert count_multiply_accumulates(rewriting.before) == before
    # Of the products of differences, the small image has none: it is there.
    after = 6 * taps * n_channels**2 + (differences - 6) * n_channels
    assert count_multiply_accumulates(rewriting.after) == after


@pytest.mark.parametrize("is_used_twice", [False, True])
@pytest.mark.parametrize("is_rectified", [False, True])
def test_a_convolution_with_a_conditional_norm_is_left_to_phases_apart(is_rectified: bool, is_used_twice: bool) -> None:
    graph, n_channels = SmallGraph(whole=False), MIN_CHANNELS[5, 5]
    graph.input(3, name="c")
    image = graph.conv(graph.upsample(graph.input(n_channels, 2, 3)), n_channels, n_channels, (5, 5))
    outputs = [graph.conditional_norm(image, "c", 3, n_channels)]
    if is_rectified:
        outputs = [graph.node("Relu", outputs[0])]
    if is_used_twice:
        outputs.append(graph.node("Abs", image))
    check_untouched(functools.partial(make_phases_of_terms, form="rows"), graph.model(*outputs))


def test_images_with_terms_and_with_conditional_norms_are_computed_one_by_one() -> None:
    graph, n_channels = SmallGraph(whole=False), 16
    graph.input(3, name="c")
    image = graph.node(
        "Relu", graph.conv(graph.upsample(graph.input(n_channels, 2, 3)), n_channels, n_channels, (5, 5))
    )
    image = graph.conditional_norm(graph.conv(image, n_channels, n_channels), "c", 3, n_channels)
    plain = graph.model(graph.node("Relu", image))
    stages = {stage.name: stage for stage in run_passes(plain, list_passes("cpu"))}
    assert [stages[name].n_changes for name in (SHARED_TERMS, "phase convolutions", "image by image")] == [1, 0, 1]
    feeds = graph.feeds(2)
    (expected,), (found,) = (run_by_onnxruntime(each, feeds) for each in (plain, stages["image by image"].model))
    assert_close(found, expected)


def test_an_image_that_is_doubled_twice_is_split_once() -> None:
    graph = SmallGraph(whole=False)
    graph.conv(graph.upsample(graph.upsample(graph.input(32, 2, 3))), 32, 32, (5, 5))
    rewriting = apply_phases(graph.model())
    assert rewriting.n_changes == 0
    assert_same_function(rewriting, graph, 2)


@FEW
@given(seed=SEEDS, batch=BATCHES, size=SIZES, is_given_out=st.booleans())
def test_others_may_use_all_values(seed: int, batch: int, size: tuple[int, int], is_given_out: bool) -> None:
    graph = SmallGraph(seed)
    small = graph.node("Neg", graph.input(11, *size))
    doubled = graph.upsample(small)
    convolved = graph.conv(doubled, 11, 11, (5, 5))
    rectified = graph.node("Relu", convolved)
    others = [each if is_given_out else graph.node("Abs", each) for each in (small, doubled, convolved)]
    rewriting = apply_phases(graph.model(rectified, *others))
    assert rewriting.n_changes == 1
    assert is_of_terms(rewriting)
    assert list_operators(rewriting.after).count("Relu") == 1
    assert_same_function(rewriting, graph, batch)


def test_one_after_another() -> None:
    graph = SmallGraph(whole=False)
    image = graph.input(11, 2, 3)
    for _ in range(2):
        image = graph.node("Relu", graph.conv(graph.upsample(image), 11, 11, (5, 5)))
    rewriting = apply_phases(graph.model())
    assert rewriting.n_changes == 2
    assert list_operators(rewriting.after).count("Conv") == 2 * 7
    assert_same_function(rewriting, graph, 2)


def convolve(
    image: NDArray[np.float64], weight: NDArray[np.float64], bias: NDArray[np.float64], pads: Pads
) -> NDArray[np.float64]:
    """Convolve images in float64, tap by tap, and keep their size."""
    top, left, bottom, right = pads
    padded = np.pad(image, ((0, 0), (0, 0), (top, bottom), (left, right)))
    height, width = image.shape[2:]
    sums = np.zeros((len(image), len(weight), height, width)) + bias[:, np.newaxis, np.newaxis]
    for a, b in itertools.product(*map(range, weight.shape[2:])):
        sums += np.einsum("oi,niyx->noyx", weight[:, :, a, b], padded[:, :, a : a + height, b : b + width])
    return sums


@pytest.mark.parametrize(
    ("n_in", "n_out", "kernel", "pads"),
    [
        (56, 64, (3, 3), find_same_pads((3, 3))),
        (32, 16, (5, 5), find_same_pads((5, 5))),
        (24, 40, (7, 7), find_same_pads((7, 7))),
        (37, 43, (5, 7), (1, 6, 3, 0)),
    ],
)
def test_onnxruntime_computes_the_convolution_of_the_doubled_image(
    n_in: int, n_out: int, kernel: tuple[int, int], pads: Pads
) -> None:
    graph = SmallGraph(3, whole=False)
    graph.node("Relu", graph.conv(graph.upsample(graph.input(n_in, 4, 5)), n_in, n_out, kernel, pads=pads))
    rewriting = apply_phases(graph.model())
    check_terms(rewriting)
    feeds = graph.feeds(2)
    (found,) = run_by_onnxruntime(rewriting.after, feeds)
    convolution = next(node for node in rewriting.before.graph.node if node.op_type == "Conv")
    weights = read_initializers(rewriting.before)
    weight, bias = (weights[name].astype(np.float64) for name in convolution.input[1:])
    doubled = feeds["z"].astype(np.float64).repeat(2, axis=2).repeat(2, axis=3)
    expected = np.maximum(convolve(doubled, weight, bias, pads), 0)
    assert found.dtype == np.float32
    assert_close(found.astype(np.float64), expected)
    # Two taps of one filter that are exchanged change the images by much more than the tolerance.
    weight[0, 0, 0, :2] = weight[0, 0, 0, 1::-1]
    assert np.abs(np.maximum(convolve(doubled, weight, bias, pads), 0) - expected).max() > 0.01
