"""Fidelity: distances of spectra against sorted samples, known shifts, bounds, and the drawn inputs."""

from __future__ import annotations

import math
import pickle
from typing import TYPE_CHECKING, Final

import numpy as np
import onnxruntime
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from export.charge import find_charge_thresholds
from export.errors import FidelityError, GraphError
from export.families.resnet import FAMILY
from export.fidelity import check_fidelity, compute_charge_w1, measure_fidelity
from export.inference import compute_images, draw_event, draw_feeds
from export.int8 import calibrate
from pxdbg_runtime.inference.latents import PhiloxStream
from pxdbg_runtime.limits.threads import JobCpus
from pxdbg_runtime.model.card import MAX_CHARGE_W1_ADU, MAX_OCCUPANCY_DIFFERENCE, Draw, Fidelity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import onnx
    from numpy.typing import NDArray

    from export.families import Feed

N_PIXELS: Final = 12
FEEDS: Final[list[Feed]] = [{"latent": np.zeros((n_images, 96), np.float32)} for n_images in (2, 1)]
THRESHOLDS: Final = find_charge_thresholds()
LOWEST_VALUES: Final = np.concatenate([[np.float32(-1)], THRESHOLDS])
"""The smallest tanh value of each charge."""

few_charges = st.lists(st.integers(1, 255), min_size=1, max_size=12)


def graph_of(*charges: int) -> onnx.ModelProto:
    """Make a graph whose images hold these charges for any latents; other pixels are empty."""
    values = np.full(N_PIXELS, -1, np.float32)
    values[: len(charges)] = LOWEST_VALUES[list(charges)]
    nodes = [
        helper.make_node("MatMul", ["latent", "nothing"], ["zeros"]),
        helper.make_node("Add", ["zeros", "values"], ["images"]),
    ]
    constants = {"nothing": np.zeros((96, N_PIXELS), np.float32), "values": values}
    graph = helper.make_graph(
        nodes,
        "charges",
        [helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["n", 96])],
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", N_PIXELS])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def fidelity_of(exact: Sequence[int], other: Sequence[int], min_charge: int = 1) -> Fidelity:
    return measure_fidelity(graph_of(*exact), graph_of(*other), THRESHOLDS, FEEDS, min_charge, THRESHOLDS)


def test_a_graph_may_have_thresholds_of_its_own() -> None:
    exact, other = graph_of(10, 20, 30), graph_of(11, 21, 31)
    # With every threshold one place further on, each value has a charge less.
    own = np.append(THRESHOLDS[1:], np.float32(1))
    found = measure_fidelity(exact, other, THRESHOLDS, FEEDS, 1, own)
    assert (found.charge_w1_adu, found.occupancy_ratio, found.identical_digits) == (0.0, 1.0, 1.0)
    without = measure_fidelity(exact, other, THRESHOLDS, FEEDS, 1, THRESHOLDS)
    assert [without.charge_w1_adu, without.identical_digits] == pytest.approx([1.0, 0.0])


def spectrum_of(charges: Sequence[int], empty: int = 0) -> NDArray[np.int64]:
    spectrum = np.bincount(np.array(charges, dtype=np.int64), minlength=256)
    spectrum[0] = empty
    return spectrum


# Distances of spectra


def sorted_distance(first: Sequence[int], second: Sequence[int]) -> float:
    """Compute the mean distance of two samples, rank by rank, each repeated to the same length."""
    left, right = (np.sort(np.repeat(each, times)) for each, times in ((first, len(second)), (second, len(first))))
    return float(np.abs(left - right).mean())


@given(first=few_charges, second=few_charges, empty=st.integers(0, 10**9))
@example(first=[1], second=[255], empty=0)
@example(first=[7, 7, 9], second=[8], empty=3)
def test_the_distance_is_that_of_the_sorted_samples(first: list[int], second: list[int], empty: int) -> None:
    # Pixels without a hit have no part in it.
    found = compute_charge_w1(spectrum_of(first, empty), spectrum_of(second))
    assert found == pytest.approx(sorted_distance(first, second), abs=1e-9)


@given(first=few_charges, second=few_charges, third=few_charges)
def test_the_distance_is_one(first: list[int], second: list[int], third: list[int]) -> None:
    a, b, c = (spectrum_of(each) for each in (first, second, third))
    assert compute_charge_w1(a, a) == 0
    assert compute_charge_w1(a, b) == pytest.approx(compute_charge_w1(b, a), abs=1e-9)
    assert compute_charge_w1(a, c) <= compute_charge_w1(a, b) + compute_charge_w1(b, c) + 1e-9


