"""Requests to the conditions database: the state of a global tag, and the payloads that it lists."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar
from urllib.parse import quote, unquote

import httpx
import msgspec

from export.conditions.servers import is_web_address
from export.conditions.transport import receive, retry
from export.conditions.validity import Interval, PayloadEntry
from export.errors import ServerError
from pxdbg_runtime.errors import JsonFieldError
from pxdbg_runtime.json_records import convert_record, decode_record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from export.conditions.limits import Limits

__all__ = ["fetch_entries", "fetch_tag_state"]

T = TypeVar("T")
_Text = Annotated[str, msgspec.Meta(pattern="^[^\ud800-\udfff]+$")]
"""Not empty, and without the halves of characters that JSON can spell and UTF-8 cannot."""
_MD5: Final = re.compile(r"[0-9a-f]{32}")


# What the server answers. Its further fields are ignored.
class _NameRecord(msgspec.Struct, frozen=True):
    name: _Text


class _Tag(msgspec.Struct, frozen=True, rename="camel"):
    global_tag_status: _NameRecord


class _PayloadRecord(msgspec.Struct, frozen=True, rename="camel"):
    basf2_module: _NameRecord


class _EntryRecord(msgspec.Struct, frozen=True):
    payload: _PayloadRecord


class _Payload(msgspec.Struct, frozen=True, rename="camel"):
    payload_url: _Text
    base_url: _Text
    checksum: _Text
    revision: Annotated[int, msgspec.Meta(ge=0)]

    def __post_init__(self) -> None:
        if not _MD5.fullmatch(self.checksum.lower()):
            message = f"payload.checksum must be an MD5 of 32 hexadecimal digits, but is {self.checksum[:60]!r}."
            raise ValueError(message)
        if not is_web_address(self.base_url):
            message = f"payload.baseUrl must be an http or https URL, but is {self.base_url[:60]!r}."
            raise ValueError(message)
        path = unquote(self.payload_url)
        parts = path.removeprefix("/").split("/")
        # The file is below the base URL: no other host, and no way up, also not in escaped characters.
        if not all(part.strip(".") for part in parts) or re.search(r"[\\?#:\x00-\x20\x7f]", path):
            message = f"payload.payloadUrl must be a path below baseUrl, but is {self.payload_url[:60]!r}."
            raise ValueError(message)


class _Entry(msgspec.Struct, frozen=True, rename="camel"):
    payload: _Payload
    payload_iov: Interval


def fetch_tag_state(client: httpx.Client, server: str, global_tag: str, limits: Limits) -> str:
    """Fetch the state of a global tag, such as ``PUBLISHED``.

    Raises
    ------
    ServerError
        If the server does not know the tag, cannot be read, or gives an invalid answer.
    """
    url = f"{server}/v2/globalTag/{quote(global_tag, safe='')}"
    try:
        return _fetch_json(client, url, limits, _Tag).global_tag_status.name
    except ServerError as error:
        if error.status != httpx.codes.NOT_FOUND:
            raise
        message = f"{server} does not know the global tag {global_tag} (404 Not Found)."
        raise ServerError(message, status=error.status) from None


def fetch_entries(
    client: httpx.Client, server: str, global_tag: str, name: str, run: tuple[int, int], limits: Limits
) -> tuple[PayloadEntry, ...]:
    """Fetch the payloads of one name that a global tag lists for a run.

    Parameters
    ----------
    client : httpx.Client
    server : str
        Base URL.
    global_tag : str
    name : str
        Name of the payload.
    run : (int, int)
        Experiment and run.
    limits : Limits

    Returns
    -------
    tuple of PayloadEntry
        In the order of the server, whether they cover the run or not. Entries of other names are not checked.

    Raises
    ------
    ServerError
        If the server cannot be read, or a field of an entry is missing or invalid.
    """
    url = f"{server}/v2/iovPayloads/"
    params: dict[str, str | int] = {"gtName": global_tag, "expNumber": run[0], "runNumber": run[1]}
    values = _fetch_json(client, url, limits, list[dict[str, Any]], params)
    entries = []
    for index, value in enumerate(values):
        where = f"entry {index}: "
        if _convert(url, value, _EntryRecord, where).payload.basf2_module.name == name:
            entries.append(_build_entry(name, _convert(url, value, _Entry, where)))
    return tuple(entries)


def _build_entry(name: str, entry: _Entry) -> PayloadEntry:
    payload = entry.payload
    return PayloadEntry(
        name=name,
        revision=payload.revision,
        md5=payload.checksum.lower(),
        url=f"{payload.base_url.rstrip('/')}/{payload.payload_url.removeprefix('/')}",
        interval=entry.payload_iov,
    )


def _fetch_json(
    client: httpx.Client, url: str, limits: Limits, kind: type[T], params: Mapping[str, str | int] | None = None
) -> T:
    def request() -> bytes:
        answer = bytearray()
        receive(client, url, answer.extend, limits, max_bytes=limits.max_answer_bytes, params=params)
        return bytes(answer)

    try:
        return decode_record(retry(request, limits).decode("utf-8"), kind)
    except UnicodeDecodeError:
        message = f"{url} must answer with JSON in UTF-8, but its answer is not UTF-8."
        raise ServerError(message) from None
    except JsonFieldError as error:
        raise _explain_answer(url, error) from None


def _convert(url: str, value: object, kind: type[T], where: str) -> T:
    try:
        return convert_record(value, kind)
    except JsonFieldError as error:
        raise _explain_answer(url, error, where) from None


def _explain_answer(url: str, error: JsonFieldError, where: str = "") -> ServerError:
    return ServerError(f"{url} gave an answer that is not understood: {where}{error}")
