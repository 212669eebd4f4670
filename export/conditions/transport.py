"""One HTTP request: bounded in time and size, made again where that may help."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

import httpx

from export.errors import ServerError
from pxdbg_runtime.version import __version__

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from export.conditions.limits import Limits

__all__ = ["Progress", "opened_client", "receive", "retried"]

Progress = Callable[[int, int | None], None]
"""Called with the bytes that came so far and those that were announced, None if the server does not say."""
Result = TypeVar("Result")

_MAX_REDIRECTS: Final = 5
_PASSING_STATUS: Final = frozenset({408, 425, 429})
"""Answers other than 500 to 599 that say: later."""

logger = logging.getLogger(__name__)


def opened_client(limits: Limits) -> httpx.Client:
    """Make the client for a whole download; the caller closes it."""
    return httpx.Client(
        verify=_certificates(),
        timeout=httpx.Timeout(limits.read_timeout_s, connect=limits.connect_timeout_s),
        follow_redirects=True,
        max_redirects=_MAX_REDIRECTS,
        headers={"User-Agent": f"pxdbg-runtime/{__version__}", "Accept-Encoding": "identity"},
    )


@functools.cache
def _certificates() -> ssl.SSLContext:
    # Reading all certificates takes a tenth of a second, once.
    return httpx.create_ssl_context()


def receive(
    client: httpx.Client,
    url: str,
    take: Callable[[bytes], object],
    limits: Limits,
    *,
    max_bytes: int,
    params: Mapping[str, str | int] | None = None,
    progress: Progress = lambda _came, _announced: None,
) -> None:
    """Make one request and hand its answer on, piece by piece.

    Parameters
    ----------
    client : httpx.Client
    url : str
    take : callable
        Called with each piece.
    limits : Limits
    max_bytes : int
        A longer answer is refused, at the latest when it has become too long.
    params : mapping, optional
        Query of the URL.
    progress : callable, optional

    Raises
    ------
    ServerError
        If the server cannot be reached, is too slow, answers with another status than 200, or sends too much.
    """
    end = time.monotonic() + limits.total_timeout_s
    try:
        with client.stream("GET", url, params=params) as response:
            _require_ok(response, url)
            announced = _announced_bytes(response)
            if announced is not None and announced > max_bytes:
                message = f"{url} holds {_size(announced)}: at most {_size(max_bytes)} are expected."
                raise ServerError(message)
            came = 0
            progress(came, announced)
            for piece in response.iter_bytes():
                came += len(piece)
                if came > max_bytes:
                    message = f"{url} sent more than the {_size(max_bytes)} that are expected at most."
                    raise ServerError(message)
                if time.monotonic() > end:
                    message = f"{url} sent {_size(came)} in {limits.total_timeout_s:g} s and was not done: too slow."
                    raise ServerError(message)
                take(piece)
                progress(came, announced)
    except httpx.TimeoutException as error:
        message = f"{url} did not answer in time ({_kind(error)} after {_waited(error, limits):g} s)."
        raise ServerError(message, is_passing=True) from None
    except httpx.TooManyRedirects:
        message = f"{url} redirects more than {_MAX_REDIRECTS} times: expected the answer."
        raise ServerError(message) from None
    except (httpx.UnsupportedProtocol, httpx.InvalidURL, OverflowError, UnicodeError):  # of a port, of a host
        message = f"{url} leads to an address that is no http or https URL."
        raise ServerError(message) from None
    except httpx.TransportError as error:
        message = f"{url} cannot be read: {_reason(error)}."
        raise ServerError(message, is_passing=True) from None
    except httpx.HTTPError as error:
        message = f"{url} sent what cannot be decoded: {_reason(error)}."
        raise ServerError(message) from None


def retried(request: Callable[[], Result], limits: Limits) -> Result:
    """Make a request, again after a failure that may pass, with a longer wait each time.

    Raises
    ------
    ServerError
        Of the last attempt, or the first one that cannot pass.
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


def _require_ok(response: httpx.Response, url: str) -> None:
    status = response.status_code
    if status == httpx.codes.OK:
        return
    is_passing = status in _PASSING_STATUS or httpx.codes.is_server_error(status)
    message = f"{url} answered {status} {httpx.codes.get_reason_phrase(status)}".rstrip() + "."
    raise ServerError(message, status=status, is_passing=is_passing)


def _announced_bytes(response: httpx.Response) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() else None


def _kind(error: httpx.TimeoutException) -> str:
    return "no connection" if isinstance(error, httpx.ConnectTimeout) else "silence"


def _waited(error: httpx.TimeoutException, limits: Limits) -> float:
    return limits.connect_timeout_s if isinstance(error, httpx.ConnectTimeout) else limits.read_timeout_s


def _reason(error: httpx.HTTPError) -> str:
    return str(error).rstrip(".") or type(error).__name__


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e5 else f"{n_bytes} bytes"
