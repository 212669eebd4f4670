"""Files of digits: a flat table with the columns of `Digits`, and how it was made, as Parquet or NPZ."""

from __future__ import annotations

from pxdbg_runtime.formats.merging import MergedReader, merge_files
from pxdbg_runtime.formats.provenance import HowMade, how_made
from pxdbg_runtime.formats.reader import DigitFile, DigitReader, EventReader, event_reader, read_digits
from pxdbg_runtime.formats.sources import SUFFIXES, check_suffix
from pxdbg_runtime.formats.writer import DigitWriter, opened_for_writing

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
