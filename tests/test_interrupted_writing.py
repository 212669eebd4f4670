"""Writers that are interrupted at any moment: the interrupt comes through, nothing stays, nothing is printed."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

from pxdbg_runtime.formats import open_writer
from tests.digit_files import PROVENANCE, SAMPLE, names_in

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

FILES: Final = (os.path.join("formats", "parquet_writer.py"), os.path.join("parquet", "core.py"))  # noqa: PTH118
"""Where Parquet is written, in this package and in PyArrow."""


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
