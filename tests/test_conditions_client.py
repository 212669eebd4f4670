"""The HTTP client: certificates and proxies of the environment that cannot be used, and fetching without a client."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import pytest

from export.conditions import transport
from export.conditions.fetching import fetch_payload
from export.errors import ConditionsError
from tests.conditions_server import NAME, QUICK, TAG, fetch
from tests.conditions_sqlite import write_database, write_payload

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CERTIFICATES: Final = (
    r"^The certificates of https servers cannot be loaded \({}\): correct or unset SSL_CERT_FILE, SSL_CERT_DIR and "
    r"SSLKEYLOGFILE\.$"
)
PROXIES: Final = (
    r"^HTTPS_PROXY, HTTP_PROXY, ALL_PROXY or NO_PROXY is not valid, a proxy is a URL such as .*: correct the variable, "
    r"or unset it\.$"
)
SOCKS: Final = r"^HTTPS_PROXY, .* names a SOCKS proxy, which needs a further package: pip install 'httpx.*"
BAD_SETTINGS: Final = (
    ("SSL_CERT_FILE", "/none", CERTIFICATES.format("No such file or directory")),
    ("SSL_CERT_FILE", "/dev/null", CERTIFICATES.format(".*")),
    ("ALL_PROXY", "socks5://user:secret@a.example:1080", SOCKS),
    ("HTTPS_PROXY", "http://user:secret@a.example:x", PROXIES),
    ("HTTPS_PROXY", "http://user:secret#word@a.example:3128", PROXIES),
    ("HTTPS_PROXY", "ftp://user:secret@a.example", PROXIES),
    ("NO_PROXY", "http://a.example:x", PROXIES),
    ("NO_PROXY", "http://xn--0.example", PROXIES),
)


@pytest.fixture(autouse=True)
def _settings_of_the_test_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "socksio", None)
    transport._load_certificates.cache_clear()
    yield
    transport._load_certificates.cache_clear()


@pytest.mark.parametrize(("variable", "value", "expected"), BAD_SETTINGS)
def test_a_bad_setting_is_one_sentence_without_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConditionsError, match=expected) as raised:
        fetch_payload(NAME, TAG, sources=["http://conditions.invalid/rest"], cache=tmp_path, limits=QUICK)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(("variable", "value", "_expected"), BAD_SETTINGS)
def test_what_is_on_this_machine_needs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, _expected: str
) -> None:
    monkeypatch.setenv(variable, value)
    payload = write_payload(tmp_path / "data")
    found = fetch(tmp_path / "cache", write_database(tmp_path / "data"))
    assert (found.path, found.url) == (payload, None)


def test_a_download_for_an_sqlite_file_needs_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://a.example:x")
    database = write_database(tmp_path / "data", {"baseUrl": "http://files.invalid/files"})
    with pytest.raises(ConditionsError, match=PROXIES):
        fetch(tmp_path / "cache", database)


def test_a_bad_proxy_of_basf2_is_named(tmp_path: Path) -> None:
    sources = ["http://conditions.invalid/rest"]
    with pytest.raises(ConditionsError, match=r"^BELLE2_CONDB_PROXY is not valid, a proxy is a URL such as "):
        fetch_payload(NAME, TAG, sources=sources, cache=tmp_path, proxy="http://a.example:x", limits=QUICK)
