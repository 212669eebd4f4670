"""A conditions database on the loopback interface, which behaves as well or as badly as a test asks."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import parse_qs, urlsplit

import pytest

from export.conditions.fetching import FetchedPayload, fetch_payload
from export.conditions.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

TAG: Final = "PXDBackgroundGenerator"
NAME: Final = "PXDBackgroundGenerator_resnet"
CONTENT: Final = bytes(range(256)) * 1000
"""Of the payload, 256 kB: more than one piece of an answer."""
MD5: Final = hashlib.md5(CONTENT).hexdigest()
PLACE: Final = f"{MD5[:2]}/{NAME}_r3.root"
"""Where a cache has it."""
QUICK: Final = Limits(
    connect_timeout_s=2,
    read_timeout_s=10,
    attempts=3,
    first_wait_s=0.001,
    lock_timeout_s=10,
    lock_poll_s=0.005,
    max_answer_bytes=300_000,
    max_payload_bytes=1_000_000,
)
"""Limits for tests: failures that do not lie in the time take none."""
IMPATIENT: Final = replace(QUICK, read_timeout_s=0.3, attempts=2)
"""For servers that fall silent."""

Interface = Literal["v2", "hsf"]
Kind = Literal["interface", "tag", "list", "base", "file"]
HSF_FIELDS: Final = {
    "payloadUrl": "payload_url",
    "checksum": "checksum",
    "revision": "revision",
    "expStart": "major_iov",
    "runStart": "minor_iov",
    "expEnd": "major_iov_end",
    "runEnd": "minor_iov_end",
    "name": "payload_type_name",
}
"""Names of the fields in the HSF interface, by those in v2."""
HSF_OPEN: Final = 9223372036854775807
Step = Callable[["Conversation"], None]


class Conversation(BaseHTTPRequestHandler):
    """One request, answered by the step whose turn it is."""

    server: ConditionsServer

    def do_GET(self) -> None:
        kinds = self.server.kinds.items()
        kind: Kind = next((kind for part, kind in kinds if part in self.path), "file")
        asked = self.server.asked_of_hsf if kind in {"interface", "base"} else self.server.asked
        asked.append(self.path)
        self.server.headers.append((kind, dict(self.headers)))
        self.server.next_step(kind)(self)

    def start(self, length: int | None, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


class ConditionsServer(ThreadingHTTPServer):
    """What each kind of request is answered with: a list of steps, of which the last one stays."""

    daemon_threads = True

    def __init__(self, interface: Interface) -> None:
        super().__init__(("127.0.0.1", 0), Conversation)
        self.interface = interface
        is_v2 = interface == "v2"
        self.tag_path = "/v2/globalTag/" if is_v2 else "/globalTag/"
        self.list_path = "/v2/iovPayloads/" if is_v2 else "/payloadiovs/"
        self.kinds: dict[str, Kind] = {
            "/gtstatus": "interface",
            "/user_settings/": "base",
            self.tag_path: "tag",
            self.list_path: "list",
        }
        self.url = f"http://127.0.0.1:{self.server_port}/rest"
        self.files_url = f"http://127.0.0.1:{self.server_port}/files/"
        self.asked: list[str] = []
        """For tags, lists and files."""
        self.asked_of_hsf: list[str] = []
        """For what only the HSF interface has."""
        self.headers: list[tuple[Kind, dict[str, str]]] = []
        self.ended = threading.Event()
        self.is_stalled = threading.Event()
        self.steps: dict[Kind, list[Step]] = {
            "interface": [answer_status(404) if is_v2 else answer_json([{"name": "PUBLISHED"}, {"name": "OPEN"}])],
            "tag": [self.answer_state("PUBLISHED")],
            "list": [answer_json([self.entry()])],
            "base": [answer_json({"CDB_PAYLOAD_BASE_URL": self.files_url})],
            "file": [answer(CONTENT)],
        }

    def next_step(self, kind: Kind) -> Step:
        steps = self.steps[kind]
        return steps.pop(0) if len(steps) > 1 else steps[0]

    def n_files(self) -> int:
        return sum(path.startswith("/files/") for path in self.asked)

    def answer_state(self, state: object) -> Step:
        """Answer with the state of a global tag."""
        return answer_json({"globalTagStatus" if self.interface == "v2" else "status": {"name": state}})

    def entry(self, **changes: object) -> dict[str, object]:
        """Describe the payload as the database does; changes have the names of v2 and go wherever their field is."""
        payload: dict[str, object] = {
            "payloadId": 12,
            "basf2Module": {"name": changes.pop("name", NAME), "basf2ModuleId": 7},
            "payloadUrl": "dbstore/PXDBackgroundGenerator_resnet/rev_3.root",
            "baseUrl": self.files_url,
            "checksum": MD5,
            "revision": 3,
        }
        interval: dict[str, object] = {"expStart": 0, "runStart": 0, "expEnd": -1, "runEnd": -1}
        for field, value in changes.items():
            (interval if field in interval else payload)[field] = value
        if self.interface == "v2":
            return {"payload": payload, "payloadIov": interval}
        name = payload["basf2Module"]
        assert isinstance(name, dict)
        flat = {**payload, **interval, "name": name["name"]}
        if type(flat["revision"]) is int:
            flat["revision"] = str(flat["revision"])
        for field in ("expEnd", "runEnd"):
            flat[field] = HSF_OPEN if flat[field] == -1 else flat[field]
        return {hsf: flat[field] for field, hsf in HSF_FIELDS.items()}

    def handle_error(self, *_arguments: object) -> None:
        """Say nothing: clients that hang up are what is tested."""


@contextmanager
def serving(interface: Interface = "v2") -> Iterator[ConditionsServer]:
    server = ConditionsServer(interface)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
    thread.start()
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("no_proxy", "127.0.0.1,localhost")
            yield server
    finally:
        server.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


def query(path: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(path).query)


# Asking it


def fetch(
    cache: Path,
    *sources: ConditionsServer | Path,
    tag: str = TAG,
    experiment: int = 0,
    run: int = 0,
    limits: Limits = QUICK,
    payload_locations: Sequence[str] = (),
) -> FetchedPayload:
    """Fetch the payload from the first source that gives it."""
    return fetch_payload(
        *(NAME, tag),
        sources=[each.url if isinstance(each, ConditionsServer) else str(each) for each in sources],
        cache=cache,
        experiment=experiment,
        run=run,
        limits=limits,
        payload_locations=payload_locations,
    )


def files(folder: Path) -> list[str]:
    """List the files in a folder and below."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


