"""From a global tag to a file in the cache, with servers that behave badly."""

from __future__ import annotations

import logging
import re
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest

from export.errors import ConditionsError
from tests.conditions_server import (
    CONTENT,
    HSF_FIELDS,
    IMPATIENT,
    MD5,
    NAME,
    PLACE,
    QUICK,
    TAG,
    ConditionsServer,
    announce,
    answer,
    answer_json,
    answer_status,
    drip,
    fetch,
    files,
    hang_up,
    redirect,
    send_endlessly,
    send_slowly,
    serving,
    stall,
    stay_silent,
)

if TYPE_CHECKING:
    from pathlib import Path

    from export.conditions.limits import Limits
    from tests.conditions_server import Conversation, Interface, Kind, Step


def limits_for(step: Step) -> Limits:
    return IMPATIENT if step in {stay_silent, stall} else QUICK


# Failures that pass


KINDS: Final[tuple[tuple[Interface, Kind], ...]] = (
    *(("v2", kind) for kind in ("interface", "tag", "list", "file")),
    *(("hsf", kind) for kind in ("interface", "tag", "list", "base", "file")),
)


@pytest.mark.parametrize(
    ("interface", "kind", "bad"),
    [
        *(
            (*each, bad)
            for each in KINDS
            for bad in (answer_status(500), answer_status(503), answer_status(429), stay_silent, hang_up)
        ),
        *(
            (interface, "file", bad)
            for interface in ("v2", "hsf")
            for bad in (stall, answer(CONTENT[::-1]), answer(b""))
        ),
    ],
)
def test_a_failure_that_passes_is_tried_again(
    interface: Interface, tmp_path: Path, kind: Kind, bad: Step, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="export.conditions")
    with serving(interface) as server:
        server.steps[kind].insert(0, bad)
        assert fetch(tmp_path, server, limits=limits_for(bad)).path.read_bytes() == CONTENT
    assert len(server.asked) + len(server.asked_of_hsf) == (6 if interface == "hsf" else 5)
    assert "failed, waiting 0.001 s" in caplog.text
    assert files(tmp_path) == [PLACE]


COMPRESSED: Final = answer(zlib.compress(CONTENT), {"Content-Encoding": "deflate"})
UNCHANGED: Final = answer(CONTENT, {"Content-Encoding": "Identity"})


@pytest.mark.parametrize("odd", [send_slowly, UNCHANGED], ids=["slow", "identity"])
def test_an_odd_answer_is_read(server: ConditionsServer, tmp_path: Path, odd: Step) -> None:
    server.steps["file"] = [odd]
    assert fetch(tmp_path, server).path.read_bytes() == CONTENT
    assert server.n_files() == 1


@pytest.mark.parametrize("kind", ["tag", "list", "file"])
def test_a_redirect_is_followed(server: ConditionsServer, tmp_path: Path, kind: Kind) -> None:
    server.steps[kind].insert(0, redirect_to_itself)
    assert fetch(tmp_path, server).path.read_bytes() == CONTENT


def test_the_content_of_a_redirect_is_not_read(server: ConditionsServer, tmp_path: Path) -> None:
    n_sent = 0

    def redirect_with_content(conversation: Conversation) -> None:
        nonlocal n_sent
        conversation.start(None, 302, {"Location": conversation.path})
        for n_sent in range(1, 1001):  # noqa: B007
            conversation.wfile.write(bytes(1 << 16))

    server.steps["file"].insert(0, redirect_with_content)
    assert fetch(tmp_path, server).path.read_bytes() == CONTENT
    assert 0 < n_sent < 1000


HALF: Final = {"name": "half \ud800"}


def redirect_to_itself(conversation: Conversation) -> None:
    redirect(conversation.path)(conversation)


# Failures that do not pass: one sentence, and nothing in the cache


