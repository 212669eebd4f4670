"""The commands of ``python -m benchmarks``, and the folder of their graphs."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest
from typer.testing import CliRunner

from benchmarks import graphs as graphs_module
from benchmarks.__main__ import app
from benchmarks.events import compute_images
from benchmarks.graphs import Workspace
from pxdbg_runtime.errors import MissingPackageError, OutputError
from pxdbg_runtime.inference.session import ImageSession
from tests.checkpoints import FlatNet, random_model
from tests.graphs import LATENT_CARD, latent_model, write_graph
from tests.test_command_line import words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typer.testing import Result

    from export.pipeline import ExportOptions
    from pxdbg_runtime.digitisation.digitiser import Images
    from pxdbg_runtime.model.graph_file import GraphFile

CHECKOUT: Final = Path(__file__).resolve().parent.parent
COMMANDS: Final = (
    "peers",
    "gpu",
    "providers",
    "kernels",
    "memory",
    "startup",
    "scaling",
    "basf2",
    "passes",
    "formats",
    "profile",
)
HEAVY: Final = {"torch", "onnx", "onnx_ir", "onnxruntime", "openvino", "numba", "matplotlib", "ROOT"}


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def measure(tmp_path: Path, *arguments: str | Path) -> tuple[Result, dict[str, Any]]:
    """Run a benchmark; give its result and the content of its JSON file."""
    result = invoke(*arguments, "--json", tmp_path / "measured.json")
    assert result.exit_code == 0, result.stderr
    return result, json.loads((tmp_path / "measured.json").read_text())


@pytest.fixture
def _tiny(latent_graph: GraphFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace every graph by one that takes no time."""
    monkeypatch.setattr(Workspace, "find_graph", lambda *_arguments, **_options: latent_graph)


@pytest.fixture
def _digests_anew() -> Iterator[None]:
    """Forget the digest of the export before and after a test that changes it."""
    graphs_module._digest_export.cache_clear()
    yield
    graphs_module._digest_export.cache_clear()


def test_help_lists_the_commands_and_imports_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "benchmarks", "--help"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    for name in COMMANDS:
        assert re.search(rf"^. {name} ", done.stdout, re.MULTILINE), done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert {"benchmarks.peers", "pxdbg_runtime"} <= loaded
    assert {name for name in loaded if name.partition(".")[0] in HEAVY} == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_the_same_options(command: str) -> None:
    text = invoke(command, "--help").stdout
    for option in ("--family", "--rounds", "--quick", "--checkpoint", "--cache", "--json", "--plot"):
        assert option in text


@pytest.mark.usefixtures("_tiny")
@pytest.mark.slow
def test_kernels_are_measured_printed_and_written(tmp_path: Path) -> None:
    chart = tmp_path / "kernels.png"
    result, content = measure(tmp_path, "kernels", "--family", "resnet", "--rounds", "2", "--plot", chart)
    assert any("random demonstration weights" in remark for remark in content["remarks"])
    assert (content["families"], content["rounds"], content["quick"]) == (["resnet"], 2, False)
    by_what = {each["labels"]["what"]: each for each in content["measurements"] if each["unit"] == "s"}
    assert by_what.keys() == {
        "a plain read (np.max)",
        "a copy (np.copyto)",
        "kernels.find_hits, of charges",
        "Digitiser.find_digits",
        "NumPy",
        "PyTorch's chain",
    }
    assert all(len(each["samples"]) == 2 and min(each["samples"]) > 0 for each in by_what.values())
    assert chart.read_bytes().startswith(b"\x89PNG")
    assert "Digitiser.find_digits" in result.stdout
    assert "resnet, NumPy, round 2 of 2" in words(result.stderr)


class Providers(NamedTuple):
    """What a run of the benchmark of providers measured, and the batch sizes of its calls and parts."""

    measurements: list[dict[str, Any]]
    batch_sizes: set[int]


@pytest.fixture(scope="module")
def providers(latent_graph: GraphFile, tmp_path_factory: pytest.TempPathFactory) -> Providers:
    """Measure all providers once, in batches of 8; the images that the part of digits takes are made in others."""
    batch_sizes: list[int] = []
    compute_batch = ImageSession.compute_images

    def count_images(session: ImageSession, sensors: Sequence[int], *arguments: Any) -> Images:  # noqa: ANN401
        batch_sizes.append(len(sensors))
        return compute_batch(session, sensors, *arguments)

    def compute_uncounted(session: ImageSession) -> Images:
        n_before = len(batch_sizes)
        images = compute_images(session)
        del batch_sizes[n_before:]
        return images

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Workspace, "find_graph", lambda *_arguments, **_options: latent_graph)
        patch.setattr(ImageSession, "compute_images", count_images)
        patch.setattr("benchmarks.providers.compute_images", compute_uncounted)
        patch.setattr("pxdbg_runtime.generator._FLOAT_BATCH_SIZE", 8)
        _, content = measure(tmp_path_factory.mktemp("providers"), "providers", "--family", "convnet", "--quick")
    return Providers(content["measurements"], set(batch_sizes))


