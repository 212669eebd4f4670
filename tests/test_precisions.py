"""All precisions and targets of small generators: the cards, the refusals, and charges that equal the table's."""

from __future__ import annotations

import dataclasses
import functools
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import pytest
from msgspec import structs
from onnx import TensorProto, helper, numpy_helper

import export.pipeline
from export import precisions
from export.errors import FidelityError, GraphError, ParityError
from export.families.resnet import FAMILY
from export.fidelity import check_fidelity, compute_charge_w1
from export.float16_images import compute_float16_images
from export.graph import INT8_PASSES, apply_passes, list_passes, run_passes
from export.inference import compute_images, draw_feeds
from export.int8.correction import Line
from export.pipeline import ExportOptions, export_checkpoint
from export.precisions import _find_output_range, build_graph
from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.inference.cpu import detect_cpu
from pxdbg_runtime.model.card import Fidelity
from pxdbg_runtime.model.graph_file import read_graph_file
from pxdbg_runtime.sensors import N_SENSORS
from tests.checkpoints import FlatNet, flat_checkpoint, register_family
from tests.compiled_graphs import compile_graph
from tests.graphs import build_parity
from tests.release_digits import release
from tests.tiny_models import N_IMAGES, THRESHOLDS, Tiny, TinyConvNet, TinyResNet, build_once, few_images, tiny_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from export.graph import Pass
    from export.int8 import WeightBits
    from pxdbg_runtime.model.card import Precision, Target
    from pxdbg_runtime.model.graph_file import GraphFile

    ExportOnce = Callable[[Tiny, Precision, Target], "Exported"]

COMBINATIONS: Final[list[tuple[Precision, Target]]] = [
    ("float32", "cpu"),
    ("float32", "cuda"),
    ("float16", "cpu"),
    ("float16", "cuda"),
    ("int8", "cpu"),
]
BEYOND: Final = Fidelity(images=4, charge_w1_adu=0.31, occupancy_ratio=1.0, identical_digits=0.5)


@pytest.fixture
def convnet() -> Tiny:
    return tiny_of(TinyConvNet, 1)


@pytest.fixture(params=[(TinyConvNet, 1), (TinyResNet, 2)], ids=["convnet", "resnet"])
def tiny(request: pytest.FixtureRequest) -> Tiny:
    return tiny_of(*request.param)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported:
    """An exported file and the lines that were logged."""

    graph: GraphFile
    lines: tuple[str, ...]


@pytest.fixture(scope="module")
def export_once(tmp_path_factory: pytest.TempPathFactory) -> ExportOnce:
    """Export each small generator in each precision once, each to its own folder: do not change the files."""

    @functools.cache
    def export_tiny(tiny: Tiny, precision: Precision, target: Target) -> Exported:
        lines: list[str] = []
        folder = tmp_path_factory.mktemp("exported")
        accepts = precision != "float32"
        graph = tiny.export(folder, precision, target, accept_beyond_bounds=accepts, log=lines.append)
        return Exported(graph=graph, lines=tuple(lines))

    return export_tiny


def images_of(model: onnx.ModelProto, seed: int, n_images: int) -> NDArray[np.generic]:
    return np.concatenate(list(compute_images(model, draw_feeds(FAMILY, seed, n_images))))


def charges_of(values: NDArray[np.generic], thresholds: NDArray[np.float32] = THRESHOLDS) -> NDArray[np.int64]:
    return np.searchsorted(thresholds, values, side="right").astype(np.int64)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_fidelity_uses_twenty_events_that_the_calibration_does_not() -> None:
    assert precisions._FIDELITY_IMAGES == N_SENSORS * 20 == 800
    assert precisions._CALIBRATION_IMAGES == N_SENSORS * 2
    assert precisions._MATCHED_IMAGES == N_SENSORS * 8
    assert len({precisions._CALIBRATION_SEED, precisions._FIDELITY_SEED}) == 2


# Every precision and target


