"""HDF5 on disks that fill, and on disks without locks."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import h5py
import numpy as np
import pytest

from pxdbg_runtime.errors import DigitFileError, OutputError
from pxdbg_runtime.formats import open_events, read_digits
from pxdbg_runtime.formats.interface import BLOCK_ROWS
from tests.digit_files import COLUMNS, NOT_OURS, SAMPLE, names_in, random_digits, write
from tests.isolation import limit_file_size

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