@pytest.mark.parametrize(
    ("kind", "bad", "expected", "n_asked"),
    [
        ("tag", answer_status(404), r"{rest} does not know the global tag PXDBackgroundGenerator \(404 Not Found\){other}\.", 1),
        ("list", answer_status(404), r"{list} answered 404 Not Found\.", 2),
        ("file", answer_status(404), r"{file} answered 404 Not Found\.", 3),
        ("tag", answer_status(500), r"{tag}\w+ answered 500 Internal Server Error\.", 3),
        ("file", answer_status(204), r"{file} answered 204 No Content\.", 3),
        ("file", stay_silent, r"{file} did not answer in time \(no data for 0\.3 s\)\.", 4),
        ("file", stall, r"{file} did not answer in time \(no data for 0\.3 s\)\.", 4),
        ("file", hang_up, r"{file} cannot be read: peer closed connection .*\.", 5),
        ("file", answer(b"other"), rf"{{file}} has the MD5 795f3202b17cb6bc3d4b771d8c6c9eaf, but .* {MD5}: .*\.", 5),
        ("file", announce(5_000_000_000), r"{file} holds 5000\.0 MB: expected at most 1\.0 MB\.", 3),
        ("file", send_endlessly, r"{file} sent more than 1\.0 MB, the most that is expected\.", 3),
        ("list", send_endlessly, r"{list} sent more than 0\.3 MB, the most that is expected\.", 2),
        ("file", redirect("/files/loop"), r"{file} redirects more than 5 times: expected an answer\.", 8),
        ("tag", redirect_to_itself, r"\S+ redirects more than 5 times: expected an answer\.", 6),
        ("file", redirect("file:///etc/passwd"), r"{file} leads to an address that is not an http or https URL\.", 3),
        ("file", redirect("http://127.0.0.1:" + 30 * "9"), r"{file} leads to an address that is not an http or https URL\.", 3),
        ("file", redirect("http://" + 80 * "a"), r"{file} leads to an address that is not an http or https URL\.", 3),
        ("file", COMPRESSED, r"{file} sent an answer that is compressed \('deflate'\), which was not asked for\.", 3),
        ("tag", answer(b"<html>It works</html>"), r"\S+ gave an answer that is not understood: it is not JSON.*", 1),
        ("tag", answer(b"\xff\xfe"), r"\S+ must answer with JSON in UTF-8, but its answer is not UTF-8\.", 1),
        ("tag", answer(b"[" * 100_000), r"\S+ gave an answer that is not understood: it is not JSON.*", 1),
        ("tag", answer_json({}), r"\S+: the field {state} is missing\.", 1),
        ("tag", answer_json({"globalTagStatus": {"name": 3}, "status": {"name": 3}}), r"\S+: {state}\.name must be text, but is 3\.", 1),
        ("tag", answer_json({"globalTagStatus": HALF, "status": HALF}), r"\S+: {state}\.name must be text .*", 1),
        ("list", answer_json({"message": "no"}), r"\S+: it must be a list, but is {{.message.: .no.}}\.", 2),
        ("list", answer_json([3]), r"\S+: \[0\] must be an object, but is 3\.", 2),
        ("list", answer_json([{}]), r"\S+: entry 0: the field payload\w* is missing\.", 2),
    ],
)  # fmt: skip
def test_what_a_server_can_do_wrong(
    server: ConditionsServer, tmp_path: Path, kind: Kind, bad: Step, expected: str, n_asked: int
) -> None:
    server.steps[kind] = [bad]
    rest = re.escape(server.url)
    # Without /gtstatus a server may have the interface v2, or none.
    places = {
        "rest": rest,
        "other": ", or is not the base URL of a conditions server, such as .*" if server.interface == "v2" else "",
        "tag": rest + server.tag_path,
        "list": rest + server.list_path,
        "file": rf"http://127\.0\.0\.1:{server.server_port}/files/\S+_3\.root",
        "state": "globalTagStatus" if server.interface == "v2" else "status",
    }
    expected = expected.format(**places).replace(r"\S+:", r"\S+ gave an answer that is not understood:", 1)
    start = rf"No source of the conditions database gave {NAME} of the global tag {TAG}: "
    with pytest.raises(ConditionsError, match=rf"^{start}{expected}$"):
        fetch(tmp_path, server, limits=limits_for(bad))
    assert len(server.asked) == n_asked
    assert files(tmp_path) == []


