"""Overlay files for BGOverlayInput: read by compiled dictionaries, and by us, whoever wrote them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from msgspec.structs import replace

from pxdbg_runtime import Digits, Generator, __version__
from pxdbg_runtime.errors import ArgumentTypeError, ArgumentValueError, DigitFileError
from pxdbg_runtime.formats import FileMetadata, open_events, open_writer, read_digits
from pxdbg_runtime.formats.run_numbers import RunNumbers, choose_run_numbers
from tests.digit_files import PROVENANCE, SAMPLE, digits_of, names_in, random_digits, renumber
from tests.release_program import make_old_overlay
from tests.test_command_line import invoke, require_failure

if TYPE_CHECKING:
    from pxdbg_runtime.formats import Provenance
    from pxdbg_runtime.model.graph_file import GraphFile
    from tests.release_program import ReleaseProgram

uproot = pytest.importorskip("uproot", reason="pip install 'pxdbg-runtime[uproot]'")

CHECKOUT: Final = Path(__file__).resolve().parent.parent


def write_overlay(
    path: Path,
    events: list[Digits],
    *,
    experiment: int = 1003,
    run: int = 0,
    jobs: tuple[Provenance, ...] = (PROVENANCE,),
) -> Path:
    metadata = FileMetadata(jobs=jobs, run_numbers=RunNumbers(experiment=experiment, run=run))
    with open_writer(path, metadata, format_name="overlay") as writer:
        for digits in events:
            writer.write(digits)
    return path


@pytest.fixture(scope="module")
def events() -> list[Digits]:
    """Make the events 3 to 6 of PROVENANCE: the limits of each column, many digits, none, a few."""
    rng = np.random.default_rng(4)
    return [SAMPLE.of_event(3), random_digits(rng, 60_000, 4), Digits.empty(), random_digits(rng, 5, 6)]


@pytest.fixture(scope="module")
def overlay(release: ReleaseProgram, events: list[Digits], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an overlay file; asks for the release first, so that nothing is written where no test can run."""
    assert release is not None
    return write_overlay(tmp_path_factory.mktemp("overlay") / "bg.root", events)


@pytest.mark.slow
def test_a_compiled_dictionary_reads_every_digit(release: ReleaseProgram, overlay: Path, events: list[Digits]) -> None:
    collections, digits = release.overlay(overlay, experiment=1003, run=0, first=0, n_events=4)
    assert collections == {"PXDDigits_beamBG": "Belle2::PXDDigit"}
    assert digits == Digits.concatenate(renumber(each, number) for number, each in enumerate(events))


def test_classes_have_the_versions_and_checksums_of_compiled_ones(release: ReleaseProgram, overlay: Path) -> None:
    found = {}
    for line in release.describe(overlay)["checksum"]:
        name, version, checksum, compiled_version, compiled_checksum = line.split()
        assert (version, checksum) == (compiled_version, compiled_checksum), name
        found[name] = int(version)
    expected = {"PXDDigit": 5, "DigitBase": 2, "EventMetaData": 4, "FileMetaData": 11, "RelationsInterface<TObject>": 0}
    assert found == {f"Belle2::{name}": version for name, version in expected.items()}


def test_events_are_used_in_turn_and_again(release: ReleaseProgram, overlay: Path, events: list[Digits]) -> None:
    _, digits = release.overlay(overlay, experiment=1003, run=0, first=3, n_events=6)
    order = [3, 0, 1, 2, 3, 0]
    assert digits == Digits.concatenate(renumber(events[entry], number) for number, entry in enumerate(order))


@pytest.mark.parametrize(
    ("experiment", "run", "job", "problem"),
    [
        (1003, 0, (1003, 0), ""),
        (1003, 0, (1003, 5), ""),  # run-independent
        (0, 0, (0, 7), ""),
        (12, 4, (12, 4), ""),
        (1003, 0, (1004, 0), "another experiment"),
        (12, 4, (12, 5), "another run"),
        (12, 4, (13, 4), "another experiment"),
    ],
)
def test_a_job_takes_files_of_its_experiment_and_run(
    release: ReleaseProgram, tmp_path: Path, experiment: int, run: int, job: tuple[int, int], problem: str
) -> None:
    path = write_overlay(tmp_path / "bg.root", [SAMPLE], experiment=experiment, run=run)
    if problem:
        with pytest.raises(ValueError, match=problem):
            release.overlay(path, experiment=job[0], run=job[1], first=0, n_events=1)
    else:
        _, digits = release.overlay(path, experiment=job[0], run=job[1], first=0, n_events=4)
        assert len(digits) == len(SAMPLE)


