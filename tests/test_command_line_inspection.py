"""``pxdbg models``, ``providers``, ``show`` and ``plot``: what they print, and how they end."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from msgspec import structs

from pxdbg_runtime.inference.cpu import Cpu
from pxdbg_runtime.model.builtin_models import find_graph, read_manifest
from pxdbg_runtime.model.card import describe_weights
from pxdbg_runtime.plots import event_display
from tests.digit_files import ANY_SUFFIX, PROVENANCE, SAMPLE, each_suffix, names_in, random_digits, summarise, write
from tests.graphs import EVENT_WIDE_CARD, LATENT_CARD, latent_model, write_graph
from tests.test_command_line import invoke, require_failure, words

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

    from pxdbg_runtime import Digits, Sensor
    from pxdbg_runtime.model.graph_file import GraphFile


def row_of(output: str, *first: str) -> list[str]:
    """Find the one row of a table that begins with these cells, and split it into its cells."""
    rows = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in output.splitlines()]
    (found,) = (row for row in rows if row[: len(first)] == list(first))
    return found


def test_models_lists_what_is_shipped() -> None:
    result = invoke("models")
    assert result.exit_code == 0
    assert result.stderr == ""
    for listed in read_manifest():
        card = find_graph(listed.name, listed.precision, listed.target).card
        row = row_of(result.stdout, listed.name, listed.precision)
        assert row == [listed.name, listed.precision, f"{listed.size / 1e6:.1f} MB", card.nature]
        assert words(result.stdout).count(describe_weights(card.nature, card.provenance)) == 1


@pytest.mark.slow
def test_providers_says_what_runs() -> None:
    result = invoke("providers")
    assert (result.exit_code, result.stderr) == (0, "")
    assert re.match(r"installed: onnxruntime \d+\.\d+", result.stdout)
    assert row_of(result.stdout, "CPUExecutionProvider") == ["CPUExecutionProvider", "runs", ""]
    assert row_of(result.stdout, "AzureExecutionProvider")[1] == "does not run"
    assert row_of(result.stdout, "CUDAExecutionProvider")[1] == "not installed"
    assert "pip install 'pxdbg-runtime[gpu]'" in words(result.stdout)


@pytest.mark.parametrize(
    ("dot_products", "expected"),
    [
        (None, "not known on this system"),
        ((), "none: int8 takes longer here, with the same digits"),
        (("avx512_vnni", "avx_vnni"), "avx512_vnni, avx_vnni"),
    ],
)
def test_providers_says_what_is_known_of_the_cpu(
    monkeypatch: pytest.MonkeyPatch, dot_products: tuple[str, ...] | None, expected: str
) -> None:
    cpu = Cpu(name="Some CPU", dot_products=dot_products, features=frozenset())
    module = sys.modules["pxdbg_runtime.command_line.providers"]  # the package's attribute is the command
    monkeypatch.setattr(module, "detect_cpu", lambda: cpu)
    monkeypatch.setattr(module, "list_provider_statuses", lambda _graph: ())
    assert f"CPU: Some CPU; instructions for int8 (VNNI): {expected}\n" in invoke("providers").stdout


def test_show_a_graph(event_wide_graph: GraphFile) -> None:
    result = invoke("show", event_wide_graph.path)
    assert (result.exit_code, result.stderr) == (0, "")
    expected = {
        "model": "tiny-event",
        "family": "tilted planes",
        "weights": "checkpoint",
        "provenance": "Made for a test.",
        "precision": "float32",
        "opset": "17",
        "inputs": "number (sensor), z (latent), e (event_latent)",
        "draws per event": "latent 40 x 2, mood 40 x 3",
        "sensors": "40",
        "smallest charge": "7 ADU",
        "cut": "outputs not above -0.26 are empty",
        "against PyTorch": "largest difference 1.5e-06, equal charges of hits 100.000 % (8 images)",
        "against float64": "largest difference 1.5e-06, PyTorch's own float32 0.0e+00",
        "known answers": "none",
        "checkpoint SHA-256": EVENT_WIDE_CARD.checkpoint_sha256,
        "SHA-256": event_wide_graph.sha256,
    }
    assert {name: row_of(result.stdout, name)[1] for name in expected} == expected
    for made_with in EVENT_WIDE_CARD.made_with:
        assert f"{made_with.package} {made_with.version}" in row_of(result.stdout, "made with")[1]
    assert row_of(result.stdout, "file")[1].endswith(f"{event_wide_graph.size / 1e6:.1f} MB")


def test_show_a_graph_without_a_cut(latent_graph: GraphFile) -> None:
    assert row_of(invoke("show", latent_graph.path).stdout, "cut")[1] == "none"


def test_show_a_shipped_model() -> None:
    result = invoke("show", "resnet")
    graph = find_graph("resnet", None)
    assert result.exit_code == 0
    assert row_of(result.stdout, "model")[1] == "resnet"
    assert row_of(result.stdout, "weights")[1] == graph.card.nature
    assert row_of(result.stdout, "SHA-256")[1] == graph.sha256


@pytest.mark.parametrize(
    "provenance", ["From [somewhere].", "See [/nowhere].", "[bold]Loud[/bold] weights.", "A \\[b]."]
)
def test_a_card_and_a_path_are_shown_as_they_are(tmp_path: Path, provenance: str) -> None:
    """Text that looks like markup is printed unchanged."""
    (tmp_path / "run [red]").mkdir()
    card = structs.replace(LATENT_CARD, provenance=provenance)
    result = invoke("show", write_graph(tmp_path / "run [red]" / "[b].onnx", latent_model(), card).path)
    assert result.exit_code == 0
    assert row_of(result.stdout, "provenance")[1] == provenance
    assert "run [red]/[b].onnx" in re.sub(r"[│\n]| {2,}", "", result.stdout)


@pytest.fixture(scope="module")
def digits() -> Digits:
    return random_digits(np.random.default_rng(9), 12_345, 5)


@each_suffix
def test_show_digits(tmp_path: Path, suffix: str, digits: Digits) -> None:
    path = write(tmp_path / f"bg{suffix}", [digits], structs.replace(PROVENANCE, nature="stand-in"))
    result = invoke("show", path)
    assert (result.exit_code, result.stderr) == (0, "")
    text = words(result.stdout)
    assert "events 3 to 6, 12,345 digits of 1 ADU or more" in text
    assert "counted in the tables: digits of 7 ADU or more, as in Geant4" in text
    for part in summarise(digits.select_rows(digits.charge >= 7), 4):
        row = row_of(result.stdout, part.part)
        assert row[1:3] == [f"{part.digits_per_event:,.0f}", f"{100 * part.occupancy:.2f} %"]
        assert row[4] == f"{part.mean_charge:.1f} ADU"
    assert row_of(result.stdout, "both layers")[3:] == ["0.90 %", row_of(result.stdout, "both layers")[4], "22 ADU"]
    assert f"tiny float32 on CPUExecutionProvider, seed -7, stream philox, pxdbg-runtime {PROVENANCE.version}" in text
    assert f"graph SHA-256 {PROVENANCE.graph_sha256}" in text
    assert f"stand-in: {PROVENANCE.provenance}" in text
    assert "Geant4: means of the public statistics" in text


def test_digits_of_random_weights_stand_beside_no_mean_of_geant4(tmp_path: Path, digits: Digits) -> None:
    stdout = invoke("show", write(tmp_path / "bg.npz", [digits])).stdout
    assert row_of(stdout, "layer 1")[3] == ""
    assert row_of(stdout, "both layers")[3::2] == ["", ""]
    assert f"demonstration: {PROVENANCE.provenance}" in words(stdout)
    assert "Geant4: means" not in words(stdout)


@pytest.mark.parametrize(("threshold", "is_comparable"), [(6, True), (7, True), (8, False)])
def test_digits_of_a_higher_threshold_stand_beside_no_mean_of_geant4(
    tmp_path: Path, digits: Digits, threshold: int, is_comparable: bool
) -> None:
    some = digits.select_rows(digits.charge >= threshold)
    provenance = structs.replace(PROVENANCE, min_charge=threshold, nature="stand-in")
    path = write(tmp_path / "bg.npz", [some], provenance)
    stdout = invoke("show", path).stdout
    assert row_of(stdout, "layer 1")[3] == ("1.49 %" if is_comparable else "")
    assert row_of(stdout, "both layers")[3::2] == (["0.90 %", "22 ADU"] if is_comparable else ["", ""])
    assert ("Geant4: means" in words(stdout)) == is_comparable
    assert ("counted in the tables: digits of 7 ADU or more, as in Geant4\n" in stdout) == (threshold < 7)


def test_show_no_digits(tmp_path: Path) -> None:
    result = invoke("show", write(tmp_path / "bg.npz", []))
    assert result.exit_code == 0
    assert "events 3 to 6, 0 digits" in words(result.stdout)
    assert row_of(result.stdout, "layer 1")[1:3] == ["0", "0.00 %"]
    assert len(row_of(result.stdout, "layer 1")[4]) == 1


def test_metadata_is_shown_as_it_is(tmp_path: Path) -> None:
    """Neither the console's markup nor that of matplotlib is interpreted."""
    text = r"[/nowhere] [red] \[x] $\frac$"
    path = write(tmp_path / "bg.npz", [SAMPLE], structs.replace(PROVENANCE, model=text, provenance=text))
    result = invoke("show", path)
    assert result.exit_code == 0
    assert f"{text} float32 on" in result.stdout
    assert f"demonstration: {text}" in result.stdout
    assert invoke("plot", path, "--output", tmp_path / "event.svg").exit_code == 0
    assert names_in(tmp_path) == ["bg.npz", "event.svg"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gone.parquet", r"gone\.parquet cannot be read: No such file or directory"),
        ("gone.onnx", r"gone\.onnx' is not a file that exists"),
        ("vae", "The model 'vae' is not a built-in model: expected convnet or ieagan or resnet"),
        ("text.npz", r"text\.npz is not a digit file"),
        ("text.parquet", r"text\.parquet is not a digit file"),
        ("text.onnx", r"text\.onnx"),
        ("text.root", r"text\.root"),
        ("folder.npz", r"folder\.npz cannot be read: Is a directory"),
    ],
)
def test_show_what_cannot_be_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, expected: str) -> None:
    monkeypatch.chdir(tmp_path)
    for each in ("text.npz", "text.parquet", "text.onnx", "text.root"):
        (tmp_path / each).write_text("no digits at all")
    (tmp_path / "folder.npz").mkdir()
    result = invoke("show", name)
    require_failure(result, 1, f"Error: .*{expected}")
    assert len(re.findall("^Error: ", result.stderr, re.MULTILINE)) == 1


