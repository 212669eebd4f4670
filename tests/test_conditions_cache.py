"""The cache: what a process that was killed can have left behind, and locks."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import tempfile
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

import pytest

from export.conditions.cache import default_cache, stored
from export.conditions.validity import OPEN, Interval, PayloadEntry
from export.errors import ConditionsError
from pxdbg_runtime.errors import OutputError
from tests.conditions_server import CONTENT, MD5, NAME, PLACE, QUICK, files

if TYPE_CHECKING:
    from pathlib import Path

ENTRY = PayloadEntry(
    name=NAME,
    revision=3,
    md5=MD5,
    url="http://127.0.0.1/file",
    interval=Interval(first_experiment=0, first_run=0, last_experiment=OPEN, last_run=OPEN),
)


def download(file: BinaryIO) -> None:
    assert file.read() == b""
    file.write(CONTENT)


def no_download(_file: BinaryIO) -> None:
    pytest.fail("it should not be downloaded")


def partial_of(cache: Path) -> Path:
    place = cache / PLACE
    place.parent.mkdir(parents=True, exist_ok=True)
    return place.with_name(f".{place.name}.partial")


@pytest.mark.parametrize("left", [b"", CONTENT[:1000], CONTENT, CONTENT + b"more"], ids=["none", "part", "all", "more"])
def test_whatever_a_killed_process_left_is_written_over(tmp_path: Path, left: bytes) -> None:
    partial_of(tmp_path).write_bytes(left)
    assert stored(tmp_path, ENTRY, download, QUICK) == (tmp_path / PLACE, False)
    assert (tmp_path / PLACE).read_bytes() == CONTENT
    assert files(tmp_path) == [PLACE]


def test_what_is_there_is_used_though_a_killed_process_left_something(tmp_path: Path) -> None:
    (partial_of(tmp_path).parent / f"{NAME}_r3.root").write_bytes(CONTENT)
    partial_of(tmp_path).write_bytes(b"part")
    assert stored(tmp_path, ENTRY, no_download, QUICK) == (tmp_path / PLACE, True)


@pytest.mark.parametrize(
    "failure", [ConditionsError("No."), OSError(28, "No space left on device"), KeyboardInterrupt()]
)
def test_a_download_that_fails_leaves_nothing(tmp_path: Path, failure: BaseException) -> None:
    def failing(file: BinaryIO) -> None:
        file.write(b"part")
        raise failure

    kind = OutputError if isinstance(failure, OSError) else type(failure)
    expected = (
        r"cannot hold \S+_r3\.root: No space left on device\. Choose" if isinstance(failure, OSError) else "^(No\\.)?$"
    )
    with pytest.raises(kind, match=expected):
        stored(tmp_path, ENTRY, failing, QUICK)
    assert files(tmp_path) == []


def test_a_lock_is_not_waited_for_without_end(tmp_path: Path) -> None:
    partial = partial_of(tmp_path)
    with partial.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        expected = (
            rf"^Another process has been downloading {re.escape(str(partial))} for 0\.02 s: wait until it is done, .*"
        )
        with pytest.raises(ConditionsError, match=expected):
            stored(tmp_path, ENTRY, no_download, replace(QUICK, lock_timeout_s=0.02))
    assert not (tmp_path / PLACE).exists()


def test_a_file_that_was_removed_before_it_could_be_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = partial_of(tmp_path)
    n_locks = 0

    def lock(file: BinaryIO, operation: int) -> None:
        nonlocal n_locks
        n_locks += 1
        if n_locks == 1:
            partial.unlink()
        flock(file, operation)

    flock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", lock)
    assert stored(tmp_path, ENTRY, download, QUICK) == (tmp_path / PLACE, False)
    assert n_locks == 2
    assert files(tmp_path) == [PLACE]


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_lock(_file: BinaryIO, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_lock)
    with pytest.raises(
        OutputError, match=r"cannot hold \S+: No locks available\. Choose another folder with --cache\.$"
    ):
        stored(tmp_path, ENTRY, no_download, QUICK)
    assert not (tmp_path / PLACE).exists()


def test_many_at_once_download_once(tmp_path: Path) -> None:
    n_downloads = 0
    results: list[tuple[Path, bool]] = []

    def counted(file: BinaryIO) -> None:
        nonlocal n_downloads
        n_downloads += 1
        download(file)

    def one() -> None:
        results.append(stored(tmp_path, ENTRY, counted, QUICK))

    threads = [threading.Thread(target=one) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert n_downloads == 1
    assert sorted(results) == [(tmp_path / PLACE, False)] + [(tmp_path / PLACE, True)] * 15
    assert files(tmp_path) == [PLACE]


def test_the_usual_cache_is_that_of_basf2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert default_cache() == tmp_path / "basf2-conditions"
