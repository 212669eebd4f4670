"""Checks of the fields that lead to a file: its MD5, the base URL, and the path below that."""

from __future__ import annotations

import re
from typing import Annotated, Final
from urllib.parse import unquote

import httpx
import msgspec

__all__ = [
    "MAX_PORT",
    "DatabaseText",
    "NameRecord",
    "check_base_url",
    "check_md5",
    "check_payload_url",
    "is_proxy",
    "is_web_address",
]

DatabaseText = Annotated[str, msgspec.Meta(pattern="^[^\ud800-\udfff]+$")]
"""Not empty, and without the halves of characters that JSON can spell and UTF-8 cannot."""
MAX_PORT: Final = 65535
_SHOWN_LENGTH: Final = 60


class NameRecord(msgspec.Struct, frozen=True):
    """What a server answers for a thing that has a name."""

    name: DatabaseText


def is_web_address(text: str) -> bool:
    """Whether a text is an http or https URL that has a host, and no user name, query or fragment."""
    try:
        url = httpx.URL(text)
        is_web = url.scheme in {"http", "https"} and bool(url.host) and (url.port or 0) <= MAX_PORT
    except (httpx.InvalidURL, UnicodeError):  # UnicodeError: invalid Punycode, or bytes that are not UTF-8
        return False
    return is_web and not (url.userinfo or url.query or url.fragment)


def is_proxy(text: str) -> bool:
    """Whether a text is the http or https URL of a proxy, with a user name and a password or without.

    A '/', '#' or '?' of a password that is not escaped would make the user name the host.
    """
    try:
        url = httpx.URL(text)
        address = url.copy_with(username=None, password=None)
    except (httpx.InvalidURL, UnicodeError):
        return False
    return is_web_address(str(address)) and "@" not in url.path


def check_md5(field: str, text: str) -> None:
    """Raise a `ValueError` unless the value of a field is an MD5 of 32 hexadecimal digits."""
    if not re.fullmatch("[0-9a-f]{32}", text.lower()):
        message = f"{field} must be an MD5 of 32 hexadecimal digits, but is {text[:_SHOWN_LENGTH]!r}."
        raise ValueError(message)


def check_base_url(field: str, text: str) -> None:
    """Raise a `ValueError` unless the value of a field is an http or https URL."""
    if not is_web_address(text):
        message = f"{field} must be an http or https URL, but is {text[:_SHOWN_LENGTH]!r}."
        raise ValueError(message)


def check_payload_url(field: str, text: str) -> None:
    """Raise a `ValueError` unless the value of a field is a path that stays below the base URL.

    It names no other host and leads no way up, not even in escaped characters.
    """
    path = unquote(text)
    parts = path.removeprefix("/").split("/")
    if not all(part.strip(".") for part in parts) or re.search(r"[\\?#:\x00-\x20\x7f]", path):
        message = f"{field} must be a path below the base URL, but is {text[:_SHOWN_LENGTH]!r}."
        raise ValueError(message)
