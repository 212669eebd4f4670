"""Settings from the environment of basf2: sources, places of files, and the proxy."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from export.conditions import environment
from export.conditions.environment import CENTRAL_SERVER, choose_sources, find_proxy, list_payload_locations
from pxdbg_runtime.errors import ArgumentValueError

if TYPE_CHECKING:
    from pathlib import Path

METADATA, SERVERLIST = "BELLE2_CONDB_METADATA", "BELLE2_CONDB_SERVERLIST"


@pytest.fixture(autouse=True)
def cvmfs_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Clear the variables of basf2; the file that a test may create stands for that of cvmfs."""
    for name in (METADATA, SERVERLIST, "BELLE2_CONDB_PAYLOADS", "BELLE2_CONDB_PROXY"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "database.sqlite"
    monkeypatch.setattr(environment, "CVMFS_FILE", file)
    return file


def test_given_sources_are_taken_in_their_order_without_slashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(METADATA, "http://environment/rest")
    given = ["https://b.example/rest/", "my/file.sqlite", "https://b.example/rest", "http://[::1]:80/"]
    assert choose_sources(given) == ("https://b.example/rest", "my/file.sqlite", "http://[::1]:80")


def test_else_those_of_basf2_in_its_order(monkeypatch: pytest.MonkeyPatch, cvmfs_file: Path) -> None:
    assert choose_sources(()) == (CENTRAL_SERVER,)
    cvmfs_file.touch()
    assert choose_sources(()) == (str(cvmfs_file),)
    monkeypatch.setenv(SERVERLIST, "http://c.example http://d.example/")
    assert choose_sources(()) == ("http://c.example", "http://d.example")
    monkeypatch.setenv(METADATA, " /some/database.sqlite  http://a.example/rest/\thttps://b.example\n")
    assert choose_sources(()) == ("/some/database.sqlite", "http://a.example/rest", "https://b.example")
    monkeypatch.setenv(METADATA, " ")
    assert choose_sources(()) == ("http://c.example", "http://d.example")


@pytest.mark.parametrize("error_number", [errno.ENOTCONN, errno.EACCES, errno.EIO])
def test_a_broken_mount_of_cvmfs_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, cvmfs_file: Path, error_number: int
) -> None:
    ask_system = os.stat

    def fail_on_cvmfs(path: Any, *arguments: Any, **options: Any) -> os.stat_result:  # noqa: ANN401
        if path == cvmfs_file:
            raise OSError(error_number, os.strerror(error_number), path)
        return ask_system(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", fail_on_cvmfs)
        assert choose_sources(()) == (CENTRAL_SERVER,)


@pytest.mark.parametrize(
    "bad",
    [
        *("ftp://a.example", "http://", "file:///tmp", "http://a.example/?x=1", "http://a.example/#x"),
        *("http://a.example:99999999", "http://\x00", "http://xn--0.example", "http://a.example/\udcff"),
    ],
)
def test_urls_of_other_kinds_are_refused(bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = r" must be an http or https URL without .*, or the path of an sqlite file, but is '"
    with pytest.raises(ArgumentValueError, match=f"^--server{expected}"):
        choose_sources(["http://a.example", bad])
    monkeypatch.setattr("os.environ", {METADATA: f"http://a.example {bad}"})
    with pytest.raises(ArgumentValueError, match=f"^{METADATA}{expected}"):
        choose_sources(())


@pytest.mark.parametrize("variable", [METADATA, "--server", "BELLE2_CONDB_PROXY"])
def test_a_password_is_not_shown(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "ftp://user:secret@a.example/rest")
    given = ["http://user:secret@a.example/rest"] if variable == "--server" else []
    read = find_proxy if variable == "BELLE2_CONDB_PROXY" else lambda: choose_sources(given)
    with pytest.raises(
        ArgumentValueError, match=rf"^{variable} must be .* 'a\.example/rest'\.( Write '/', .* %3F\.)?$"
    ) as raised:
        read()
    assert "secret" not in str(raised.value)


def test_payload_locations_are_folders_and_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list_payload_locations() == ()
    monkeypatch.setenv("BELLE2_CONDB_PAYLOADS", "/cvmfs/files/ http://a.example/files/ local")
    assert list_payload_locations() == ("/cvmfs/files", "http://a.example/files", "local")


@pytest.mark.parametrize("bad", ["https://user:secret@a.example/p", "ftp://a.example/p", "file://a.example/p"])
def test_payload_locations_of_other_kinds_are_refused(bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BELLE2_CONDB_PAYLOADS", f"/cvmfs/files {bad}")
    expected = r"^BELLE2_CONDB_PAYLOADS must be an http or https URL .*, or a folder, but is '.*a\.example/p'\.$"
    with pytest.raises(ArgumentValueError, match=expected) as raised:
        list_payload_locations()
    assert (raised.value.argument, "secret" in str(raised.value)) == ("payload_locations", False)


@pytest.mark.parametrize(
    ("value", "proxy"),
    [
        (" ", None),
        ("http://proxy.example:3128/", "http://proxy.example:3128/"),
        ("proxy.example:3128", "http://proxy.example:3128"),
        ("https://user:secret@proxy.example", "https://user:secret@proxy.example"),
        ("user:a%2Fb%23c%3F@proxy.example:3128", "http://user:a%2Fb%23c%3F@proxy.example:3128"),
    ],
)
def test_the_proxy_is_that_of_basf2(value: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_proxy() is None
    monkeypatch.setenv("BELLE2_CONDB_PROXY", value)
    assert find_proxy() == proxy


@pytest.mark.parametrize(
    "bad",
    [
        *("socks5://a.example", "http://", "http://a.example:x", "http://xn--0.example", "http://a.example:1/?x"),
        *(f"http://user:{password}@a.example:1" for password in ("secret/x", "1/secret", "secret#x", "1#secret")),
        *("http://user:1?secret@a.example:1", "user:1#secret@a.example:1", "http://\udcff:x@a.example"),
    ],
)
def test_another_proxy_is_refused(bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BELLE2_CONDB_PROXY", bad)
    expected = r"^BELLE2_CONDB_PROXY must be an http or https URL such as .*, but its host part is '"
    with pytest.raises(ArgumentValueError, match=expected) as raised:
        find_proxy()
    assert "secret" not in str(raised.value)