def test_the_description_of_the_file_is_true(release: ReleaseProgram, tmp_path: Path) -> None:
    second = replace(PROVENANCE, first_event=100, events=2, seed=8, version="9")
    path = write_overlay(tmp_path / "bg.root", [SAMPLE], experiment=12, run=4, jobs=(PROVENANCE, second))
    found = release.describe(path)
    assert found["events"] == ["6 6 6"]
    assert found["low"] == ["12 4 3"]
    assert found["high"] == ["12 4 101"]
    assert found["seed"] == ["-7, 8"]
    assert found["release"] == ["pxdbg-runtime 0.1.0, pxdbg-runtime 9"]
    assert found["is_mc"] == ["1"]
    assert found["event"] == [f"12 4 {number}" for number in (3, 4, 5, 6, 100, 101)]
    texts = dict(line.split(" ", 1) for line in found["description"])
    assert FileMetadata.from_json(texts["pxdbg"]) == FileMetadata(jobs=(PROVENANCE, second))
    assert f'"rows": {len(SAMPLE)},' in texts["pxdbg_digest"]


@pytest.mark.parametrize("name", ["$HOME.root", "a b#c?d.root", "größer.root", "~.root", "x:tree.root"])
def test_paths_mean_what_they_say(tmp_path: Path, name: str) -> None:
    path = write_overlay(tmp_path / name, [SAMPLE])
    assert names_in(tmp_path) == [name]
    assert read_digits(path).digits == SAMPLE


def test_the_largest_event_number_of_basf2(tmp_path: Path) -> None:
    largest = 2**32 - 1
    path = write_overlay(
        tmp_path / "bg.root",
        [digits_of([(largest, 8480, 1, 2, 3)])],
        jobs=(replace(PROVENANCE, first_event=largest, events=1),),
    )
    assert read_digits(path).digits.event.tolist() == [largest]
    with pytest.raises(ArgumentValueError, match=r"holds event numbers up to 4294967295, .* last event is 4294967296"):
        write_overlay(tmp_path / "no.root", [], jobs=(replace(PROVENANCE, first_event=largest, events=2),))
    assert names_in(tmp_path) == ["bg.root"]


def test_the_experiment_must_be_known(tmp_path: Path) -> None:
    with (
        pytest.raises(ArgumentValueError, match="needs the experiment of its events: expected run_numbers"),
        open_writer(tmp_path / "bg.root", PROVENANCE, format_name="overlay"),
    ):
        pass
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("experiment", "run", "expected"),
    [
        (1003, None, RunNumbers(experiment=1003)),
        (0, 0, RunNumbers(experiment=0)),
        (999, 3, RunNumbers(experiment=999, run=3)),
        (1, 0, RunNumbers(experiment=1)),
        (None, None, "needs --experiment, the experiment number"),
        (None, 3, "needs --experiment"),
        (1, None, "Experiment 1 is run-dependent, .*: add --run"),
        (999, None, "Experiment 999 is run-dependent"),
        (1000, 3, "Experiment 1000 is run-independent: expected run 0, but got 3"),
        (0, 1, "Experiment 0 is run-independent"),
        (2048, None, "experiment must lie between 0 and 2047, but is 2048"),
        (12, 1 << 20, "run must lie between 0 and 1048575"),
    ],
)
def test_run_numbers_of_overlay_files(experiment: int | None, run: int | None, expected: RunNumbers | str) -> None:
    if isinstance(expected, RunNumbers):
        assert choose_run_numbers("overlay", experiment, run) == expected
    else:
        with pytest.raises(ArgumentValueError, match=expected):
            choose_run_numbers("overlay", experiment, run)