def test_a_server_that_drips_is_left_after_the_whole_time(server: ConditionsServer, tmp_path: Path) -> None:
    server.steps["file"] = [drip]
    with pytest.raises(ConditionsError, match=r"sent \d+ bytes in 0\.1 s and was not done: too slow\.$"):
        fetch(tmp_path, server, limits=replace(QUICK, total_timeout_s=0.1))
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("interface", "field"),
    [
        *(("v2", f"payload.{field}") for field in ("basf2Module", "payloadUrl", "baseUrl", "checksum", "revision")),
        *(("v2", f"payloadIov.{field}") for field in ("expStart", "runStart", "expEnd", "runEnd")),
        *(("hsf", field) for field in HSF_FIELDS.values()),
    ],
)
def test_an_entry_without_a_field_is_refused(interface: Interface, tmp_path: Path, field: str) -> None:
    with serving(interface) as server:
        entry = server.entry()
        *part, name = field.split(".")
        holder = entry[part[0]] if part else entry
        assert isinstance(holder, dict)
        del holder[name]
        server.steps["list"] = [answer_json([entry])]
        with pytest.raises(ConditionsError, match=rf"not understood: entry 0: the field {field} is missing\.$"):
            fetch(tmp_path, server)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        *(
            ("payloadUrl", url, r"must be a path below the base URL, but is ")
            for url in (
                *("../secret", "a/../../b", "a/..", "./a", "%2e%2e/secret", "a/%2e%2e%2fb", "..%2Fsecret", "a\\..\\b"),
                *("http://other.example/a", "HTTP://other.example/a", "//other.example/a", "file:///etc/passwd"),
                *("a?b", "a#b", "a\nb", "a b", "a//b"),
            )
        ),
        *(
            ("checksum", md5, r"must be an MD5 of 32 hexadecimal digits, but is ")
            for md5 in ("../" + 29 * "0", "ab", 33 * "a", "é" * 32)
        ),
        ("checksum", None, r"must be text, but is null"),
        ("revision", "../3", r"must be an integer\b.*, but is .\.\./3."),
        ("revision", -1, r"must be an integer >= 0\b.*, but is .?-1"),
        ("revision", 2.5, r"must be \w+ ?\w*, but is 2\.5"),
        ("revision", None, r"must be \w+ ?\w*, but is null"),
        ("expEnd", -2, r"must be an integer >= -1, but is -2"),
        ("expStart", "0", r"must be an integer, but is .0."),
        ("name", None, r"must be text, but is null"),
    ],
)  # fmt: skip
def test_an_entry_that_points_where_it_must_not_is_refused(
    server: ConditionsServer, tmp_path: Path, field: str, value: object, expected: str
) -> None:
    server.steps["list"] = [answer_json([server.entry(**{field: value})])]
    shown = field if server.interface == "v2" else HSF_FIELDS[field]
    with pytest.raises(ConditionsError, match=rf"not understood: entry 0: (payload\w*\.\S*)?{shown} {expected}"):
        fetch(tmp_path / "cache", server)
    assert server.n_files() == 0
    assert files(tmp_path) == []


