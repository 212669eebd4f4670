"""The cache: leftovers of killed processes, and locks."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

import pytest
from filelock import FileLock

from export.conditions.cache import default_cache, fetch_into_cache
from export.conditions.validity import OPEN, Interval, PayloadEntry
from export.errors import ConditionsError
from pxdbg_runtime.errors import OutputError
from pxdbg_runtime.formats.atomic_write import open_partial
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
    file.write(CONTENT)


def no_download(_file: BinaryIO) -> None:
    pytest.fail("it should not be downloaded")


def lock_of(cache: Path) -> Path:
    place = cache / PLACE
    place.parent.mkdir(parents=True, exist_ok=True)
    return place.with_name(f".{place.name}.lock")


@pytest.mark.parametrize("content", [b"", CONTENT[:1000], CONTENT + b"more"], ids=["empty", "part", "more"])
def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path, content: bytes) -> None:
    lock_of(tmp_path).touch()
    with open_partial(tmp_path / PLACE) as partial:
        pass
    (tmp_path / PLACE).rename(partial)
    partial.write_bytes(content)
    assert fetch_into_cache(tmp_path, ENTRY, download, QUICK) == (tmp_path / PLACE, False)
    assert (tmp_path / PLACE).read_bytes() == CONTENT
    assert files(tmp_path) == [PLACE]


def test_a_payload_is_used_though_a_killed_process_left_its_lock(tmp_path: Path) -> None:
    lock_of(tmp_path).touch()
    (tmp_path / PLACE).write_bytes(CONTENT)
    assert fetch_into_cache(tmp_path, ENTRY, no_download, QUICK) == (tmp_path / PLACE, True)


def test_a_link_in_the_place_of_a_payload_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    lock_of(tmp_path / "cache")
    (tmp_path / "cache" / PLACE).symlink_to(tmp_path / "precious")
    path, _ = fetch_into_cache(tmp_path / "cache", ENTRY, download, QUICK)
    assert path.read_bytes() == CONTENT
    assert not path.is_symlink()
    assert (tmp_path / "precious").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (ConditionsError("No."), r"^No\.$"),
        (OSError(28, "No space left on device"), r"cannot hold \S+_r3\.root: No space left on device\. Choose"),
        (KeyboardInterrupt(), "^$"),
    ],
)
def test_a_download_that_fails_leaves_nothing(tmp_path: Path, failure: BaseException, expected: str) -> None:
    def fail(file: BinaryIO) -> None:
        file.write(b"part")
        raise failure

    kind = OutputError if isinstance(failure, OSError) else type(failure)
    with pytest.raises(kind, match=expected):
        fetch_into_cache(tmp_path, ENTRY, fail, QUICK)
    assert files(tmp_path) == []


def test_the_wait_for_a_lock_ends(tmp_path: Path) -> None:
    with FileLock(lock_of(tmp_path)):
        place = re.escape(str(tmp_path / PLACE))
        expected = rf"^Another process has been downloading {place} for 0\.02 s: wait until .*"
        with pytest.raises(ConditionsError, match=expected):
            fetch_into_cache(tmp_path, ENTRY, no_download, replace(QUICK, lock_timeout_s=0.02))
    assert not (tmp_path / PLACE).exists()


def test_a_lock_that_was_removed_before_it_could_be_taken_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock
    was_removed: list[bool] = []

    def remove_first(file: int, operation: int) -> None:
        if not was_removed:
            lock_of(tmp_path).unlink()
            was_removed.append(True)
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    assert fetch_into_cache(tmp_path, ENTRY, download, QUICK) == (tmp_path / PLACE, False)
    assert was_removed
    assert files(tmp_path) == [PLACE]


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_lock(_file: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_lock)
    expected = r"cannot hold \S+: No locks available\. Choose another folder with --cache\.$"
    with pytest.raises(OutputError, match=expected):
        fetch_into_cache(tmp_path, ENTRY, no_download, QUICK)
    assert not (tmp_path / PLACE).exists()


def test_many_at_once_download_once(tmp_path: Path) -> None:
    downloads: list[BinaryIO] = []

    def count(file: BinaryIO) -> None:
        downloads.append(file)
        download(file)

    def fetch_with_the_others(_number: int) -> tuple[Path, bool]:
        all_at_once.wait(timeout=60)
        return fetch_into_cache(tmp_path, ENTRY, count, QUICK)

    all_at_once = threading.Barrier(16)
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(fetch_with_the_others, range(16)))
    assert len(downloads) == 1
    assert sorted(results) == [(tmp_path / PLACE, False)] + [(tmp_path / PLACE, True)] * 15
    assert files(tmp_path) == [PLACE]


def test_the_usual_cache_is_that_of_basf2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert default_cache() == tmp_path / "basf2-conditions"
