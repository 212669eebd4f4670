"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import pytest
from filelock import lock_descriptor

from pxdbg_runtime.errors import GraphFileError, OutputError
from pxdbg_runtime.formats import atomic_write as writing_module
from pxdbg_runtime.formats import output_path
from pxdbg_runtime.formats.atomic_write import (
    atomic_write,
    check_target,
    open_partial,
    record_writes,
    report_file_errors,
)
from tests.isolation import file_size_limited, run_isolated

CHECKOUT: Final = Path(__file__).resolve().parent.parent
IS_ROOT: Final = hasattr(os, "geteuid") and os.geteuid() == 0
NOBODY: Final = 65534
WRITER: Final = """
import sys, time
from pathlib import Path
from pxdbg_runtime.formats.atomic_write import atomic_write
with atomic_write(Path(sys.argv[1])) as partial:
    partial.write_text(sys.argv[2])
    print("half", flush=True)
    sys.stdin.readline()
"""
"""Writes half a file, and the rest when it is told to."""
CHECKER: Final = """
import os, sys
from pathlib import Path
from pxdbg_runtime.formats.atomic_write import check_target
from pxdbg_runtime.errors import OutputError
if "AS_USER" in os.environ:
    os.setuid(int(os.environ["AS_USER"]))
for path in sys.argv[1:]:
    try:
        check_target(Path(path))
        print(path, "is fine")
    except OutputError as error:
        print(error)
"""


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(target: Path, content: str = "whole") -> None:
    with atomic_write(target) as partial:
        partial.write_text(content)


def write_half(target: Path, error: BaseException) -> None:
    with atomic_write(target) as partial:
        partial.write_bytes(b"half")
        raise error


def start_writer(target: Path, content: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(target), content],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    return process


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "digits.npz"
    with atomic_write(target) as partial:
        assert partial.parent == tmp_path
        assert not target.exists()
        partial.write_bytes(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert names_in(tmp_path) == ["digits.npz"]


def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "digits.npz"
    target.write_bytes(b"older")
    with atomic_write(target) as partial:
        partial.write_bytes(b"newer")
        assert target.read_bytes() == b"older"
    assert target.read_bytes() == b"newer"


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt("broken"), GeneratorExit("broken")])
def test_a_failure_leaves_the_older_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "digits.npz"
    target.write_bytes(b"older")
    with pytest.raises(type(error), match="broken"):
        write_half(target, error)
    assert target.read_bytes() == b"older"
    assert names_in(tmp_path) == ["digits.npz"]


def test_a_full_disk_is_an_output_error_that_names_the_target(tmp_path: Path) -> None:
    target = tmp_path / "digits.npz"
    message = r"digits\.npz cannot be written: No space left on device\."
    with pytest.raises(OutputError, match=message) as caught, atomic_write(target):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.path == target
    assert isinstance(caught.value, OSError)
    assert names_in(tmp_path) == []


def test_only_the_files_own_errors_are_blamed_on_it(tmp_path: Path) -> None:
    """A full disk of numba's cache is none of the output's."""
    target = tmp_path / "digits.npz"
    foreign = OSError(errno.ENOSPC, "No space left on device", "/cache/kernels.nbc")
    with pytest.raises(OSError, match=r"kernels\.nbc") as caught, open_partial(target):
        raise foreign
    assert caught.value is foreign
    own = OSError(errno.EDQUOT, "Disk quota exceeded")
    message = r"digits\.npz cannot be written: Disk quota exceeded\."
    with pytest.raises(OutputError, match=message), open_partial(target), report_file_errors(target):
        raise own
    assert names_in(tmp_path) == []


def test_errors_of_this_package_go_through_unchanged(tmp_path: Path) -> None:
    first = OutputError(tmp_path, "the first reason")
    with pytest.raises(OutputError, match=r"^the first reason$") as caught, atomic_write(tmp_path / "x"):
        raise first
    assert caught.value is first
    with pytest.raises(GraphFileError, match=r"^no graph$"), atomic_write(tmp_path / "x"):
        raise GraphFileError(tmp_path, "no graph")
    assert names_in(tmp_path) == []


