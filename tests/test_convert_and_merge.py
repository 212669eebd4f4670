"""``pxdbg convert`` and ``pxdbg merge``: digits, events and provenance stay, and what is not one sample is refused."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from msgspec.structs import replace

from pxdbg_runtime.formats import Provenance, merging, open_events, read_digits
from pxdbg_runtime.formats.reader import EventReader
from tests.digit_files import (
    ANY_SUFFIX,
    COLUMNS,
    METADATA,
    PROVENANCE,
    SAMPLE,
    each_suffix,
    list_columns,
    names_in,
    random_digits,
    write,
    write_plainly,
)
from tests.isolation import limit_file_size
from tests.test_command_line import invoke, require_failure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pxdbg_runtime import Digits


def write_job(path: Path, first_event: int, events: int, **changes: object) -> dict[int, Digits]:
    """Write a job whose every third event is without digits; return its events by number."""
    rng = np.random.default_rng(first_event)
    numbers = range(first_event, first_event + events)
    made = {number: random_digits(rng, 0 if number % 3 == 0 else 200, number) for number in numbers}
    write(path, made.values(), replace(PROVENANCE, first_event=first_event, events=events, **changes))
    return made


@each_suffix
@pytest.mark.parametrize("other", [".npz", ".parquet"])
def test_convert_keeps_digits_events_and_provenance(tmp_path: Path, suffix: str, other: str) -> None:
    made = write_job(tmp_path / f"a{suffix}", 3, 10)
    output = tmp_path / f"b{other}"
    result = invoke("convert", tmp_path / f"a{suffix}", "--output", output)
    assert result.exit_code == 0, result.output
    reader = open_events(output)
    assert list(reader) == list(made.values())
    assert (reader.jobs, reader.n_events) == ((replace(PROVENANCE, events=10),), 10)
    assert reader.is_checked
    n_digits = len(reader.read())
    assert result.stdout == f"wrote {output}: 10 events, {n_digits:,} digits\n"
    assert "events: 10/10" in result.stderr


def test_merge_orders_the_events_of_any_formats(tmp_path: Path) -> None:
    """The order of the files does not matter, and a merged file is merged again."""
    names = ["late.npz", "first.parquet", "middle.npz"]
    jobs: list[tuple[int, int, dict[str, object]]] = [
        (20, 5, {"version": "9"}),
        (0, 4, {}),
        (10, 3, {"seed": 8, "provider": "CUDAExecutionProvider"}),
    ]
    events: dict[int, Digits] = {}
    for name, (first, count, changes) in zip(names, jobs, strict=True):
        events |= write_job(tmp_path / name, first, count, **changes)
    result = invoke("merge", *(tmp_path / name for name in names[:2]), "--output", tmp_path / "two.parquet")
    assert result.exit_code == 0, result.output
    result = invoke("merge", tmp_path / "two.parquet", tmp_path / names[2], "--output", tmp_path / "all.npz")
    assert result.exit_code == 0, result.output
    assert "wrote" in result.stdout
    assert "12 events" in result.stdout
    reader = open_events(tmp_path / "all.npz")
    assert list(reader.read_events()) == sorted(events.items())
    assert [(job.first_event, job.events, job.seed, job.version) for job in reader.jobs] == [
        (0, 4, -7, "0.1.0"),
        (10, 3, 8, "0.1.0"),
        (20, 5, -7, "9"),
    ]


def test_files_are_open_together_only_while_their_events_interleave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: dict[int, Digits] = {}
    for part, firsts in {"a": (0, 10), "b": (5, 15), "c": (30, 40)}.items():
        for first in firsts:
            events |= write_job(tmp_path / f"{part}{first}.npz", first, 5)
        paths = [tmp_path / f"{part}{first}.npz" for first in firsts]
        assert invoke("merge", *paths, "--output", tmp_path / f"{part}.parquet").exit_code == 0
    n_open = n_most = 0
    read_events = EventReader.read_events

    def count_open(self: EventReader) -> Iterator[tuple[int, Digits]]:
        nonlocal n_open, n_most
        n_open += 1
        n_most = max(n_most, n_open)
        yield from read_events(self)
        n_open -= 1

    monkeypatch.setattr(EventReader, "read_events", count_open)
    sample = merging.merge_files([tmp_path / f"{part}.parquet" for part in "cba"])
    assert list(sample.read_ordered_events()) == sorted(events.items())
    assert n_most == 2


@pytest.mark.parametrize(
    ("changes", "exit_code", "expected"),
    [
        ({}, 1, "both hold event 4 of seed -7, and 4 events in all: leave one of them out"),
        ({"seed": 8}, 2, "Two jobs have an event of the number 4, of the seeds -7 and 8, but each event of a file"),
        ({"first_event": 50, "min_charge": 2}, 1, "not one sample: their min_charge differs, 1 and 2"),
        ({"first_event": 50, "model": "other"}, 1, "not one sample: their model differs, tiny and other"),
        (
            {"first_event": 50, "sensors": ("1.1.1",)},
            1,
            "not one sample: their sensors differ, all 40 sensors and sensor 1.1.1",
        ),
    ],
)
def test_what_is_not_one_file_is_refused(
    tmp_path: Path, changes: dict[str, object], exit_code: int, expected: str
) -> None:
    write(tmp_path / "a.npz", [], replace(PROVENANCE, first_event=4))
    write(tmp_path / "b.parquet", [], replace(PROVENANCE, **{"first_event": 4, **changes}))
    result = invoke("merge", tmp_path / "a.npz", tmp_path / "b.parquet", "--output", tmp_path / "all.npz")
    require_failure(result, exit_code, expected)
    assert names_in(tmp_path) == ["a.npz", "b.parquet"]


@each_suffix
def test_digits_of_unknown_origin_are_not_converted(tmp_path: Path, suffix: str) -> None:
    path = write_plainly(tmp_path / f"a{suffix}", COLUMNS, None)
    expected = (
        rf"How the digits of .*a\{suffix} were generated is unknown \(it has no metadata\), and a file that is written "
        "here must record it: generate them again, or write them with the tool that wrote this file"
    )
    for command in ("convert", "merge"):
        require_failure(invoke(command, path, "--output", tmp_path / "b.npz"), 1, expected)
    assert names_in(tmp_path) == [path.name]


def test_a_file_without_a_digest_is_converted_with_a_remark(tmp_path: Path) -> None:
    path = write_plainly(tmp_path / "a.parquet", COLUMNS, json.dumps(METADATA))
    result = invoke("convert", path, "--output", tmp_path / "b.npz")
    assert result.exit_code == 0, result.output
    assert f"{path} has no digest (an older release or another tool wrote it)" in result.stderr
    content = read_digits(tmp_path / "b.npz")
    assert (content.digits, content.provenance, content.n_events, content.is_checked) == (SAMPLE, PROVENANCE, 4, True)


@pytest.mark.parametrize(
    ("options", "exit_code", "expected"),
    [
        ("convert a.npz", 2, "Missing option '--output'"),
        ("merge --output b.npz", 2, "(?i)Missing argument 'files"),
        ("convert a.npz --output a.npz", 2, "--output would write over a.npz, which is read: name another file"),
        ("convert a.npz --output link.npz", 2, "--output would write link.npz over a.npz, which is read"),
        ("merge gone.npz a.npz --output a.npz", 2, "--output would write over a.npz, which is read"),
        ("convert a.npz --output b.csv", 2, f"b.csv must end in {ANY_SUFFIX}"),
        ("convert a.csv --output b.npz", 2, f"a.csv must end in {ANY_SUFFIX}"),
        ("convert a.npz --output b.npz --format csv", 2, "format must be one of .*parquet.*, but is 'csv'"),
        ("convert a.npz --output b.npz --format parquet", 2, r"b\.npz must end in \.parquet, as files of the format"),
        ("convert a.npz --output b.npz --experiment 1003", 2, "--experiment 1003 is recorded by overlay files only"),
        ("merge a.npz --output b.npz --run 3", 2, "--run 3 is recorded by overlay files only"),
        ("merge a.npz --output b.root --format overlay", 2, "An overlay file needs --experiment"),
        ("convert a.npz --output b.root --format overlay --experiment 7", 2, "Experiment 7 is run-dependent"),
        ("convert gone.npz --output b.npz", 1, "gone.npz cannot be read: No such file"),
        ("convert a.npz --output nowhere/b.npz", 1, "nowhere/b.npz cannot be written: the folder nowhere does not"),
        ("convert damaged.npz --output b.npz", 1, "damaged.npz .* damaged"),
        ("merge a.npz a.npz --output b.npz", 1, "both hold event 3 of seed -7"),
    ],
)
def test_bad_usage_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str, exit_code: int, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.npz", [SAMPLE])
    (tmp_path / "damaged.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-9])
    (tmp_path / "link.npz").symlink_to("a.npz")
    before = names_in(tmp_path)
    require_failure(invoke(*options.split()), exit_code, expected)
    assert names_in(tmp_path) == before
    assert read_digits(tmp_path / "a.npz").digits == SAMPLE


def test_rows_that_are_found_damaged_late_leave_no_file(tmp_path: Path) -> None:
    """The rows of an NPZ are compared with the digest after the last one is read; an existing output stays."""
    path = write(tmp_path / "a.npz", [SAMPLE])
    changed = {**list_columns(SAMPLE), "charge": np.array([1, 255, 7, 22, 10], dtype=np.uint8)}
    other = write_plainly(tmp_path / "changed.npz", changed, PROVENANCE.to_json())
    with np.load(path) as content:
        comment = content.zip.comment
    content_bytes = bytearray(other.read_bytes())
    content_bytes[-2:] = len(comment).to_bytes(2, "little")
    other.write_bytes(bytes(content_bytes) + comment)
    output = write(tmp_path / "b.npz", [SAMPLE])
    result = invoke("convert", other, "--output", output, "--overwrite")
    require_failure(result, 1, "holds other rows than those that its digest was")
    assert names_in(tmp_path) == ["a.npz", "b.npz", "changed.npz"]
    assert read_digits(output).digits == SAMPLE


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_a_full_disk_leaves_no_file(tmp_path: Path) -> None:
    digits = random_digits(np.random.default_rng(3), 500_000, 3)
    path = write(tmp_path / "a.npz", [digits])
    # The room is checked with a megabyte before; the file takes more.
    with limit_file_size(1_050_000):
        result = invoke("convert", path, "--output", tmp_path / "b.npz")
    require_failure(result, 1, r"b\.npz cannot be written: .*[Ff]ile too large")
    assert names_in(tmp_path) == ["a.npz"]


def test_a_merged_file_as_the_other_commands_see_it(tmp_path: Path) -> None:
    jobs: tuple[Provenance, ...] = (PROVENANCE, replace(PROVENANCE, first_event=7, events=2, seed=8))
    for name, job in zip("ab", jobs, strict=True):
        write(tmp_path / f"{name}.npz", [], job)
    merged = tmp_path / "all.npz"
    assert invoke("merge", tmp_path / "b.npz", tmp_path / "a.npz", "--output", merged).exit_code == 0
    text = invoke("show", merged).stdout
    assert "6 events, 0 digits" in text
    assert "seed -7, stream philox, pxdbg-runtime 0.1.0, events 3 to 6" in text
    assert "seed 8, stream philox, pxdbg-runtime 0.1.0, events 7 to 8" in text
    require_failure(invoke("show", merged, tmp_path / "b.npz"), 1, "both hold event 7 of seed 8, and 2 events in all")
