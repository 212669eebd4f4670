"""The records beside a partition: of the complete file, or of the last failure to make it."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import msgspec

from pxdbg_runtime.campaigns.machine import Machine
from pxdbg_runtime.checks import MAX_EVENT
from pxdbg_runtime.formats.provenance import MAX_FILE_EVENTS
from pxdbg_runtime.json_records import NonNegativeNumber, Record, Sha256, Text

__all__ = ["FailureRecord", "PartRecord", "encode_record"]

_Count = Annotated[int, msgspec.Meta(ge=0)]


class PartRecord(Record, frozen=True, kw_only=True):
    """What is known about the complete file of a partition.

    Attributes
    ----------
    schema : int
        1.
    part : int
        Number of the partition.
    plan_sha256 : str
        Of the plan that it belongs to.
    file : str
        Name of the file.
    sha256 : str
        Of its bytes.
    size_bytes, first_event, events, digits : int
    seconds : float
        Wall-clock time to generate and write the events, without loading the graph.
    finished : str
        Date and time in UTC; nothing depends on it.
    host : str
        Name of the machine that made it.
    machine : Machine
        What it computed with.
    """

    schema: Literal[1] = 1
    part: _Count
    plan_sha256: Sha256
    file: Text
    sha256: Sha256
    size_bytes: _Count
    first_event: Annotated[int, msgspec.Meta(ge=0, le=MAX_EVENT)]
    events: Annotated[int, msgspec.Meta(ge=1, le=MAX_FILE_EVENTS)]
    digits: _Count
    seconds: NonNegativeNumber
    finished: Text
    host: Text
    machine: Machine


class FailureRecord(Record, frozen=True, kw_only=True):
    """The last failure to make a partition.

    Attributes
    ----------
    schema : int
        1.
    part : int
        Number of the partition.
    plan_sha256 : str
        Of the plan that it belongs to.
    reason : str
    failed : str
        Date and time in UTC.
    host : str
        Name of the machine that failed.
    """

    schema: Literal[1] = 1
    part: _Count
    plan_sha256: Sha256
    reason: Text
    failed: Text
    host: Text


def encode_record(record: Record) -> str:
    """Encode a record as JSON."""
    return json.dumps(msgspec.to_builtins(record), indent=1) + "\n"
