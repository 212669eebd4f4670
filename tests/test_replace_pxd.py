"""``pxdbg replace-pxd``: new PXD digits in a complete overlay file, and all else in it as it was."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from msgspec.structs import replace

from pxdbg_runtime import Digits, Generator
from pxdbg_runtime.errors import ArgumentValueError, DigitFileError, OutputError
from pxdbg_runtime.formats import FileMetadata, open_events
from pxdbg_runtime.formats.overlay_replacement import count_events, open_replacement
from tests.digit_files import PROVENANCE, SAMPLE, names_in, random_digits, renumber
from tests.isolation import limit_file_size
from tests.release_program import make_old_overlay
from tests.test_command_line import invoke, require_failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from pxdbg_runtime.model.graph_file import GraphFile
    from tests.release_program import ReleaseProgram

pytest.importorskip("ROOT", reason="pip install 'pxdbg-runtime[root]'")
uproot = pytest.importorskip("uproot", reason="pip install 'pxdbg-runtime[uproot]'")

CHECKOUT: Final = Path(__file__).resolve().parent.parent
N_EVENTS: Final = 120
METADATA: Final = FileMetadata(jobs=(replace(PROVENANCE, events=N_EVENTS, first_event=7),))
OTHERS: Final = {"CDCHits": "CDCHit", "ECLDsps": "ECLDsp", "PXDDigitsExtra": "PXDDigit", "PXDDigitsToCDCHits": "CDCHit"}
"""Arrays of other detectors in the files of the program, and their classes."""


@pytest.fixture(scope="module")
def complete(release: ReleaseProgram, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a complete overlay file, with classes that this process has no dictionary for."""
    return release.make(tmp_path_factory.mktemp("complete") / "overlay.root", N_EVENTS)


@pytest.fixture(scope="module")
def events() -> list[Digits]:
    """Make the events 7, 8, …; the first and the last have no digits."""
    rng = np.random.default_rng(5)
    sizes = [0, 40_000, 1, *rng.integers(0, 500, N_EVENTS - 4).tolist(), 0]
    return [random_digits(rng, size, number) for number, size in enumerate(sizes, 7)]


def replace_digits(source: Path, target: Path, events: list[Digits], metadata: FileMetadata = METADATA) -> Path:
    with open_replacement(source, target, metadata) as writer:
        for digits in events:
            writer.write(digits)
    return target


