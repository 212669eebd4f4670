"""The HSF interface, of the server that release 11 of basf2 adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from export.conditions.fields import DatabaseText, NameRecord, check_base_url, check_md5, check_payload_url
from export.conditions.server import Server
from export.conditions.validity import OPEN, BoundNumber, Interval, PayloadEntry
from export.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HsfServer"]

_OPEN_END: Final = 2**63 - 1
"""The number that the server gives for no end."""


# What the server answers. Its further fields are ignored.
class _Tag(msgspec.Struct, frozen=True):
    status: NameRecord


class _NamedEntry(msgspec.Struct, frozen=True):
    payload_name: DatabaseText = msgspec.field(name="payload_type_name")


class _Entry(msgspec.Struct, frozen=True):
    payload_url: DatabaseText
    checksum: DatabaseText
    revision: DatabaseText
    major_iov: BoundNumber
    minor_iov: BoundNumber
    major_iov_end: BoundNumber
    minor_iov_end: BoundNumber

    def __post_init__(self) -> None:
        check_md5("checksum", self.checksum)
        check_payload_url("payload_url", self.payload_url)
        if not (self.revision.isascii() and self.revision.isdigit() and len(self.revision) < 20):
            message = f"revision must be an integer >= 0 in text, but is {self.revision[:60]!r}."
            raise ValueError(message)

    @property
    def interval(self) -> Interval:
        return Interval(
            first_experiment=self.major_iov,
            first_run=self.minor_iov,
            last_experiment=OPEN if self.major_iov_end == _OPEN_END else self.major_iov_end,
            last_run=OPEN if self.minor_iov_end == _OPEN_END else self.minor_iov_end,
        )


class _Settings(msgspec.Struct, frozen=True):
    base_url: DatabaseText = msgspec.field(name="CDB_PAYLOAD_BASE_URL")

    def __post_init__(self) -> None:
        check_base_url("CDB_PAYLOAD_BASE_URL", self.base_url)


class HsfServer(Server):
    """A server with the HSF interface."""

    def is_recognised(self) -> bool:
        """Whether the server has this interface: it lists the states of global tags.

        Raises
        ------
        ServerError
            If the server cannot be reached, or fails in a way that may pass.
        """
        try:
            self.fetch_json("/gtstatus", list[NameRecord])
        except ServerError as error:
            if error.is_passing:
                raise
            return False
        return True

    def fetch_tag_state(self, global_tag: str) -> str:
        """Fetch the state of a global tag."""
        return self.fetch_tag("/globalTag/", global_tag, _Tag).status.name

    def fetch_entries(self, global_tag: str, name: str, run: tuple[int, int]) -> tuple[PayloadEntry, ...]:
        """Fetch the payloads of one name that a global tag lists for an experiment and a run."""
        params: Mapping[str, str | int] = {
            "gtName": global_tag,
            "majorIOV": run[0],
            "minorIOV": run[1],
            "shape": "dict",
        }
        entries = self.fetch_records("/payloadiovs/", params, name, _NamedEntry, _Entry)
        if not entries:
            return ()
        base_url = self.fetch_json("/user_settings/CDB_PAYLOAD_BASE_URL", _Settings).base_url
        return tuple(
            PayloadEntry(
                name=name,
                revision=int(entry.revision),
                md5=entry.checksum.lower(),
                payload_url=entry.payload_url,
                base_url=base_url,
                interval=entry.interval,
            )
            for entry in entries
        )
