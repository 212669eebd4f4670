"""sqlite files as sources, with the payload beside them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import httpx
import pytest

from export.errors import ConditionsError
from tests.conditions_server import (
    CONTENT,
    MD5,
    PLACE,
    QUICK,
    TAG,
    ConditionsServer,
    fetch,
    files,
)
from tests.conditions_sqlite import FLAT, write_database, write_payload

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        pytest.fail("nothing may be asked of the network")

    monkeypatch.setattr(httpx.Client, "send", refuse)


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize("place", [PLACE, FLAT])
def test_a_file_with_its_payload_folder_needs_no_network(tmp_path: Path, place: str) -> None:
    database = write_database(tmp_path / "my data %3F")
    payload = write_payload(database.parent, place=place)
    before = files(tmp_path)
    found = fetch(tmp_path / "cache", database, experiment=7, run=3)
    assert (found.path, found.url, found.source) == (payload, None, str(database))
    assert f"(PUBLISHED) for experiment 7, run 3; conditions database {database}." in found.provenance
    assert files(tmp_path) == before


@pytest.mark.usefixtures("_no_network")
def test_a_file_is_opened_for_reading_only(tmp_path: Path) -> None:
    database = write_database(tmp_path / "data")
    write_payload(database.parent)
    content = database.read_bytes()
    database.chmod(0o444)
    database.parent.chmod(0o555)
    assert fetch(tmp_path / "cache", database).path.read_bytes() == CONTENT
    database.parent.chmod(0o755)
    assert database.read_bytes() == content


@pytest.mark.usefixtures("_no_network")
def test_intervals_tags_and_names_are_respected(tmp_path: Path) -> None:
    database = write_database(
        tmp_path,
        {"revision": 9, "finalExp": 6, "finalRun": -7},
        {"revision": 8, "payloadName": "BeamParameters", "checksum": "none"},
        {"revision": 7, "globalTagName": "another", "checksum": None},
        {"finalExp": -3, "finalRun": 5, "checksum": MD5.upper()},
    )
    write_payload(tmp_path)
    assert fetch(tmp_path / "cache", database, experiment=7).entry.revision == 3
    with pytest.raises(ConditionsError, match=r"no server of its file is known: .* BELLE2_CONDB_PAYLOADS\.$"):
        fetch(tmp_path / "cache", database, experiment=6, run=10**6)  # revision 9, of which there is no file


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"revision": "3"}, r"revision must be an integer, but is .3."),
        ({"revision": -1}, r"revision must be an integer >= 0, but is -1"),
        ({"checksum": None}, r"checksum must be text, but is null"),
        ({"checksum": "../"}, r"checksum must be an MD5 of 32 hexadecimal digits, but is"),
        ({"payloadUrl": "../x"}, r"payloadUrl must be a path below the base URL, but is"),
        ({"baseUrl": 3}, r"baseUrl must be text or null, but is 3"),
        ({"finalExp": 1.5}, r"finalExp must be an integer, but is 1\.5"),
    ],
)
def test_a_bad_field_is_named(tmp_path: Path, changes: dict[str, object], expected: str) -> None:
    database = write_database(tmp_path, changes)
    with pytest.raises(ConditionsError, match=rf"{database}, view iov_payloads, entry 0: {expected}"):
        fetch(tmp_path / "cache", database)
    assert files(tmp_path) == ["database.sqlite"]


def test_a_state_that_is_no_text_is_named(tmp_path: Path) -> None:
    database = write_database(tmp_path, state=None)
    with pytest.raises(ConditionsError, match=r"table globaltags: globalTagStatus must be text, but is null"):
        fetch(tmp_path / "cache", database)


def test_an_unknown_tag_and_one_in_another_state_are_refused(tmp_path: Path) -> None:
    database = write_database(tmp_path, state="NEW")
    with pytest.raises(ConditionsError, match=rf"{database} does not know the global tag other\.$"):
        fetch(tmp_path / "cache", database, tag="other")
    with pytest.raises(ConditionsError, match=rf"^The global tag {TAG} is NEW: expected TESTING"):
        fetch(tmp_path / "cache", database)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda path: path.unlink(), "unable to open database file"),
        (lambda path: path.write_text("<html>It works</html>" * 100), "file is not a database"),
        (lambda path: path.write_bytes(b""), "no such table: globaltags"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "malformed"),
    ],
    ids=["gone", "another file", "empty", "cut"],
)
def test_what_is_no_database_is_passed_over(
    tmp_path: Path, damage: object, expected: str, server: ConditionsServer
) -> None:
    assert callable(damage)
    database = write_database(tmp_path)
    damage(database)
    reason = rf"{database} cannot be read as an sqlite file of the conditions database: .*{expected}"
    with pytest.raises(ConditionsError, match=reason):
        fetch(tmp_path / "cache", database)
    assert fetch(tmp_path / "cache", database, server).source == server.url
    assert not list(tmp_path.glob("*-journal"))


def test_a_database_without_end_is_left_after_the_whole_time(tmp_path: Path) -> None:
    database = write_database(tmp_path)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.executescript("""
            DROP VIEW iov_payloads;
            CREATE VIEW iov_payloads AS WITH RECURSIVE endless AS (SELECT 1 UNION ALL SELECT 1 FROM endless)
                SELECT listed.* FROM listed, endless WHERE listed.revision < 0;
        """)
    with pytest.raises(ConditionsError, match=r"cannot be read .*: interrupted\.$"):
        fetch(tmp_path / "cache", database, limits=replace(QUICK, total_timeout_s=0.2))


def test_a_text_that_is_not_utf_8_is_said(tmp_path: Path) -> None:
    database = write_database(tmp_path)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE listed SET payloadUrl = CAST(X'FF' AS TEXT)")
    with pytest.raises(ConditionsError, match=rf"{database} cannot be read as an sqlite file .*(utf|UTF)-8"):
        fetch(tmp_path / "cache", database)