def test_other_formats_have_no_run_numbers() -> None:
    assert choose_run_numbers("parquet", None, None) is None
    for numbers in ((1003, None), (None, 3)):
        with pytest.raises(ArgumentValueError, match="is recorded by overlay files only: add --format overlay"):
            choose_run_numbers(None, *numbers)
    with pytest.raises(ArgumentTypeError, match="run must be an integer"):
        RunNumbers(experiment=12, run=1.5)  # type: ignore[arg-type]  # on purpose


def test_the_command_writes_an_overlay_file(release: ReleaseProgram, latent_graph: GraphFile, tmp_path: Path) -> None:
    path = tmp_path / "bg.root"
    words = ("--model", latent_graph.path, "--events", 2, "--seed", 7, "--output", path, "--format", "overlay")
    result = invoke("generate", *words, "--experiment", 12, "--run", 4)
    assert result.exit_code == 0, result.output
    expected = Generator(latent_graph.path, seed=7)
    _, digits = release.overlay(path, experiment=12, run=4, first=0, n_events=2)
    assert digits == Digits.concatenate(expected.stream(range(2)))
    assert f"pxdbg-runtime {__version__}" in release.describe(path)["release"][0]
    before = path.read_bytes()
    require_failure(invoke("generate", *words), 2, "needs --experiment")
    require_failure(invoke("generate", *words, "--experiment", 12), 2, "add --run")
    assert path.read_bytes() == before


def test_files_of_basf2_are_read(release: ReleaseProgram, tmp_path: Path) -> None:
    """Their events have the numbers of the entries; whatever else the files hold is no matter."""
    path = release.make(tmp_path / "basf2.root", 40)
    reader = open_events(path)
    assert (reader.metadata, reader.is_checked, reader.n_events) == (None, False, 40)
    assert reader.remark == "it has no metadata"
    _, expected = release.overlay(path, experiment=12, run=4, first=0, n_events=40)
    assert read_digits(path).digits == expected
    result = invoke("show", path)
    assert result.exit_code == 0, result.output
    assert "provenance: unknown" in result.output


@pytest.mark.parametrize("names", [["tree"], ["persistent"], ["tree", "persistent"]])
def test_other_trees_of_these_names_are_no_overlay_files(tmp_path: Path, names: list[str]) -> None:
    with uproot.recreate(tmp_path / "other.root") as file:
        for name in names:
            file.mktree(name, {"PXDDigits": "int32"})
    with pytest.raises(DigitFileError, match=r"other.root has no branch FileMetaData in a tree called persistent"):
        read_digits(tmp_path / "other.root")


@pytest.mark.parametrize(
    ("charge", "problem"), [(255, ""), (256, "of 256 ADU, .* at most 255"), (65535, "of 65535 ADU")]
)
def test_a_charge_above_eight_bits_is_never_wrapped(
    release: ReleaseProgram, tmp_path: Path, charge: int, problem: str
) -> None:
    path = release.make(tmp_path / "basf2.root", 3, charge=charge)
    if problem:
        with pytest.raises(DigitFileError, match=rf"basf2.root holds a digit {problem}"):
            read_digits(path)
    else:
        assert read_digits(path).digits.charge.max() == charge


@pytest.mark.slow
def test_digits_of_another_layout_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("ROOT", reason="pip install 'pxdbg-runtime[root]'")
    path = make_old_overlay(tmp_path / "old.root", digit_version=2, file_version=3)
    with pytest.raises(DigitFileError, match=r"old.root holds PXDDigits of another layout .*: m_sensorID is int32_t"):
        read_digits(path)


HANDLERS: Final = """
import os, signal
from pxdbg_runtime.formats.root_library import import_root
signal.signal(signal.SIGUSR2, lambda number, frame: print("handled", flush=True))
import_root("A test")
os.kill(os.getpid(), signal.SIGUSR2)
print("end")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGUSR2"), reason="there is no such signal")
@pytest.mark.slow
def test_root_leaves_handlers_of_signals(tmp_path: Path) -> None:
    pytest.importorskip("ROOT", reason="pip install 'pxdbg-runtime[root]'")
    environment = {**os.environ, "HOME": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", HANDLERS],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.stdout, result.stderr) == ("handled\nend\n", "")
