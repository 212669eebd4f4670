"""What the conditions database says of a global tag: its state, and the payloads that it lists."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

import httpx

from export.conditions.servers import is_web_address
from export.conditions.transport import receive, retried
from export.conditions.validity import OPEN, Interval, PayloadEntry
from export.errors import ServerError
from pxdbg_runtime.errors import JsonFieldError
from pxdbg_runtime.json_fields import Fields, NumberRange

if TYPE_CHECKING:
    from collections.abc import Mapping

    from export.conditions.limits import Limits

__all__ = ["payload_entries", "tag_state"]

_MD5: Final = re.compile(r"[0-9a-f]{32}")
_FROM_ZERO: Final = NumberRange(0)
_OPEN_OR_MORE: Final = NumberRange(OPEN)


def tag_state(client: httpx.Client, server: str, global_tag: str, limits: Limits) -> str:
    """Ask for the state of a global tag, such as ``PUBLISHED``.

    Raises
    ------
    ServerError
        If the server does not know the tag, cannot be read, or answers with something else.
    """
    url = f"{server}/v2/globalTag/{quote(global_tag, safe='')}"
    try:
        text = _answer(client, url, limits)
    except ServerError as error:
        if error.status != httpx.codes.NOT_FOUND:
            raise
        message = f"{server} does not know the global tag {global_tag} (404 Not Found)."
        raise ServerError(message, status=error.status) from None
    try:
        return Fields.parse(text).nested("globalTagStatus").text("name")
    except JsonFieldError as error:
        raise _wrong_answer(url, error) from None


def payload_entries(
    client: httpx.Client, server: str, global_tag: str, name: str, run: tuple[int, int], limits: Limits
) -> tuple[PayloadEntry, ...]:
    """Ask for the payloads of one name that a global tag lists for a run.

    Parameters
    ----------
    client : httpx.Client
    server : str
        Base URL.
    global_tag : str
    name : str
        The payload's name.
    run : (int, int)
        Experiment and run.
    limits : Limits

    Returns
    -------
    tuple of PayloadEntry
        In the server's order; whether they cover the run is not looked at. Entries of other names may be as they like.

    Raises
    ------
    ServerError
        If the server cannot be read, or an entry lacks a field or holds what it must not hold.
    """
    url = f"{server}/v2/iovPayloads/"
    text = _answer(client, url, limits, {"gtName": global_tag, "expNumber": run[0], "runNumber": run[1]})
    try:
        listed = ((each, each.nested("payload")) for each in Fields.parse_list(text))
        return tuple(
            _entry(name, payload, each.nested("payloadIov"))
            for each, payload in listed
            if payload.nested("basf2Module").text("name") == name
        )
    except JsonFieldError as error:
        raise _wrong_answer(url, error) from None


def _answer(client: httpx.Client, url: str, limits: Limits, params: Mapping[str, str | int] | None = None) -> str:
    def asked() -> bytes:
        answer = bytearray()
        receive(client, url, answer.extend, limits, max_bytes=limits.max_answer_bytes, params=params)
        return bytes(answer)

    answer = retried(asked, limits)
    try:
        return answer.decode("utf-8")
    except UnicodeDecodeError:
        message = f"{url} answered with something else than JSON in UTF-8."
        raise ServerError(message) from None


def _entry(name: str, payload: Fields, interval: Fields) -> PayloadEntry:
    md5 = payload.text("checksum").lower()
    if not _MD5.fullmatch(md5):
        message = f"{payload.path('checksum')} must be an MD5 of 32 hexadecimal digits, but is {md5[:60]!r}."
        raise JsonFieldError(payload.path("checksum"), message)
    return PayloadEntry(
        name=name,
        revision=payload.integer("revision", _FROM_ZERO),
        md5=md5,
        url=_file_url(payload),
        interval=Interval(
            first_experiment=interval.integer("expStart", _OPEN_OR_MORE),
            first_run=interval.integer("runStart", _OPEN_OR_MORE),
            last_experiment=interval.integer("expEnd", _OPEN_OR_MORE),
            last_run=interval.integer("runEnd", _OPEN_OR_MORE),
        ),
    )


def _file_url(payload: Fields) -> str:
    base = payload.text("baseUrl")
    if not is_web_address(base):
        message = f"{payload.path('baseUrl')} must be an http or https URL, but is {base[:60]!r}."
        raise JsonFieldError(payload.path("baseUrl"), message)
    place = payload.text("payloadUrl")
    parts = unquote(place).removeprefix("/").split("/")
    # The file lies below the base URL: no other host, and no way up, however it is spelt.
    if not all(part and part.strip(".") for part in parts) or re.search(r"[\\?#:\x00-\x20\x7f]", unquote(place)):
        message = f"{payload.path('payloadUrl')} must be a path below baseUrl, but is {place[:60]!r}."
        raise JsonFieldError(payload.path("payloadUrl"), message)
    return f"{base.rstrip('/')}/{place.removeprefix('/')}"


def _wrong_answer(url: str, error: JsonFieldError) -> ServerError:
    message = f"{url} gave an answer that is not understood: {error}"
    return ServerError(message)
