"""Atomic writes: a file is complete or absent."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest
from filelock import lock_descriptor

from pxdbg_runtime.errors import GraphFileError, OutputError
from pxdbg_runtime.formats import atomic_write as writing_module
from pxdbg_runtime.formats.atomic_write import (
    atomic_write,
    check_target,
    open_partial,
    record_writes,
    report_file_errors,
)
from tests.digit_files import names_in

CHECKOUT: Final = Path(__file__).resolve().parent.parent
WRITER: Final = """
import sys, time
from pathlib import Path
from pxdbg_runtime.formats.atomic_write import atomic_write
with atomic_write(Path(sys.argv[1])) as partial:
    partial.write_text(sys.argv[2])
    print("half", flush=True)
    sys.stdin.readline()
"""
"""Writes to the temporary file, and completes it after a line on its standard input."""


def write(target: Path, content: str = "whole") -> None:
    with atomic_write(target) as partial:
        partial.write_text(content)


def write_half(target: Path, error: BaseException) -> None:
    with atomic_write(target) as partial:
        partial.write_bytes(b"half")
        raise error


def start_writer(target: Path, content: str) -> subprocess.Popen[str]:
    command, pipe = [sys.executable, "-c", WRITER, str(target), content], subprocess.PIPE
    process = subprocess.Popen(command, cwd=CHECKOUT, stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    return process


@pytest.mark.parametrize("older", [None, b"older"])
def test_a_file_is_replaced_when_the_new_one_is_whole(tmp_path: Path, older: bytes | None) -> None:
    target = tmp_path / "digits.npz"
    if older:
        target.write_bytes(older)
    with atomic_write(target) as partial:
        assert partial.parent == tmp_path
        partial.write_bytes(b"whole")
        assert (target.read_bytes() if target.exists() else None) == older
    assert target.read_bytes() == b"whole"
    assert names_in(tmp_path) == ["digits.npz"]


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt("broken"), GeneratorExit("broken")])
def test_a_failure_leaves_the_older_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "digits.npz"
    target.write_bytes(b"older")
    with pytest.raises(type(error), match="broken"):
        write_half(target, error)
    assert target.read_bytes() == b"older"
    assert names_in(tmp_path) == ["digits.npz"]


def test_only_the_files_own_errors_are_blamed_on_it(tmp_path: Path) -> None:
    """A full disk under numba's cache is not an error of the output."""
    target = tmp_path / "digits.npz"
    foreign = OSError(errno.ENOSPC, "No space left on device", "/cache/kernels.nbc")
    with pytest.raises(OSError, match=r"kernels\.nbc") as caught, open_partial(target):
        raise foreign
    assert caught.value is foreign
    message = r"digits\.npz cannot be written: Disk quota exceeded\."
    with pytest.raises(OutputError, match=message), open_partial(target), report_file_errors(target):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")
    with pytest.raises(OutputError, match=message) as written, atomic_write(target):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")
    assert written.value.path == target
    assert names_in(tmp_path) == []