@pytest.mark.parametrize("revision", ["", "3.0", "+3", " 3", "³", "٣", 30 * "9"])
def test_a_revision_in_text_that_is_no_number_is_refused(tmp_path: Path, revision: str) -> None:
    with serving("hsf") as server:
        server.steps["list"] = [answer_json([server.entry(revision=revision)])]
        with pytest.raises(ConditionsError, match=r"entry 0: revision must be (an integer >= 0 in )?text"):
            fetch(tmp_path, server)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "url", ["file:///etc", "/files", "ftp://host/", "http://", "http://user:word@host/", "http://h/?q="]
)
def test_a_base_url_that_is_no_web_address_is_refused(server: ConditionsServer, tmp_path: Path, url: str) -> None:
    server.steps["list"] = [answer_json([server.entry(baseUrl=url)])]
    server.steps["base"] = [answer_json({"CDB_PAYLOAD_BASE_URL": url})]
    with pytest.raises(ConditionsError, match=r"(payload\.baseUrl|BASE_URL) must be an http or https URL, but is "):
        fetch(tmp_path, server)
    assert server.n_files() == 0
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (answer_status(404), r"answered 404 Not Found\."),
        (answer_json({}), r"gave an answer that is not understood: the field CDB_PAYLOAD_BASE_URL is missing\."),
        (answer_json([]), r"gave an answer that is not understood: it must be an object, but is \[\]\."),
    ],
)
def test_a_server_without_a_base_url_fails(tmp_path: Path, bad: Step, expected: str) -> None:
    with serving("hsf") as server:
        server.steps["base"] = [bad]
        with pytest.raises(ConditionsError, match=rf"/user_settings/CDB_PAYLOAD_BASE_URL {expected}$"):
            fetch(tmp_path, server)
    assert files(tmp_path) == []


# Which interface


@pytest.mark.parametrize(
    "other", [answer_status(400), answer_status(405), answer(b"<html>It works</html>"), answer_json({}), send_endlessly]
)
def test_a_server_that_does_not_list_states_has_the_interface_v2(tmp_path: Path, other: Step) -> None:
    with serving("v2") as server:
        server.steps["interface"] = [other]
        assert fetch(tmp_path, server).path.read_bytes() == CONTENT
        assert server.asked_of_hsf == ["/rest/gtstatus"]


def test_a_server_that_does_not_say_its_interface_fails(server: ConditionsServer, tmp_path: Path) -> None:
    server.steps["interface"] = [answer_status(503)]
    with pytest.raises(ConditionsError, match=r"/rest/gtstatus answered 503 Service Unavailable\.$"):
        fetch(tmp_path, server)
    assert (server.asked, len(server.asked_of_hsf)) == ([], 3)


# Tags


@pytest.mark.parametrize("listed", [(), ({"expEnd": 6, "runEnd": 99},), ({"expStart": 8},), ({"name": f"../{NAME}"},)])
def test_a_tag_without_a_valid_payload_is_refused(
    server: ConditionsServer, tmp_path: Path, listed: tuple[dict[str, object], ...]
) -> None:
    server.steps["list"] = [answer_json([server.entry(**changes) for changes in listed])]
    expected = (
        rf"^The global tag {TAG} has no payload {NAME} for experiment 7, run 5: choose another tag, or a run that it "
        r"covers with --experiment and --run\.$"
    )
    with pytest.raises(ConditionsError, match=expected):
        fetch(tmp_path, server, server, experiment=7, run=5)
    assert len(server.asked) == 2
    assert files(tmp_path) == []


@pytest.mark.parametrize("state", ["INVALID", "OPEN", "NEW", "published"])
def test_a_tag_in_another_state_is_refused(server: ConditionsServer, tmp_path: Path, state: str) -> None:
    server.steps["tag"] = [server.answer_state(state)]
    hint = "or accept it with --allow-open-tag" if state == "OPEN" else "as basf2 does not use it either"
    expected = (
        rf"^The global tag {TAG} is {state}: expected TESTING, VALIDATED, PUBLISHED, RUNNING\. "
        rf"Choose another one, {hint}\.$"
    )
    with pytest.raises(ConditionsError, match=expected):
        fetch(tmp_path, server, server)
    assert len(server.asked) == 1
    assert files(tmp_path) == []