@pytest.mark.parametrize(("precision", "target"), COMBINATIONS)
@pytest.mark.slow
def test_card_file_and_images_agree(tiny: Tiny, export_once: ExportOnce, precision: Precision, target: Target) -> None:
    exported = export_once(tiny, precision, target)
    graph, lines = exported.graph, exported.lines
    suffix = "-cuda" if target == "cuda" else ""
    assert files_in(graph.path.parent) == [f"tiny-{precision}{suffix}.onnx"]
    assert read_graph_file(graph.path) == graph
    card, model = graph.card, onnx.load(graph.path)
    onnx.checker.check_model(model, full_check=True)
    assert (card.precision, card.target) == (precision, target)
    assert card.output_kind == ("charges" if target == "cuda" else "values")
    assert card.weight_bits == (7 if precision == "int8" else None)
    (output,) = model.graph.output
    element, images = output.type.tensor_type.elem_type, images_of(model, 5, 3)
    assert images.shape == (3, 250, 768)
    if target == "cuda":
        assert (element, images.dtype.name) == (TensorProto.UINT8, "uint8")
    else:
        assert (element, images.dtype.name) == (TensorProto.FLOAT, "float32")
        assert np.array_equal(images, images_of(build_once(tiny, precision, target).model, 5, 3))
    if precision == "float32":
        assert card.fidelity is None
        # ONNX Runtime 1.21 rounds otherwise than PyTorch (1.01e-5), but no worse.
        parity = card.parity
        is_no_worse = parity.max_float64_difference <= parity.pytorch_float64_difference
        assert parity.max_abs_difference <= 1e-5 or (release() < (1, 22) and is_no_worse), parity
        assert not any("digits against float32" in line for line in lines)
    else:
        assert card.fidelity is not None
        assert card.fidelity.images == N_IMAGES
        assert card.parity.max_abs_difference > 1e-5
        assert f"identical digits {100 * card.fidelity.identical_digits:.1f} %" in lines[-1]


@pytest.mark.parametrize(("precision", "target"), COMBINATIONS)
def test_passes_are_those_of_the_target(tiny: Tiny, precision: Precision, target: Target) -> None:
    tried = INT8_PASSES if precision == "int8" else list_passes(target, precision)
    changing = tuple(stage.name for stage in run_passes(tiny.plain, tried) if stage.n_changes)
    assert {"crop early"} < set(changing) < {each.name for each in tried}
    expected = {
        "float32": changing,
        "float16": (*changing, "half precision"),
        "int8": (*changing, "8-bit integers, channels last", "last layer and thresholds corrected"),
    }[precision]
    assert build_once(tiny, precision, target).passes == expected


@pytest.mark.parametrize(("precision", "target"), COMBINATIONS[2:])
def test_fidelity_is_that_of_the_images(tiny: Tiny, precision: Precision, target: Target) -> None:
    result = build_once(tiny, precision, target)
    seed = precisions._FIDELITY_SEED
    exact = charges_of(images_of(compile_graph(tiny.plain, target), seed, N_IMAGES))
    compute = compute_float16_images if precision == "float16" else compute_images
    images = np.concatenate(list(compute(result.model, draw_feeds(FAMILY, seed, N_IMAGES))))
    found = charges_of(images, result.thresholds)
    is_hit = (exact > 0) | (found > 0)
    assert 0.02 < is_hit.mean() < 0.5
    spectra = [np.bincount(each.ravel(), minlength=256) for each in (exact, found)]
    assert result.fidelity is not None
    assert result.fidelity.images == N_IMAGES
    assert result.fidelity.identical_digits == pytest.approx((exact == found)[is_hit].mean(), abs=1e-3)
    assert result.fidelity.occupancy_ratio == pytest.approx((found > 0).sum() / (exact > 0).sum(), abs=1e-3)
    assert result.fidelity.charge_w1_adu == pytest.approx(compute_charge_w1(*spectra), abs=1e-2)


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.slow
def test_charges_of_a_graph_for_cuda_are_those_of_its_values(
    tiny: Tiny, export_once: ExportOnce, precision: Precision
) -> None:
    graph = export_once(tiny, precision, "cuda").graph
    charges = images_of(onnx.load(graph.path), 6, 5)
    expected = charges_of(images_of(build_once(tiny, precision, "cuda").model, 6, 5))
    assert np.array_equal(charges, expected)
    assert len(np.unique(charges)) > 10, "the same charge everywhere would say nothing"
    assert graph.card.thresholds == tuple(THRESHOLDS.tolist())


