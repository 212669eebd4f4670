"""The cache: leftovers of killed processes, and locks."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest
from filelock import FileLock

from export.conditions.cache import default_cache, fetch_into_cache
from export.conditions.validity import OPEN, Interval, PayloadEntry
from export.errors import ConditionsError
from pxdbg_runtime.errors import OutputError
from pxdbg_runtime.formats.atomic_write import open_partial
from tests.conditions_server import CONTENT, MD5, NAME, PLACE, QUICK, files

URL = "http://127.0.0.1/file"
ENTRY = PayloadEntry(
    name=NAME,
    revision=3,
    md5=MD5,
    payload_url="file",
    base_url="http://127.0.0.1",
    interval=Interval(first_experiment=0, first_run=0, last_experiment=OPEN, last_run=OPEN),
)


def download(file: BinaryIO) -> str:
    file.write(CONTENT)
    return URL


def no_download(_file: BinaryIO) -> str:
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
    assert fetch_into_cache(tmp_path, ENTRY, download, QUICK) == (tmp_path / PLACE, URL)
    assert (tmp_path / PLACE).read_bytes() == CONTENT
    assert files(tmp_path) == [PLACE]


def test_a_payload_is_used_though_a_killed_process_left_its_lock(tmp_path: Path) -> None:
    lock_of(tmp_path).touch()
    (tmp_path / PLACE).write_bytes(CONTENT)
    assert fetch_into_cache(tmp_path, ENTRY, no_download, QUICK) == (tmp_path / PLACE, None)


def test_a_link_in_the_place_of_a_payload_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    lock_of(tmp_path / "cache")
    (tmp_path / "cache" / PLACE).symlink_to(tmp_path / "precious")
    path, _ = fetch_into_cache(tmp_path / "cache", ENTRY, download, QUICK)
    assert path.read_bytes() == CONTENT
    assert not path.is_symlink()
    assert (tmp_path / "precious").read_bytes() == b"precious"


@pytest.mark.parametrize("umask", [0o077, 0o022, 0])
def test_all_users_can_write_to_the_cache_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    cache = tmp_path / "above" / "cache"
    before = os.umask(umask)
    try:
        fetch_into_cache(cache, ENTRY, download, QUICK)
        (cache / PLACE).write_bytes(b"damaged")
        (cache / PLACE).chmod(0o400)
        path, _ = fetch_into_cache(cache, ENTRY, download, QUICK)
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(each.stat().st_mode) for each in (path, *path.parents[:3])]
    assert modes == [0o666, 0o777, 0o777, 0o777 & ~umask]


def test_the_lock_is_open_to_all_users(tmp_path: Path) -> None:
    def check(file: BinaryIO) -> str:
        assert stat.S_IMODE(lock_of(tmp_path).stat().st_mode) == 0o666
        return download(file)

    before = os.umask(0o077)
    try:
        fetch_into_cache(tmp_path, ENTRY, check, QUICK)
    finally:
        os.umask(before)


def test_a_folder_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o700)
    fetch_into_cache(tmp_path / "cache", ENTRY, download, QUICK)
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700


def test_no_link_is_followed_that_another_user_puts_in_place_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "precious").mkdir(mode=0o700)
    cache = tmp_path / "cache"
    cache.mkdir()
    mkdir = Path.mkdir

    def replace_by_a_link(folder: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        mkdir(folder, mode, parents, exist_ok)
        if folder.parent == cache:
            folder.rmdir()
            folder.symlink_to(tmp_path / "precious")

    monkeypatch.setattr(Path, "mkdir", replace_by_a_link)
    with pytest.raises(OutputError, match=r"cannot hold \S+: Too many levels of symbolic links\. Choose another"):
        fetch_into_cache(cache, ENTRY, no_download, QUICK)
    assert stat.S_IMODE((tmp_path / "precious").stat().st_mode) == 0o700


def test_the_flat_layout_is_read(tmp_path: Path) -> None:
    flat = tmp_path / f"dbstore_{NAME}_rev_3.root"
    flat.write_bytes(CONTENT)
    assert fetch_into_cache(tmp_path, ENTRY, no_download, QUICK) == (flat, None)
    flat.write_bytes(CONTENT[:-1])
    assert fetch_into_cache(tmp_path, ENTRY, download, QUICK) == (tmp_path / PLACE, URL)


def test_a_pipe_in_the_place_of_a_payload_is_replaced_and_not_waited_for(tmp_path: Path) -> None:
    lock_of(tmp_path)
    os.mkfifo(tmp_path / PLACE)
    assert fetch_into_cache(tmp_path, ENTRY, download, QUICK) == (tmp_path / PLACE, URL)
    assert (tmp_path / PLACE).read_bytes() == CONTENT


def test_the_md5_is_checked_at_each_use(tmp_path: Path) -> None:
    path, _ = fetch_into_cache(tmp_path, ENTRY, download, QUICK)
    path.write_bytes(CONTENT[::-1])  # of the same length
    assert fetch_into_cache(tmp_path, ENTRY, download, QUICK) == (path, URL)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (ConditionsError("No."), r"^No\.$"),
        (OSError(28, "No space left on device"), r"cannot hold \S+_r3\.root: No space left on device\. Choose"),
        (KeyboardInterrupt(), "^$"),
    ],
)
def test_a_download_that_fails_leaves_nothing(tmp_path: Path, failure: BaseException, expected: str) -> None:
    def fail(file: BinaryIO) -> str:
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
    assert fetch_into_cache(tmp_path, ENTRY, download, QUICK) == (tmp_path / PLACE, URL)
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

    def count(file: BinaryIO) -> str:
        downloads.append(file)
        return download(file)

    def fetch_with_the_others(_number: int) -> tuple[Path, str | None]:
        all_at_once.wait(timeout=60)
        return fetch_into_cache(tmp_path, ENTRY, count, QUICK)

    all_at_once = threading.Barrier(16)
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(fetch_with_the_others, range(16)))
    assert len(downloads) == 1
    assert results.count((tmp_path / PLACE, URL)) == 1
    assert results.count((tmp_path / PLACE, None)) == 15
    assert files(tmp_path) == [PLACE]


def test_the_usual_cache_is_that_of_basf2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert default_cache() == tmp_path / "basf2-conditions"
