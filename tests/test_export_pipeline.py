"""The whole export with a minimal generator: a correct graph is written, any other leaves no file."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

import export.pipeline
from export.__main__ import app
from export.checkpoint import load_checkpoint, load_with_path
from export.errors import CheckpointError, GraphError, ParityError
from export.families import load_family
from export.graph import INT8_PASSES, append_charges, list_passes
from export.parity import ReferenceImages, measure_parity
from export.pipeline import ExportOptions, export_checkpoint
from export.torch_graph import export_to_onnx
from pxdbg_runtime import Generator
from pxdbg_runtime.errors import ArgumentTypeError, ArgumentValueError, OutputError
from pxdbg_runtime.model.graph_file import read_graph_file
from tests.checkpoints import FlatNet, flat_checkpoint, light_state, register_family, save, use_known_flat_graph
from tests.graphs import build_parity
from tests.isolation import limit_file_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from export.families import Family
    from export.families.generator_module import GeneratorModule
    from export.graph import Pass
    from pxdbg_runtime.model.card import Parity, Target


@pytest.fixture(autouse=True)
def flat_family(monkeypatch: pytest.MonkeyPatch) -> None:
    register_family(monkeypatch, "flat", FlatNet)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return flat_checkpoint(tmp_path)


@pytest.fixture
def exported_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of later steps."""
    use_known_flat_graph(monkeypatch)


@pytest.fixture
def never_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        pytest.fail("the checkpoint is read before the output is checked")

    monkeypatch.setattr(export.pipeline, "load_with_path", fail)