@pytest.mark.slow
def test_every_provider_is_measured_or_listed_with_its_reason(providers: Providers) -> None:
    cpu = [each for each in providers.measurements if each["labels"]["provider"] == "CPU"]
    one_thread = {each["labels"]["what"] for each in cpu if each["labels"]["threads"] == "1"}
    parts = {"latents", "inference", "digits", "a copy of the images"}
    assert one_thread == {"1 event a call", "2 events a call", *parts}
    assert {each["labels"]["precision"] for each in cpu} == {"float32", "int8"}
    assert all(each["samples"] for each in cpu)
    cuda = [each for each in providers.measurements if each["labels"]["provider"] == "CUDA"]
    assert cuda
    assert all(each["samples"] or each["reason"] for each in cuda)


def test_the_parts_of_an_event_have_the_batches_of_a_call(providers: Providers) -> None:
    assert providers.batch_sizes == {8}


@pytest.mark.usefixtures("_tiny")
def test_a_peer_that_is_not_installed_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    missing = {"torch", "openvino"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else find_spec(name))
    result, content = measure(tmp_path, "peers", "--family", "resnet", "--rounds", "2")
    reasons = {each["labels"]["what"]: each["reason"] for each in content["measurements"]}
    absent = {what for what, reason in reasons.items() if reason.startswith("not installed: pip install")}
    plain = {f"plain export, ONNX Runtime, batches of {size}" for size in (1, 4)}
    measured = {"ours, float32", "ours, int8", *plain}
    floors = {
        "float32 floor of the rewritten graph",
        "int8 floor: a quarter of the float32 floor without shared terms",
    }
    assert absent == reasons.keys() - measured - floors
    assert {reasons[floor] for floor in floors} == {"the graph has no multiply-accumulates"}
    assert all(len(each["samples"]) == 2 for each in content["measurements"] if each["labels"]["what"] in measured)
    assert words(result.stdout).count("not installed") >= 6
    not_measured = [claim["what"] for claim in content["claims"] if claim["verdict"] == "not measured"]
    assert not_measured == [
        "float32, against the plain export on OpenVINO",
        "float32, against the original",
        "int8, against the original",
        "int8, against OpenVINO's own int8 of the plain export",
        "int8, against OpenVINO's own int8 of the rewritten graph",
        "float32, over the float32 floor of the rewritten graph",
        "int8, over a quarter of the float32 floor",
    ]


def test_without_root_both_ways_to_fill_are_listed_as_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    result, content = measure(tmp_path, "basf2", "--quick")
    assert {each["reason"] for each in content["measurements"]} == {"not installed: pip install ROOT"}
    assert [claim["verdict"] for claim in content["claims"]] == ["not measured"]
    assert (content["families"], content["rounds"], content["quick"]) == ([], 1, True)
    assert "in bulk: not installed: pip install ROOT" in words(result.stdout)


@pytest.fixture
def _root() -> None:
    """Skip or fail as `double` does, without loading ROOT here too."""
    if importlib.util.find_spec("ROOT") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("ROOT is not installed: pip install root")


@pytest.mark.slow
@pytest.mark.usefixtures("_root")
def test_both_ways_to_fill_are_measured(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "basf2", "--quick", "--json", str(tmp_path / "basf2.json")]
    done = subprocess.run(command, cwd=CHECKOUT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "basf2.json").read_text())
    bulk, loop = (each["median"] for each in content["measurements"])
    assert 0 < bulk < loop / 5
    assert content["claims"][0]["what"] == "70,000 digits in bulk, ms"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ("--checkpoint", "vae=a.pt"),
            r"--checkpoint must be convnet=FILE or resnet=FILE or ieagan=FILE, but is 'vae=a\.pt'",
        ),
        (
            ("--checkpoint", "resnet="),
            "--checkpoint must be convnet=FILE or resnet=FILE or ieagan=FILE, but is 'resnet='",
        ),
        (("--checkpoint", "resnet=gone.pt"), r"--checkpoint resnet=gone\.pt: there is no such file"),
        (("--plot", "chart.txt"), r"chart\.txt must end in the name of an image format"),
        (("--rounds", "0"), "Invalid value for '--rounds'"),
        (("--family", "vae"), "--family must be convnet or resnet or ieagan, but is 'vae'"),
    ],
)
def test_bad_usage_is_exit_code_2_before_any_work(arguments: tuple[str, ...], expected: str) -> None:
    result = invoke("kernels", *arguments)
    assert result.exit_code == 2
    assert re.search(expected, words(result.stderr)), result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("command", ["formats", "basf2"])
@pytest.mark.parametrize("option", ["--family=resnet", "--checkpoint=resnet=pyproject.toml"])
def test_a_benchmark_without_models_refuses_families_and_checkpoints(command: str, option: str) -> None:
    result = invoke(command, option)
    assert result.exit_code == 2
    expected = f"{option.partition('=')[0]} is for other benchmarks: {command} measures no model."
    assert expected in words(result.stderr)


def test_a_checkpoint_of_a_family_that_is_not_measured_is_refused() -> None:
    checkpoint = CHECKOUT / "pyproject.toml"
    result = invoke("kernels", "--family", "convnet", "--checkpoint", f"resnet={checkpoint}")
    assert result.exit_code == 2
    assert "resnet is not measured: add --family resnet." in words(result.stderr)