@given(charges=few_charges, times=st.integers(1, 10))
def test_the_number_of_hits_does_not_matter(charges: list[int], times: int) -> None:
    assert compute_charge_w1(spectrum_of(charges), times * spectrum_of(charges)) == pytest.approx(0, abs=1e-9)


def test_an_empty_spectrum_is_beyond_the_largest_distance_from_any() -> None:
    some, none = spectrum_of([255]), spectrum_of([], empty=100)
    assert (
        compute_charge_w1(none, none)
        == compute_charge_w1(none, some)
        == compute_charge_w1(some, none)
        == 256
        > compute_charge_w1(some, spectrum_of([1]))
    )


# Comparison of graphs


def test_a_graph_is_like_itself() -> None:
    charges = (1, 7, 7, 200, 255)
    assert fidelity_of(charges, charges) == Fidelity(
        images=3, charge_w1_adu=0.0, occupancy_ratio=1.0, identical_digits=1.0
    )


@pytest.mark.parametrize(
    ("exact", "other", "expected"),
    [
        ((10, 20, 30), (11, 21, 31), (1.0, 1.0, 0.0)),
        ((10, 20, 30, 40), (10, 20, 30, 44), (1.0, 1.0, 0.75)),
        # A hit that is lost is a pixel with a hit in either.
        ((10, 10, 10, 10), (10, 10, 0, 0), (0.0, 0.5, 0.5)),
        ((10, 10), (10, 10, 10), (0.0, 1.5, 2 / 3)),
        # The same spectrum elsewhere.
        ((10, 20), (20, 10), (0.0, 1.0, 0.0)),
        ((10, 0), (0, 10), (0.0, 1.0, 0.0)),
    ],
    ids=["one more", "one hit", "lost", "found", "swapped", "moved"],
)
def test_known_changes_are_measured(
    exact: tuple[int, ...], other: tuple[int, ...], expected: tuple[float, float, float]
) -> None:
    found = fidelity_of(exact, other)
    assert found.images == 3
    assert [found.charge_w1_adu, found.occupancy_ratio, found.identical_digits] == pytest.approx(expected)


def test_charges_below_that_of_a_hit_do_not_count() -> None:
    found = fidelity_of((3, 6, 10), (1, 7, 10), min_charge=7)
    assert [found.charge_w1_adu, found.occupancy_ratio, found.identical_digits] == pytest.approx([1.5, 2.0, 0.5])


@pytest.mark.parametrize(("other", "ratio"), [((), 1.0), ((9,), 4.0)])
def test_without_hits_in_float32_there_is_nothing_to_compare(other: tuple[int, ...], ratio: float) -> None:
    found = fidelity_of((6, 5), other, min_charge=7)
    assert found == Fidelity(images=3, charge_w1_adu=256.0, occupancy_ratio=ratio, identical_digits=0.0)
    assert not found.is_within_bounds
    message = (
        r"^The float32 graph gives no hit in 3 images, .* the int8 graph with: a smaller --min-charge may give hits\."
    )
    with pytest.raises(FidelityError, match=message):
        check_fidelity(found, "int8", 7)
    with pytest.raises(FidelityError, match=r"graph with: check the checkpoint, whose images are empty\. Nothing was"):
        check_fidelity(found, "int8", 1)


def test_a_graph_without_hits_is_too_far_from_one_with_hits() -> None:
    found = fidelity_of((9,), ())
    assert (found.charge_w1_adu, found.occupancy_ratio, found.identical_digits) == (256.0, 0.0, 0.0)
    with pytest.raises(FidelityError, match=r"too far from float32's: W1 of the charge spectrum 256\.000 ADU"):
        check_fidelity(found, "float16", 1)


@pytest.mark.parametrize("n_images", [1, 2, 5])
def test_all_images_are_run_in_their_order(n_images: int) -> None:
    graph = graph_of(1)
    (nothing,) = (each for each in graph.graph.initializer if each.name == "nothing")
    nothing.CopyFrom(numpy_helper.from_array(np.eye(96, N_PIXELS, dtype=np.float32), "nothing"))
    images = np.concatenate(list(compute_images(graph, draw_feeds(FAMILY, 3, n_images))))
    values = numpy_helper.to_array(next(each for each in graph.graph.initializer if each.name == "values"))
    assert np.array_equal(images, draw_event(FAMILY, 3, 0)["latent"][:n_images, :N_PIXELS] + values)


# Bounds