def shift_weights(model: GeneratorModule, family: Family) -> onnx.ModelProto:
    """Export a model with a shifted bias."""
    graph = export_to_onnx(model, family)
    (bias,) = (each for each in graph.graph.initializer if tuple(each.dims) == (768,))
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 1e-4, bias.name))
    return graph


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_graph_is_written_and_each_step_lines(checkpoint: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    graph = export_checkpoint(checkpoint, "flat", tmp_path / "a" / "b", log=lines.append)
    assert files_in(tmp_path / "a" / "b") == ["flat-0-float32.onnx"]
    assert graph == read_graph_file(tmp_path / "a" / "b" / "flat-0-float32.onnx")
    assert (graph.card.name, graph.card.nature) == ("flat-0", "checkpoint")
    assert graph.card.checkpoint_sha256 == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert graph.card.provenance == "Weights of the checkpoint flat-0.pt."
    assert [line.split(":")[0].split(",")[0] for line in lines] == [
        f"read {checkpoint}",
        "exported to ONNX",
        "ONNX Runtime against PyTorch",
        "differences from float64",
    ]
    assert "flat, 74,496 parameters" in lines[0]


@pytest.mark.usefixtures("exported_before")
@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_a_cut_is_applied_in_every_graph(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Target
) -> None:
    family = dataclasses.replace(load_family("flat"), cut=-0.26, min_charge=1)
    register_family(monkeypatch, "flat", family)
    graph = export_checkpoint(checkpoint, "flat", tmp_path, ExportOptions(target=target))
    assert graph.card.cut == -0.26
    answers = graph.card.known_answers
    assert answers is not None
    assert answers.tolerance <= (1e-4 if target == "cpu" else 8), "the references have the same cut"
    charges = np.concatenate([Generator(graph.path, provider="cpu", seed=seed).generate_images(0) for seed in (1, 2)])
    assert np.unique(charges)[:3].tolist() == [0, 6, 7]


def test_options_reach_the_card(tmp_path: Path) -> None:
    model = FlatNet().state_dict()
    checkpoint = save({"model": {key: value * 0 for key, value in model.items()}, "ema": model}, tmp_path / "a.pt")
    graph = export_checkpoint(
        checkpoint,
        "flat",
        tmp_path / "graphs",
        ExportOptions(
            name="Flat_1.5-b",
            state_key="ema",
            nature="stand-in",
            provenance="Trained nowhere.",
            min_charge=np.int64(7),  # type: ignore[arg-type]
        ),
    )
    assert graph.path == tmp_path / "graphs" / "Flat_1.5-b-float32.onnx"
    assert (graph.card.name, graph.card.nature) == ("Flat_1.5-b", "stand-in")
    assert graph.card.provenance == "Trained nowhere."
    assert (graph.card.min_charge, type(graph.card.min_charge)) == (7, int)
    weights = [onnx.numpy_helper.to_array(each) for each in onnx.load(graph.path).graph.initializer]
    assert any(weight.size == 768 * 96 and weight.any() for weight in weights)


@pytest.mark.usefixtures("exported_before")
def test_the_card_says_which_state_dict_of_the_file_was_exported(checkpoint: Path, tmp_path: Path) -> None:
    state = load_checkpoint(checkpoint, "flat").state_dict()
    two = save({"g": {key: value * 0 for key, value in state.items()}, "g_ema": {"module": state}}, tmp_path / "two.pt")
    graph = export_checkpoint(two, "flat", tmp_path / "graphs", ExportOptions(state_key="g_ema"))
    assert graph.card.provenance == "Weights at g_ema.module of the checkpoint two.pt."


@pytest.mark.usefixtures("exported_before")
def test_an_older_graph_is_replaced_if_told_so(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "graphs"
    first = export_checkpoint(checkpoint, "flat", folder, ExportOptions(name="same"))
    same_weights = load_checkpoint(checkpoint, "flat").state_dict()
    other = save({"model": same_weights}, tmp_path / "other.pt")
    with monkeypatch.context() as patched:
        patched.setattr(export.pipeline, "load_with_path", lambda *_, **__: pytest.fail("the refusal comes too late"))
        expected = rf"^{first.path} exists: name another file to write, or replace it with --overwrite\.$"
        with pytest.raises(OutputError, match=expected):
            export_checkpoint(other, "flat", folder, ExportOptions(name="same"))
    assert read_graph_file(first.path) == first
    second = export_checkpoint(other, "flat", folder, ExportOptions(name="same", overwrite=True))
    assert files_in(folder) == ["same-float32.onnx"]
    assert first.card.checkpoint_sha256 != second.card.checkpoint_sha256
    assert read_graph_file(folder / "same-float32.onnx") == second


@pytest.mark.usefixtures("exported_before")
def test_the_wheel_of_onnx_runtime_may_have_another_name(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_version(package: str) -> str:
        if package == "onnxruntime":
            raise importlib.metadata.PackageNotFoundError(package)
        return "1.0"

    monkeypatch.setattr(importlib.metadata, "version", find_version)
    card = export_checkpoint(checkpoint, "flat", tmp_path / "graphs").card
    versions = {each.package: each.version for each in card.made_with}
    assert (versions["onnxruntime"], versions["torch"]) == (onnxruntime.__version__, "1.0")


# Refusals


def test_a_graph_that_differs_is_not_written(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export.pipeline, "export_to_onnx", shift_weights)
    lines: list[str] = []
    with pytest.raises(ParityError, match=r"in float64 by up to .* nothing was written"):
        export_checkpoint(checkpoint, "flat", tmp_path / "new" / "graphs", log=lines.append)
    assert not (tmp_path / "new").exists()
    assert "largest difference" in lines[-1]


def test_images_that_are_not_finite_in_pytorch_are_blamed_on_the_checkpoint(tmp_path: Path) -> None:
    state = FlatNet().state_dict()
    state["fc.weight"] = 3e38 * state["fc.weight"].sign()  # finite, but their sums are not
    checkpoint = save(state, tmp_path / "steep.pt")
    expected = r"^The checkpoint \S+steep\.pt gives images that are not finite in PyTorch itself, in float32: "
    with pytest.raises(CheckpointError, match=expected):
        export_checkpoint(checkpoint, "flat", tmp_path / "graphs")
    assert files_in(tmp_path / "graphs") == []


def test_a_checkpoint_that_is_replaced_while_it_is_read_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = save({**FlatNet().state_dict(), "a_counter": torch.tensor(1)}, tmp_path / "other.pt")

    def load_and_replace(
        path: Path, family: str, *, state_key: str | None, log: Callable[[str], None]
    ) -> tuple[GeneratorModule, str]:
        loaded = load_with_path(path, family, state_key=state_key, log=log)
        other.replace(path)
        return loaded

    monkeypatch.setattr(export.pipeline, "load_with_path", load_and_replace)
    with pytest.raises(CheckpointError, match=r"flat-0\.pt changed while it was read: export it again when nothing "):
        export_checkpoint(checkpoint, "flat", tmp_path / "graphs")
    assert files_in(tmp_path / "graphs") == []


@pytest.mark.parametrize("min_charge", [0, 256])
def test_a_smallest_charge_out_of_range_is_refused_first(tmp_path: Path, min_charge: int) -> None:
    match = rf"^min_charge must lie between 1 and 255 ADU, but is {min_charge}\.$"
    with pytest.raises(ArgumentValueError, match=match):
        export_checkpoint(tmp_path / "gone.pt", "flat", tmp_path / "graphs", ExportOptions(min_charge=min_charge))
    with pytest.raises(ArgumentTypeError, match=r"^min_charge must be an integer, but is 7\.0 \(float\)"):
        export_checkpoint(tmp_path / "gone.pt", "flat", tmp_path / "graphs", ExportOptions(min_charge=7.0))  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_same_checkpoint_gives_the_same_file(checkpoint: Path, tmp_path: Path) -> None:
    first, second = (export_checkpoint(checkpoint, "flat", tmp_path / folder).path for folder in "ab")
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.usefixtures("exported_before")
@pytest.mark.parametrize("difference", [5.1e-6, math.inf, math.nan])
def test_parity_beyond_the_limit_is_refused_and_the_older_graph_stays(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, difference: float
) -> None:
    folder = tmp_path / "graphs"
    older = export_checkpoint(checkpoint, "flat", folder)
    monkeypatch.setattr(export.pipeline, "measure_parity", lambda *_: build_parity(difference))
    with pytest.raises(ParityError, match="nothing was written"):
        export_checkpoint(checkpoint, "flat", folder, ExportOptions(overwrite=True))
    assert files_in(folder) == ["flat-0-float32.onnx"]
    assert read_graph_file(older.path) == older


@pytest.mark.usefixtures("exported_before")
def test_a_graph_may_be_as_far_from_float64_as_the_unchanged_one_on_this_machine(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The ResNet stand-in for CUDA on a CPU without AVX-512.
    monkeypatch.setattr(export.pipeline, "measure_parity", lambda *_: build_parity(1.04e-4, 3.34e-5))
    with pytest.raises(ParityError, match=r"up to 0\.000104, more than the 6\.68e-05"):
        export_checkpoint(checkpoint, "flat", tmp_path / "graphs")
    assert files_in(tmp_path / "graphs") == []
    monkeypatch.setattr(export.pipeline, "measure_float64_difference", lambda *_: 1.04e-4)
    assert export_checkpoint(checkpoint, "flat", tmp_path / "graphs").path.exists()


@pytest.mark.usefixtures("exported_before")
@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_a_graph_that_does_not_compute_the_model_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Target
) -> None:
    monkeypatch.setattr(export.pipeline, "measure_exact_difference", lambda *_: 1.1e-6)
    monkeypatch.setattr(export.pipeline, "measure_parity", lambda *_: build_parity(1e-8))
    with pytest.raises(ParityError, match="does not compute the model"):
        export_checkpoint(checkpoint, "flat", tmp_path / "graphs", ExportOptions(target=target))
    assert files_in(tmp_path / "graphs") == []


@pytest.mark.usefixtures("exported_before")
def test_a_graph_with_wrong_charges_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        export.pipeline, "append_charges", lambda graph, table: append_charges(graph, table - np.float32(0.01))
    )
    with pytest.raises(GraphError, match=r"wrong charges of its values in [\d,]+ of 1,536,000 pixels, by up to \d+ "):
        export_checkpoint(checkpoint, "flat", tmp_path / "graphs", ExportOptions(target="cuda"))
    assert files_in(tmp_path / "graphs") == []


@pytest.mark.usefixtures("exported_before")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (ExportOptions(precision="int8"), INT8_PASSES),
        (ExportOptions(precision="float16", target="cuda"), list_passes("cuda", "float16")),
        (ExportOptions(precision="float16"), list_passes("cpu", "float16")),
        (ExportOptions(rewrite=False), ()),
    ],
    ids=["int8", "float16-cuda", "float16", "plain"],
)
def test_the_passes_of_the_graph_itself_are_explained(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: ExportOptions,
    expected: tuple[Pass, ...],
) -> None:
    def stop_after_explanation(*_arguments: object, **_options: object) -> None:
        raise GraphError("stopped")

    for name in ("build_graph", "_verify"):
        monkeypatch.setattr(export.pipeline, name, stop_after_explanation)
    lines: list[str] = []
    with pytest.raises(GraphError, match=r"^stopped$"):
        export_checkpoint(checkpoint, "flat", tmp_path, dataclasses.replace(options, explain=True), log=lines.append)
    assert [line[:30].rstrip() for line in lines[3:]] == ["plain", *(each.name for each in expected)]


