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
    from collections.abc import Iterator
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

Kind = Literal["tag", "list", "file"]
Step = Callable[["Conversation"], None]


class Conversation(BaseHTTPRequestHandler):
    """One request, answered by the step whose turn it is."""

    server: ConditionsServer

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.next_step(self.kind())(self)

    def kind(self) -> Kind:
        if "/v2/globalTag/" in self.path:
            return "tag"
        return "list" if "/v2/iovPayloads/" in self.path else "file"

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

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Conversation)
        self.url = f"http://127.0.0.1:{self.server_port}/rest"
        self.asked: list[str] = []
        self.ended = threading.Event()
        self.is_stalled = threading.Event()
        self.steps: dict[Kind, list[Step]] = {
            "tag": [answer_json({"globalTagStatus": {"name": "PUBLISHED"}})],
            "list": [answer_json([self.entry()])],
            "file": [answer(CONTENT)],
        }

    def next_step(self, kind: Kind) -> Step:
        steps = self.steps[kind]
        return steps.pop(0) if len(steps) > 1 else steps[0]

    def n_files(self) -> int:
        return sum(path.startswith("/files/") for path in self.asked)

    def entry(self, **changes: object) -> dict[str, dict[str, object]]:
        """Describe the payload as the database does; a change goes wherever its field is."""
        payload: dict[str, object] = {
            "payloadId": 12,
            "basf2Module": {"name": changes.pop("name", NAME), "basf2ModuleId": 7},
            "payloadUrl": "dbstore/PXDBackgroundGenerator_resnet/rev_3.root",
            "baseUrl": f"http://127.0.0.1:{self.server_port}/files/",
            "checksum": MD5,
            "revision": 3,
        }
        interval: dict[str, object] = {"expStart": 0, "runStart": 0, "expEnd": -1, "runEnd": -1}
        for field, value in changes.items():
            (interval if field in interval else payload)[field] = value
        return {"payload": payload, "payloadIov": interval}

    def handle_error(self, *_arguments: object) -> None:
        """Say nothing: clients that hang up are what is tested."""


@contextmanager
def serving() -> Iterator[ConditionsServer]:
    server = ConditionsServer()
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


def without(entry: dict[str, dict[str, object]], part: str, field: str) -> dict[str, dict[str, object]]:
    return {
        name: {key: value for key, value in each.items() if (name, key) != (part, field)}
        for name, each in entry.items()
    }


# Asking it


def fetch(
    cache: Path, *servers: ConditionsServer, tag: str = TAG, experiment: int = 0, run: int = 0, limits: Limits = QUICK
) -> FetchedPayload:
    """Fetch the payload from the first server that gives it."""
    urls = tuple(each.url for each in servers)
    return fetch_payload(NAME, tag, servers=urls, cache=cache, experiment=experiment, run=run, limits=limits)


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
