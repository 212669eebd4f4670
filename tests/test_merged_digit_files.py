"""Several digit files as one sample."""

from __future__ import annotations

import itertools
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from pxdbg_runtime import Digits
from pxdbg_runtime.errors import ArgumentValueError, DigitFileError
from pxdbg_runtime.formats import FileMetadata, Provenance, merge_files
from pxdbg_runtime.formats.npz import NpzReader
from pxdbg_runtime.formats.reader import EventReader
from pxdbg_runtime.sensors import READOUT_THRESHOLD_ADU
from tests.digit_files import (
    ANY_SUFFIX,
    PROVENANCE,
    each_suffix,
    list_columns,
    random_digits,
    summarise,
    write,
    write_plainly,
)
from tests.test_command_line import invoke, require_failure, words
from tests.test_command_line_inspection import row_of


def write_job(path: Path, provenance: Provenance, n_hits: int = 500) -> list[Digits]:
    """Write the events of a job, the last without digits."""
    rng = np.random.default_rng([provenance.first_event, provenance.seed % 100])
    hits = [n_hits] * (provenance.events - 1) + [0]
    events = [random_digits(rng, n, event) for event, n in enumerate(hits, provenance.first_event)]
    above = [each.select_rows(each.charge >= provenance.min_charge) for each in events]
    write(path, above, provenance)
    return above


@each_suffix
def test_jobs_of_other_events_are_one_sample(tmp_path: Path, suffix: str) -> None:
    jobs = [
        PROVENANCE,
        replace(PROVENANCE, first_event=7, events=2),
        replace(PROVENANCE, first_event=0, events=3, provider="CUDA", version="9"),
    ]
    paths = [tmp_path / "a.parquet", tmp_path / f"b{suffix}", tmp_path / "c.npz"]
    events = [each for path, provenance in zip(paths, jobs, strict=True) for each in write_job(path, provenance)]
    merged = merge_files(paths)
    assert (merged.n_events, merged.jobs, merged.is_checked, merged.remark) == (9, tuple(jobs), True, "")
    numbered = list(merged.read_events())
    assert [number for number, _digits in numbered] == [3, 4, 5, 6, 7, 8, 0, 1, 2]
    assert [digits for _number, digits in numbered] == events
    assert Digits.concatenate(merged.read_blocks()) == Digits.concatenate(events)
    result = invoke("show", *paths)
    assert result.exit_code == 0, result.output
    text = words(result.stdout)
    digits = Digits.concatenate(events)
    assert f"9 events, {len(digits):,} digits of 1 ADU or more" in text
    counted = digits.select_rows(digits.charge >= READOUT_THRESHOLD_ADU)
    assert row_of(result.stdout, "both layers")[1] == f"{summarise(counted, 9)[2].digits_per_event:,.0f}"
    assert "events 3 to 6" in text
    assert "events 7 to 8" in text
    assert "digest: checked" in text


@pytest.mark.parametrize("change", [{"seed": 8}, {"random_stream": "torch"}])
def test_jobs_of_other_seeds_have_other_events(tmp_path: Path, change: dict[str, object]) -> None:
    """The events differ although their numbers are equal."""
    other = replace(PROVENANCE, **change)
    events = [*write_job(tmp_path / "a.parquet", PROVENANCE), *write_job(tmp_path / "b.parquet", other)]
    merged = merge_files([tmp_path / "a.parquet", tmp_path / "b.parquet"])
    assert merged.n_events == 8
    assert [digits for _number, digits in merged.read_events()] == events
    assert Digits.concatenate(merged.read_blocks()) == Digits.concatenate(events)
    expected = (
        r"a\.parquet and other files has different events of the same number \(3\).*: iterate over it, or generate"
    )
    with pytest.raises(ArgumentValueError, match=expected):
        merged.read()


def test_common_numbers_of_events_without_digits_are_found_too(tmp_path: Path) -> None:
    """Event 6 is the last of both jobs, without digits."""
    paths = [tmp_path / "a.parquet", tmp_path / "b.npz"]
    write_job(paths[0], PROVENANCE)
    write_job(paths[1], replace(PROVENANCE, first_event=6, events=1, seed=8))
    with pytest.raises(ArgumentValueError, match=r"of the same number \(6\)"):
        merge_files(paths).read()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, r"both hold event 3 of seed -7, and 4 events in all: leave one of them out"),
        ({"first_event": 6}, r"both hold event 6 of seed -7, and 1 events in all"),
        ({"model": "other", "first_event": 9}, "not one sample: their model differs, tiny and other"),
        ({"graph_sha256": "f" * 64, "seed": 1}, "their graph_sha256 differs, 0123"),
        ({"precision": "int8", "seed": 1}, "their precision differs, float32 and int8"),
        ({"min_charge": 7, "seed": 1}, "their min_charge differs, 1 and 7"),
        ({"nature": "checkpoint", "seed": 1}, "their nature differs, demonstration and checkpoint"),
    ],
)
def test_files_that_are_not_one_sample(tmp_path: Path, change: dict[str, object], expected: str) -> None:
    paths = [tmp_path / "a.parquet", tmp_path / "b.npz"]
    write_job(paths[0], PROVENANCE)
    write_job(paths[1], replace(PROVENANCE, **change))
    with pytest.raises(DigitFileError, match=expected) as caught:
        merge_files(paths)
    assert caught.value.path == paths[1]
    require_failure(invoke("show", *paths), 1, expected)
    require_failure(invoke("validate", *paths, "--merge", "--report", tmp_path / "out.html"), 1, expected)


