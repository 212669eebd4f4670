"""From a global tag to a file in the cache, in the good case and with all that a user can do wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from export.conditions.fetching import fetch_payload
from export.errors import ConditionsError
from pxdbg_runtime.errors import ArgumentValueError, OutputError
from tests.conditions_server import (
    CONTENT,
    MD5,
    NAME,
    PLACE,
    QUICK,
    TAG,
    ConditionsServer,
    answer,
    answer_json,
    answer_status,
    fetch,
    files,
    query,
    serving,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conditions_server import Kind, Step


def test_a_payload_is_found_downloaded_and_described(server: ConditionsServer, tmp_path: Path) -> None:
    told: list[str] = []
    came: list[tuple[int, int | None]] = []
    found = fetch_payload(
        *(NAME, TAG),
        sources=(server.url,),
        cache=tmp_path / "new" / "cache",
        experiment=1003,
        run=2,
        limits=QUICK,
        log=told.append,
        progress=lambda *numbers: came.append(numbers),
    )
    assert found.path == tmp_path / "new" / "cache" / PLACE
    assert found.path.read_bytes() == CONTENT
    assert found.provenance == (
        f"Payload {NAME} revision 3, MD5 {MD5}, of the global tag {TAG} (PUBLISHED) for experiment 1003, run 2; "
        f"conditions database {server.url}."
    )
    assert told == [
        f"global tag {TAG} is PUBLISHED: {NAME} revision 3, MD5 {MD5}",
        f"downloaded http://127.0.0.1:{server.server_port}/files/dbstore/{NAME}/rev_3.root to {found.path}",
    ]
    assert came[0] == (0, len(CONTENT))
    assert came[-1] == (len(CONTENT), len(CONTENT))
    assert came == sorted(came)
    assert server.asked[0] == f"/rest{server.tag_path}{TAG}"
    assert server.asked[1].startswith(f"/rest{server.list_path}?")
    if server.interface == "v2":
        assert query(server.asked[1]) == {"gtName": [TAG], "expNumber": ["1003"], "runNumber": ["2"]}
        assert server.asked_of_hsf == ["/rest/gtstatus"]
    else:
        asked = {"gtName": [TAG], "majorIOV": ["1003"], "minorIOV": ["2"], "shape": ["dict"]}
        assert query(server.asked[1]) == asked
        assert server.asked_of_hsf == ["/rest/gtstatus", "/rest/user_settings/CDB_PAYLOAD_BASE_URL"]
    for kind, headers in server.headers:
        assert headers["Accept"] == ("*/*" if kind == "file" else "application/json")
    assert files(tmp_path) == [f"new/cache/{PLACE}"]


def test_a_payload_in_the_cache_is_not_downloaded(server: ConditionsServer, tmp_path: Path) -> None:
    first, again = fetch(tmp_path, server), fetch(tmp_path, server)
    assert (again.url, again.path) == (None, first.path)
    assert server.n_files() == 1


def test_a_cache_that_cannot_be_written_to_is_still_read(server: ConditionsServer, tmp_path: Path) -> None:
    place = tmp_path / PLACE
    place.parent.mkdir()
    place.write_bytes(CONTENT)
    place.parent.chmod(0o500)
    assert fetch(tmp_path, server).url is None
    assert files(tmp_path) == [PLACE]
    place.parent.chmod(0o700)


def test_a_damaged_file_in_the_cache_is_replaced(server: ConditionsServer, tmp_path: Path) -> None:
    place = tmp_path / PLACE
    place.parent.mkdir()
    place.write_bytes(CONTENT[:-1])
    assert fetch(tmp_path, server).url is not None
    assert place.read_bytes() == CONTENT
    assert files(tmp_path) == [PLACE]


def test_other_payloads_of_the_cache_and_the_tag_are_left_alone(server: ConditionsServer, tmp_path: Path) -> None:
    other = tmp_path / MD5[:2] / f"{NAME}_r2.root"
    other.parent.mkdir()
    other.write_bytes(b"older")
    climbing = server.entry(name="../../etc/passwd", payloadUrl="../x")
    server.steps["list"] = [
        answer_json([climbing, server.entry(), server.entry(name="BeamParameters", checksum="none")])
    ]
    assert fetch(tmp_path, server).path == tmp_path / PLACE
    assert files(tmp_path) == sorted([PLACE, f"{MD5[:2]}/{NAME}_r2.root"])
    assert other.read_bytes() == b"older"


@pytest.mark.parametrize("state", ["TESTING", "VALIDATED", "RUNNING", "OPEN"])
def test_a_state_other_than_published_is_said(server: ConditionsServer, tmp_path: Path, state: str) -> None:
    server.steps["tag"] = [server.answer_state(state)]
    told: list[str] = []
    found = fetch_payload(
        *(NAME, TAG),
        sources=(server.url,),
        cache=tmp_path,
        allow_open_tag=state == "OPEN",
        limits=QUICK,
        log=told.append,
    )
    assert told[0].startswith(f"global tag {TAG} is {state}, not PUBLISHED, so it may change: ")
    assert f"of the global tag {TAG} ({state})" in found.provenance


def test_the_valid_payload_of_the_highest_revision_is_chosen(server: ConditionsServer, tmp_path: Path) -> None:
    server.steps["list"] = [
        answer_json([server.entry(revision=9, expEnd=6), server.entry(), server.entry(revision=2, checksum=32 * "0")])
    ]
    assert fetch(tmp_path, server, experiment=7).entry.revision == 3


# Several servers


def test_the_file_may_be_on_another_host_than_the_database(server: ConditionsServer, tmp_path: Path) -> None:
    with serving() as store:
        base = f"http://localhost:{store.server_port}/files"
        server.steps["list"] = [answer_json([server.entry(baseUrl=base)])]
        server.steps["base"] = [answer_json({"CDB_PAYLOAD_BASE_URL": base})]
        assert fetch(tmp_path, server).path.read_bytes() == CONTENT
        assert (server.n_files(), store.n_files()) == (0, 1)


@pytest.mark.parametrize("kind", ["tag", "list", "file"])
@pytest.mark.parametrize("bad", [answer_status(404), answer_status(500), answer(b"?")], ids=["404", "500", "nonsense"])
def test_the_next_server_is_asked_if_one_fails(server: ConditionsServer, tmp_path: Path, kind: Kind, bad: Step) -> None:
    with serving() as worse:
        worse.steps[kind] = [bad]
        found = fetch(tmp_path, worse, server)
    assert found.source == server.url
    assert found.path.read_bytes() == CONTENT
    assert files(tmp_path) == [PLACE]


def test_a_server_that_is_not_there_is_passed_over(server: ConditionsServer, tmp_path: Path) -> None:
    with serving() as gone:
        pass
    assert fetch(tmp_path, gone, server).path.read_bytes() == CONTENT
    with pytest.raises(ConditionsError, match=rf"{gone.url}/gtstatus cannot be read: \[Errno 111\] .*refused\.$"):
        fetch(tmp_path, gone)


def test_if_all_servers_fail_each_says_why(server: ConditionsServer, tmp_path: Path) -> None:
    server.steps["tag"] = [answer_status(404)]
    with serving() as other:
        other.steps["file"] = [answer_status(403)]
        with pytest.raises(
            ConditionsError,
            match=r"does not know the global tag \S+ \(404 Not Found\).*\. http://\S+ answered 403 Forbidden\.$",
        ):
            fetch(tmp_path, server, other)
    assert files(tmp_path) == []


# What is asked for


@pytest.mark.parametrize("bad", ["", "..", "../x", "a/b", "a b", "a\nb", "-x", "ä"])
def test_tags_and_payloads_must_have_names(tmp_path: Path, bad: str) -> None:
    with pytest.raises(ArgumentValueError, match=r"^The global tag may hold only letters, digits, .*, but is '"):
        fetch(tmp_path, tag=bad)
    with pytest.raises(ArgumentValueError, match=r"^The payload's name may hold only letters, digits, .*, but is '"):
        fetch_payload(bad, TAG, sources=("http://localhost",), cache=tmp_path)


@pytest.mark.parametrize(("argument", "when"), [("experiment", (-1, 0)), ("run", (0, -1))])
def test_negative_experiments_and_runs_are_refused(tmp_path: Path, argument: str, when: tuple[int, int]) -> None:
    with pytest.raises(ArgumentValueError, match=rf"^--{argument} must be 0 or more, but is -1\.$"):
        fetch(tmp_path, experiment=when[0], run=when[1])


@pytest.mark.parametrize("reason", ["Not a directory", "Is a directory", "Too many levels of symbolic links"])
def test_a_cache_that_cannot_be_used_is_said(server: ConditionsServer, tmp_path: Path, reason: str) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    cache = tmp_path / "cache"
    place = cache / PLACE
    if reason == "Not a directory":
        cache.touch()
    elif reason == "Is a directory":
        place.mkdir(parents=True)
    else:
        place.parent.mkdir(parents=True)
        place.with_name(f".{place.name}.lock").symlink_to(tmp_path / "precious")
    before = files(tmp_path)
    expected = rf"^The cache {cache} cannot hold {NAME}_r3\.root: {reason}\. Choose another folder with --cache\.$"
    with pytest.raises(OutputError, match=expected):
        fetch(cache, server)
    assert files(tmp_path) == before
    assert (tmp_path / "precious").read_bytes() == b"precious"
