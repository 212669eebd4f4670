"""Settings that basf2 takes from the environment: sources of metadata, places of payload files, and the proxy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from export.conditions.fields import is_web_address
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
        return _check_sources("--server", given)
    for variable in _SOURCES:
        if listed := os.environ.get(variable, "").split():
            return _check_sources(variable, listed)
    return (str(CVMFS_FILE),) if CVMFS_FILE.is_file() else (CENTRAL_SERVER,)


def _check_sources(subject: str, sources: Sequence[str]) -> tuple[str, ...]:
    for source in sources:
        if "://" in source and not is_web_address(source):
            message = (
                f"{subject} must be an http or https URL without a user name, a query or a fragment, or the path of an "
                f"sqlite file, but is {source.rpartition('@')[2]!r}."  # without a password
            )
            raise ArgumentValueError("server", message)
    return _drop_repeated(sources)


def list_payload_locations() -> tuple[str, ...]:
    """List the folders and servers of ``BELLE2_CONDB_PAYLOADS``, in which basf2 looks for payload files first."""
    return _drop_repeated(os.environ.get(_PAYLOADS, "").split())


def find_proxy() -> str | None:
    """Return the proxy of ``BELLE2_CONDB_PROXY``, None without one.

    Raises
    ------
    ArgumentValueError
        If it is not an http or https URL.
    """
    proxy = os.environ.get(_PROXY, "").strip()
    if not proxy:
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    scheme, _, rest = proxy.partition("://")
    place = rest.rpartition("@")[2]
    if not is_web_address(f"{scheme}://{place}"):
        message = f"{_PROXY} must be an http or https URL such as http://proxy.example:3128, but leads to {place!r}."
        raise ArgumentValueError("proxy", message)
    return proxy


def _drop_repeated(addresses: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(address.rstrip("/") for address in addresses))