def test_several_files_that_cannot_be_merged(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_job(path, PROVENANCE)
    require_failure(invoke("show", path, path), 1, "both hold event 3 of seed -7")
    expected = f"one sample if all are digit files, {ANY_SUFFIX}, but resnet is none"
    require_failure(invoke("show", path, "resnet"), 2, expected)
    with pytest.raises(ArgumentValueError, match="needs at least one digit file"):
        merge_files([])


def test_files_of_which_nothing_is_known(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.parquet", "b.npz", "c.parquet", "known.npz")]
    rng = np.random.default_rng(1)
    first, second, third, again = (random_digits(rng, 100, event) for event in (3, 5, 4, 5))
    for path, digits in zip(paths, (Digits.concatenate([first, second]), third, again), strict=False):
        write_plainly(path, list_columns(digits), None)
    merged = merge_files(paths[:2])
    assert [number for number, _digits in merged.read_events()] == [3, 5, 4]
    assert (merged.jobs, merged.is_checked) == ((), False)
    assert merged.remark == f"{paths[0]}: it has no metadata"
    assert "3 events, 300 digits" in words(invoke("show", *paths[:2]).stdout)
    with pytest.raises(DigitFileError, match="both hold event 5, and 1 events in all"):
        merge_files(paths[:3])
    write_job(paths[3], replace(PROVENANCE, first_event=90))
    expected = r"how the digits of .*a\.parquet were generated is unknown \(it has no metadata\)"
    with pytest.raises(DigitFileError, match=expected):
        merge_files([paths[0], paths[3]])


def replace_files(
    monkeypatch: pytest.MonkeyPatch, events: list[list[int]], jobs: list[Provenance] | None = None
) -> list[str]:
    """Put readers of these events in the place of files; returns the names of the files, which do not exist."""
    readers = {
        str(place): EventReader(
            path=Path(str(place)),
            metadata=None if jobs is None else FileMetadata(jobs=(jobs[place],)),
            event_numbers=np.array(numbers),
            is_checked=False,
            remark="it has no metadata" if jobs is None else "",
            _reader=NpzReader(Path(str(place))),
            _digest=None,
            _passes=(),
        )
        for place, numbers in enumerate(events)
    }
    monkeypatch.setattr("pxdbg_runtime.formats.merging.open_events", readers.__getitem__)
    return list(readers)


@pytest.mark.parametrize("is_known", [True, False])
def test_common_events_of_any_two_files_are_found(monkeypatch: pytest.MonkeyPatch, is_known: bool) -> None:
    rng = np.random.default_rng(24)
    n_refused = 0
    for _ in range(500):
        n_files = int(rng.integers(2, 6))
        if is_known:
            numbers = rng.integers([0, 1, 0], [40, 9, 2], (n_files, 3)).tolist()
            jobs = [replace(PROVENANCE, first_event=first, events=n, seed=seed) for first, n, seed in numbers]
            events = [[*range(job.first_event, job.last_event + 1)] for job in jobs]
            paths = replace_files(monkeypatch, events, jobs)
            seeds = [job.seed for job in jobs]
        else:
            events = [sorted(rng.choice(100, rng.integers(1, 9), replace=False).tolist()) for _ in range(n_files)]
            paths = replace_files(monkeypatch, events)
            seeds = [0] * n_files
        common = {
            (paths[one], paths[other]): set(events[one]) & set(events[other])
            for one, other in itertools.combinations(range(n_files), 2)
            if seeds[one] == seeds[other]
        }
        if not any(common.values()):
            assert merge_files(paths).n_events == sum(map(len, events))
            continue
        n_refused += 1
        with pytest.raises(DigitFileError, match="both hold event") as raised:
            merge_files(paths)
        text = re.match(r"(\d) and (\d) both hold event (\d+)\b.*, and (\d+) events in all", str(raised.value))
        assert text is not None
        both = common[text[1], text[2]]
        assert (int(text[3]), int(text[4])) == (min(both), len(both))
        assert raised.value.path == Path(text[2])
    assert 100 < n_refused < 400


def test_thousands_of_files_are_compared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [replace(PROVENANCE, first_event=4 * place) for place in range(4000)]
    paths = replace_files(monkeypatch, [[*range(job.first_event, job.first_event + 4)] for job in jobs], jobs)
    start_s = time.process_time()
    assert merge_files(paths).n_events == 16000
    assert time.process_time() - start_s < 5  # to compare all pairs took 25 s


def test_validate_merges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures equal those of one file with all events."""
    monkeypatch.setattr("pxdbg_runtime.validation.page.draw_pictures", lambda *_arguments: ())
    paths = [tmp_path / "a.parquet", tmp_path / "b.npz"]
    jobs = (PROVENANCE, replace(PROVENANCE, first_event=7, events=3))
    events = [each for path, job in zip(paths, jobs, strict=True) for each in write_job(path, job, 2000)]
    whole = write(tmp_path / "whole.parquet", events, replace(PROVENANCE, events=7))
    samples = []
    for files, options in ((paths, ("--merge",)), ([whole], ())):
        result = invoke("validate", *files, *options, "--report", tmp_path / "out.html", "--min-charge", 9)
        assert result.exit_code == 0, result.output
        (sample,) = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["samples"]
        sample["marginals"].pop("name")
        samples.append(sample)
    names, numbers = zip(*((each.pop("name"), each.pop("jobs")) for each in samples), strict=True)
    assert names[0] == "a and 1 more"
    assert [job["first_event"] for job in numbers[0]] == [3, 7]
    assert samples[0] == samples[1]
