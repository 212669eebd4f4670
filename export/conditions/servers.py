"""Choose the servers of the conditions database, and check their addresses."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Final

import httpx

from pxdbg_runtime.errors import ArgumentValueError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SERVERS_VARIABLE", "choose_servers", "is_web_address"]

SERVERS_VARIABLE: Final = "BELLE2_CONDB_METADATA"
"""Environment variable that lists the servers of basf2, separated by white space."""
_MAX_PORT: Final = 65535

logger = logging.getLogger(__name__)


def choose_servers(given: Sequence[str]) -> tuple[str, ...]:
    """Choose the given servers, or those of basf2 if none is given.

    Parameters
    ----------
    given : sequence of str
        Base URLs in the order in which they are tried.

    Returns
    -------
    tuple of str
        Each server once, without a slash at the end.

    Raises
    ------
    ArgumentValueError
        If one is not an http or https URL, or if there is none at all.
    """
    if given:
        for server in given:
            if not is_web_address(server):
                message = (
                    "--server must be an http or https URL without a user name, a query or a fragment, "
                    f"but is {_hide_password(server)}."
                )
                raise ArgumentValueError("server", message)
        return _drop_repeated(given)
    listed = os.environ.get(SERVERS_VARIABLE, "").split()
    usable = [server for server in listed if is_web_address(server)]
    for server in listed:
        if server not in usable:
            # basf2 also reads local database files, which this command does not.
            logger.info("left out %s of %s: it is not an http or https URL", _hide_password(server), SERVERS_VARIABLE)
    if not usable:
        message = (
            "No server of the conditions database is known: give --server URL, or set the environment variable "
            f"{SERVERS_VARIABLE} to http or https URLs, as basf2 does."
        )
        raise ArgumentValueError("server", message)
    return _drop_repeated(usable)


def is_web_address(text: str) -> bool:
    """Whether a text is an http or https URL that has a host, and no user name, query or fragment."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        return False
    is_web = url.scheme in {"http", "https"} and bool(url.host) and (url.port or 0) <= _MAX_PORT
    return is_web and not (url.userinfo or url.query or url.fragment)


def _drop_repeated(servers: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(server.rstrip("/") for server in servers))


def _hide_password(server: str) -> str:
    return repr(server.rpartition("@")[2])
