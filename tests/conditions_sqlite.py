"""A conditions database in a real sqlite file, with its payload beside it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

from tests.conditions_server import CONTENT, MD5, NAME, PLACE, TAG

if TYPE_CHECKING:
    from pathlib import Path

FLAT: Final = f"dbstore_{NAME}_rev_3.root"
"""Where a folder of testing payloads has it."""
SCHEMA: Final = """
CREATE TABLE globaltags (globalTagName TEXT, globalTagStatus TEXT);
CREATE TABLE listed (globalTagName TEXT, payloadName, revision, checksum, payloadUrl, baseUrl,
    firstExp, firstRun, finalExp, finalRun);
CREATE VIEW iov_payloads AS SELECT * FROM listed;
"""


def write_database(folder: Path, *changes: dict[str, object], state: object = "PUBLISHED") -> Path:
    """Write a database that lists the payload once for each dict of changes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "database.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(SCHEMA)
        connection.execute("INSERT INTO globaltags VALUES (?, ?)", (TAG, state))
        for change in changes or ({},):
            row = {
                "globalTagName": TAG,
                "payloadName": NAME,
                "revision": 3,
                "checksum": MD5,
                "payloadUrl": "dbstore/PXDBackgroundGenerator_resnet/rev_3.root",
                "baseUrl": "",
                "firstExp": 0,
                "firstRun": 0,
                "finalExp": -1,
                "finalRun": -1,
                **change,
            }
            connection.execute(f"INSERT INTO listed VALUES ({', '.join('?' * len(row))})", tuple(row.values()))
    return path


def write_payload(folder: Path, content: bytes = CONTENT, place: str = PLACE) -> Path:
    """Write the payload into a folder in the layout of a cache."""
    path = folder / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