def test_a_result_without_a_place_is_exit_code_1_before_any_work(tmp_path: Path) -> None:
    result = invoke("kernels", "--json", tmp_path / "gone" / "kernels.json")
    assert result.exit_code == 1
    assert re.search(r"kernels\.json cannot be written: the folder \S+ does not exist", words(result.stderr))


def workspace(folder: Path, lines: list[str], **checkpoints: Path) -> Workspace:
    return Workspace(folder=folder, checkpoints=checkpoints, log=lines.append)


Exports = list[tuple[object, ...]]


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> Exports:
    """Replace the export by one that writes a tiny graph, and list its calls."""
    calls: Exports = []

    def export_checkpoint(
        _checkpoint: Path, _family: str, output: Path, options: ExportOptions, **_: object
    ) -> GraphFile:
        calls.append((options.name, options.precision, options.target, options.rewrite))
        output.mkdir(parents=True, exist_ok=True)
        suffix = "-cuda" if options.target == "cuda" else ""
        return write_graph(output / f"{options.name}-{options.precision}{suffix}.onnx", latent_model(), LATENT_CARD)

    monkeypatch.setattr("export.pipeline.export_checkpoint", export_checkpoint)
    return calls


def test_each_graph_is_exported_once(tmp_path: Path, exports: Exports) -> None:
    checkpoint = tmp_path / "mine.pt"
    checkpoint.write_bytes(b"weights")
    lines: list[str] = []
    mine = workspace(tmp_path / "cache", lines, resnet=checkpoint)
    for _ in range(2):
        graphs = (
            mine.find_graph("resnet"),
            mine.find_graph("resnet", rewrite=False),
            mine.find_graph("resnet", "int8"),
            mine.find_graph("resnet", "float16", target="cuda"),
        )
    assert exports == [
        ("resnet", "float32", "cpu", True),
        ("resnet-plain", "float32", "cpu", False),
        ("resnet", "int8", "cpu", True),
        ("resnet", "float16", "cuda", True),
    ]
    assert len({graph.path.parent for graph in graphs}) == 1
    assert lines[2] == "resnet: exporting resnet-int8.onnx, some minutes"


@pytest.mark.usefixtures("_digests_anew")
@pytest.mark.slow
def test_another_checkpoint_export_or_package_is_exported_again(
    tmp_path: Path, exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "mine.pt"
    checkpoint.write_bytes(b"weights")
    mine = workspace(tmp_path / "cache", [], resnet=checkpoint)
    first = mine.find_graph("resnet").path
    checkpoint.write_bytes(b"other weights")
    second = mine.find_graph("resnet").path
    assert [folder.name for folder in graphs_module._SOURCES] == ["export", "pxdbg_runtime"]
    sources = tmp_path / "runtime"
    sources.mkdir()
    (sources / "digitiser.py").write_text("changed")
    monkeypatch.setattr(graphs_module, "_SOURCES", (graphs_module._SOURCES[0], sources))
    assert mine.find_graph("resnet").path == second, "one process has one export, whatever happens to its sources"
    graphs_module._digest_export.cache_clear()
    third = mine.find_graph("resnet").path
    monkeypatch.setattr("benchmarks.graphs.find_versions", lambda _packages: {"onnx": "another"})
    graphs_module._digest_export.cache_clear()
    fourth = mine.find_graph("resnet").path
    assert len({first, second, third, fourth}) == len(exports) == 4


@pytest.mark.usefixtures("_digests_anew")
def test_another_export_makes_random_weights_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.random_weights.build_random_model", lambda *_arguments: random_model(FlatNet))
    lines: list[str] = []
    mine = workspace(tmp_path / "cache", lines)
    first = mine.find_checkpoint("resnet")
    assert mine.find_checkpoint("resnet") == first
    monkeypatch.setattr("benchmarks.graphs.find_versions", lambda _packages: {"torch": "another"})
    graphs_module._digest_export.cache_clear()
    second = mine.find_checkpoint("resnet")
    monkeypatch.setattr(graphs_module, "_SOURCES", (tmp_path,))
    graphs_module._digest_export.cache_clear()
    third = mine.find_checkpoint("resnet")
    assert len({first, second, third}) == len(lines) == 3
    assert {path.name for path in (first, second, third)} == {"resnet-demonstration-3.safetensors"}


def test_the_weights_are_named(tmp_path: Path) -> None:
    mine = workspace(tmp_path, [], convnet=tmp_path / "trained.pt")
    resnet, convnet = mine.describe_weights(("resnet", "convnet"))
    assert resnet == "resnet: seeded random demonstration weights (seed 3), without any physics"
    assert convnet == "convnet: weights of trained.pt"


def test_random_weights_are_not_made_without_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(MissingPackageError, match="not installed: pip install torch"):
        workspace(tmp_path, []).find_checkpoint("resnet")


def test_a_cache_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"The folder \S+ cannot be made: Not a directory"):
        workspace(tmp_path / "file" / "cache", []).find_checkpoint("resnet")