@pytest.mark.usefixtures("exported_before")
def test_nan_images_of_both_sides_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_nan(
        references: ReferenceImages,
        graph: onnx.ModelProto,
        thresholds: NDArray[np.float32],
        min_charge: int,
        cut: float | None,
    ) -> Parity:
        nan = dataclasses.replace(
            references, **{name: getattr(references, name) * math.nan for name in ("exact", "float32", "folded")}
        )
        return measure_parity(nan, graph, thresholds, min_charge, cut)

    monkeypatch.setattr(export.pipeline, "measure_parity", with_nan)
    with pytest.raises(ParityError, match="by up to inf"):
        export_checkpoint(flat_checkpoint(tmp_path), "flat", tmp_path / "graphs")
    assert files_in(tmp_path / "graphs") == []


def test_an_unsound_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        export_checkpoint(tmp_path / "gone.pt", "flat", tmp_path / "graphs")
    with pytest.raises(CheckpointError, match="is of the family resnet, not flat"):
        export_checkpoint(save(light_state("resnet"), tmp_path / "resnet.pt"), "flat", tmp_path / "graphs")
    assert not (tmp_path / "graphs").exists()


@pytest.mark.usefixtures("never_loaded")
def test_a_name_too_long_for_a_file_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot be written: File name too long"):
        export_checkpoint(checkpoint, "flat", tmp_path / "new" / "graphs", ExportOptions(name="n" * 300))
    with pytest.raises(OutputError, match=r"^The folder .*nnn cannot be made: File name too long"):
        export_checkpoint(checkpoint, "flat", tmp_path / "new" / ("n" * 300))
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("never_loaded")
def test_a_file_in_the_way_of_the_folder_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "graphs").write_text("in the way")
    with pytest.raises(OutputError, match=r"The folder .*graphs cannot be made: File exists") as caught:
        export_checkpoint(checkpoint, "flat", tmp_path / "graphs")
    assert caught.value.path == tmp_path / "graphs"
    with pytest.raises(OutputError, match=r"The folder .*below cannot be made: Not a directory"):
        export_checkpoint(checkpoint, "flat", tmp_path / "graphs" / "below")
    assert (tmp_path / "graphs").read_text() == "in the way"


