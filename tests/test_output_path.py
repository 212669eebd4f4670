"""Output paths: links are followed, mode and group are kept, and what cannot be replaced is refused before the work."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import pytest

from pxdbg_runtime.errors import OutputError
from pxdbg_runtime.formats import output_path
from pxdbg_runtime.formats.atomic_write import atomic_write, check_target
from tests.digit_files import names_in
from tests.isolation import limit_file_size, run_isolated
from tests.test_atomic_write import CHECKOUT, write

IS_ROOT: Final = hasattr(os, "geteuid") and os.geteuid() == 0
NOBODY: Final = 65534
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


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


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
    targets = {"loop.npz": "pool.npz", "pool.npz": "loop.npz", "lost.npz": "gone/lost.npz"}
    for link, target in targets.items():
        (tmp_path / link).symlink_to(target)
    for link in targets:
        reason = "the folder .*gone does not exist" if link == "lost.npz" else "Too many levels of symbolic links"
        for attempt in (check_target, write):
            with pytest.raises(OutputError, match=f"{link} cannot be written: {reason}"):
                attempt(tmp_path / link)
    assert names_in(tmp_path) == sorted(targets)


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
    with limit_file_size(500_000), pytest.raises(OutputError, match=r"bg\.npz cannot be written: File too large"):
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


def test_where_the_system_names_no_mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_path, "_MOUNTS", tmp_path / "gone")
    (tmp_path / "bg.npz").touch()
    check_target(tmp_path / "bg.npz")
    assert names_in(tmp_path) == ["bg.npz"]
