"""Settings that basf2 takes from the environment: sources of metadata, places of payload files, and the proxy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from export.conditions.fields import is_proxy, is_web_address
from pxdbg_runtime.errors import ArgumentValueError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CENTRAL_SERVER", "choose_sources", "find_proxy", "list_payload_locations"]

CENTRAL_SERVER: Final = "https://belle2db.sdcc.bnl.gov/b2s/rest"
CVMFS_FILE: Final = Path("/cvmfs/belle.cern.ch/conditions/database.sqlite")
_SOURCES: Final = ("BELLE2_CONDB_METADATA", "BELLE2_CONDB_SERVERLIST")
_PAYLOADS: Final = "BELLE2_CONDB_PAYLOADS"
_PROXY: Final = "BELLE2_CONDB_PROXY"


def choose_sources(given: Sequence[str]) -> tuple[str, ...]:
    """Choose the given sources of metadata, or those of basf2 if none is given.

    basf2's are the first of these that exist: the entries of ``BELLE2_CONDB_METADATA``, those of
    ``BELLE2_CONDB_SERVERLIST``, the sqlite file in cvmfs, the central server.

    Parameters
    ----------
    given : sequence of str
        Base URLs of servers and paths of sqlite files, in the order in which they are tried.

    Returns
    -------
    tuple of str
        Each source once, without a slash at the end.

    Raises
    ------
    ArgumentValueError
        If one is a URL that is not of http or https.
    """
    if given:
        return _check_addresses("--server", given, "the path of an sqlite file")
    for variable in _SOURCES:
        if listed := os.environ.get(variable, "").split():
            return _check_addresses(variable, listed, "the path of an sqlite file")
    # Path.is_file raises where cvmfs is mounted, but broken or closed to this user.
    has_file = os.path.isfile(CVMFS_FILE)  # noqa: PTH113
    return (str(CVMFS_FILE),) if has_file else (CENTRAL_SERVER,)


def list_payload_locations() -> tuple[str, ...]:
    """List the folders and servers of ``BELLE2_CONDB_PAYLOADS``, in which basf2 looks for payload files first.

    Raises
    ------
    ArgumentValueError
        If one is a URL that is not of http or https.
    """
    return _check_addresses(_PAYLOADS, os.environ.get(_PAYLOADS, "").split(), "a folder")


def find_proxy() -> str | None:
    """Return the proxy of ``BELLE2_CONDB_PROXY``, None without one.

    Raises
    ------
    ArgumentValueError
        If it is not the http or https URL of a proxy.
    """
    proxy = os.environ.get(_PROXY, "").strip()
    if not proxy:
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if not is_proxy(proxy):
        message = (
            f"{_PROXY} must be an http or https URL such as http://proxy.example:3128, but its host part is "
            f"{proxy.rpartition('@')[2]!r}. Write '/', '#' and '?' of a password as %2F, %23 and %3F."
        )
        raise ArgumentValueError("proxy", message)
    return proxy


def _check_addresses(subject: str, addresses: Sequence[str], other: str) -> tuple[str, ...]:
    """Check that each address with ``://`` is a URL of http or https; return each once, without a slash at the end."""
    for address in addresses:
        if "://" in address and not is_web_address(address):
            message = (
                f"{subject} must be an http or https URL without a user name, a query or a fragment, or {other}, "
                f"but is {address.rpartition('@')[2]!r}."  # without a password
            )
            raise ArgumentValueError("payload_locations" if subject == _PAYLOADS else "server", message)
    return tuple(dict.fromkeys(address.rstrip("/") for address in addresses))
