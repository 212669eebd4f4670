"""Errors while digits are written or read: only errors of the file name the file."""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from pxdbg_runtime.errors import ImageError, MemoryLimitError, OutputError, PxdbgError, ThreadLimitError
from pxdbg_runtime.formats import open_writer, read_digits
from pxdbg_runtime.formats.damage import report_damage
from pxdbg_runtime.formats.npz import NpzReader
from pxdbg_runtime.formats.parquet import ParquetReader
from tests.digit_files import PROVENANCE, SAMPLE, each_suffix, names_in, write
from tests.isolation import file_size_limited

if TYPE_CHECKING:
    from pathlib import Path


def write_half(path: Path, error: BaseException) -> None:
    with open_writer(path, PROVENANCE):
        raise error


@each_suffix
def test_an_error_between_events_is_not_blamed_on_the_file(tmp_path: Path, suffix: str) -> None:
    """For example, a full disk under numba's cache."""
    path = tmp_path / f"digits{suffix}"
    foreign = OSError(errno.ENOSPC, "No space left on device", "/cache/kernels.nbc")
    with pytest.raises(OSError, match=r"kernels\.nbc") as caught:
        write_half(path, foreign)
    assert caught.value is foreign
    assert names_in(tmp_path) == []


def test_an_interrupt_counts_and_not_that_the_file_cannot_be_closed(tmp_path: Path) -> None:
    path = tmp_path / "digits.parquet"
    with file_size_limited(10), pytest.raises(KeyboardInterrupt, match="enough"):
        write_half(path, KeyboardInterrupt("enough"))
    with (
        file_size_limited(10),
        pytest.raises(OutputError, match=r"digits\.parquet cannot be written: .*File too large"),
        open_writer(path, PROVENANCE),
    ):
        pass
    assert names_in(tmp_path) == []


@each_suffix
@pytest.mark.parametrize("raised", [MemoryError("Unable to allocate 7 GiB"), pa.ArrowMemoryError("malloc failed")])
def test_too_little_memory_is_not_blamed_on_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, raised: MemoryError
) -> None:
    path = write(tmp_path / f"digits{suffix}", [SAMPLE])

    def fail(*_arguments: object) -> None:
        raise raised

    source = ParquetReader if suffix == ".parquet" else NpzReader
    for method in ("read_texts", "read_blocks"):
        with monkeypatch.context() as patch:
            patch.setattr(source, method, fail)
            message = rf"^There is not enough memory to read {re.escape(str(path))}: {raised}\. .* limit"
            with pytest.raises(MemoryLimitError, match=message):
                read_digits(path)


@pytest.mark.parametrize(
    "error", [ThreadLimitError(4, 1, "Four threads."), MemoryLimitError(7, "Importing."), ImageError("An image.")]
)
def test_errors_of_this_package_pass_while_a_file_is_read(tmp_path: Path, error: PxdbgError) -> None:
    with pytest.raises(type(error), match=rf"^{error}$") as caught, report_damage(tmp_path / "digits.npz"):
        raise error
    assert caught.value is error