@pytest.mark.parametrize(("precision", "target"), COMBINATIONS[2:])
def test_the_precisions_of_the_convnet_are_within_the_bounds(
    convnet: Tiny, export_once: ExportOnce, precision: Precision, target: Target
) -> None:
    fidelity = export_once(convnet, precision, target).graph.card.fidelity
    assert fidelity is not None
    assert fidelity.is_within_bounds
    check_fidelity(fidelity, precision, 1)


@pytest.mark.slow
def test_files_of_other_precisions_stay(convnet: Tiny, tmp_path: Path) -> None:
    convnet.export(tmp_path, "float16")
    convnet.export(tmp_path, "float16", "cuda")
    assert files_in(tmp_path) == ["tiny-float16-cuda.onnx", "tiny-float16.onnx"]


NEEDS_VNNI = pytest.mark.skipif(not detect_cpu().has_dot_products, reason="needs a CPU with VNNI")


@pytest.mark.parametrize(("weight_bits", "largest"), [(7, 64), pytest.param(8, 127, marks=NEEDS_VNNI)])
@pytest.mark.slow
def test_weight_bits_are_those_of_the_graph(
    convnet: Tiny, tmp_path: Path, weight_bits: WeightBits, largest: int
) -> None:
    lines: list[str] = []
    graph = convnet.export(tmp_path, "int8", weight_bits=weight_bits, accept_beyond_bounds=True, log=lines.append)
    assert graph.card.weight_bits == weight_bits
    assert f"calibrated on {N_IMAGES} images, corrected on {N_IMAGES}, weights of {weight_bits} bits" in lines
    weights = [
        numpy_helper.to_array(tensor)
        for tensor in onnx.load(graph.path).graph.initializer
        if tensor.name.endswith(".weight") and tensor.data_type == TensorProto.INT8
    ]
    assert len(weights) >= 7
    assert {int(np.abs(weight.astype(np.int64)).max()) for weight in weights} == {largest}


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_the_card_has_the_thresholds_of_its_graph(convnet: Tiny, export_once: ExportOnce, precision: Precision) -> None:
    table = np.array(export_once(convnet, precision, "cpu").graph.card.thresholds, dtype=np.float32)
    assert np.array_equal(table, build_once(convnet, precision, "cpu").thresholds)
    assert np.array_equal(table, THRESHOLDS) == (precision != "int8")