def test_show_needs_a_name() -> None:
    require_failure(invoke("show"), 2, "(?i)missing argument 'file")


@pytest.fixture
def drawings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Digits, str, bool]]:
    """Record the digits and the title of each drawing, and whether it compares them with Geant4."""
    calls = []
    draw_event = event_display.draw_event

    def draw_and_record(digits: Digits, *, title: str, sensors: Sequence[Sensor], compare_geant4: bool) -> Figure:
        calls.append((digits, title, compare_geant4))
        return draw_event(digits, title=title, sensors=sensors, compare_geant4=compare_geant4)

    monkeypatch.setattr(event_display, "draw_event", draw_and_record)
    return calls


@pytest.mark.parametrize(
    ("options", "event", "nature"),
    [
        ((), 3, "demonstration"),
        ((), 3, "checkpoint"),
        (("--event", 3), 3, "demonstration"),
        (("--event", 4), 4, "demonstration"),
        (("--event", 6), 6, "demonstration"),
    ],
)
@pytest.mark.slow
def test_plot_an_event(
    tmp_path: Path, drawings: list[tuple[Digits, str, bool]], options: tuple[str | int, ...], event: int, nature: str
) -> None:
    path = write(tmp_path / "bg.parquet", [SAMPLE], structs.replace(PROVENANCE, nature=nature))
    result = invoke("plot", path, "--output", tmp_path / "event.png", *options)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"wrote {tmp_path / 'event.png'}\n"
    assert (tmp_path / "event.png").read_bytes().startswith(b"\x89PNG")
    remark = "  (demonstration, no real physics)" if nature == "demonstration" else ""
    title = f"PXD background, event {event}: tiny, seed -7{remark}"
    assert drawings == [(SAMPLE.of_event(event), title, nature != "demonstration")]


