"""HTTP requests, bounded in time and size, with retries after failures that may pass."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Final, TypeVar

import httpx

from export.conditions.fields import MAX_PORT
from export.errors import ConditionsError, ServerError
from pxdbg_runtime.errors import one_line
from pxdbg_runtime.version import __version__

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from export.conditions.limits import Limits

__all__ = ["Progress", "open_client", "receive", "retry"]

Progress = Callable[[int, int | None], None]
"""Called with the number of bytes received so far, and the number that the server announced or None."""
Result = TypeVar("Result")

_MAX_REDIRECTS: Final = 5
_PASSING_STATUS: Final = frozenset({408, 425, 429})
"""Answers other than 500 to 599 after which the same request may succeed later."""

logger = logging.getLogger(__name__)


def open_client(limits: Limits, proxy: str | None = None) -> httpx.Client:
    """Open the client for a whole download; the caller closes it.

    Parameters
    ----------
    limits : Limits
    proxy : str, optional
        URL of a proxy for all requests; without it, httpx reads ``HTTPS_PROXY`` and the like.

    Raises
    ------
    ConditionsError
        If the certificates or the proxies that the environment names cannot be used.
    """
    try:
        certificates = _load_certificates()
    except OSError as error:
        message = (
            f"The certificates of https servers cannot be loaded ({error.strerror or one_line(error)}): correct or "
            "unset SSL_CERT_FILE, SSL_CERT_DIR and SSLKEYLOGFILE."
        )
        raise ConditionsError(message) from None
    variable = "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY or NO_PROXY" if proxy is None else "BELLE2_CONDB_PROXY"
    try:
        return httpx.Client(
            verify=certificates,
            proxy=proxy,
            timeout=httpx.Timeout(limits.read_timeout_s, connect=limits.connect_timeout_s),
            headers={"User-Agent": f"pxdbg-runtime/{__version__}", "Accept-Encoding": "identity"},
            event_hooks={"request": [_check_port]},
        )
    except ImportError:
        message = (
            f"{variable} names a SOCKS proxy, which needs a further package: pip install 'httpx[socks]', or name an "
            "http proxy."
        )
        raise ConditionsError(message) from None
    except (ValueError, httpx.InvalidURL):  # their texts may hold a password
        message = (
            f"{variable} is not valid, a proxy is a URL such as http://proxy.example:3128: correct the variable, or "
            "unset it."
        )
        raise ConditionsError(message) from None


def _check_port(request: httpx.Request) -> None:
    """Refuse a port that none can be, also after a redirect: what Python does with it depends on its release."""
    if (request.url.port or 0) > MAX_PORT:
        message = "no such port"
        raise httpx.InvalidURL(message)


@functools.cache  # reading all certificates takes a tenth of a second
def _load_certificates() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def receive(
    client: httpx.Client,
    url: str,
    take: Callable[[bytes], object],
    limits: Limits,
    *,
    max_bytes: int,
    params: Mapping[str, str | int] | None = None,
    headers: Mapping[str, str] | None = None,
    progress: Progress = lambda _n_received, _n_announced: None,
) -> None:
    """Make one request and pass its answer on, chunk by chunk.

    The limit of the time of a whole answer is checked whenever a chunk comes. While the header comes, the limit of the
    time without data holds alone.

    Parameters
    ----------
    client : httpx.Client
    url : str
    take : callable
        Called with each chunk.
    limits : Limits
    max_bytes : int
        A longer answer is refused: from its announced length, or when that many bytes have come.
    params : mapping, optional
        Query of the URL.
    headers : mapping, optional
    progress : callable, optional

    Raises
    ------
    ServerError
        If the server cannot be reached, is too slow, answers with a status other than 200, compresses its answer
        unasked, or sends too much.
    """
    end = time.monotonic() + limits.total_timeout_s
    try:
        request = client.build_request("GET", url, params=params, headers=headers)
        with closing(_follow_redirects(client, request)) as response:
            _check_status(response, url)
            _check_encoding(response, url)
            n_announced = _find_content_length(response)
            if n_announced is not None and n_announced > max_bytes:
                message = f"{url} holds {_format_size(n_announced)}: expected at most {_format_size(max_bytes)}."
                raise ServerError(message)
            n_received = 0
            progress(n_received, n_announced)
            for chunk in response.iter_raw():
                n_received += len(chunk)
                if n_received > max_bytes:
                    message = f"{url} sent more than {_format_size(max_bytes)}, the most that is expected."
                    raise ServerError(message)
                if time.monotonic() > end:
                    sent = f"{_format_size(n_received)} in {limits.total_timeout_s:g} s"
                    message = f"{url} sent {sent} and was not done: too slow."
                    raise ServerError(message)
                take(chunk)
                progress(n_received, n_announced)
    except httpx.TimeoutException as error:
        is_connecting = isinstance(error, httpx.ConnectTimeout)
        reason = (
            f"no connection after {limits.connect_timeout_s:g} s"
            if is_connecting
            else f"no data for {limits.read_timeout_s:g} s"
        )
        message = f"{url} did not answer in time ({reason})."
        raise ServerError(message, is_passing=True) from None
    except httpx.TooManyRedirects:
        message = f"{url} redirects more than {_MAX_REDIRECTS} times: expected an answer."
        raise ServerError(message) from None
    except (httpx.UnsupportedProtocol, httpx.InvalidURL, OverflowError, UnicodeError):  # of a port or a host
        message = f"{url} leads to an address that is not an http or https URL."
        raise ServerError(message) from None
    except httpx.TransportError as error:
        message = f"{url} cannot be read: {_describe(error)}."
        raise ServerError(message, is_passing=True) from None


def retry(request: Callable[[], Result], limits: Limits) -> Result:
    """Make a request, and repeat it after a failure that may pass; each wait is twice the one before.

    Raises
    ------
    ServerError
        From the last attempt, or from the first failure that cannot pass.
    """
    wait_s = limits.first_wait_s
    for attempt in range(1, limits.attempts):
        try:
            return request()
        except ServerError as error:
            if not error.is_passing:
                raise
            logger.info("attempt %d of %d failed, waiting %g s: %s", attempt, limits.attempts, wait_s, error)
        time.sleep(wait_s)
        wait_s *= 2
    return request()


def _follow_redirects(client: httpx.Client, request: httpx.Request) -> httpx.Response:
    """Send a request and those that it is redirected to; httpx would read the content of a redirect to its end."""
    for _ in range(1 + _MAX_REDIRECTS):
        response = client.send(request, stream=True)
        if response.next_request is None:
            return response
        response.close()
        request = response.next_request
    message = "too many redirects"
    raise httpx.TooManyRedirects(message)


def _check_encoding(response: httpx.Response, url: str) -> None:
    """Refuse a compressed answer: a server could send blocks that hold nothing for ever."""
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.strip().lower() not in {"", "identity"}:
        message = f"{url} sent an answer that is compressed ({encoding[:60]!r}), which was not asked for."
        raise ServerError(message)


def _check_status(response: httpx.Response, url: str) -> None:
    status = response.status_code
    if status == httpx.codes.OK:
        return
    is_passing = status in _PASSING_STATUS or httpx.codes.is_server_error(status)
    message = f"{url} answered {status} {httpx.codes.get_reason_phrase(status)}".rstrip() + "."
    raise ServerError(message, status=status, is_passing=is_passing)


def _find_content_length(response: httpx.Response) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() else None


def _describe(error: httpx.TransportError) -> str:
    return str(error).rstrip(".") or type(error).__name__


def _format_size(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e5 else f"{n_bytes} bytes"
