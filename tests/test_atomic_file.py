"""Files appear whole or not at all."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from pxdbg_runtime.atomic_file import written_whole
from pxdbg_runtime.errors import GraphFileError, OutputError

if TYPE_CHECKING:
    from pathlib import Path


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_half(target: Path, error: BaseException) -> None:
    with written_whole(target) as partial:
        partial.write_bytes(b"half")
        raise error


def test_a_new_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "digits.npz"
    with written_whole(target) as partial:
        assert partial.parent == tmp_path
        assert not target.exists()
        partial.write_bytes(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert names_in(tmp_path) == ["digits.npz"]


def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "digits.npz"
    target.write_bytes(b"older")
    with written_whole(target) as partial:
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
    with pytest.raises(OutputError, match=message) as caught, written_whole(target):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.path == target
    assert isinstance(caught.value, OSError)
    assert names_in(tmp_path) == []


def test_errors_of_this_package_go_through_unchanged(tmp_path: Path) -> None:
    first = OutputError(tmp_path, "the first reason")
    with pytest.raises(OutputError, match=r"^the first reason$") as caught, written_whole(tmp_path / "x"):
        raise first
    assert caught.value is first
    with pytest.raises(GraphFileError, match=r"^no graph$"), written_whole(tmp_path / "x"):
        raise GraphFileError(tmp_path, "no graph")
    assert names_in(tmp_path) == []


def test_a_folder_is_no_target(tmp_path: Path) -> None:
    message = "is a folder: expected the name of a file to write"
    with pytest.raises(OutputError, match=message), written_whole(tmp_path):
        pytest.fail("there is nothing to write to")
    assert names_in(tmp_path) == []


def test_a_name_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 251 + ".npz")
    with written_whole(target) as partial:
        partial.write_bytes(b"whole")
    assert target.read_bytes() == b"whole"


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
    with pytest.raises(OutputError, match=rf"cannot be written: {reason}\.") as caught, written_whole(tmp_path / name):
        pytest.fail("there is nothing to write to")
    assert caught.value.path == tmp_path / name
    assert names_in(tmp_path) == ["file"]


def test_a_partial_file_that_was_taken_away_is_an_output_error(tmp_path: Path) -> None:
    target = tmp_path / "digits.npz"
    message = r"cannot be written: No such file or directory"
    with pytest.raises(OutputError, match=message), written_whole(target) as partial:
        partial.unlink()
    assert names_in(tmp_path) == []