# Steps


def answer_json(content: object) -> Step:
    return answer(json.dumps(content).encode())


def answer(content: bytes, headers: Mapping[str, str] | None = None) -> Step:
    def step(conversation: Conversation) -> None:
        conversation.start(len(content), headers=headers)
        conversation.wfile.write(content)

    return step


def answer_status(code: int) -> Step:
    return lambda conversation: conversation.start(0, code)


def redirect(to: str) -> Step:
    return lambda conversation: conversation.start(0, 302, {"Location": to})


def announce(n_bytes: int) -> Step:
    """Announce a long answer and begin it."""

    def step(conversation: Conversation) -> None:
        conversation.start(n_bytes)
        conversation.wfile.write(bytes(1000))

    return step


def send_endlessly(conversation: Conversation) -> None:
    """Send zeros without a length, until the other side has had enough."""
    conversation.start(None)
    while not conversation.server.ended.is_set():
        conversation.wfile.write(bytes(1 << 16))


def stay_silent(conversation: Conversation) -> None:
    """Take the request and say nothing."""
    conversation.server.ended.wait()


def stall(conversation: Conversation) -> None:
    """Send half of the payload, and no more while the other side listens."""
    conversation.start(len(CONTENT))
    conversation.wfile.write(CONTENT[: len(CONTENT) // 2])
    conversation.server.is_stalled.set()
    conversation.server.ended.wait()


def hang_up(conversation: Conversation) -> None:
    """Announce the payload, send half of it, hang up."""
    conversation.start(len(CONTENT))
    conversation.wfile.write(CONTENT[: len(CONTENT) // 2])


def drip(conversation: Conversation) -> None:
    """Send a byte every few milliseconds."""
    conversation.start(len(CONTENT))
    while not conversation.server.ended.wait(0.01):
        conversation.wfile.write(b"x")


def send_slowly(conversation: Conversation) -> None:
    """Send the payload in pieces with pauses that are short enough."""
    conversation.start(len(CONTENT))
    for first in range(0, len(CONTENT), 64_000):
        conversation.wfile.write(CONTENT[first : first + 64_000])
        conversation.server.ended.wait(0.05)