def fidelity(w1: float = 0.0, ratio: float = 1.0) -> Fidelity:
    return Fidelity(images=800, charge_w1_adu=w1, occupancy_ratio=ratio, identical_digits=0.5)


def test_the_bounds_are_those_of_the_card() -> None:
    assert (MAX_CHARGE_W1_ADU, MAX_OCCUPANCY_DIFFERENCE) == (0.3, 0.01)


@pytest.mark.parametrize("within", [fidelity(), fidelity(0.2999), fidelity(0, 1.0099), fidelity(0, 0.9901)])
def test_within_the_bounds_nothing_is_refused(within: Fidelity) -> None:
    assert within.is_within_bounds
    check_fidelity(within, "int8", 1)


@pytest.mark.parametrize(
    "beyond",
    [
        *(fidelity(0.3), fidelity(256.0), fidelity(math.nan), fidelity(math.inf)),
        *(fidelity(0, 1.0101), fidelity(0, 0.9899), fidelity(0, 0.0), fidelity(0, math.nan), fidelity(0.5, 2.0)),
    ],
)
def test_beyond_a_bound_it_is(beyond: Fidelity) -> None:
    assert not beyond.is_within_bounds
    with pytest.raises(
        FidelityError, match="Nothing was written; --accept-beyond-bounds writes the graph all"
    ) as caught:
        check_fidelity(beyond, "int8", 1)
    assert caught.value.fidelity is beyond


def test_the_refusal_says_what_was_measured_and_what_is_allowed() -> None:
    expected = (
        r"^The digits of the float16 graph are too far from float32's: W1 of the charge spectrum 0\.412 ADU \(below "
        r"0\.3 is allowed\), occupancy -2\.35 % \(within 1 %\)\. Nothing was written; --accept-beyond-bounds "
        r"writes the "
        r"graph all the same\.$"
    )
    with pytest.raises(FidelityError, match=expected) as caught:
        check_fidelity(fidelity(0.4123, 0.9765), "float16", 1)
    assert isinstance(caught.value, RuntimeError)
    arrived = pickle.loads(pickle.dumps(caught.value))
    assert (arrived.fidelity, str(arrived)) == (caught.value.fidelity, str(caught.value))


# Latents


@pytest.mark.parametrize(("seed", "batch_size"), [(-2, 1), (0, 2), (11, 3)])
def test_feeds_are_batches_of_the_runtimes_own_stream(seed: int, batch_size: int) -> None:
    feeds = draw_feeds(FAMILY, seed, 95, batch_size)
    latents = np.concatenate([feed["latent"] for feed in feeds])
    stream = PhiloxStream(seed, [Draw(name="latent", shape=(40, 96))])
    assert (latents.shape, latents.dtype.name) == ((95, 96), "float32")
    assert np.array_equal(latents, np.concatenate([stream.draw(event)[0] for event in range(3)])[:95])
    # No batch crosses an event.
    ends = np.cumsum([len(feed["latent"]) for feed in feeds]).tolist()
    assert {40, 80, 95} <= set(ends)
    assert max(len(feed["latent"]) for feed in feeds) == batch_size


@pytest.mark.parametrize("compute", [compute_images, calibrate])
def test_a_graph_that_onnx_runtime_refuses_is_one_sentence(
    compute: Callable[[onnx.ModelProto, list[Feed]], Iterable[object]],
) -> None:
    graph = graph_of(1)
    graph.ir_version = 99
    newer = (
        r"^ONNX Runtime refuses the graph: it needs a newer ONNX Runtime .*IR version: 99, .*: pip install -U [\w-]+\.$"
    )
    with pytest.raises(GraphError, match=newer):
        list(compute(graph, FEEDS))
    graph = graph_of(1)
    graph.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(GraphError, match=r"^ONNX Runtime refuses the graph: .*NoSuchOperator.*[^.]\.$"):
        list(compute(graph, FEEDS))


def test_a_comparison_takes_the_cpus_of_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    class OptionsSeenError(Exception):
        pass

    def see(_model: bytes, options: onnxruntime.SessionOptions, **_: object) -> None:
        raise OptionsSeenError(options.intra_op_num_threads)

    monkeypatch.setattr(onnxruntime, "InferenceSession", see)
    for n_cpus, n_threads in ((3, 3), (64, 8)):
        cpus = JobCpus(count=n_cpus, limited_by="a test")
        monkeypatch.setattr("export.inference.count_job_cpus", lambda cpus=cpus: cpus)
        with pytest.raises(OptionsSeenError, match=rf"^{n_threads}$"):
            next(compute_images(ModelProto(), []))