def test_the_last_layer_is_corrected_by_the_line_that_was_found(convnet: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    few_images(monkeypatch)
    values = []
    for offset in (0.0, 0.25):
        line = Line(slope=1.0, offset=offset)
        monkeypatch.setattr(precisions, "fit_line", lambda *_, line=line: line)
        model = build_graph(convnet.plain, FAMILY, "int8", "cpu", thresholds=THRESHOLDS, min_charge=1).model
        values.append(np.arctanh(images_of(model, 7, 2).astype(np.float64)))
    # Values at the ends of the range stay there.
    is_known = (values[0] > values[0].min() + 0.01) & (values[1] < values[1].max() - 0.01)
    assert is_known.mean() > 0.02
    assert np.abs(values[1] - values[0] - 0.25)[is_known].max() < 0.01


def test_without_rewriting_the_graph_is_the_exporters(
    convnet: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_graph: onnx.ModelProto) -> None:
        pytest.fail("the passes do not know compact weights")

    monkeypatch.setattr(export.pipeline, "store_compactly", refuse)
    graph = convnet.export(tmp_path, rewrite=False)
    assert onnx.load(graph.path).graph == convnet.plain.graph
    assert (graph.card.passes, graph.card.output_kind, graph.card.fidelity) == ((), "values", None)


# Refusals


@pytest.mark.parametrize(("precision", "target"), COMBINATIONS[1:])
def test_a_graph_that_is_not_rewritten_is_float32_for_the_cpu(
    convnet: Tiny, tmp_path: Path, precision: Precision, target: Target
) -> None:
    with pytest.raises(ArgumentValueError, match=r"rewrite=False is for float32 on the CPU: other") as caught:
        convnet.export(tmp_path / "graphs", precision, target, rewrite=False)
    assert caught.value.argument == "rewrite"
    assert files_in(tmp_path / "graphs") == []


def test_integers_for_cuda_are_refused_before_the_checkpoint_is_read(tmp_path: Path) -> None:
    match = r"int8 graphs consist of operators .* only for the CPU: use --target cpu\."
    with pytest.raises(ArgumentValueError, match=match) as caught:
        export_checkpoint(
            tmp_path / "gone.pt", "resnet", tmp_path / "graphs", ExportOptions(precision="int8", target="cuda")
        )
    assert caught.value.argument == "target"
    assert files_in(tmp_path / "graphs") == []


def test_integers_of_a_generator_without_convolutions_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_images(monkeypatch)
    register_family(monkeypatch, "flat", FlatNet)
    with pytest.raises(GraphError, match=r"int8 needs a generator that ends in a convolution, but this one has none"):
        export_checkpoint(flat_checkpoint(tmp_path), "flat", tmp_path / "graphs", ExportOptions(precision="int8"))
    assert files_in(tmp_path / "graphs") == []


@pytest.mark.parametrize(("precision", "target"), COMBINATIONS[2:])
def test_a_graph_beyond_the_bounds_is_written_only_if_that_is_accepted(
    convnet: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision, target: Target
) -> None:
    built = dataclasses.replace(build_once(convnet, precision, target), fidelity=BEYOND)
    monkeypatch.setattr(export.pipeline, "build_graph", lambda *_, **__: built)
    lines: list[str] = []
    with pytest.raises(FidelityError, match=f"The digits of the {precision} graph are too far .* 0.310 ADU") as caught:
        convnet.export(tmp_path / "graphs", precision, target, log=lines.append)
    assert caught.value.fidelity == BEYOND
    assert files_in(tmp_path / "graphs") == []
    assert lines[-1] == (
        "digits against float32, 4 images: W1 of the charge spectrum 0.310 ADU, occupancy +0.00 %, "
        "identical digits 50.0 %"
    )
    graph = convnet.export(tmp_path / "graphs", precision, target, accept_beyond_bounds=True)
    assert graph.card.fidelity == BEYOND
    assert files_in(tmp_path / "graphs") == [graph.path.name]


def test_a_refused_graph_leaves_the_older_one(
    convnet: Tiny, export_once: ExportOnce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = read_graph_file(Path(shutil.copy(export_once(convnet, "int8", "cpu").graph.path, tmp_path)))
    monkeypatch.setattr(precisions, "measure_fidelity", lambda *_: structs.replace(BEYOND, occupancy_ratio=1.2))
    with pytest.raises(FidelityError, match=r"occupancy \+20\.00 %"):
        convnet.export(tmp_path, "int8", overwrite=True)
    assert read_graph_file(older.path) == older


@pytest.mark.parametrize(("precision", "target"), COMBINATIONS)
def test_a_rewritten_graph_must_still_be_pytorchs(
    convnet: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision, target: Target
) -> None:
    def shift_weights(plain: onnx.ModelProto, passes: tuple[Pass, ...]) -> tuple[onnx.ModelProto, tuple[str, ...]]:
        model, names = apply_passes(plain, passes)
        for tensor in model.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 4:
                shifted = numpy_helper.to_array(tensor) * np.float32(1.01)
                tensor.CopyFrom(numpy_helper.from_array(shifted, tensor.name))
        return model, names

    monkeypatch.setattr(precisions, "apply_passes", shift_weights)
    with pytest.raises(ParityError, match="nothing was written"):
        convnet.export(tmp_path / "graphs", precision, target, accept_beyond_bounds=precision != "float32")
    assert files_in(tmp_path / "graphs") == []


@pytest.mark.parametrize(("precision", "target"), COMBINATIONS)
def test_images_that_are_no_numbers_are_never_accepted(
    convnet: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision, target: Target
) -> None:
    parity = build_parity(math.inf)
    monkeypatch.setattr(export.pipeline, "measure_parity", lambda *_: parity)
    with pytest.raises(ParityError, match=r"in float64 by up to inf, .* nothing was written"):
        convnet.export(tmp_path / "graphs", precision, target, accept_beyond_bounds=precision != "float32")
    assert files_in(tmp_path / "graphs") == []


@pytest.mark.parametrize("seen", [-1.5, -0.4, -0.1, 0.3, 0.9])
def test_the_range_of_the_last_layer_goes_beyond_what_was_seen(seen: float) -> None:
    convolution = helper.make_node("Conv", ["image", "weight"], ["values"])
    graph = onnx.ModelProto(graph=onnx.GraphProto(node=[convolution]))
    found = _find_output_range(graph, {"values": (-3.0, seen)}, THRESHOLDS, 1)
    assert found.high > max(seen, found.low)
