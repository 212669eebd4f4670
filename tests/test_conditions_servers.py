"""Which servers are asked."""

from __future__ import annotations

import logging

import pytest

from export.conditions.servers import SERVERS_VARIABLE, choose_servers
from pxdbg_runtime.errors import ArgumentValueError


def test_given_servers_are_taken_in_their_order_without_slashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVERS_VARIABLE, "http://environment/rest")
    given = ["https://b.example/rest/", "http://a.example:8080", "https://b.example/rest", "http://[::1]:80/"]
    assert choose_servers(given) == ("https://b.example/rest", "http://a.example:8080", "http://[::1]:80")


def test_else_those_of_basf2_but_for_files(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="export.conditions")
    monkeypatch.setenv(SERVERS_VARIABLE, " /cvmfs/database.sqlite  http://a.example/rest/\thttps://b.example\n")
    assert choose_servers(()) == ("http://a.example/rest", "https://b.example")
    assert f"left out '/cvmfs/database.sqlite' of {SERVERS_VARIABLE}" in caplog.text


@pytest.mark.parametrize(
    "bad",
    [
        *("", "a.example", "ftp://a.example", "http://", "file:///tmp", "http://a.example/?x=1", "http://a.example/#x"),
        *("http://a.example:99999999", "http://\x00", "//a.example"),
    ],
)
def test_what_is_no_server_is_refused(bad: str) -> None:
    with pytest.raises(ArgumentValueError, match=r"^--server must be an http or https URL without .*, but is '"):
        choose_servers(["http://a.example", bad])


def test_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(ArgumentValueError, match=r"without a user name, .*, but is 'a\.example/rest'\.$") as caught:
        choose_servers(["http://user:secret@a.example/rest"])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("listed", [None, "", "/cvmfs/database.sqlite"])
def test_without_any_server_the_message_says_how_to_name_one(
    monkeypatch: pytest.MonkeyPatch, listed: str | None
) -> None:
    if listed is None:
        monkeypatch.delenv(SERVERS_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(SERVERS_VARIABLE, listed)
    expected = rf"^No server of the conditions database is known: give --server URL, or set .* {SERVERS_VARIABLE} to .*"
    with pytest.raises(ArgumentValueError, match=expected):
        choose_servers(())
