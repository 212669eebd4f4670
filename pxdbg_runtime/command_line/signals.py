"""Signals that end a command: the first raises an exception, later ones do not disturb the clean-up."""

from __future__ import annotations

import _thread
import atexit
import signal
import sys
import threading
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["StopSignals", "Stopped", "describe_stop", "is_stopped", "raise_if_stopped"]

_NAMES: Final = ("SIGTERM", "SIGINT", "SIGHUP", "SIGXCPU", "SIGUSR1", "SIGUSR2", "SIGBREAK")
"""Signals by which users, terminals and batch systems end a job or announce its end; not every platform has all."""

_RETRY_S: Final = 0.05


class Stopped(BaseException):
    """A signal ended the command. Not an `Exception`, so that no handler of failures catches it."""


class StopSignals:
    """Handlers of the signals that end a command.

    Attributes
    ----------
    received : signal.Signals or None
        The first signal.
    describe_outcome : callable or None
        Describes after a signal what the command has done, if files that it wrote itself do not tell.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.describe_outcome: Callable[[], str] | None = None
        self._is_armed = True
        self._under_way: weakref.ref[Stopped] | None = None
        self._report_lost: Callable[[sys.UnraisableHookArgs], Any] | None = None
        self._replaced: dict[signal.Signals, Callable[[int, FrameType | None], Any] | int] = {}

    def install(self) -> None:
        """Handle the signals that have their default handler: one that the parent ignores (nohup) stays ignored.

        Does nothing outside the main thread, where Python handles no signals.
        """
        global _current  # noqa: PLW0603  # signals are the process's
        if threading.current_thread() is not threading.main_thread():
            return
        for name in _NAMES:
            number = getattr(signal, name, None)
            if number is None:
                continue
            handler = signal.getsignal(number)
            if handler in {signal.SIG_DFL, signal.default_int_handler}:
                self._replaced[number] = handler
                signal.signal(number, self._handle)
        self._report_lost = sys.unraisablehook
        sys.unraisablehook = self._handle_lost
        _current = self

    def disarm(self) -> None:
        """Record signals from now on, without raising."""
        self._is_armed = False

    def end(self) -> None:
        """Restore the former handlers; after a signal ignore further ones, because the process ends.

        While the interpreter shuts down, signals are ignored in any case: the exit code is known.
        """
        atexit.register(self._ignore)
        if self._report_lost is not None:
            sys.unraisablehook = self._report_lost
        for number, handler in self._replaced.items():
            signal.signal(number, handler if self.received is None else signal.SIG_IGN)

    def raise_if_received(self) -> None:
        """Raise `Stopped` if a signal came and code that ignores exceptions dropped it."""
        if self.received is None or not self._is_armed:
            return
        if self._is_dropped():
            stopped = Stopped(self.received.name)
            self._under_way = weakref.ref(stopped)
            try:
                raise stopped
            finally:
                del stopped  # its traceback would keep it alive

    def _handle_lost(self, lost: sys.UnraisableHookArgs) -> None:
        """Print nothing about a `Stopped` that C code dropped: `_watch` raises it again."""
        if self._report_lost is not None and not isinstance(lost.exc_value, Stopped):
            self._report_lost(lost)

    def _ignore(self) -> None:
        for number in self._replaced:
            signal.signal(number, signal.SIG_IGN)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.received is None:
            with suppress(RuntimeError):  # no more threads start: `raise_if_stopped` raises a dropped exception again
                _thread.start_new_thread(self._watch, ())  # without locks, which a signal handler must not wait for
            self.received = signal.Signals(number)
        self.raise_if_received()

    def _watch(self) -> None:
        """Send the signal again as long as its exception is dropped.

        Calls of Python from C (numba, ctypes) and the import of extension modules (numpy.random) drop exceptions.
        """
        while True:
            time.sleep(_RETRY_S)
            if not self._is_armed:
                return
            if self.received is not None and self._is_dropped():
                _interrupt_main_thread(self.received)

    def _is_dropped(self) -> bool:
        return self._under_way is None or self._under_way() is None


def _interrupt_main_thread(number: signal.Signals) -> None:
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)  # also interrupts a wait
    else:
        _thread.interrupt_main(number)


_current: StopSignals | None = None


def is_stopped() -> bool:
    """Tell whether a signal has ended the running command: later errors are its consequences."""
    return _current is not None and _current.received is not None


def raise_if_stopped() -> None:
    """Raise `Stopped` if a signal has ended the running command and its exception was dropped."""
    if _current is not None:
        _current.raise_if_received()


def describe_stop(describe: Callable[[], str]) -> None:
    """Let the sentence that ends a command after a signal say what `describe` gives, instead of the written files."""
    if _current is not None:
        _current.describe_outcome = describe
