"""Parquet files whose description of the columns is damaged."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.digit_files import SAMPLE, write

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_a_footer_that_is_damaged_where_it_describes_the_columns_does_not_end_the_process(tmp_path: Path) -> None:
    """In a process of its own: pyarrow 26 ends it if asked for what some of these footers say of a column."""
    write(tmp_path / "sound.parquet", [SAMPLE], format_name="parquet-events")
    script = (
        "from pathlib import Path\nfrom pxdbg_runtime.errors import DigitFileError\n"
        "from pxdbg_runtime.formats import read_digits\n"
        "sound, damaged = Path('sound.parquet').read_bytes(), Path('damaged.parquet')\n"
        "start = len(sound) - 8 - int.from_bytes(sound[-8:-4], 'little')\n"
        "for bit in range(8 * start, 8 * (start + 180)):\n"
        "    content = bytearray(sound)\n"
        "    content[bit // 8] ^= 1 << bit % 8\n"
        "    damaged.write_bytes(content)\n"
        "    try:\n"
        "        read_digits(damaged)\n"
        "    except DigitFileError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") > 100