def test_a_folder_is_no_target(tmp_path: Path) -> None:
    message = "is a folder: expected the name of a file to write"
    with pytest.raises(OutputError, match=message), atomic_write(tmp_path):
        pytest.fail("there is nothing to write to")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gone/digits.npz", "the folder .*gone does not exist"),
        ("file/digits.npz", "Not a directory"),
        ("x" * 300 + ".npz", "File name too long"),
    ],
)
def test_a_target_that_cannot_be_is_an_output_error(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=rf"cannot be written: {reason}\.") as caught, atomic_write(tmp_path / name):
        pytest.fail("there is nothing to write to")
    assert caught.value.path == tmp_path / name
    with pytest.raises(OutputError, match=rf"cannot be written: {reason}\."):
        check_target(tmp_path / name)
    assert names_in(tmp_path) == ["file"]


def test_a_partial_file_that_was_taken_away_is_an_output_error(tmp_path: Path) -> None:
    target = tmp_path / "digits.npz"
    message = r"cannot be written: No such file or directory"
    with pytest.raises(OutputError, match=message), atomic_write(target) as partial:
        partial.unlink()
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("name", ["digits.npz", "x" * 251 + ".npz", "é" * 125 + ".npz"])
def test_a_temporary_file_is_named_after_its_target(tmp_path: Path, name: str) -> None:
    """Also where the name is as long as the file system allows."""
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
    """Its locks may not be seen here, where they do not reach over the network."""
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
    """The other process locks it between our open and our lock, and removes it after we have looked at its identity."""
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


def test_links_are_written_through(tmp_path: Path) -> None:
    (tmp_path / "eos").mkdir()
    real = tmp_path / "eos" / "bg.parquet"
    real.write_text("older")
    link, chain, dangling = tmp_path / "out.parquet", tmp_path / "chain.parquet", tmp_path / "new.parquet"
    link.symlink_to("eos/bg.parquet")
    chain.symlink_to(link)
    dangling.symlink_to("eos/new.parquet")
    for each in (link, chain, dangling):
        check_target(each)
        with atomic_write(each) as partial:
            assert partial.parent == tmp_path / "eos"
            partial.write_text(each.name)
        assert each.is_symlink()
        assert each.resolve().read_text() == each.name
    assert real.read_text() == "chain.parquet"
    assert names_in(tmp_path / "eos") == ["bg.parquet", "new.parquet"]


def test_links_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    (tmp_path / "loop.npz").symlink_to("pool.npz")
    (tmp_path / "pool.npz").symlink_to("loop.npz")
    (tmp_path / "lost.npz").symlink_to("gone/lost.npz")
    for link, reason in (
        ("loop.npz", "Too many levels of symbolic links"),
        ("pool.npz", "Too many levels of symbolic links"),
        ("lost.npz", "the folder .*gone does not exist"),
    ):
        for attempt in (check_target, write):
            with pytest.raises(OutputError, match=f"{link} cannot be written: {reason}"):
                attempt(tmp_path / link)
    assert names_in(tmp_path) == ["loop.npz", "lost.npz", "pool.npz"]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no modes, devices or pipes with names")
def test_what_is_no_file_is_refused_before_the_work(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "device.npz").symlink_to("/dev/null")
    (tmp_path / "folder.npz").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.npz"))
        for name, kind in (("pipe", "pipe"), ("device", "device"), ("folder", "folder"), ("socket", "socket")):
            with pytest.raises(OutputError, match=rf"{name}\.npz is a {kind}.*: expected the name of a file to write"):
                check_target(tmp_path / f"{name}.npz")
    assert names_in(tmp_path) == ["device.npz", "folder.npz", "pipe.npz", "socket.npz"]


def test_too_little_room_is_found_out_before_the_work(tmp_path: Path) -> None:
    target = tmp_path / "bg.npz"
    with file_size_limited(500_000), pytest.raises(OutputError, match=r"bg\.npz cannot be written: File too large"):
        check_target(target)
    check_target(target)
    assert names_in(tmp_path) == []