@pytest.fixture(scope="module")
def replaced(complete: Path, events: list[Digits], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return replace_digits(complete, tmp_path_factory.mktemp("replaced") / "new.root", events)


def read_baskets(path: Path) -> dict[str, list[bytes]]:
    """Read the compressed bytes of all baskets, without the headers that say where they are, by tree and branch."""
    content = path.read_bytes()
    found = {}
    with uproot.open(path) as file:
        for tree_name in ("tree", "persistent", "monitor/runs"):
            for name, branch in file[tree_name].items(full_paths=True):
                baskets = []
                for index in range(branch.num_baskets):
                    start = int(branch.member("fBasketSeek")[index])
                    if start == 0:  # ROOT keeps a small basket in the header of the tree
                        baskets.append(branch.basket(index).raw_data.tobytes())
                        continue
                    stop = start + int(branch.member("fBasketBytes")[index])
                    header = int.from_bytes(content[start + 14 : start + 16], "big")
                    baskets.append(content[start + header : stop])
                found[f"{tree_name}/{name}"] = baskets
    return found


def is_replaced(branch: str) -> bool:
    return branch.startswith(("tree/PXDDigits/", "persistent/FileMetaData/")) or branch in {
        "tree/PXDDigits",
        "persistent/FileMetaData",
    }


def test_all_other_branches_are_copied_bit_for_bit(complete: Path, replaced: Path) -> None:
    root = sys.modules["ROOT"]
    for kind in ("CDCHit", "ECLDsp", "Trigger"):  # absent when the file was copied, in this process
        found = root.TClass.GetClass(f"Belle2::{kind}")
        assert not found or not found.IsLoaded()
    before, after = ({k: v for k, v in read_baskets(p).items() if not is_replaced(k)} for p in (complete, replaced))
    assert after == before
    assert sum(map(len, before.values())) > 40
    assert {name.split("/")[1] for name in before if name.startswith("tree/")} == {
        *OTHERS,
        "ECLDspsUnsplit",
        "EventMetaData",
        "Trigger",
        "TriggerUnsplit",
    }


def test_compiled_dictionaries_read_the_same_values(release: ReleaseProgram, complete: Path, replaced: Path) -> None:
    before, after = (release.run("others", path).splitlines() for path in (complete, replaced))
    assert sorted(after) == sorted(before)
    assert len(before) > N_EVENTS
    checksums = [set(release.describe(path)["checksum"]) for path in (complete, replaced)]
    assert checksums[0] == checksums[1]


def test_overlay_takes_the_new_digits(release: ReleaseProgram, replaced: Path, events: list[Digits]) -> None:
    collections, digits = release.overlay(replaced, experiment=12, run=4, first=0, n_events=N_EVENTS)
    names = {**OTHERS, "PXDDigits": "PXDDigit"}
    assert collections == {f"{name}_beamBG": f"Belle2::{kind}" for name, kind in names.items()}
    assert digits == Digits.concatenate(renumber(each, entry) for entry, each in enumerate(events))


def test_the_description_is_kept_and_extended(release: ReleaseProgram, complete: Path, replaced: Path) -> None:
    before, after = release.describe(complete), release.describe(replaced)
    assert after["description"].pop(0) == before["description"].pop(0) == "campaign one"
    texts = dict(line.split(" ", 1) for line in after.pop("description"))
    assert before.pop("description", []) == []
    assert FileMetadata.from_json(texts["pxdbg"]) == METADATA
    assert set(texts) == {"pxdbg", "pxdbg_digest"}
    for found in (before, after):
        del found["checksum"]
    assert after == before
    assert before["lfn"] == ["/belle/overlay.root"]


def test_the_new_digits_are_read_with_their_provenance(replaced: Path, events: list[Digits]) -> None:
    reader = open_events(replaced)
    assert (reader.metadata, reader.is_checked) == (METADATA, True)
    assert list(reader) == events


def test_relations_of_the_old_digits_are_named(
    complete: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    replace_digits(complete, tmp_path / "new.root", [])
    assert "overlay.root holds PXDDigitsToCDCHits, which refers to the digits that are replaced" in caplog.text
    assert "PXDDigitsExtra" not in caplog.text


def test_a_replaced_file_can_be_replaced_again(
    release: ReleaseProgram, replaced: Path, events: list[Digits], tmp_path: Path
) -> None:
    path = replace_digits(replaced, tmp_path / "again.root", events[:1])
    _, digits = release.overlay(path, experiment=12, run=4, first=0, n_events=N_EVENTS)
    assert len(digits) == 0
    assert open_events(path).is_checked
    assert release.run("others", path) == release.run("others", replaced)


def test_a_replaced_file_has_the_same_bytes_at_another_time(
    complete: Path, replaced: Path, events: list[Digits], tmp_path: Path
) -> None:
    again = replace_digits(complete, tmp_path / "again.root", events)
    assert again.read_bytes() == replaced.read_bytes()


@pytest.mark.slow
def test_the_command(release: ReleaseProgram, latent_graph: GraphFile, tmp_path: Path) -> None:
    source, output = release.make(tmp_path / "overlay.root", 3), tmp_path / "new.root"
    words = ("replace-pxd", source, "--model", latent_graph.path, "--seed", 7, "--first-event", 5)
    result = invoke(*words, "--output", output)
    assert result.exit_code == 0, result.output
    expected = Digits.concatenate(Generator(latent_graph.path, seed=7).stream(range(5, 8)))
    assert result.stdout == f"wrote {output}: 3 events, {len(expected):,} digits\n"
    assert re.search(r"events: 0/3\nevents: 3/3 in ", result.stderr)
    content = open_events(output)
    assert Digits.concatenate(content) == expected
    assert content.provenance is not None
    assert (content.provenance.seed, content.provenance.first_event, content.provenance.events) == (7, 5, 3)
    untouched = source.read_bytes()
    os.link(source, tmp_path / "link.root")
    for same in (source, tmp_path / "link.root"):
        require_failure(invoke(*words, "--output", same), 2, "--output would write .*over .*, which is read")
    require_failure(invoke(*words, "--output", tmp_path / "new.parquet"), 2, "new.parquet must end in .root")
    assert source.read_bytes() == untouched
    assert names_in(tmp_path) == ["link.root", "new.root", "overlay.root"]


def test_a_file_is_never_replaced_in_place(complete: Path) -> None:
    before = complete.read_bytes()
    with pytest.raises(ArgumentValueError, match=r"overlay.root is the file whose digits are replaced: name another"):
        replace_digits(complete, complete, [])
    assert complete.read_bytes() == before


def write_trees(path: Path, **trees: dict[str, list[int]]) -> Path:
    """Write trees of integers with uproot."""
    with uproot.recreate(path) as file:
        for name, branches in trees.items():
            file.mktree(name, dict.fromkeys(branches, "int32"))
            if any(branches.values()):
                file[name].extend({branch: np.array(values, dtype=np.int32) for branch, values in branches.items()})
    return path


@pytest.mark.parametrize(
    ("trees", "problem"),
    [
        ({}, "is no overlay file: it has no tree called tree"),
        ({"tree": {"PXDDigits": [1]}}, "is no overlay file: it has no tree called persistent"),
        ({"tree": {"x": [1]}, "persistent": {"FileMetaData": [1]}}, "its tree tree has no branch PXDDigits"),
        ({"tree": {"PXDDigits": [1]}, "persistent": {"x": [1]}}, "its tree persistent has no branch FileMetaData"),
        ({"tree": {"PXDDigits": []}, "persistent": {"FileMetaData": [1]}}, "has no events: expected one or more"),
        ({"tree": {"PXDDigits": [1]}, "persistent": {"FileMetaData": [1, 2]}}, "has 2 entries in its tree persistent"),
        ({"tree": {"PXDDigits": [1]}, "persistent": {"FileMetaData": [1]}}, "has no Belle2::PXDDigit"),
        (
            {"tree": {"PXDDigits": [1]}, "persistent": {"FileMetaData": [1], "BackgroundMetaData": [1]}},
            "is a file for background mixing, not for overlay",
        ),
    ],
)
def test_files_that_are_no_overlay_files_are_refused(
    tmp_path: Path, trees: dict[str, dict[str, list[int]]], problem: str
) -> None:
    path = write_trees(tmp_path / "other.root", **trees)
    with pytest.raises(DigitFileError, match=rf"other.root .*{problem}"):
        count_events(path)
    with pytest.raises(DigitFileError, match=problem):
        replace_digits(path, tmp_path / "new.root", [])
    assert names_in(tmp_path) == ["other.root"]


@pytest.mark.parametrize(
    ("digit_version", "file_version", "problem"),
    [
        (2, 3, "its Belle2::PXDDigit has version 2, expected 5"),
        (5, 12, "its Belle2::FileMetaData has version 12, expected 11"),
    ],
)
def test_other_versions_of_classes_are_refused(
    tmp_path: Path, digit_version: int, file_version: int, problem: str
) -> None:
    path = make_old_overlay(tmp_path / "old.root", digit_version, file_version)
    result = invoke("replace-pxd", path, "--output", tmp_path / "new.root")
    require_failure(result, 1, f"old.root was written by another generation of basf2: {problem}")
    assert names_in(tmp_path) == ["old.root"]


def test_an_older_description_is_converted(release: ReleaseProgram, tmp_path: Path) -> None:
    path = make_old_overlay(tmp_path / "old.root", 5, 3)
    metadata = FileMetadata(jobs=(replace(PROVENANCE, events=1),))
    replace_digits(path, tmp_path / "new.root", [SAMPLE.of_event(3)], metadata)
    _, digits = release.overlay(tmp_path / "new.root", experiment=17, run=0, first=0, n_events=1)
    assert digits == renumber(SAMPLE.of_event(3), 0)


def test_a_file_for_mixing_is_refused(release: ReleaseProgram, tmp_path: Path) -> None:
    release.run("mix", tmp_path / "mix.root")
    require_failure(
        invoke("replace-pxd", tmp_path / "mix.root", "--output", tmp_path / "new.root"), 1, "for background mixing"
    )


@pytest.mark.parametrize("damage", ["text", "empty", "cut", "missing", "folder", "pipe"])
def test_unreadable_files_are_one_sentence(complete: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "bad.root"
    if damage == "cut":
        shutil.copy(complete, path)
        os.truncate(path, path.stat().st_size // 2)
    elif damage == "folder":
        path.mkdir()
    elif damage == "pipe":  # opening it would wait for ever
        os.mkfifo(path)
    elif damage != "missing":
        path.write_bytes(b"no ROOT file" * 100 * (damage == "text"))
    result = invoke("replace-pxd", path, "--output", tmp_path / "new.root")
    require_failure(result, 1, r"^Error: [^ ]*bad.root cannot be read: ")
    assert len(result.stderr.splitlines()) == 1


def test_a_file_on_which_root_crashes_is_one_sentence(
    complete: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pxdbg_runtime.formats.overlay_replacement._read_once", lambda *_: os.kill(os.getpid(), signal.SIGSEGV)
    )
    result = invoke("replace-pxd", complete, "--output", tmp_path / "new.root")
    require_failure(result, 1, "overlay.root is damaged: ROOT crashes when it reads it. Take another copy of it.")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), r"was ended by signal 9 \(Killed\)"),
        (lambda: os._exit(3), "ended with status 3"),
    ],
)
def test_a_process_that_did_not_crash_is_not_called_damage(
    complete: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: Callable[[], None], expected: str
) -> None:
    """A system whose memory is full kills processes."""
    monkeypatch.setattr("pxdbg_runtime.formats.overlay_replacement._read_once", lambda *_: end())
    result = invoke("replace-pxd", complete, "--output", tmp_path / "new.root")
    message = f"overlay.root cannot be read: the process in which ROOT tries it first {expected}; run the command"
    require_failure(result, 1, message)
    assert "damaged" not in result.stderr
    assert names_in(tmp_path) == []


