"""Standard streams whose failures do not change the exit code of a program."""

from __future__ import annotations

import errno
import io
import os
import sys
import time
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Final, TextIO

from pxdbg_runtime.command_line.safe_text import keep_colours

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import ReadableBuffer


__all__ = ["find_terminal_stream", "find_write_errors", "protect_standard_streams"]

_STANDARD_DESCRIPTORS: Final = 3
_BUSY_READER_S: Final = 1.0
_READER_HAS_GONE: Final = {errno.EPIPE, errno.EBADF}


class _LossyRaw(io.RawIOBase):
    """Writes to another raw stream; drops what cannot be written, and keeps the first error."""

    def __init__(self, raw: io.RawIOBase, descriptor: int) -> None:
        super().__init__()
        self._raw = raw
        self._descriptor = descriptor
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: ReadableBuffer, /) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        last_try = time.monotonic() + _BUSY_READER_S
        try:
            while left:
                n_written = self._raw.write(left)
                if n_written is not None:
                    left = left[n_written:]
                elif time.monotonic() < last_try:  # a non-blocking pipe, which is full
                    time.sleep(0.01)
                else:
                    break
        except OSError as error:
            self.error = self.error or error
        return size


class _SafeStream(io.TextIOWrapper):
    """A standard stream that passes no control sequences to the terminal except colours.

    Attributes
    ----------
    lossy : _LossyRaw
    terminal : TextIOWrapper
        The same stream without that filter, for a console that makes its texts safe itself and draws progress bars.
    """

    def __init__(self, lossy: _LossyRaw, encoding: str, errors: str) -> None:
        # Raw: no buffer has to be written when the interpreter ends.
        super().__init__(lossy, encoding=encoding, errors=errors, write_through=True)  # type: ignore[arg-type]
        self.lossy = lossy
        self.terminal = io.TextIOWrapper(lossy, encoding=encoding, errors=errors, write_through=True)  # type: ignore[type-var]

    def write(self, text: str, /) -> int:
        super().write(keep_colours(text))
        return len(text)


def protect_standard_streams() -> None:
    """Replace the standard streams by ones that drop what cannot be written and replace what cannot be encoded.

    A closed pipe, a full disk or a poor encoding then raises nothing, neither now nor when the interpreter ends.
    Streams that a test or a notebook has replaced already stay.
    """
    _occupy_standard_descriptors()
    if _is_original(sys.stdout, sys.__stdout__):
        sys.stdout = _protect(sys.stdout, errors="replace")
    if _is_original(sys.stderr, sys.__stderr__):
        sys.stderr = _protect(sys.stderr, errors="backslashreplace")


def find_write_errors() -> Iterator[tuple[str, OSError]]:
    """Find the standard streams that could not be written for another reason than a reader that has gone."""
    for name, stream in (("standard output", sys.stdout), ("standard error", sys.stderr)):
        error = stream.lossy.error if isinstance(stream, _SafeStream) else None
        if error is not None and error.errno not in _READER_HAS_GONE:
            yield name, error


def find_terminal_stream(stream: IO[str]) -> IO[str]:
    """Return the unfiltered stream behind a protected standard stream; any other stream unchanged."""
    return stream.terminal if isinstance(stream, _SafeStream) else stream


def _is_original(stream: TextIO | None, original: TextIO | None) -> bool:
    return isinstance(stream, io.TextIOWrapper) and stream is original


def _protect(stream: TextIO, errors: str) -> TextIO:
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return stream
    with suppress(OSError, ValueError):
        stream.flush()
    raw: Any = getattr(stream.buffer, "raw", stream.buffer)
    return _SafeStream(_LossyRaw(raw, descriptor), stream.encoding or "utf-8", errors)


def _occupy_standard_descriptors() -> None:
    """Open the null device in place of closed standard streams.

    Otherwise the next file that is opened gets their number, and the output of a library ends up in it.
    """
    with suppress(OSError):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) < _STANDARD_DESCRIPTORS:
            os.set_inheritable(descriptor, True)
        os.close(descriptor)
