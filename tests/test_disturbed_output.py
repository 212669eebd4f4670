"""Outputs under disturbances: a disk that fills, a folder that turns read-only, a clock that jumps."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from pxdbg_runtime.errors import OutputError
from pxdbg_runtime.formats import open_writer, read_digits
from tests.digit_files import PROVENANCE, SAMPLE, names_in, write
from tests.isolation import limit_file_size
from tests.test_command_line import invoke

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pxdbg_runtime.model.graph_file import GraphFile

NOBODY: Final = 65534
YEAR_S: Final = 366 * 24 * 3600
each_suffix = pytest.mark.parametrize("suffix", [".parquet", ".npz"])


def generate(graph: GraphFile, output: Path) -> tuple[int, str]:
    arguments = ("--model", graph.path, "--events", 3, "--seed", 5, "--min-charge", 7, "--no-verify")
    result = invoke("generate", *map(str, arguments), "--overwrite", "--output", str(output))
    return result.exit_code, result.stderr


@each_suffix
@pytest.mark.parametrize("is_there", [False, True])
def test_a_disk_that_fills_while_events_are_generated(
    suffix: str, is_there: bool, latent_graph: GraphFile, tmp_path: Path
) -> None:
    output = tmp_path / f"bg{suffix}"
    if is_there:
        write(output, [SAMPLE])
    with limit_file_size(30_000):
        code, stderr = generate(latent_graph, output)
    assert code == 1
    assert len(re.findall(rf"^Error: \S*{output.name} cannot be written: .*\.$", stderr, re.MULTILINE)) == 1
    assert names_in(tmp_path) == [output.name] * is_there
    assert not is_there or read_digits(output).digits == SAMPLE
    assert generate(latent_graph, output)[0] == 0
    assert read_digits(output).n_events == 3


@contextmanager
def open_folder() -> Iterator[Path]:
    """Make a folder that other users reach, unlike pytest's."""
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may write into every folder, so be nobody for a while."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def write_into_read_only(output: Path) -> None:
    """Write one event, then a second after the folder has turned read-only."""
    with without_privileges(), open_writer(output, PROVENANCE) as writer:
        writer.write(SAMPLE.of_event(3))
        with as_root():
            output.parent.chmod(0o555)
        writer.write(SAMPLE.of_event(5))


@contextmanager
def as_root() -> Iterator[None]:
    """Be root again if the tests are, because the folder is root's."""
    before = os.geteuid()
    if os.getuid() == 0:
        os.seteuid(0)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.mark.skipif(sys.platform == "win32", reason="folders have no such modes there")
@each_suffix
def test_a_folder_that_turns_read_only(suffix: str) -> None:
    """The unfinished file cannot be removed then, and is not under the name of the output."""
    with open_folder() as folder:
        folder.chmod(0o777)
        output = folder / f"bg{suffix}"
        write(output, [SAMPLE])
        expected = rf"{output.name} cannot be written: Permission denied"
        with pytest.raises(OutputError, match=expected) as caught:
            write_into_read_only(output)
        assert caught.value.path == output
        assert read_digits(output).digits == SAMPLE
        left = [name for name in names_in(folder) if name != output.name]
        assert all(name.endswith(".partial") for name in left)
        folder.chmod(0o777)
        write(output, [SAMPLE.of_event(5)])  # the next one to write it removes what was left
        assert names_in(folder) == [output.name]


@each_suffix
def test_a_clock_that_jumps(
    suffix: str, latent_graph: GraphFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only durations of a monotonic clock are measured, and no time is written: the files are equal."""
    first, second = tmp_path / f"first{suffix}", tmp_path / f"second{suffix}"
    assert generate(latent_graph, first)[0] == 0
    now = time.time()
    jumps = itertools.cycle((now + 20 * YEAR_S, 0.0, now, now - 30 * YEAR_S))
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    code, stderr = generate(latent_graph, second)
    assert code == 0, stderr
    monkeypatch.undo()
    assert second.read_bytes() == first.read_bytes()
    assert names_in(tmp_path) == [first.name, second.name]