def test_a_mounted_file_and_a_full_disk_are_refused_before_the_work(tmp_path: Path) -> None:
    checker = tmp_path / "checker.py"
    checker.write_text(f"import sys\nsys.path.insert(0, {str(CHECKOUT)!r})\n{CHECKER}")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    check = f"'{sys.executable}' -B '{checker}'"
    script = (
        f"touch 'a file.npz' other; mount --bind other 'a file.npz'; {check} 'a file.npz' fine.npz '{tmp_path}/bg.npz';"
        f"head -c 1500000 /dev/zero > filler; {check} bg.npz; ls -A"
    )
    done = run_isolated(script, scratch, scratch_mib=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "a file.npz cannot be replaced: it is a mount point. Write to another file.",
        "fine.npz is fine",
        f"{tmp_path}/bg.npz cannot be written: Read-only file system.",
        "bg.npz cannot be written: No space left on device.",
        "a file.npz",
        "filler",
        "other",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no modes")
def test_a_sticky_folder_counts_for_those_alone_who_own_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o1777)
    target = tmp_path / "bg.npz"
    target.touch()
    check_target(target)
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    with pytest.raises(OutputError, match=r"bg\.npz cannot be replaced: it is another user's file in a sticky folder"):
        check_target(target)
    check_target(tmp_path / "new.npz")
    tmp_path.chmod(0o755)
    check_target(target)
    assert names_in(tmp_path) == ["bg.npz"]


@pytest.mark.skipif(not IS_ROOT, reason="only root can be two users")
def test_another_users_file_in_a_sticky_folder_and_a_read_only_folder_are_refused() -> None:
    # Not in pytest's folder, which other users may not enter.
    with tempfile.TemporaryDirectory(prefix="pxdbg-tests-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        sticky = folder / "sticky"
        sticky.mkdir()
        sticky.chmod(0o1777)
        (sticky / "bg.npz").touch()
        (sticky / "own.npz").touch()
        os.chown(sticky / "own.npz", NOBODY, -1)
        paths = (sticky / "bg.npz", sticky / "own.npz", folder / "bg.npz")
        done = subprocess.run(
            [sys.executable, "-c", CHECKER, *map(str, paths)],
            cwd=CHECKOUT,
            env={**os.environ, "AS_USER": str(NOBODY)},
            capture_output=True,
            text=True,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{sticky}/bg.npz cannot be replaced: it is another user's file in a sticky folder. Write to another file.",
        f"{sticky}/own.npz is fine",
        f"{folder}/bg.npz cannot be written: Permission denied.",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no modes")
def test_the_mode_of_an_older_file_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "bg.npz"
    old_umask = os.umask(0o027)
    try:
        write(target)
        assert mode_of(target) == 0o640  # a new file has the umask's
        for mode in (0o660, 0o600, 0o444, 0o664):
            target.chmod(mode)
            with atomic_write(target) as partial:
                assert mode_of(partial) == 0o600  # nobody sees half a file who may not see the whole
                partial.write_text("whole")
            assert mode_of(target) == mode
    finally:
        os.umask(old_umask)


@pytest.mark.skipif(not IS_ROOT, reason="only root can give files away")
def test_the_group_of_an_older_file_is_kept_or_gets_no_more_than_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "bg.npz"
    target.touch()
    target.chmod(0o664)
    os.chown(target, -1, 4242)
    write(target)
    assert (target.stat().st_gid, mode_of(target)) == (4242, 0o664)

    def refuse(*_arguments: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    write(target)
    assert (target.stat().st_gid, mode_of(target)) == (os.getegid(), 0o644)


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


def test_where_the_system_names_no_mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_path, "_MOUNTS", tmp_path / "gone")
    (tmp_path / "bg.npz").touch()
    check_target(tmp_path / "bg.npz")
    assert names_in(tmp_path) == ["bg.npz"]
