"""HDF5 on disks that fill, on disks without locks, and in jobs without threads."""

from __future__ import annotations

import _thread
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import h5py
import numpy as np
import pytest

from pxdbg_runtime.errors import DigitFileError, OutputError, ThreadLimitError
from pxdbg_runtime.formats import open_events, read_digits
from pxdbg_runtime.formats.interface import BLOCK_ROWS
from tests.digit_files import COLUMNS, NOT_OURS, SAMPLE, names_in, random_digits, write
from tests.isolation import limit_file_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pxdbg_runtime import Digits

CHECKOUT: Final = Path(__file__).resolve().parent.parent


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "bg.h5", [SAMPLE])


@pytest.mark.parametrize("n_bytes", [10, 1000, 3000, 200_000, 450_000])
def test_a_full_disk_leaves_nothing(tmp_path: Path, n_bytes: int) -> None:
    digits = random_digits(np.random.default_rng(5), 200_000, 3)
    message = r"bg\.h5 cannot be written: File too large"
    with limit_file_size(n_bytes), pytest.raises(OutputError, match=message):
        write(tmp_path / "bg.h5", [digits])
    assert names_in(tmp_path) == []
    assert read_digits(write(tmp_path / "bg.h5", [digits])).digits == digits


FULL: Final = """
import sys
from pathlib import Path
import numpy as np
from pxdbg_runtime.errors import DigitFileError, OutputError
from tests.digit_files import PROVENANCE, random_digits, write
from tests.isolation import limit_file_size
digits = random_digits(np.random.default_rng(5), 200_000, 3)
with limit_file_size(200_000):
    try:
        write(Path(sys.argv[1]), [digits])
    except OutputError as error:
        print(error)
"""


def test_a_process_ends_quietly_after_a_full_disk(tmp_path: Path) -> None:
    """HDF5 closes what is still open when the process ends, and complains if that fails."""
    command = [sys.executable, "-c", FULL, str(tmp_path / "bg.h5")]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "cannot be written: File too large" in done.stdout


def test_a_file_need_not_be_on_a_disk_with_locks(path: Path) -> None:
    """It is opened as a file of Python, so two programs may read it while h5py holds its lock."""
    with h5py.File(path, "r+"):
        assert read_digits(path).digits == SAMPLE
    assert h5py.File(io.BytesIO(path.read_bytes())).keys() >= {"sensor_id", "u_cell", "v_cell", "charge"}


def test_a_file_that_is_cut_while_it_is_read(tmp_path: Path) -> None:
    """h5py ignores that it gets fewer bytes than it asks for."""
    digits = random_digits(np.random.default_rng(5), 3 * BLOCK_ROWS, 3)
    with h5py.File(tmp_path / "bg.h5", "w") as file:
        for name in COLUMNS:
            file[name] = getattr(digits, name)
    blocks = open_events(tmp_path / "bg.h5").read_blocks()
    assert next(blocks) == digits.select_rows(slice(BLOCK_ROWS))
    os.truncate(tmp_path / "bg.h5", 3000)
    with pytest.raises(DigitFileError, match=rf"{NOT_OURS} .it was cut while it was read"):
        next(blocks)


def count_open_files() -> int:
    count: int = h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)
    return count


def test_an_error_about_threads_while_a_file_is_written_closes_it(tmp_path: Path) -> None:
    """As of a generator whose second thread is refused."""
    n_before = count_open_files()
    error = ThreadLimitError(1, 0, "No second thread.")

    def generate() -> Iterator[Digits]:
        yield SAMPLE
        assert count_open_files() == n_before + 1
        raise error

    with pytest.raises(ThreadLimitError, match=r"^No second thread\.$") as caught:
        write(tmp_path / "bg.h5", generate())
    assert caught.value is error
    assert count_open_files() == n_before
    assert names_in(tmp_path) == []


def test_a_writer_whose_thread_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    with pytest.raises(ThreadLimitError, match=r"^Needed 1 more thread, but the system started 0"):
        write(tmp_path / "bg.h5", [SAMPLE])
    assert names_in(tmp_path) == []
