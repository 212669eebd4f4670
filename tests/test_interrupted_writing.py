"""Writers that are interrupted at any moment: the interrupt comes through, nothing stays, nothing is printed."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest

from pxdbg_runtime.formats import open_writer
from tests.digit_files import PROVENANCE, SAMPLE, names_in

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

FILES: Final = (os.path.join("formats", "parquet_writer.py"), os.path.join("parquet", "core.py"))  # noqa: PTH118
"""Where Parquet is written, in this package and in PyArrow."""


HDF5: Final = """
import signal, sys
from itertools import count
from pathlib import Path

import h5py  # an import that is interrupted leaves half a module
import numpy as np

from pxdbg_runtime.formats import open_writer
from tests.digit_files import PROVENANCE, random_digits

class Interrupt(BaseException):
    pass

def interrupt(*_):
    raise Interrupt

signal.signal(signal.SIGALRM, interrupt)
digits = random_digits(np.random.default_rng(1), 60_000, PROVENANCE.first_event)
with open_writer(Path(sys.argv[1]), PROVENANCE) as writer:
    writer.write(digits)  # imports what it needs
n_interrupts = 0
for number in count():
    signal.setitimer(signal.ITIMER_REAL, 0.001 + 0.002 * number)
    try:
        with open_writer(Path(sys.argv[1]), PROVENANCE) as writer:
            writer.write(digits)
        signal.setitimer(signal.ITIMER_REAL, 0)
        break
    except Interrupt:
        n_interrupts += 1
print(n_interrupts)
"""
"""Interrupts the writing of HDF5 later and later, until it is as fast."""

UNFINISHED: Final = """
import sys
from pathlib import Path
from pxdbg_runtime.formats import open_writer
from tests.digit_files import PROVENANCE, SAMPLE

def write():
    with open_writer(Path(sys.argv[1]), PROVENANCE) as writer:
        writer.write(SAMPLE)
        yield

writing = write()
next(writing)
"""
"""Exits while a generator writes."""


FORKED: Final = """
import os, sys, warnings
from pathlib import Path
from pxdbg_runtime.formats import open_writer
from tests.digit_files import PROVENANCE, SAMPLE

warnings.simplefilter("ignore")  # Python 3.12 warns of forks beside threads
with open_writer(Path(sys.argv[1]), PROVENANCE) as writer:
    child = os.fork()
    if child == 0:
        try:
            writer.write(SAMPLE)
        except RuntimeError as error:
            print(error, flush=True)
        sys.exit(3)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    os._exit(0)
"""
"""Writes in a fork of the process that began to write."""


class Interrupt(BaseException):
    """As the exception of a signal, which comes between any two lines."""


def write_interrupted(path: Path, line: int) -> bool:
    """Write a file, and raise `Interrupt` at the line that is run as the n-th of `FILES`; false if there are fewer."""
    n_lines = 0

    def trace(frame: FrameType, event: str, _argument: object) -> Any:  # noqa: ANN401  # itself
        nonlocal n_lines
        if not frame.f_code.co_filename.endswith(FILES):
            return None
        n_lines += event == "line"
        if event == "line" and n_lines == line:
            raise Interrupt
        return trace

    former = sys.gettrace()
    sys.settrace(trace)
    try:
        with open_writer(path, PROVENANCE) as writer:
            writer.write(SAMPLE)
    except Interrupt:
        return True
    finally:
        sys.settrace(former)
    return n_lines >= line


@pytest.mark.slow
def test_parquet_that_is_interrupted_at_any_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: lost.append(found.exc_type))
    path = tmp_path / "bg.parquet"
    line = 1
    while write_interrupted(path, line):
        assert names_in(tmp_path) == []
        line += 1
    gc.collect()
    assert line > 50
    assert names_in(tmp_path) == ["bg.parquet"]
    assert set(lost) <= {Interrupt, ResourceWarning}  # one is raised again (`StopSignals`), the other is not shown


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
def test_hdf5_that_is_interrupted_while_it_writes(tmp_path: Path) -> None:
    """In a process of its own, which crashed when Python raised in what HDF5 calls."""
    pytest.importorskip("h5py", reason="pip install 'pxdbg-runtime[hdf5]'")
    path = tmp_path / "bg.h5"
    done = subprocess.run([sys.executable, "-c", HDF5, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 5
    assert names_in(tmp_path) == ["bg.h5"]


def test_hdf5_is_written_without_locks_that_an_interrupt_could_leave_locked(tmp_path: Path) -> None:
    """Locks that Python's code holds: the writing would hang at the next use of one."""
    pytest.importorskip("h5py", reason="pip install 'pxdbg-runtime[hdf5]'")
    called: set[str] = set()
    write = partial(write_and_close, tmp_path / "bg.h5")
    write()  # imports what it needs
    former = sys.getprofile()
    sys.setprofile(lambda frame, _event, _argument: called.add(frame.f_code.co_filename))
    try:
        write()
    finally:
        sys.setprofile(former)
    assert any(name.endswith("hdf5_writer.py") for name in called)
    assert not [name for name in called if name.endswith("threading.py") or "concurrent" in name]


def test_a_process_exits_beside_hdf5_that_is_not_finished(tmp_path: Path) -> None:
    """The thread has ended when Python deletes the generator."""
    pytest.importorskip("h5py", reason="pip install 'pxdbg-runtime[hdf5]'")
    command = [sys.executable, "-c", UNFINISHED, str(tmp_path / "bg.h5")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert names_in(tmp_path) == []


def write_and_close(path: Path) -> None:
    with open_writer(path, PROVENANCE) as writer:
        writer.write(SAMPLE)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks are of POSIX")
def test_a_fork_neither_writes_hdf5_nor_waits_for_ever(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORKED, str(tmp_path / "a.h5")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == ""
    refusal, code = done.stdout.splitlines()
    assert "cannot go on in its fork" in refusal
    assert code == "3"
