"""Files of digits: a flat table with the columns of `Digits`, and how it was made, as Parquet or NPZ."""

from __future__ import annotations

from pxdbg_runtime.digit_files.formats import SUFFIXES, check_suffix
from pxdbg_runtime.digit_files.merging import MergedReader, merge_files
from pxdbg_runtime.digit_files.reading import DigitFile, DigitReader, EventReader, event_reader, read_digits
from pxdbg_runtime.digit_files.writing import DigitWriter, opened_for_writing
from pxdbg_runtime.provenance import HowMade, how_made

__all__ = [
    "SUFFIXES",
    "DigitFile",
    "DigitReader",
    "DigitWriter",
    "EventReader",
    "HowMade",
    "MergedReader",
    "check_suffix",
    "event_reader",
    "how_made",
    "merge_files",
    "opened_for_writing",
    "read_digits",
]
