"""Sources of metadata: servers with either interface, and sqlite files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from export.conditions.fields import is_web_address
from export.conditions.hsf import HsfServer
from export.conditions.sqlite_file import SqliteFile
from export.conditions.v2 import V2Server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx

    from export.conditions.limits import Limits
    from export.conditions.validity import PayloadEntry

__all__ = ["Source", "open_source"]


class Source(Protocol):
    """A server or an sqlite file that lists the payloads of global tags.

    Each method raises `ServerError` if the source does not know the tag, cannot be read, or gives an invalid answer.
    """

    @property
    def payload_folder(self) -> Path | None:
        """Folder of payload files that belongs to the source."""

    def fetch_tag_state(self, global_tag: str) -> str:
        """Fetch the state of a global tag, such as ``PUBLISHED``."""

    def fetch_entries(self, global_tag: str, name: str, run: tuple[int, int], /) -> tuple[PayloadEntry, ...]:
        """Fetch the payloads of one name that a global tag lists, at least those for an experiment and a run.

        They come in the order of the source, whether they cover the run or not. Entries of other names are not checked.
        """


def open_source(address: str, get_client: Callable[[], httpx.Client], limits: Limits) -> Source:
    """Open a source of metadata; a server is asked which interface it has.

    Parameters
    ----------
    address : str
        Base URL of a server, without a slash at the end, or path of an sqlite file.
    get_client : callable
        Returns the client; called for a server alone.
    limits : Limits

    Raises
    ------
    ServerError
        If the server cannot be reached.
    ConditionsError
        As `get_client`.
    """
    if not is_web_address(address):
        return SqliteFile(address=address, limits=limits)
    client = get_client()
    hsf = HsfServer(client=client, address=address, limits=limits)
    return hsf if hsf.is_recognised() else V2Server(client=client, address=address, limits=limits)
