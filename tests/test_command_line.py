"""``pxdbg generate``: the file, the output, exit codes, and one sentence for each error.

The other commands are in test_command_line_inspection, bad checkpoints and graphs in test_bad_input.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow.parquet
import pytest
from msgspec.structs import replace
from typer.testing import CliRunner, Result

from pxdbg_runtime import Digits, Generator, __version__
from pxdbg_runtime.checks import MAX_EVENT, MAX_SEED, MIN_SEED
from pxdbg_runtime.command_line import app
from pxdbg_runtime.formats import FORMATS, describe_generation, read_digits
from tests.digit_files import ANY_SUFFIX, SAMPLE, each_suffix, names_in, read_provenance, write
from tests.graphs import LATENT_CARD, latent_model, write_graph

if TYPE_CHECKING:
    from pxdbg_runtime.model.graph_file import GraphFile

COMMANDS: Final = (
    "generate",
    "replace-pxd",
    "models",
    "show",
    "plot",
    "convert",
    "merge",
    "doctor",
    "providers",
    "check",
    "validate",
)
INSTALL: Final = ".* pip install 'pxdbg-runtime"
TOY_PROVENANCE: Final = "Weights of [nobody], made for a test."


def invoke(*arguments: str | Path | int) -> Result:
    """Run a command in this process; it may raise nothing but an exit."""
    environment = {"COLUMNS": "200", "TERM": "dumb"}
    result = CliRunner(env=environment).invoke(app, [str(argument) for argument in arguments], prog_name="pxdbg")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def words(text: str) -> str:
    """Remove the frames and line breaks that depend on the width of the terminal."""
    return " ".join(re.sub(r"[│╭╮╰╯─┌┐└┘]", " ", text).split())


def require_failure(result: Result, exit_code: int, expected: str) -> None:
    assert result.exit_code == exit_code, result.output
    assert result.stdout == ""
    assert re.search(expected, words(result.stderr)), result.stderr


@pytest.fixture(scope="module")
def sparse_graph(tmp_path_factory: pytest.TempPathFactory) -> GraphFile:
    """Make a graph that generates some ten thousand digits per event."""
    card = replace(LATENT_CARD, name="sparse", min_charge=7)
    return write_graph(tmp_path_factory.mktemp("sparse") / "sparse.onnx", latent_model(), card)


@pytest.fixture(scope="module")
def demonstration_graph(tmp_path_factory: pytest.TempPathFactory) -> GraphFile:
    """Make a graph whose card says that its weights are a demonstration."""
    card = replace(LATENT_CARD, name="toy", min_charge=7, nature="demonstration", provenance=TOY_PROVENANCE)
    return write_graph(tmp_path_factory.mktemp("toy") / "toy.onnx", latent_model(), card)


@each_suffix
def test_the_file_holds_what_the_library_generates(tmp_path: Path, sparse_graph: GraphFile, suffix: str) -> None:
    output = tmp_path / f"bg{suffix}"
    options = ("--events", 3, "--first-event", 5, "--seed", 11, "--output", output)
    result = invoke("generate", "--model", sparse_graph.path, *options)
    assert result.exit_code == 0, result.output
    generator = Generator(sparse_graph.path, provider="cpu", seed=11)
    expected = Digits.concatenate(generator.stream(range(5, 8)))
    assert len(expected) > 1_000
    content = read_digits(output)
    assert content.digits == expected
    assert content.provenance == describe_generation(generator, range(5, 8))
    assert result.stdout == f"wrote {output}: 3 events, {len(expected):,} digits\n"
    assert "sparse float32 on CPUExecutionProvider, seed 11, stream philox" in result.stderr
    assert "3/3" in result.stderr
    assert "WARNING" not in result.stderr  # the weights are a checkpoint's
    assert names_in(tmp_path) == [output.name]


def test_the_format_is_that_of_the_suffix_or_of_the_option(tmp_path: Path, sparse_graph: GraphFile) -> None:
    for options in ((), ("--format", "parquet")):
        output = tmp_path / "bg.parquet"
        arguments = ("--model", sparse_graph.path, "--seed", 3, "--overwrite", "--output", output)
        result = invoke("generate", *arguments, *options)
        assert result.exit_code == 0, result.output
        assert len(pyarrow.parquet.read_table(output)) == len(Generator(sparse_graph.path, seed=3).generate(0))
    text = words(invoke("generate", "--help").stdout)
    assert "a row for each digit" in text
    assert all(f" {name}: " in text for name in FORMATS)


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ("--random-stream torch", {"random_stream": "torch"}),
        ("--min-charge 9", {"min_charge": 9}),
        ("--batch-size 7", {"batch_size": 7}),
        ("--batch-size 40 --nintra 2 --ninter 2", {}),
        ("--precision float32", {"precision": "float32"}),
        ("--provider cpu", {"provider": "cpu"}),
        ("--provider CPUExecutionProvider", {"provider": "cpu"}),
        ("--provider cpu --provider-option arena_extend_strategy=kSameAsRequested", {"provider": "cpu"}),
        (f"--seed={MIN_SEED}", {"seed": MIN_SEED}),
        (f"--seed {MAX_SEED}", {"seed": MAX_SEED}),
        (f"--first-event {MAX_EVENT}", {}),
    ],
)
def test_options_reach_the_library(
    tmp_path: Path, sparse_graph: GraphFile, options: str, arguments: dict[str, Any]
) -> None:
    output = tmp_path / "bg.parquet"
    result = invoke("generate", "--model", sparse_graph.path, "--output", output, "--seed", 3, *options.split())
    assert result.exit_code == 0, result.output
    generator = Generator(sparse_graph.path, **{"seed": 3, **arguments})
    content = read_digits(output)
    event = MAX_EVENT if "--first-event" in options else 0
    assert content.digits == generator.generate(event)
    assert content.provenance == describe_generation(generator, range(event, event + 1))


def test_options_make_a_difference(sparse_graph: GraphFile) -> None:
    """Without this the test above could compare equal things."""
    variants: list[dict[str, Any]] = [{}, {"random_stream": "torch"}, {"min_charge": 9}, {"seed": MAX_SEED}]
    digits = [Generator(sparse_graph.path, **{"seed": 3, **variant}).generate(0) for variant in variants]
    assert len({(len(each), each.charge.sum().item()) for each in digits}) == len(variants)


def test_a_drawn_seed_is_printed_and_reproduces(tmp_path: Path, sparse_graph: GraphFile) -> None:
    seeds = []
    for name in ("a.parquet", "b.parquet"):
        result = invoke("generate", "--model", sparse_graph.path, "--output", tmp_path / name)
        (seed,) = re.findall(r"seed (-?\d+)", result.stderr)
        seeds.append(int(seed))
    assert seeds[0] != seeds[1]
    content = read_digits(tmp_path / "a.parquet")
    assert read_provenance(tmp_path / "a.parquet").seed == seeds[0]
    again = tmp_path / "again.parquet"
    assert invoke("generate", "--model", sparse_graph.path, "--seed", seeds[0], "--output", again).exit_code == 0
    assert read_digits(again).digits == content.digits


def test_an_event_wide_graph(tmp_path: Path, event_wide_graph: GraphFile) -> None:
    output = tmp_path / "bg.parquet"
    result = invoke("generate", "--model", event_wide_graph.path, "--seed", 3, "--min-charge", 9, "--output", output)
    assert result.exit_code == 0, result.output
    assert read_digits(output).digits == Generator(event_wide_graph.path, seed=3, min_charge=9).generate(0)


def test_a_demonstration_is_called_one_exactly_once(tmp_path: Path, demonstration_graph: GraphFile) -> None:
    for _ in range(2):  # a handler for each call of the command would say it twice the second time
        options = ("--model", demonstration_graph.path, "--events", 2, "--overwrite", "--output", tmp_path / "bg.npz")
        result = invoke("generate", *options)
        assert result.exit_code == 0, result.output
        assert words(result.stderr).count(f"The model toy is a demonstration: {TOY_PROVENANCE}") == 1
        assert result.stderr.count("demonstration") == 1
        assert result.stderr.count("WARNING") == 1
        assert "toy" not in result.stdout


@pytest.mark.parametrize("name", ["[red]", "[/nowhere]", r"\[x]"])
def test_the_name_of_a_model_is_printed_as_it_is(tmp_path: Path, name: str) -> None:
    """Text that looks like markup is printed unchanged."""
    card = replace(LATENT_CARD, name=name, min_charge=20)
    graph = write_graph(tmp_path / "odd.onnx", latent_model(), card)
    result = invoke("generate", "--model", graph.path, "--output", tmp_path / "bg.parquet")
    assert result.exit_code == 0, result.output
    assert f"{name} float32 on CPUExecutionProvider" in result.stderr
    assert read_provenance(tmp_path / "bg.parquet").model == name


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--model gone", r"The model 'gone' is not a built-in model: expected convnet or ieagan or resnet"),
        ("--model gone.onnx", r"The model 'gone.onnx' is not a file that exists"),
        ("--model .", r"The model '\.' is (a folder|not)"),
        ("--model folder/", r"The model 'folder' is a folder"),
        ("--model text.onnx", r"text\.onnx"),
        (f"--model {'a' * 300}.onnx", r"The graph a+\.onnx cannot be read: File name too long"),
        ("--model GRAPH --provider cuda", r"needs onnxruntime-gpu, but .*pip install 'pxdbg-runtime\[gpu\]'"),
        ("--model GRAPH --provider azure", "AzureExecutionProvider cannot run every node"),
        ("--model GRAPH --provider tpu", "The provider 'tpu' is not one of .* expected auto, .*cpu"),
        ("--model GRAPH --provider [/red]", r"The provider '\[/red\]' is not one of"),
        ("--model GRAPH --output nowhere/a.npz", "nowhere/a.npz cannot be written: the folder nowhere does not exist"),
        ("--model GRAPH --output text.onnx/bg.npz", "text.onnx/bg.npz cannot be written"),
        ("--model GRAPH --output folder.npz", "folder.npz is a folder"),
        (f"--model GRAPH --output {'a' * 252}.npz", "cannot be written: File name too long"),
        (f"--model GRAPH --output {'a' * 300}/bg.npz", "cannot be written: .*(does not exist|File name too long)"),
    ],
)
def test_a_failure_is_one_sentence_and_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sparse_graph: GraphFile, options: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("folder.npz").mkdir()
    Path("text.onnx").write_text("no graph at all")
    before = names_in(tmp_path)
    given = options.replace("GRAPH", str(sparse_graph.path)).split()
    result = invoke("generate", *(() if "--output" in given else ("--output", "bg.npz")), *given)
    require_failure(result, 1, f"Error: .*{expected}")
    assert len(re.findall("^Error: ", result.stderr, re.MULTILINE)) == 1
    assert names_in(tmp_path) == before
    assert names_in(Path("folder")) == names_in(Path("folder.npz")) == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--events 0", "--events"),
        ("--first-event -1", "--first-event"),
        (f"--first-event {MAX_EVENT} --events 2", "go beyond the last event number"),
        (f"--seed {MAX_SEED + 1}", r"seed must lie in \[-2\^63, 2\^63 - 1\], but is 9"),
        (f"--seed={MIN_SEED - 1}", r"seed must lie in .*, but is -9"),
        ("--batch-size 0", "--batch-size"),
        ("--batch-size 41", "--batch-size"),
        ("--nintra 0", "--nintra"),
        ("--ninter 0", "--ninter"),
        ("--min-charge 0", "--min-charge"),
        ("--min-charge 256", "--min-charge"),
        ("--min-charge 6", "min_charge must lie between 7 and 255 ADU, but is 6"),
        ("--precision bfloat16", "--precision"),
        ("--precision int8", r"sparse\.onnx is float32, not int8: choose"),
        ("--random-stream mt", "--random-stream"),
        ("--provider-option key", "--provider-option must be KEY=VALUE, but is 'key'"),
        ("--provider-option =value", "--provider-option must be KEY=VALUE, but is '=value'"),
        ("--output bg.csv", rf"bg\.csv must end in {ANY_SUFFIX}"),
        ("--output bg", rf"bg must end in {ANY_SUFFIX}"),
        ("--format csv", r"format must be one of parquet, .*npz.*, but is 'csv'"),
        ("--format parquet", r"bg\.npz must end in \.parquet, as files of the format parquet do"),
        ("again", "unexpected extra argument"),
    ],
)
def test_bad_usage_is_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sparse_graph: GraphFile, options: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    given = options.split()
    output = () if "--output" in given else ("--output", "bg.npz")
    require_failure(invoke("generate", "--model", sparse_graph.path, *output, *given), 2, expected)
    assert names_in(tmp_path) == []


def test_an_output_is_required() -> None:
    require_failure(invoke("generate", "--events", 1), 2, "Missing option '--output'")


@pytest.mark.parametrize(
    ("command", "package", "expected"),
    [
        ("generate --model GRAPH --output a.parquet", "pyarrow", rf"Parquet needs pyarrow, {INSTALL}\[parquet\]'"),
        ("generate --model GRAPH --output a.npz", "onnxruntime", rf"needs ONNX Runtime, {INSTALL}\[cpu\]' for a CPU"),
        ("providers", "onnxruntime", rf"needs ONNX Runtime, {INSTALL}\[cpu\]' for a CPU"),
        ("plot digits.npz --output a.png", "matplotlib", rf"A picture needs matplotlib, {INSTALL}\[plot\]'"),
    ],
)
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sparse_graph: GraphFile, command: str, package: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("digits.npz"), [SAMPLE])
    monkeypatch.setitem(sys.modules, package, None)
    require_failure(invoke(*command.replace("GRAPH", str(sparse_graph.path)).split()), 1, expected)
    assert names_in(tmp_path) == ["digits.npz"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_the_help_of_each_command_has_an_example(command: str, option: str) -> None:
    result = invoke(command, option)
    assert result.exit_code == 0
    assert f"Usage: pxdbg {command}" in words(result.stdout)
    assert f"Example: pxdbg {command}" in words(result.stdout)
    assert result.stderr == ""


def test_the_help_lists_the_commands_and_a_first_event() -> None:
    result = invoke("--help")
    text = words(result.stdout)
    assert result.exit_code == 0
    for command in COMMANDS:
        assert re.search(rf" {command} [A-Z]", text), command
    assert "A first event: pxdbg generate --output bg.parquet" in text
    assert "Usage: pxdbg" in words(invoke().output)


def test_the_help_groups_the_commands() -> None:
    text = words(invoke("--help").stdout)
    order = ("Events generate ", "Models and files models ", " show ", "This machine doctor ", " providers ")
    places = [text.index(each) for each in order]
    assert places == sorted(places)


def test_the_version() -> None:
    result = invoke("--version")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"pxdbg-runtime {__version__}\n", "")


@pytest.mark.parametrize("arguments", [("draw",), ("--colour",), ("generate", "--help=1")])
def test_an_unknown_command_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    require_failure(invoke(*arguments), 2, r"Error (No such|Option '--help'|.*does not take a value)")


def test_as_a_program(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pxdbg_runtime", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: pxdbg" in words(done.stdout)
    done = run("generate", "--model", "gone", "--output", "bg.npz")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"Error: The model 'gone' is not a built-in model: [^\n]*\n", done.stderr)
    assert names_in(tmp_path) == []