@pytest.mark.parametrize(
    ("options", "exit_code", "expected"),
    [
        ("bg.npz --output event.bmp", 2, "must end in a picture format"),
        ("bg.npz --output event.png --event -1", 2, "--event"),
        ("bg.npz", 2, "Missing option '--output'"),
        ("bg.csv --output event.png", 2, f"must end in {ANY_SUFFIX}"),
        ("gone.npz --output event.png", 1, "cannot be read: No such file"),
        ("bg.npz --output nowhere/a.png", 1, "nowhere/a.png cannot be written: the folder nowhere does not exist"),
        ("bg.npz --output bg.npz/event.png", 1, "bg.npz/event.png cannot be written: Not a directory"),
        *(
            (f"bg.npz --output a.png --event {n}", 2, f"--event must be one of those in bg.npz, 3 to 6, but is {n}")
            for n in (2, 7, 2**63 - 1)
        ),
    ],
)
def test_plot_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str, exit_code: int, expected: str
) -> None:
    write(tmp_path / "bg.npz", [SAMPLE])
    monkeypatch.chdir(tmp_path)
    require_failure(invoke("plot", *options.split()), exit_code, expected)
    assert names_in(tmp_path) == ["bg.npz"]


@pytest.mark.parametrize("output", ["bg.npz", "./bg.npz", "sub/../bg.npz", "hard.png", "soft.png", "loop/bg.npz"])
def test_plot_does_not_write_over_what_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str) -> None:
    path = write(tmp_path / "bg.npz", [SAMPLE])
    (tmp_path / "sub").mkdir()
    (tmp_path / "hard.png").hardlink_to(path)
    (tmp_path / "soft.png").symlink_to(path)
    (tmp_path / "loop").symlink_to(tmp_path)
    before = path.read_bytes()
    monkeypatch.chdir(tmp_path)
    expected = r"--output would write (over|\S+ over) \S*bg\.npz, which is read: name another file to write"
    require_failure(invoke("plot", "bg.npz", "--output", output), 2, expected)
    assert path.read_bytes() == before


def test_a_name_that_is_too_long_is_one_sentence(tmp_path: Path) -> None:
    for suffix in (".txt", ".onnx", ".parquet"):
        require_failure(invoke("show", str(tmp_path / ("a" * 300 + suffix))), 1, "Error: ")