@pytest.mark.usefixtures("never_loaded")
def test_a_folder_in_the_way_of_the_graph_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "graphs" / "flat-0-float32.onnx").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"flat-0-float32\.onnx is a folder"):
        export_checkpoint(checkpoint, "flat", tmp_path / "graphs")
    assert files_in(tmp_path / "graphs") == ["flat-0-float32.onnx"]


@pytest.mark.usefixtures("exported_before")
def test_a_failing_rename_leaves_nothing(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: Path, _target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OutputError, match=r"flat-0-float32\.onnx cannot be written: Permission denied"):
        export_checkpoint(checkpoint, "flat", tmp_path / "graphs")
    assert files_in(tmp_path / "graphs") == []


def test_a_full_disk_is_said_in_one_sentence_and_leaves_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_family(monkeypatch, "resnet", FlatNet)
    folder = tmp_path / "graphs"
    folder.mkdir()
    (folder / "flat-0-float32.onnx").write_text("an older graph")
    with limit_file_size(200_000):  # the weights take 300 kB
        arguments = [str(checkpoint), "--family", "resnet", "--output", str(folder), "--overwrite"]
        done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert done.stderr == f"Error: {folder}/flat-0-float32.onnx cannot be written: File too large.\n"
    assert "largest difference" in done.stdout
    assert files_in(folder) == ["flat-0-float32.onnx"]
    assert (folder / "flat-0-float32.onnx").read_text() == "an older graph"
