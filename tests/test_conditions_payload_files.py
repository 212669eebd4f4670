"""Files of payloads: folders and servers of the user, the source's own, the proxy, and the private copy."""

from __future__ import annotations

import errno
import io
import tempfile
from typing import TYPE_CHECKING

import pytest

from export.conditions.fetching import fetch_payload
from export.conditions.files import copy_privately
from export.errors import ConditionsError
from pxdbg_runtime.errors import OutputError
from tests.conditions_server import (
    CONTENT,
    MD5,
    NAME,
    PLACE,
    QUICK,
    TAG,
    ConditionsServer,
    answer,
    answer_status,
    fetch,
    files,
    serving,
)
from tests.conditions_sqlite import FLAT, write_database, write_payload
from tests.isolation import limit_file_size

if TYPE_CHECKING:
    from pathlib import Path


def test_the_file_of_an_sqlite_entry_is_downloaded_from_its_base_url(tmp_path: Path) -> None:
    with serving() as server:
        database = write_database(tmp_path, {"baseUrl": server.files_url})
        found = fetch(tmp_path / "cache", database)
    assert found.path == tmp_path / "cache" / PLACE
    assert found.url == f"{server.files_url}dbstore/{NAME}/rev_3.root"
    assert (server.n_files(), len(server.asked)) == (1, 1)


@pytest.mark.parametrize("place", [PLACE, FLAT])
def test_the_folders_of_the_user_come_first(server: ConditionsServer, tmp_path: Path, place: str) -> None:
    payload = write_payload(tmp_path / "mine", place=place)
    write_payload(tmp_path / "cache")
    locations = [str(tmp_path / "none"), str(tmp_path / "mine")]
    found = fetch(tmp_path / "cache", server, payload_locations=locations)
    assert (found.path, found.url, server.n_files()) == (payload, None, 0)


def test_a_damaged_file_in_a_folder_is_not_used_and_not_touched(server: ConditionsServer, tmp_path: Path) -> None:
    payload = write_payload(tmp_path / "mine", CONTENT[:-1])
    found = fetch(tmp_path / "cache", server, payload_locations=[str(tmp_path / "mine")])
    assert found.path == tmp_path / "cache" / PLACE
    assert payload.read_bytes() == CONTENT[:-1]


@pytest.mark.parametrize("bad", [answer_status(404), answer_status(500), answer(b"other")], ids=["404", "500", "MD5"])
def test_the_servers_of_the_user_come_before_the_databases_own(
    server: ConditionsServer, tmp_path: Path, bad: object
) -> None:
    assert callable(bad)
    with serving() as mine:
        locations = [mine.files_url]
        assert fetch(tmp_path / "1", server, payload_locations=locations).url == (
            f"{mine.files_url}dbstore/{NAME}/rev_3.root"
        )
        assert (mine.n_files(), server.n_files()) == (1, 0)
        mine.steps["file"] = [bad]
        assert fetch(tmp_path / "2", server, payload_locations=locations).path.read_bytes() == CONTENT
        assert server.n_files() == 1
        server.steps["file"] = [answer_status(403)]
        with pytest.raises(ConditionsError, match=rf"{mine.files_url}\S+ .* {server.files_url}\S+ answered 403 Forb"):
            fetch(tmp_path / "3", server, payload_locations=locations)
    assert files(tmp_path / "3") == []


def test_all_requests_go_through_the_proxy(tmp_path: Path) -> None:
    with serving("hsf") as proxy:
        proxy.steps["base"] = [answer(b'{"CDB_PAYLOAD_BASE_URL": "http://files.invalid/files"}')]
        found = fetch_payload(
            *(NAME, TAG),
            sources=["http://conditions.invalid/rest"],
            cache=tmp_path,
            proxy=f"http://127.0.0.1:{proxy.server_port}",
            limits=QUICK,
        )
    assert found.path.read_bytes() == CONTENT
    assert proxy.asked_of_hsf[0] == "http://conditions.invalid/rest/gtstatus"
    assert proxy.asked[-1] == f"http://files.invalid/files/dbstore/{NAME}/rev_3.root"


def test_what_is_read_is_a_copy_that_no_other_user_can_change(server: ConditionsServer, tmp_path: Path) -> None:
    payload = write_payload(tmp_path / "mine", place=FLAT)
    found = fetch(tmp_path / "cache", server, payload_locations=[str(tmp_path / "mine")])
    with copy_privately(found.path, found.entry) as copy:
        payload.write_bytes(b"changed")
        assert copy.read_bytes() == CONTENT
        assert copy.name == f"{NAME}_r3.root"
        assert (copy.parents[1].stat().st_mode & 0o777) == 0o700
    assert not copy.parents[1].exists()
    changed = copy_privately(found.path, found.entry)
    with pytest.raises(ConditionsError, match=rf"^{payload} was changed after its MD5 {MD5} was checked: run the c"):
        changed.__enter__()


def test_a_file_that_goes_after_its_check(server: ConditionsServer, tmp_path: Path) -> None:
    payload = write_payload(tmp_path / "cache")
    found = fetch(tmp_path / "cache", server)
    payload.unlink()
    message = rf"^{payload} cannot be read: No such file or directory: run the command again\.$"
    with pytest.raises(ConditionsError, match=message):
        copy_privately(found.path, found.entry).__enter__()


def test_a_file_that_fails_while_it_is_copied(
    server: ConditionsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FailingFile(io.BytesIO):
        def read(self, _size: int | None = None) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    payload = write_payload(tmp_path / "cache")
    found = fetch(tmp_path / "cache", server)
    monkeypatch.setattr("export.conditions.files.open_regular", lambda _path: FailingFile())
    with pytest.raises(ConditionsError, match=rf"^{payload} cannot be read: Input/output error: run the command"):
        copy_privately(found.path, found.entry).__enter__()


@pytest.mark.parametrize("has_folder", [True, False])
def test_no_room_for_the_copy(
    server: ConditionsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_folder: bool
) -> None:
    payload = write_payload(tmp_path / "cache")
    found = fetch(tmp_path / "cache", server)
    temporary = tmp_path / "temporary"
    if has_folder:
        temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    reason = "File too large" if has_folder else "No such file or directory"
    message = (
        rf"^{payload} cannot be copied to a temporary folder: {reason}\. Set TMPDIR to a folder with room for it\.$"
    )
    with limit_file_size(len(CONTENT) - 1), pytest.raises(OutputError, match=message) as caught:
        copy_privately(found.path, found.entry).__enter__()
    assert caught.value.path == payload
    assert files(temporary) == []
