"""`pxdbg_runtime.open`: digit files of any format, lazily, event by event or as arrays."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

import pxdbg_runtime
from pxdbg_runtime import Digits
from pxdbg_runtime.errors import ArgumentValueError, DigitFileError
from tests.digit_files import ANY_SUFFIX, COLUMNS, PROVENANCE, SAMPLE, renumber, write, write_plainly

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("as_path", [str, lambda path: path, lambda path: [path], lambda path: iter([str(path)])])
def test_one_file(tmp_path: Path, as_path: type) -> None:
    sample = pxdbg_runtime.open(as_path(write(tmp_path / "a.npz", [SAMPLE])))
    assert sample.read() == SAMPLE
    assert [len(digits) for digits in sample] == [2, 0, 3, 0]
    assert [number for number, _digits in sample.read_events()] == sample.event_numbers.tolist() == [3, 4, 5, 6]
    assert Digits.concatenate(sample.read_blocks()) == SAMPLE
    assert (sample.n_events, sample.is_checked, sample.remark) == (4, True, "")
    assert sample.jobs == (sample.provenance,) == (PROVENANCE,)


def test_several_files_are_read_one_after_the_other(tmp_path: Path) -> None:
    other = replace(PROVENANCE, first_event=0, events=1, seed=8)
    first = renumber(SAMPLE.of_event(5), 0)
    paths = [write(tmp_path / "a.parquet", [SAMPLE]), write(tmp_path / "b.npz", [first], other)]
    sample = pxdbg_runtime.open(paths)
    assert sample.event_numbers.tolist() == [3, 4, 5, 6, 0]
    assert list(sample) == [*(SAMPLE.of_event(number) for number in (3, 4, 5, 6)), first]
    assert sample.read() == Digits.concatenate([SAMPLE, first])
    assert (sample.jobs, sample.provenance) == ((PROVENANCE, other), None)
    unknown = write_plainly(tmp_path / "c.npz", COLUMNS, None)
    assert pxdbg_runtime.open(unknown).provenance is None
    assert pxdbg_runtime.open([unknown]).jobs == ()


def test_rows_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", [SAMPLE])
    sample = pxdbg_runtime.open(path)
    path.unlink()
    with pytest.raises(DigitFileError, match=r"a\.npz cannot be read: No such file"):
        sample.read()


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ArgumentValueError, match="needs at least one digit file, but none was given"):
        pxdbg_runtime.open([])
    with pytest.raises(ArgumentValueError, match=f"must end in {ANY_SUFFIX}"):
        pxdbg_runtime.open(tmp_path / "a.csv")
    path = write(tmp_path / "a.npz", [SAMPLE])
    with pytest.raises(DigitFileError, match="both hold event 3"):
        pxdbg_runtime.open([path, path])


def test_the_import_of_the_package_does_not_load_the_formats() -> None:
    script = (
        "import sys, pxdbg_runtime\n"
        "assert not [name for name in sys.modules if name.startswith(('pxdbg_runtime.formats', 'pyarrow'))]\n"
        "assert 'open' in dir(pxdbg_runtime)\n"
        "assert callable(pxdbg_runtime.open)\n"
        "assert 'pxdbg_runtime.formats' in sys.modules and 'pyarrow' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'pxdbg_runtime' has no attribute 'opened'"):
        _ = pxdbg_runtime.opened  # type: ignore[attr-defined]
