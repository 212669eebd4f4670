"""The interface v2 of the central server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec

from export.conditions.environment import CENTRAL_SERVER
from export.conditions.fields import DatabaseText, NameRecord, check_base_url, check_md5, check_payload_url
from export.conditions.server import Server
from export.conditions.validity import Interval, PayloadEntry

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["V2Server"]


# What the server answers. Its further fields are ignored.
class _Tag(msgspec.Struct, frozen=True, rename="camel"):
    global_tag_status: NameRecord


class _Module(msgspec.Struct, frozen=True, rename="camel"):
    basf2_module: NameRecord


class _NamedEntry(msgspec.Struct, frozen=True):
    payload: _Module

    @property
    def payload_name(self) -> str:
        return self.payload.basf2_module.name


class _Payload(msgspec.Struct, frozen=True, rename="camel"):
    payload_url: DatabaseText
    base_url: DatabaseText
    checksum: DatabaseText
    revision: Annotated[int, msgspec.Meta(ge=0)]

    def __post_init__(self) -> None:
        check_md5("payload.checksum", self.checksum)
        check_base_url("payload.baseUrl", self.base_url)
        check_payload_url("payload.payloadUrl", self.payload_url)


class _Entry(msgspec.Struct, frozen=True, rename="camel"):
    payload: _Payload
    payload_iov: Interval


class V2Server(Server):
    """A server with the interface v2."""

    def fetch_tag_state(self, global_tag: str) -> str:
        """Fetch the state of a global tag."""
        # A server is taken for one of v2 if it lacks what the HSF interface has; a wrong address lacks that too.
        otherwise = f", or is not the base URL of a conditions server, such as {CENTRAL_SERVER}"
        return self.fetch_tag("/v2/globalTag/", global_tag, _Tag, otherwise=otherwise).global_tag_status.name

    def fetch_entries(self, global_tag: str, name: str, run: tuple[int, int]) -> tuple[PayloadEntry, ...]:
        """Fetch the payloads of one name that a global tag lists for an experiment and a run."""
        params: Mapping[str, str | int] = {"gtName": global_tag, "expNumber": run[0], "runNumber": run[1]}
        entries = self.fetch_records("/v2/iovPayloads/", params, name, _NamedEntry, _Entry)
        return tuple(
            PayloadEntry(
                name=name,
                revision=entry.payload.revision,
                md5=entry.payload.checksum.lower(),
                payload_url=entry.payload.payload_url,
                base_url=entry.payload.base_url,
                interval=entry.payload_iov,
            )
            for entry in entries
        )
