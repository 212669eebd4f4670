"""A conditions database in an sqlite file, as cvmfs has it and ``b2conditionsdb download`` writes it."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from export.conditions.fields import DatabaseText, check_md5, check_payload_url, is_web_address
from export.conditions.server import convert_fields
from export.conditions.validity import OPEN, Interval, PayloadEntry
from export.errors import ServerError
from pxdbg_runtime.errors import one_line

if TYPE_CHECKING:
    from export.conditions.limits import Limits

__all__ = ["SqliteFile"]

_TAG_QUERY: Final = "SELECT globalTagStatus FROM globaltags WHERE globalTagName = ?"
_ENTRY_QUERY: Final = """
SELECT revision, checksum, payloadUrl, baseUrl, firstExp, firstRun, finalExp, finalRun
FROM iov_payloads WHERE globalTagName = ? AND payloadName = ?
"""
_STEPS_BETWEEN_CHECKS: Final = 10_000
"""Of sqlite's virtual machine: about a millisecond."""


class _Tag(msgspec.Struct, frozen=True, rename="camel"):
    global_tag_status: DatabaseText


class _Entry(msgspec.Struct, frozen=True, rename="camel"):
    revision: Annotated[int, msgspec.Meta(ge=0)]
    checksum: DatabaseText
    payload_url: DatabaseText
    base_url: str | None
    first_exp: int
    first_run: int
    final_exp: int
    final_run: int

    def __post_init__(self) -> None:
        check_md5("checksum", self.checksum)
        check_payload_url("payloadUrl", self.payload_url)

    @property
    def interval(self) -> Interval:
        return Interval(
            first_experiment=self.first_exp,
            first_run=self.first_run,
            last_experiment=max(self.final_exp, OPEN),
            last_run=max(self.final_run, OPEN),
        )


@dataclass(frozen=True, kw_only=True)
class SqliteFile:
    """An sqlite file, opened for reading only; payload files may lie beside it.

    Attributes
    ----------
    address : str
        Path of the file.
    limits : Limits
    """

    address: str
    limits: Limits

    @property
    def payload_folder(self) -> Path:
        """Folder of the payload files, in the layout of a cache."""
        return Path(self.address).parent

    def fetch_tag_state(self, global_tag: str) -> str:
        """Read the state of a global tag; raises `ServerError` if the file does not know it or cannot be read."""
        rows = self._query(_TAG_QUERY, global_tag)
        if not rows:
            message = f"{self.address} does not know the global tag {global_tag}."
            raise ServerError(message)
        return convert_fields(f"{self.address}, table globaltags", rows[0], _Tag).global_tag_status

    def fetch_entries(self, global_tag: str, name: str, _run: tuple[int, int]) -> tuple[PayloadEntry, ...]:
        """Read all payloads of one name that a global tag lists; raises `ServerError` if a field is invalid."""
        entries = []
        for index, row in enumerate(self._query(_ENTRY_QUERY, global_tag, name)):
            entry = convert_fields(f"{self.address}, view iov_payloads, entry {index}", row, _Entry)
            entries.append(
                PayloadEntry(
                    name=name,
                    revision=entry.revision,
                    md5=entry.checksum.lower(),
                    payload_url=entry.payload_url,
                    base_url=entry.base_url if is_web_address(entry.base_url or "") else None,
                    interval=entry.interval,
                )
            )
        return tuple(entries)

    def _query(self, query: str, *values: str) -> list[dict[str, Any]]:
        end = time.monotonic() + self.limits.total_timeout_s
        uri = f"{Path(self.address).absolute().as_uri()}?mode=ro"
        try:
            with closing(sqlite3.connect(uri, uri=True, timeout=self.limits.read_timeout_s)) as connection:
                connection.row_factory = sqlite3.Row
                connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS_BETWEEN_CHECKS)
                return [dict(row) for row in connection.execute(query, values)]
        except (sqlite3.Error, OverflowError, UnicodeDecodeError) as error:
            message = f"{self.address} cannot be read as an sqlite file of the conditions database: {one_line(error)}."
            raise ServerError(message) from None