def test_the_number_of_events_must_be_that_of_the_file(complete: Path, tmp_path: Path) -> None:
    metadata = FileMetadata(jobs=(replace(PROVENANCE, events=3),))
    with pytest.raises(ArgumentValueError, match=r"overlay.root has 120 events, but digits of 3 were announced"):
        replace_digits(complete, tmp_path / "new.root", [], metadata)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("n_bytes", [10, 50_000, 90_000, 200_000])
def test_a_full_disk_leaves_what_was_there(complete: Path, events: list[Digits], tmp_path: Path, n_bytes: int) -> None:
    path = tmp_path / "new.root"
    path.write_bytes(b"before")
    with limit_file_size(n_bytes), pytest.raises(OutputError, match=r"new.root cannot be written: "):
        replace_digits(complete, path, events)
    assert names_in(tmp_path) == ["new.root"]
    assert path.read_bytes() == b"before"


KILLED: Final = """
import sys, time
from pathlib import Path
from pxdbg_runtime.formats import FileMetadata
from pxdbg_runtime.formats.overlay_replacement import open_replacement
from tests.digit_files import SAMPLE, renumber
metadata = FileMetadata.from_json(sys.argv[3])
with open_replacement(Path(sys.argv[1]), Path(sys.argv[2]), metadata) as writer:
    for number in range(7, 60):
        writer.write(renumber(SAMPLE.of_event(5), number))
    print("in the middle", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
@pytest.mark.slow
def test_killed_in_the_middle(complete: Path, events: list[Digits], tmp_path: Path) -> None:
    path, before = tmp_path / "new.root", complete.read_bytes()
    command = [sys.executable, "-c", KILLED, str(complete), str(path), METADATA.to_json()]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "in the middle\n"
        child.send_signal(signal.SIGKILL)
    assert not path.exists()
    assert [name.endswith(".partial") for name in names_in(tmp_path)] == [True]
    assert complete.read_bytes() == before
    replace_digits(complete, path, events)
    assert names_in(tmp_path) == ["new.root"]
    assert list(open_events(path)) == events


def test_digits_are_checked(complete: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentValueError, match=r"new.root was given events 3 to 3, expected 7 to 126"):
        replace_digits(complete, tmp_path / "new.root", [SAMPLE.of_event(3)])
    assert names_in(tmp_path) == []
