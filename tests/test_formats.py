"""What holds for every format of digit files, by its name; what is special to one has a test module of its own."""

from __future__ import annotations

import importlib.util
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from msgspec.structs import replace

from pxdbg_runtime import Digits
from pxdbg_runtime.errors import ArgumentValueError, DigitFileError, MissingPackageError, OutputError, PxdbgError
from pxdbg_runtime.formats import FORMATS, find_format, open_events, read_digits
from pxdbg_runtime.formats.registry import open_reader
from pxdbg_runtime.optional_imports import require
from tests.digit_files import PROVENANCE, SAMPLE, build_metadata, names_in, random_digits, write
from tests.isolation import limit_file_size, run_isolated
from tests.test_command_line import invoke

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pxdbg_runtime.formats.interface import Columns

CHECKOUT: Final = Path(__file__).resolve().parent.parent
N_POSITIONS: Final = 60
"""Bytes that are damaged, one at a time, most of them in the columns of a long file; tests of the formats damage more
bytes of short files, and with them more of what describes the columns."""
N_POSITIONS_OF_SLOW_READERS: Final = {"overlay": 30}
"""Uproot takes a tenth of a second to read the descriptions of basf2's classes."""


@pytest.fixture(params=FORMATS)
def name(request: pytest.FixtureRequest) -> str:
    """Name a format whose package is installed."""
    name = str(request.param)
    each = FORMATS[name]
    if each.package is not None and each.extra is not None:
        try:
            require(each.package, extra=each.extra, purpose=each.title)
        except MissingPackageError as error:
            pytest.skip(str(error))
    return name


def list_installed() -> list[str]:
    return [name for name, each in FORMATS.items() if each.package is None or importlib.util.find_spec(each.package)]


def name_file(folder: Path, name: str, stem: str = "digits") -> Path:
    return folder / f"{stem}{FORMATS[name].suffixes[0]}"


def hundred_events() -> list[Digits]:
    """Make events of 0 to some hundred digits; the first, the last and others between them have none."""
    rng = np.random.default_rng(17)
    sizes = rng.integers(0, 300, 100)
    sizes[[0, 1, 40, 41, 42, 98, 99]] = 0
    return [random_digits(rng, int(size), event) for event, size in enumerate(sizes, 3)]


def test_hundred_events_come_back(tmp_path: Path, name: str) -> None:
    events = hundred_events()
    provenance = replace(PROVENANCE, events=100)
    path = write(name_file(tmp_path, name), events, provenance, name)
    content = read_digits(path)
    assert content.digits == Digits.concatenate(events)
    assert (content.jobs, content.n_events, content.is_checked) == ((provenance,), 100, True)
    reader = open_events(path)
    assert reader.event_numbers.tolist() == list(range(3, 103))
    assert list(reader) == events
    assert names_in(tmp_path) == [path.name]


@pytest.mark.parametrize("n_rows", [1, 7, 5000])
def test_parts_need_not_be_events(tmp_path: Path, name: str, n_rows: int) -> None:
    rng = np.random.default_rng(2)
    digits = Digits.concatenate(random_digits(rng, size, event) for event, size in [(4, 40), (5, 300), (6, 1)])
    parts = [digits.select_rows(slice(start, start + n_rows)) for start in range(0, len(digits), n_rows)]
    content = read_digits(write(name_file(tmp_path, name), [Digits.empty(), *parts], format_name=name))
    assert (content.digits, content.n_events, content.is_checked) == (digits, 4, True)


@pytest.mark.parametrize("parts", [[], [Digits.empty()]])
def test_a_file_may_have_no_digit(tmp_path: Path, name: str, parts: list[Digits]) -> None:
    path = write(name_file(tmp_path, name), parts, format_name=name)
    content = read_digits(path)
    assert (content.digits, content.provenance, content.n_events) == (Digits.empty(), PROVENANCE, 4)
    assert content.is_checked
    assert list(open_events(path)) == [Digits.empty()] * 4


def test_several_jobs_come_back(tmp_path: Path, name: str) -> None:
    """Between the events of two jobs numbers may be missing; an event without digits is not one of them."""
    second = replace(PROVENANCE, first_event=7, events=2, seed=8, provider="CUDAExecutionProvider")
    third = replace(PROVENANCE, first_event=1_000_000, events=2, version="9")
    rng = np.random.default_rng(3)
    events = {number: random_digits(rng, 20, number) for number in (3, 8, 1_000_000)}
    path = write(name_file(tmp_path, name), events.values(), build_metadata(second, PROVENANCE, third), name)
    reader = open_events(path)
    assert reader.jobs == (PROVENANCE, second, third)
    numbers = [3, 4, 5, 6, 7, 8, 1_000_000, 1_000_001]
    assert reader.event_numbers.tolist() == numbers
    assert list(reader) == [events.get(number, Digits.empty()) for number in numbers]


