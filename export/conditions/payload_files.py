"""Find the file of a payload: in folders of this machine, in the cache, or by a download into the cache."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from export.conditions.cache import fetch_into_cache
from export.conditions.fields import is_web_address
from export.conditions.files import find_payload_file
from export.conditions.transport import receive, retry
from export.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from export.conditions.limits import Limits
    from export.conditions.transport import Progress
    from export.conditions.validity import PayloadEntry

__all__ = ["PayloadFiles"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PayloadFiles:
    """The places of payload files.

    Attributes
    ----------
    get_client : callable
        Returns the client; called for a download alone.
    locations : tuple of str
        Folders and base URLs in which a file is looked for before its source's own.
    cache : Path
    limits : Limits
    progress : callable
    """

    get_client: Callable[[], httpx.Client]
    locations: tuple[str, ...]
    cache: Path
    limits: Limits
    progress: Progress

    def fetch(self, entry: PayloadEntry, source_folder: Path | None) -> tuple[Path, str | None]:
        """Return a file with the MD5 of a payload, and the URL that it was downloaded from, if it was.

        Files on this machine come first: those of `locations`, of the source's folder, of the cache. Then come the
        servers of `locations` and the entry's own.

        Raises
        ------
        ServerError
            If it is not on this machine and no server gives it.
        ConditionsError
            If another process holds the lock of the payload for too long, or as `get_client`.
        OutputError
            If the cache cannot be written to.
        """
        folders = [Path(location) for location in self.locations if not is_web_address(location)]
        for folder in (*folders, *filter(None, [source_folder])):
            if found := find_payload_file(folder, entry):
                return found, None
        return fetch_into_cache(self.cache, entry, lambda file: self._download_from_any(entry, file), self.limits)

    def _download_from_any(self, entry: PayloadEntry, file: BinaryIO) -> str:
        """Download a payload from the first server that gives it; return the URL."""
        servers = [*filter(is_web_address, self.locations), *filter(None, [entry.base_url])]
        failures: list[ServerError] = []
        for server in servers:
            url = f"{server.rstrip('/')}/{entry.payload_url.removeprefix('/')}"
            try:
                retry(partial(self._download, url, entry.md5, file), self.limits)
            except ServerError as error:
                logger.info("the download failed: %s", error)
                failures.append(error)
            else:
                return url
        if not failures:
            message = (
                f"No folder has {entry.name} revision {entry.revision} with MD5 {entry.md5}, and no server of its file "
                "is known: add its folder or server to BELLE2_CONDB_PAYLOADS."
            )
            raise ServerError(message)
        raise ServerError(" ".join(str(error) for error in failures))

    def _download(self, url: str, md5: str, file: BinaryIO) -> None:
        client = self.get_client()
        file.seek(0)
        file.truncate()
        digest = hashlib.md5(usedforsecurity=False)

        def take(chunk: bytes) -> None:
            digest.update(chunk)
            file.write(chunk)

        receive(client, url, take, self.limits, max_bytes=self.limits.max_payload_bytes, progress=self.progress)
        if digest.hexdigest() != md5:
            message = (
                f"{url} has the MD5 {digest.hexdigest()}, but the conditions database lists {md5}: "
                "the file is damaged or another one."
            )
            raise ServerError(message, is_passing=True)
