"""Files of digits: the columns of `Digits` in one of several formats, and how they were generated.

A new format is a module here, and its entry in `registry.FORMATS`.
"""

from __future__ import annotations

from pxdbg_runtime.formats.merging import MergedReader, merge_files, open_digits
from pxdbg_runtime.formats.metadata import FileMetadata
from pxdbg_runtime.formats.provenance import Provenance, describe_generation
from pxdbg_runtime.formats.reader import DigitFile, DigitReader, EventReader, open_events, read_digits
from pxdbg_runtime.formats.registry import FORMATS, SUFFIX_LIST, SUFFIXES, find_format
from pxdbg_runtime.formats.run_numbers import RunNumbers
from pxdbg_runtime.formats.writer import DigitWriter, open_writer

__all__ = [
    "FORMATS",
    "SUFFIXES",
    "SUFFIX_LIST",
    "DigitFile",
    "DigitReader",
    "DigitWriter",
    "EventReader",
    "FileMetadata",
    "MergedReader",
    "Provenance",
    "RunNumbers",
    "describe_generation",
    "find_format",
    "merge_files",
    "open_digits",
    "open_events",
    "open_writer",
    "read_digits",
]