def test_errors_of_this_package_go_through_unchanged(tmp_path: Path) -> None:
    first = OutputError(tmp_path, "the first reason")
    with pytest.raises(OutputError, match=r"^the first reason$") as caught, atomic_write(tmp_path / "x"):
        raise first
    assert caught.value is first
    with pytest.raises(GraphFileError, match=r"^no graph$"), atomic_write(tmp_path / "x"):
        raise GraphFileError(tmp_path, "no graph")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gone/digits.npz", "cannot be written: the folder .*gone does not exist"),
        ("file/digits.npz", "cannot be written: Not a directory"),
        ("x" * 300 + ".npz", "cannot be written: File name too long"),
        (".", "is a folder: expected the name of a file to write"),
    ],
)
def test_a_target_that_cannot_be_is_an_output_error(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").touch()
    for attempt in (write, check_target):
        with pytest.raises(OutputError, match=rf"{reason}\.") as caught:
            attempt(tmp_path / name)
        assert caught.value.path == tmp_path / name
    assert names_in(tmp_path) == ["file"]


def test_a_partial_file_that_was_taken_away_is_an_output_error(tmp_path: Path) -> None:
    target = tmp_path / "digits.npz"
    message = r"cannot be written: No such file or directory"
    with pytest.raises(OutputError, match=message), atomic_write(target) as partial:
        partial.unlink()
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("name", ["digits.npz", "x" * 251 + ".npz", "é" * 125 + ".npz"])
def test_a_temporary_file_is_named_after_its_target(tmp_path: Path, name: str) -> None:
    """Also if the name is as long as the file system allows."""
    target = tmp_path / name
    with atomic_write(target) as partial:
        assert partial.name.startswith(f".{name[:10]}")
        assert partial.name.endswith(".partial")
        assert names_in(tmp_path) == [partial.name]
        partial.write_bytes(b"whole")
    assert target.read_bytes() == b"whole"
    assert names_in(tmp_path) == [name]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    target, other = tmp_path / "bg.parquet", tmp_path / "other.bg.parquet"
    killed, of_other, living = (
        start_writer(path, content) for path, content in ((target, "killed"), (other, "other"), (target, "living"))
    )
    killed.kill()
    of_other.kill()
    killed.communicate()
    of_other.communicate()
    left = names_in(tmp_path)
    assert [name.rpartition(".")[2] for name in left] == ["partial"] * 3
    write(target, "ours")
    assert target.read_text() == "ours"
    remaining = {name: (tmp_path / name).read_text() for name in names_in(tmp_path) if name != "bg.parquet"}
    assert sorted(remaining.values()) == ["living", "other"]
    living.communicate("go on\n", timeout=30)
    assert living.returncode == 0
    assert target.read_text() == "living"  # the last one to finish
    check_target(other)  # the next command that shall write it removes it, too, before it needs the room
    assert names_in(tmp_path) == ["bg.parquet"]


def test_two_writers_at_once_do_not_harm_each_other(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 251 + ".npz")
    with atomic_write(target) as first:
        first.write_bytes(b"first")
        with atomic_write(target) as second:
            second.write_bytes(b"second")
            check_target(target)
        assert target.read_bytes() == b"second"
    assert target.read_bytes() == b"first"
    assert names_in(tmp_path) == [target.name]


def test_what_another_machine_left_stays_for_a_week(tmp_path: Path) -> None:
    """Locks may not reach over the network, so this machine may not see them."""
    recent = tmp_path / ".bg.npz.00000000aaaaaaaa.partial"
    old = tmp_path / ".bg.npz.00000000bbbbbbbb.partial"
    similar = tmp_path / ".bg.npz.notes.partial"
    for path in (recent, old, similar):
        path.touch()
    week_ago = time.time() - 8 * 24 * 3600
    for path in (old, similar):
        os.utime(path, (week_ago, week_ago))
    write(tmp_path / "bg.npz")
    assert names_in(tmp_path) == sorted([recent.name, similar.name, "bg.npz"])


@pytest.mark.skipif(sys.platform == "win32", reason="a file that is open cannot be removed there")
def test_a_new_file_that_another_process_takes_for_a_leftover_gets_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process locks the file between our open and our lock, and removes it after we have read its inode."""
    taken: list[tuple[Path, int]] = []

    def lock_after_another(descriptor: int, *, blocking: bool) -> bool:
        if not taken:
            (path,) = tmp_path.iterdir()
            other = os.open(path, os.O_RDWR)
            assert lock_descriptor(other, blocking=False)
            taken.append((path, other))
        return lock_descriptor(descriptor, blocking=blocking)

    monkeypatch.setattr(writing_module, "lock_descriptor", lock_after_another)
    target = tmp_path / "bg.npz"
    with atomic_write(target) as partial:
        path, other = taken[0]
        path.unlink()
        os.close(other)
        assert names_in(tmp_path) == [partial.name]
        partial.write_text("ours")
        again = os.open(partial, os.O_RDWR)
        assert not lock_descriptor(again, blocking=False)
        os.close(again)
        write(target, "another writer")
        assert partial.read_text() == "ours"
    assert target.read_text() == "ours"
    assert names_in(tmp_path) == ["bg.npz"]


@pytest.mark.skipif(sys.platform == "win32", reason="a file that is open cannot be removed there")
def test_where_there_are_no_locks_nothing_is_taken_for_a_leftover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "bg.npz"

    def refuse(*_arguments: object, **_options: object) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(writing_module, "lock_descriptor", refuse)
    with atomic_write(target) as first:
        first.write_bytes(b"first")
        write(target, "second")
        assert first.exists()
    assert target.read_bytes() == b"first"
    assert names_in(tmp_path) == ["bg.npz"]


def test_another_name_of_the_file_keeps_the_old_content(tmp_path: Path) -> None:
    target, other = tmp_path / "bg.npz", tmp_path / "backup.npz"
    target.write_text("older")
    other.hardlink_to(target)
    write(target, "newer")
    assert (target.read_text(), other.read_text()) == ("newer", "older")


def test_writes_are_recorded(tmp_path: Path) -> None:
    write(tmp_path / "before.npz")
    with record_writes() as writes:
        write(tmp_path / "whole.npz")
        with pytest.raises(ValueError, match="broken"):
            write_half(tmp_path / "half.npz", ValueError("broken"))
        check_target(tmp_path / "checked.npz")
    write(tmp_path / "after.npz")
    assert [(each.target.name, each.is_in_place()) for each in writes] == [
        ("whole.npz", True),
        ("half.npz", False),
        ("checked.npz", False),
    ]
    assert all(each.path is not None and not each.path.exists() for each in writes)
