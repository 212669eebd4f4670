"""``python -m export``: output, exit codes, and one sentence for each error."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from export import precisions
from export.__main__ import app
from export.checkpoint.nature_mark import MARKED_PROVENANCES, MarkedNature, build_mark, read_mark
from export.graph import INT8_PASSES
from pxdbg_runtime.inference.cpu import detect_cpu
from pxdbg_runtime.model.card import Fidelity
from pxdbg_runtime.model.graph_file import read_graph_file
from tests.checkpoints import light_state, random_model, register_family, save, save_safetensors
from tests.tiny_models import TinyConvNet, few_images, tiny_of

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKOUT: Final = Path(__file__).resolve().parent.parent
SOUND: Final = ("a.pt", "--family", "resnet", "--output", "graphs")
"""Valid arguments; the file does not exist."""


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def words(text: str) -> str:
    """Drop the frames and line breaks that depend on the width of the terminal."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


@pytest.fixture
def tiny_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the checkpoint of a small generator, registered as a ConvNet."""
    tiny = tiny_of(TinyConvNet, 1)
    few_images(monkeypatch)
    register_family(monkeypatch, "convnet", TinyConvNet)
    tiny.use_known(monkeypatch)
    return Path(shutil.copy(tiny.checkpoint, tmp_path))


DIFFERENCES: Final = (
    r"differences from float64: \S+ by the rounding of weights, \S+ of the unchanged graph in ONNX Runtime"
)


def require_success(output: str, graph: Path, n_parameters: str) -> None:
    lines = [line for line in output.splitlines() if not line.startswith("took the state dict at ")]
    assert len(lines) == 5
    assert n_parameters in lines[0]
    assert re.fullmatch(r"exported to ONNX, opset 18, \d+ nodes", lines[1])
    told = re.fullmatch(
        r"ONNX Runtime against PyTorch, 8 images: largest difference (\d\.\d\de[+-]\d\d), from float64 \S+ "
        r"\(PyTorch's own \S+\), equal charges of hits (\d+\.\d{3}) %",
        lines[2],
    )
    assert told is not None, lines[2]
    assert float(told[1]) <= 1e-5
    assert 99.9 < float(told[2]) <= 100
    assert re.fullmatch(DIFFERENCES, lines[3]), lines[3]
    found = read_graph_file(graph)
    assert lines[4] == f"wrote {graph}: {found.size / 1e6:.1f} MB, SHA-256 {found.sha256}"


def test_a_checkpoint_is_exported(tmp_path: Path, tiny_checkpoint: Path) -> None:
    checkpoint = save({"ema": torch.load(tiny_checkpoint), "model": {}}, tmp_path / "generator.pt")
    result = invoke(
        *(checkpoint, "--family", "convnet", "--output", tmp_path / "graphs", "--name", "mine", "--state-key", "ema"),
        *("--provenance", "From [somewhere].", "--nature", "demonstration"),
    )
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    graph = tmp_path / "graphs" / "mine-float32.onnx"
    require_success(result.stdout, graph, "convnet, 114,736 parameters")
    assert "took the state dict at ema\n" in result.stdout
    card = read_graph_file(graph).card
    assert (card.name, card.family, card.nature, card.provenance) == (
        "mine",
        "convnet",
        "demonstration",
        "From [somewhere].",
    )


@pytest.mark.parametrize(
    ("mark", "options", "nature", "provenance"),
    [
        ("demonstration", (), "demonstration", MARKED_PROVENANCES["demonstration"]),
        ("demonstration", ("--provenance", "Mine."), "demonstration", "Mine."),
        ("demonstration", ("--nature", "stand-in", "--provenance", "Mine."), "stand-in", "Mine."),
        ("stand-in", (), "stand-in", MARKED_PROVENANCES["stand-in"]),
    ],
)
def test_random_weights_and_stand_ins_are_never_called_a_checkpoint(
    tmp_path: Path, tiny_checkpoint: Path, mark: MarkedNature, options: tuple[str, ...], nature: str, provenance: str
) -> None:
    path = tmp_path / "random.safetensors"
    save_file(torch.load(tiny_checkpoint), path, metadata=build_mark(mark))
    result = invoke(path, "--family", "convnet", "--output", tmp_path, *options)
    assert (result.exit_code, result.stderr) == (0, "")
    card = read_graph_file(tmp_path / "random-float32.onnx").card
    assert (card.nature, card.provenance) == (nature, provenance)
    assert (f"the card says {nature}, not checkpoint\n" in result.stdout) == ("--nature" not in options)


def test_a_file_without_a_known_mark_is_a_checkpoint(tmp_path: Path, tiny_checkpoint: Path) -> None:
    save_file(torch.load(tiny_checkpoint), tmp_path / "a.safetensors", metadata={"format": "pt"})
    save_file(torch.load(tiny_checkpoint), tmp_path / "b.safetensors", metadata={"pxdbg_nature": "else"})
    (tmp_path / "c.safetensors").write_bytes(b"")
    assert [read_mark(tmp_path / f"{name}.safetensors") for name in "abcd"] == [None] * 4
    assert read_mark(tiny_checkpoint) is None


AS_A_PROGRAM: Final = """
import runpy
import pytest
from tests.checkpoints import SmallNet, register_family
register_family(pytest.MonkeyPatch(), "resnet", SmallNet)
runpy.run_module("export", run_name="__main__", alter_sys=True)
"""
"""``python -m export`` with a minimal generator."""


@pytest.mark.slow
def test_the_module_runs_as_a_program(tmp_path: Path) -> None:
    checkpoint = save_safetensors(random_model("small").state_dict(), tmp_path / "generator.safetensors")
    command = [sys.executable, "-c", AS_A_PROGRAM, str(checkpoint), "--family", "resnet", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    require_success(done.stdout, tmp_path / "generator-float32.onnx", "resnet, 1,231 parameters")


# Precisions and targets


def run_export(checkpoint: Path, *options: str) -> Result:
    return invoke(checkpoint, "--family", "convnet", "--output", checkpoint.parent / "graphs", *options)


def test_int8_is_exported_and_explained(tiny_checkpoint: Path) -> None:
    graphs = tiny_checkpoint.parent / "graphs"
    done = run_export(tiny_checkpoint, "--precision", "int8", "--explain")
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line[:30].rstrip() for line in lines[3:-8]] == ["plain", *(each.name for each in INT8_PASSES)]
    assert lines[2].split("  ")[0] == "pass"
    digits = r"W1 of the charge spectrum 0\.\d{3} ADU, occupancy [+-]\d\.\d\d %, identical digits \d\d\.\d %"
    expected = (
        DIFFERENCES,
        r"building the int8 graph and comparing 4 images with float32: about \d+ s",
        r"calibrated on 4 images, corrected on 4, weights of 7 bits",
        r"compared with float32: 2 of 4 images",
        r"compared with float32: 4 of 4 images",
        r"ONNX Runtime against PyTorch, 8 images: .*",
        rf"digits against float32, 4 images: {digits}",
        r"wrote \S+/graphs/tiny-int8\.onnx: \d\.\d MB, SHA-256 [0-9a-f]{64}",
    )
    for line, pattern in zip(lines[-8:], expected, strict=True):
        assert re.fullmatch(pattern, line), line
    card = read_graph_file(graphs / "tiny-int8.onnx").card
    assert (card.precision, card.target, card.output_kind, card.weight_bits) == ("int8", "cpu", "values", 7)


@pytest.mark.parametrize(
    ("options", "name", "expected"),
    [
        ((), "tiny-float32.onnx", ("float32", "cpu", "values", None)),
        (("--target", "cuda"), "tiny-float32-cuda.onnx", ("float32", "cuda", "charges", None)),
        (("--precision", "float16"), "tiny-float16-cuda.onnx", ("float16", "cuda", "charges", None)),
        (("--precision", "float16", "--target", "cpu"), "tiny-float16.onnx", ("float16", "cpu", "values", None)),
        pytest.param(
            ("--precision", "int8", "--weight-bits", "8"),
            "tiny-int8.onnx",
            ("int8", "cpu", "values", 8),
            marks=pytest.mark.skipif(not detect_cpu().has_dot_products, reason="needs a CPU with VNNI"),
        ),
    ],
    ids=["float32", "float32-cuda", "float16", "float16-cpu", "int8-8"],
)
def test_float16_is_for_cuda_and_all_else_for_the_cpu_unless_told_otherwise(
    tiny_checkpoint: Path, options: tuple[str, ...], name: str, expected: tuple[str | int | None, ...]
) -> None:
    result = run_export(tiny_checkpoint, *options)
    assert (result.exit_code, result.stderr) == (0, "")
    (path,) = (tiny_checkpoint.parent / "graphs").iterdir()
    card = read_graph_file(path).card
    assert path.name == name
    assert (card.precision, card.target, card.output_kind, card.weight_bits) == expected


def test_int8_for_cuda_is_one_sentence_and_exit_code_2(tiny_checkpoint: Path) -> None:
    result = run_export(tiny_checkpoint, "--precision", "int8", "--target", "cuda")
    assert result.exit_code == 2
    assert result.stderr == (
        "Error: int8 graphs consist of operators that ONNX Runtime has only for the CPU: use --target cpu.\n"
    )
    assert result.stdout == ""
    assert not (tiny_checkpoint.parent / "graphs").exists()


@pytest.mark.slow
def test_a_graph_beyond_the_bounds_is_refused_unless_that_is_accepted(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beyond = Fidelity(images=4, charge_w1_adu=0.5, occupancy_ratio=0.9, identical_digits=0.25)
    monkeypatch.setattr(precisions, "measure_fidelity", lambda *_: beyond)
    refused = run_export(tiny_checkpoint, "--precision", "int8")
    assert refused.exit_code == 1
    assert refused.stderr == (
        "Error: The digits of the int8 graph are too far from float32's: W1 of the charge spectrum 0.500 ADU "
        "(below 0.3 "
        "is allowed), occupancy -10.00 % (within 1 %). Nothing was written; --accept-beyond-bounds writes the "
        "graph all "
        "the same.\n"
        "See docs/export.md#what-is-checked\n"
    )
    assert not (tiny_checkpoint.parent / "graphs").exists()
    accepted = run_export(tiny_checkpoint, "--precision", "int8", "--accept-beyond-bounds")
    assert (accepted.exit_code, accepted.stderr) == (0, "")
    assert read_graph_file(tiny_checkpoint.parent / "graphs" / "tiny-int8.onnx").card.fidelity == beyond


# Bad input


def missing(folder: Path) -> Path:
    return folder / "gone.pt"


def empty(folder: Path) -> Path:
    (folder / "empty.pt").touch()
    return folder / "empty.pt"


def of_the_other_model(folder: Path) -> Path:
    return save(light_state("convnet"), folder / "other.pt")


def with_nan(folder: Path) -> Path:
    return save(light_state("resnet") | {"fc.bias": torch.full((49_152,), torch.nan)}, folder / "nan.pt")


def with_two_state_dicts(folder: Path) -> Path:
    return save({"model": light_state("resnet"), "ema": light_state("resnet")}, folder / "two.pt")


def with_brackets(folder: Path) -> Path:
    return folder / "[bold]gone[/bold].pt"


def whole_module(folder: Path) -> Path:
    return save(torch.nn.Linear(1, 1), folder / "module.pt")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (missing, r"The checkpoint \S+/gone\.pt cannot be read: No such file or directory\."),
        (empty, r"The checkpoint \S+/empty\.pt is empty: it was not completely written or copied; .*"),
        (of_the_other_model, r"The checkpoint \S+ is of the family convnet, not resnet: pass --family convnet\."),
        (with_nan, r"The checkpoint \S+ holds nan in fc\.bias: every value must be finite in float32\."),
        (with_two_state_dicts, r"The checkpoint \S+ holds several state dicts, .*: choose with --state-key\."),
        (with_brackets, r"The checkpoint \S+/\[bold\]gone\[/bold\]\.pt cannot be read: No such file or directory\."),
        (
            whole_module,
            (
                r"The checkpoint \S+ contains code \(torch\.nn\S+\), which is never run: it holds "
                r"a whole model; save the .*"
            ),
        ),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_1(tmp_path: Path, make: Callable[[Path], Path], expected: str) -> None:
    result = invoke(make(tmp_path), "--family", "resnet", "--output", tmp_path / "graphs", "--name", "mine")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert re.fullmatch(f"Error: {expected}\n", result.stderr), result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "graphs").exists()


def test_a_bad_name_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    checkpoint = save(light_state("resnet"), tmp_path / "generator.pt")
    result = invoke(checkpoint, "--family", "resnet", "--output", tmp_path / "graphs", "--name", "a/b")
    assert result.exit_code == 2
    expected = (
        "Error: --name must start with a letter or digit and hold only ASCII letters, digits, '.', '_' and '-', but is "
        "'a/b'.\n"
    )
    assert (result.stdout, result.stderr) == ("", expected)


def test_the_program_shows_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "export", "gone.pt", "--family", "resnet", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: The checkpoint gone.pt cannot be read: No such file or directory.\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("a.pt", "--family", "vae", "--output", "graphs"), r"'vae' is not one of 'convnet', 'resnet'"),
        (("a.pt", "--family", "resnet"), r"Missing option '--output'"),
        (("a.pt", "--output", "graphs"), r"Missing option '--family'"),
        (("a.pt", "--family", "resnet", "--output", "graphs", "--colour", "red"), r"No such option: --colour"),
        (
            ("a.pt", "--family", "resnet", "--output", "graphs", "--nature", "good"),
            r"'good' is not one of 'checkpoint'",
        ),
        ((*SOUND, "--precision", "float64"), r"'float64' is not one of 'float32', 'float16', 'int8'"),
        ((*SOUND, "--precision", "int8", "--target", "tpu"), r"'tpu' is not one of 'cpu', 'cuda'"),
        ((*SOUND, "--precision", "int8", "--weight-bits", "6"), r"Invalid value for '--weight-bits': .*7"),
        ((*SOUND, "--precision", "int8", "--weight-bits", "9"), r"Invalid value for '--weight-bits': .*8"),
        ((*SOUND, "--precision", "int8", "--weight-bits", "7.5"), r"Invalid value for '--weight-bits': .*integer"),
        ((), r"Missing option '--(family|output)'"),
    ],
)
def test_bad_usage_is_exit_code_2(arguments: tuple[str, ...], expected: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert re.search(expected, words(result.stderr)), result.stderr
    assert "Traceback" not in result.stderr


def test_help_explains_itself_with_an_example() -> None:
    result = CliRunner(env={"COLUMNS": "160"}).invoke(app, ["--help"])
    text = words(result.stdout)
    assert result.exit_code == 0
    assert "Example: python -m export generator.pt --family resnet --output graphs --name resnet-2026" in text
    options = ("--family", "--output", "--name", "--state-key", "--provenance", "--nature", "--precision", "--target")
    for option in (*options, "--weight-bits", "--accept-beyond-bounds", "--explain"):
        assert option in text
    assert "its images may differ from the model's by 1.5 times the rounding of PyTorch's float32" in text
    assert "ONNX Runtime's rounding is more than twice both PyTorch's and that of the unchanged graph" in text
    assert "reaches 0.3 ADU or the occupancy differs by more than 1 %" in text
    assert "cpu, for float16 cuda" in text