def test_metadata_that_could_not_be_read_again_are_not_written(tmp_path: Path, name: str) -> None:
    jobs = [replace(PROVENANCE, first_event=first, events=1) for first in range(3000)]
    expected = rf"would have metadata of 1,\d{{3}},\d{{3}} bytes for {len(jobs):,} jobs, .*: merge fewer files"
    with pytest.raises(ArgumentValueError, match=expected):
        write(name_file(tmp_path, name), [], build_metadata(*jobs), name)
    assert names_in(tmp_path) == []
    path = write(name_file(tmp_path, name), [SAMPLE], build_metadata(*jobs[:2000]), name)
    content = read_digits(path)
    assert (content.digits, content.jobs) == (SAMPLE, tuple(jobs[:2000]))


def test_a_long_event_is_read_in_bounded_blocks(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(3)
    events = [random_digits(rng, size, event) for event, size in [(3, 10), (4, 300_000), (5, 0), (6, 150_000)]]
    path = write(name_file(tmp_path, name), events, format_name=name)
    assert list(open_events(path)) == events
    assert read_digits(path).digits == Digits.concatenate(events)


KILLED: Final = """
import contextlib, sys, time
from pathlib import Path
import numpy as np
from msgspec.structs import replace
from pxdbg_runtime.formats import open_writer
from tests.digit_files import PROVENANCE, build_metadata, random_digits
metadata = build_metadata(replace(PROVENANCE, events=10_000))
with contextlib.ExitStack() as stack:
    writers = [stack.enter_context(open_writer(path, metadata, format_name=path.parent.name))
               for path in map(Path, sys.argv[1:])]
    for event in range(3, 403):
        digits = random_digits(np.random.default_rng(event), 1000, event)
        for writer in writers:
            writer.write(digits)
    print("in the middle", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Kill a process that replaces a file of each format; returns the files, each in a folder of its own."""
    folder = tmp_path_factory.mktemp("killed")
    paths = {name: name_file(folder / name, name) for name in list_installed()}
    for name, path in paths.items():
        path.parent.mkdir()
        write(path, [SAMPLE], format_name=name)
    command = [sys.executable, "-c", KILLED, *map(str, paths.values())]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "in the middle\n"
        child.send_signal(signal.SIGKILL)
    return paths


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.slow
def test_a_killed_writer_leaves_what_was_there(name: str, killed: dict[str, Path]) -> None:
    """What it was writing stays under another name, until the same target is written again."""
    path = killed[name]
    left = [each for each in names_in(path.parent) if each != path.name]
    assert len(left) == 1
    assert left[0].endswith(".partial")
    assert read_digits(path).digits == SAMPLE
    write(path, [SAMPLE.of_event(5)], format_name=name)
    assert names_in(path.parent) == [path.name]
    assert read_digits(path).digits == SAMPLE.of_event(5)


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("n_bytes", [10, 20_000, 400_000])
def test_a_limit_on_files_acts_like_a_full_disk(tmp_path: Path, name: str, n_bytes: int, is_there: bool) -> None:
    path = name_file(tmp_path, name)
    if is_there:
        write(path, [SAMPLE], format_name=name)
    events = [random_digits(np.random.default_rng(event), 100_000, event) for event in (3, 4)]
    expected = rf"{re.escape(path.name)} cannot be written: "
    with limit_file_size(n_bytes), pytest.raises(OutputError, match=expected) as caught:
        write(path, events, format_name=name)
    assert caught.value.path == path
    assert names_in(tmp_path) == [path.name] * is_there
    assert not is_there or read_digits(path).digits == SAMPLE


FULL: Final = """
import sys
from pathlib import Path
import numpy as np
from pxdbg_runtime.errors import OutputError
from tests.digit_files import random_digits, write
events = [random_digits(np.random.default_rng(event), 400_000, event) for event in (3, 4, 5)]
for path in map(Path, sys.argv[1:]):
    try:
        write(path, events, format_name=path.stem)
    except OutputError as error:
        print(error)
    print(*(each.name for each in Path().iterdir()))
"""


@pytest.fixture(scope="module")
def on_full_disk(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Write each format on a disk of 1 MB, in one process; by its name, what was printed: errors and names of files."""
    names = list_installed()
    files = " ".join(name_file(Path(), name, name).name for name in names)
    script = f"PYTHONPATH='{CHECKOUT}' '{sys.executable}' -B -c '{FULL}' {files}"
    done = run_isolated(script, tmp_path_factory.mktemp("full"), scratch_mib=1)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    return {name: lines[2 * place : 2 * place + 2] for place, name in enumerate(names)}


@pytest.mark.skipif(sys.platform != "linux", reason="needs namespaces of Linux")
@pytest.mark.slow
def test_a_full_disk_leaves_nothing(name: str, on_full_disk: dict[str, list[str]]) -> None:
    error, left = on_full_disk[name]
    assert error.startswith(f"{name_file(Path(), name, name)} cannot be written: ")
    assert left == ""


@pytest.mark.parametrize("name", FORMATS)
def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    each = FORMATS[name]
    path = name_file(tmp_path, name)
    if each.package is None or each.extra is None:
        assert find_format(path, name) is each
        return
    extras = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    assert any(re.match(each.package, line, re.IGNORECASE) for line in extras[each.extra])
    monkeypatch.setitem(sys.modules, each.package, None)
    expected = rf"{re.escape(each.title)} needs {each.package}, .*pip install 'pxdbg-runtime\[{each.extra}\]'\."
    with pytest.raises(MissingPackageError, match=expected) as caught:
        write(path, [SAMPLE], format_name=name)
    assert (caught.value.package, caught.value.extra) == (each.package, each.extra)
    assert names_in(tmp_path) == []


@pytest.mark.slow
def test_a_changed_byte_is_an_error_or_changes_nothing(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(6)
    digits = Digits.concatenate(random_digits(rng, size, event) for event, size in [(3, 500), (5, 20_000), (6, 5)])
    path = write(name_file(tmp_path, name), [digits], format_name=name)
    whole = path.read_bytes()
    n_found = 0
    n_positions = N_POSITIONS_OF_SLOW_READERS.get(name, N_POSITIONS)
    for position in np.linspace(0, len(whole) - 1, n_positions).astype(np.int64).tolist():
        content = bytearray(whole)
        content[position] ^= int(rng.integers(1, 256))
        path.write_bytes(content)
        try:
            found = read_digits(path)
        except PxdbgError:
            n_found += 1
        else:
            assert (found.digits, found.jobs) == (digits, (PROVENANCE,)), f"byte {position}"
    assert n_found > n_positions // 4


def test_a_truncated_file_is_an_error(tmp_path: Path, name: str) -> None:
    path = write(name_file(tmp_path, name), hundred_events(), replace(PROVENANCE, events=100), name)
    whole = path.read_bytes()
    for size in (*range(0, len(whole), len(whole) // 20), len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DigitFileError, match=rf"{re.escape(path.name)} (is|holds|has|cannot be read)"):
            read_digits(path)


def test_dropped_rows_are_found(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(name_file(tmp_path, name), [SAMPLE], format_name=name)
    reader = type(open_reader(path))
    read_blocks = reader.read_blocks

    def read_all_but_one(self: object) -> Iterator[Columns]:
        for columns in read_blocks(self):  # type: ignore[arg-type]
            yield {key: column[1:] for key, column in columns.items()}

    monkeypatch.setattr(reader, "read_blocks", read_all_but_one)
    with pytest.raises(DigitFileError, match="holds other rows than those that its digest was computed from"):
        read_digits(path)


def test_a_file_of_another_kind_is_an_error(tmp_path: Path, name: str) -> None:
    path = name_file(tmp_path, name)
    for content in (
        b"",
        b"a",
        b"PK\5\6" + bytes(18),
        b"root" + bytes(100),
        b"\x89HDF\r\n\x1a\n",
        b"PAR1PAR1",
        b"{}\n" * 50,
    ):
        path.write_bytes(content)
        with pytest.raises(DigitFileError, match=re.escape(path.name)):
            read_digits(path)


def test_pxdbg_convert_and_merge_keep_everything(tmp_path: Path, name: str) -> None:
    """From Parquet to each format, back to NPZ, and together with another job to each format again."""
    events = hundred_events()[35:45]
    job = replace(PROVENANCE, first_event=38, events=10)
    later = replace(PROVENANCE, first_event=60, events=1, seed=8)
    source = write(tmp_path / "source.parquet", events, job)
    other = write(tmp_path / "other.npz", [], later)
    converted, back, merged = name_file(tmp_path, name, "converted"), tmp_path / "b.npz", name_file(tmp_path, name)
    options = ("--format", name, *(("--experiment", 1003) if name == "overlay" else ()))
    for command in (
        ("convert", source, "--output", converted, *options),
        ("convert", converted, "--output", back),
        ("merge", other, converted, "--output", merged, *options),
    ):
        result = invoke(*command)
        assert result.exit_code == 0, result.output
    for path in (converted, back):
        reader = open_events(path)
        assert (reader.jobs, reader.is_checked, list(reader)) == ((job,), True, events)
    reader = open_events(merged)
    assert (reader.jobs, list(reader)) == ((job, later), [*events, Digits.empty()])


def test_names_and_suffixes(tmp_path: Path) -> None:
    for name, each in FORMATS.items():
        assert re.fullmatch("[a-z0-9-]+", name)
        assert each.summary
        assert all(suffix.startswith(".") for suffix in each.suffixes)
        for suffix in each.suffixes:
            first = next(other for other in FORMATS.values() if suffix in other.suffixes)
            assert first.reader is each.reader, f"{name} has another reader than the first format of {suffix}"
    with pytest.raises(ArgumentValueError, match=r"format must be one of parquet, .*, but is 'csv'"):
        find_format(tmp_path / "a.npz", "csv")
    with pytest.raises(ArgumentValueError, match=r"a\.npz must end in \.parquet, as files of the format parquet do"):
        find_format(tmp_path / "a.npz", "parquet")


def test_digits_are_checked_before_any_format_writes_them(tmp_path: Path, name: str) -> None:
    path = name_file(tmp_path, name)
    unsorted = [SAMPLE.of_event(5), SAMPLE.of_event(3)]
    with pytest.raises(ArgumentValueError, match=f"{path.name} was given digits that are not ordered by event"):
        write(path, unsorted, format_name=name)
    assert names_in(tmp_path) == []
