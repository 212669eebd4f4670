"""Convolutions of upsampled images become convolutions of the small images, in each form."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.graph import count_multiply_accumulates
from export.graph.phase_convolutions import PhaseForm, make_phase_convolutions
from tests.small_graphs import (
    BATCHES,
    CHANNELS,
    COPYING_MODES,
    FEW,
    KERNELS,
    SEEDS,
    SIZES,
    SmallGraph,
    apply_pass,
    assert_same_function,
    cases,
    check_untouched,
    draw_pads,
    list_operators,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

    from tests.small_graphs import Pads, Rewriting

FORMS: Final[tuple[PhaseForm, ...]] = ("rows", "apart", "together")
MODES: Final = st.sampled_from(COPYING_MODES)
KERNELS_AND_PADS: Final = KERNELS.flatmap(lambda kernel: st.tuples(st.just(kernel), draw_pads(kernel)))


def apply_phases(model: onnx.ModelProto, form: PhaseForm) -> Rewriting:
    return apply_pass(functools.partial(make_phase_convolutions, form=form), model)


@pytest.mark.parametrize("form", FORMS)
@FEW
@given(
    seed=SEEDS, batch=BATCHES, n_in=CHANNELS, n_out=CHANNELS, size=SIZES, kernel_and_pads=KERNELS_AND_PADS,
    bias=st.booleans(), modes=MODES, is_rectified=st.booleans(), whole=st.booleans(),
)  # fmt: skip
def test_with_few_channels(
    form: PhaseForm,
    seed: int,
    batch: int,
    n_in: int,
    n_out: int,
    size: tuple[int, int],
    kernel_and_pads: tuple[tuple[int, int], Pads],
    bias: bool,
    modes: dict[str, str],
    is_rectified: bool,
    whole: bool,
) -> None:
    graph = SmallGraph(seed, whole=whole)
    kernel, pads = kernel_and_pads
    result = graph.conv(graph.upsample(graph.input(n_in, *size), **modes), n_in, n_out, kernel, bias=bias, pads=pads)
    if is_rectified:
        graph.node("Relu", result)
    rewriting = apply_phases(graph.model(), form)
    assert rewriting.n_changes == 1
    assert "Resize" not in list_operators(rewriting.after)
    n_convolutions = 1 if form == "together" else 2
    assert list_operators(rewriting.after).count("Conv") == n_convolutions
    # A Relu is done on the phases, before they are put in place.
    assert list_operators(rewriting.after).count("Relu") == n_convolutions * is_rectified
    assert list_operators(rewriting.after)[-1] == ("Transpose" if form == "rows" else "DepthToSpace")
    assert count_multiply_accumulates(rewriting.after) <= count_multiply_accumulates(rewriting.before)
    assert_same_function(rewriting, graph, batch)


@pytest.mark.parametrize("form", FORMS)
@FEW
@given(
    seed=SEEDS, batch=BATCHES, n_in=st.integers(1, 2), n_out=st.integers(32, 40), kernel_and_pads=KERNELS_AND_PADS,
    is_rectified=st.booleans(),
)  # fmt: skip
def test_with_many_channels(
    form: PhaseForm,
    seed: int,
    batch: int,
    n_in: int,
    n_out: int,
    kernel_and_pads: tuple[tuple[int, int], Pads],
    is_rectified: bool,
) -> None:
    graph = SmallGraph(seed)
    kernel, pads = kernel_and_pads
    result = graph.conv(graph.upsample(graph.input(n_in, 2, 3)), n_in, n_out, kernel, pads=pads)
    if is_rectified:
        graph.node("Relu", result)
    rewriting = apply_phases(graph.model(), form)
    assert rewriting.n_changes == 1
    assert "Resize" not in list_operators(rewriting.after)
    assert count_multiply_accumulates(rewriting.after) <= count_multiply_accumulates(rewriting.before)
    assert_same_function(rewriting, graph, batch)


@pytest.mark.parametrize(
    ("n_out", "kernel", "pads", "n_convolutions"),
    [
        # One a row with few channels, one a phase with many.
        (31, (3, 3), (1, 1, 1, 1), 2),
        (32, (3, 3), (1, 1, 1, 1), 4),
        (32, (7, 7), (3, 3, 3, 3), 4),
        # No tap of a row's kernel would be idle: one a row.
        (32, (1, 1), (0, 0, 0, 0), 2),
        (32, (3, 1), (1, 0, 1, 0), 2),
        (32, (3, 3), (1, 0, 1, 2), 2),
    ],
)
@pytest.mark.parametrize("form", ["rows", "apart"])
def test_phases_of_their_own_waste_neither_products_nor_lanes(
    form: PhaseForm, n_out: int, kernel: tuple[int, int], pads: Pads, n_convolutions: int
) -> None:
    graph = SmallGraph()
    graph.conv(graph.upsample(graph.input(2, 2, 3)), 2, n_out, kernel, pads=pads)
    rewriting = apply_phases(graph.model(), form)
    assert list_operators(rewriting.after).count("Conv") == n_convolutions
    assert_same_function(rewriting, graph, 2)


@pytest.mark.parametrize(
    ("size", "form", "n_channels", "taps"),
    [
        (3, "rows", 32, 16),
        (3, "rows", 2, 24),
        (3, "apart", 32, 16),
        (3, "apart", 2, 24),
        (3, "together", 2, 36),
        (5, "rows", 2, 36),
        (5, "together", 2, 36),
        (7, "rows", 32, 64),
        (7, "rows", 2, 80),
        (7, "apart", 32, 64),
        (7, "together", 2, 100),
    ],
)
def test_how_many_products_are_left(size: int, form: PhaseForm, n_channels: int, taps: int) -> None:
    graph = SmallGraph()
    graph.conv(graph.upsample(graph.input(1, 2, 3)), 1, n_channels, (size, size))
    rewriting = apply_phases(graph.model(), form)
    # Of the small image's six pixels, each gives four.
    assert count_multiply_accumulates(rewriting.before) == 6 * 4 * size**2 * n_channels
    assert count_multiply_accumulates(rewriting.after) == 6 * taps * n_channels


@pytest.mark.parametrize("form", FORMS)
@FEW
@given(seed=SEEDS, batch=BATCHES, size=SIZES, kernel=KERNELS)
def test_the_doubled_image_stays_for_its_other_users(
    form: PhaseForm, seed: int, batch: int, size: tuple[int, int], kernel: tuple[int, int]
) -> None:
    graph = SmallGraph(seed)
    doubled = graph.upsample(graph.input(2, *size))
    model = graph.model(graph.conv(doubled, 2, 3, kernel), graph.node("Abs", doubled), doubled)
    rewriting = apply_phases(model, form)
    assert rewriting.n_changes == 1
    assert list_operators(rewriting.after).count("Resize") == 1
    assert_same_function(rewriting, graph, batch)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("given_out", [False, True])
@FEW
@given(seed=SEEDS, batch=BATCHES, size=SIZES, kernel=KERNELS)
def test_the_relu_stays_behind_where_others_use_the_convolution(
    form: PhaseForm, given_out: bool, seed: int, batch: int, size: tuple[int, int], kernel: tuple[int, int]
) -> None:
    graph = SmallGraph(seed)
    convolved = graph.conv(graph.upsample(graph.input(2, *size)), 2, 3, kernel)
    other = convolved if given_out else graph.node("Neg", convolved)
    rewriting = apply_phases(graph.model(graph.node("Relu", convolved), other), form)
    assert rewriting.n_changes == 1
    assert list_operators(rewriting.after).count("Relu") == 1
    assert "Resize" not in list_operators(rewriting.after)
    assert_same_function(rewriting, graph, batch)


@pytest.mark.parametrize("form", FORMS)
@FEW
@given(seed=SEEDS, batch=BATCHES, size=SIZES)
def test_one_after_another(form: PhaseForm, seed: int, batch: int, size: tuple[int, int]) -> None:
    graph = SmallGraph(seed)
    image = graph.input(2, *size)
    for n_in, n_out in ((2, 3), (3, 1)):
        image = graph.node("Relu", graph.conv(graph.upsample(image), n_in, n_out))
    rewriting = apply_phases(graph.model(), form)
    assert rewriting.n_changes == 2
    assert "Resize" not in list_operators(rewriting.after)
    assert_same_function(rewriting, graph, batch)


@pytest.mark.parametrize("form", FORMS)
@FEW
@given(seed=SEEDS, batch=BATCHES, size=SIZES, kernel_and_pads=KERNELS_AND_PADS)
def test_of_an_image_that_is_doubled_twice(
    form: PhaseForm, seed: int, batch: int, size: tuple[int, int], kernel_and_pads: tuple[tuple[int, int], Pads]
) -> None:
    graph = SmallGraph(seed)
    kernel, pads = kernel_and_pads
    graph.conv(graph.upsample(graph.upsample(graph.input(2, *size))), 2, 3, kernel, pads=pads)
    rewriting = apply_phases(graph.model(), form)
    assert rewriting.n_changes >= 1
    assert count_multiply_accumulates(rewriting.after) <= count_multiply_accumulates(rewriting.before)
    assert_same_function(rewriting, graph, batch)


def _filters_that_are_computed(graph: SmallGraph) -> onnx.ModelProto:
    filters = graph.node("Abs", graph.constant(graph.values(3, 2, 1, 1)))
    return graph.model(graph.node("Conv", graph.upsample(graph.input(2, 2, 3)), filters))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "write",
    cases(
        _filters_that_are_computed,
        **{
            "an image that is not doubled": lambda graph: graph.model(
                graph.node("Relu", graph.conv(graph.input(2, 4, 6), 2, 3))
            ),
            "something lies between": lambda graph: graph.model(
                graph.conv(graph.node("Relu", graph.upsample(graph.input(2, 2, 3))), 2, 3)
            ),
            "an even kernel": lambda graph: graph.model(
                graph.conv(graph.upsample(graph.input(2, 2, 3)), 2, 3, (2, 3), pads=(1, 1, 0, 1))
            ),
            "a stride": lambda graph: graph.model(
                graph.conv(graph.upsample(graph.input(2, 2, 3)), 2, 3, strides=[1, 2])
            ),
            "groups": lambda graph: graph.model(graph.conv(graph.upsample(graph.input(2, 2, 3)), 1, 4, group=2)),
            "dilation": lambda graph: graph.model(
                graph.conv(graph.upsample(graph.input(2, 2, 3)), 2, 3, dilations=[2, 2], pads=(2, 2, 2, 2))
            ),
            "another size": lambda graph: graph.model(
                graph.conv(graph.upsample(graph.input(2, 2, 3)), 2, 3, pads=(1, 1, 1, 0))
            ),
            "tripling": lambda graph: graph.model(graph.conv(graph.upsample(graph.input(2, 2, 3), (1, 1, 3, 3)), 2, 3)),
            "interpolation": lambda graph: graph.model(
                graph.conv(graph.upsample(graph.input(2, 2, 3), mode="linear"), 2, 3)
            ),
            "a relu of something else": lambda graph: graph.model(
                graph.node("Relu", graph.upsample(graph.input(2, 2, 3)))
            ),
        },
    ),
)
def test_other_graphs_are_left_untouched(write: Callable[[SmallGraph], onnx.ModelProto], form: PhaseForm) -> None:
    check_untouched(functools.partial(make_phase_convolutions, form=form), write(SmallGraph()))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [("h", 3), (2, "w"), ("h", "w")])
def test_so_are_images_of_unknown_size(size: tuple[int | str, int | str], form: PhaseForm) -> None:
    graph = SmallGraph()
    graph.conv(graph.upsample(graph.input(2, *size)), 2, 3)
    made = ir.from_proto(graph.model())
    before = ir.to_proto(made).SerializeToString()
    assert make_phase_convolutions(made, form) == 0
    assert ir.to_proto(made).SerializeToString() == before
