"""Which servers of the conditions database are asked, and what counts as the address of one."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Final

import httpx

from pxdbg_runtime.errors import ArgumentValueError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SERVERS_VARIABLE", "is_web_address", "servers_to_ask"]

SERVERS_VARIABLE: Final = "BELLE2_CONDB_METADATA"
"""Environment variable in which basf2 finds its servers, separated by white space."""
_MAX_PORT: Final = 65535

logger = logging.getLogger(__name__)


def servers_to_ask(given: Sequence[str]) -> tuple[str, ...]:
    """Choose the servers: the given ones, else those that basf2 would ask.

    Parameters
    ----------
    given : sequence of str
        Base URLs in the order of asking.

    Returns
    -------
    tuple of str
        Without slashes at the end, each once.

    Raises
    ------
    ArgumentValueError
        If one is no http or https URL, or if there is none at all.
    """
    if given:
        for server in given:
            if not is_web_address(server):
                message = (
                    "--server must be an http or https URL without a user name, a query or a fragment, "
                    f"but is {_shown(server)}."
                )
                raise ArgumentValueError("server", message)
        return _each_once(given)
    listed = os.environ.get(SERVERS_VARIABLE, "").split()
    usable = [server for server in listed if is_web_address(server)]
    for server in listed:
        if server not in usable:
            # basf2 reads local database files as well, which this command does not.
            logger.info("left out %s of %s: it is no http or https URL", _shown(server), SERVERS_VARIABLE)
    if not usable:
        message = (
            "No server of the conditions database is known: give --server URL, or set the environment variable "
            f"{SERVERS_VARIABLE} to http or https URLs, as basf2 does."
        )
        raise ArgumentValueError("server", message)
    return _each_once(usable)


def is_web_address(text: str) -> bool:
    """Whether a text is an http or https URL with a host, and without user name, query and fragment."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        return False
    is_web = url.scheme in {"http", "https"} and bool(url.host) and (url.port or 0) <= _MAX_PORT
    return is_web and not (url.userinfo or url.query or url.fragment)


def _each_once(servers: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(server.rstrip("/") for server in servers))


def _shown(server: str) -> str:
    # A password has no place in a message or a log.
    return repr(server.rpartition("@")[2])
