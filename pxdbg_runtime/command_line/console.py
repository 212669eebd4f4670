"""What the commands share: where they print, and how a failure ends."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
from typing import TYPE_CHECKING, Final

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape

from pxdbg_runtime.address_space import report_memory_errors
from pxdbg_runtime.errors import ArgumentTypeError, ArgumentValueError, PxdbgError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["BAD_USAGE", "FAILURE", "end_on_sigterm", "failures_reported", "log_to_terminal", "stderr", "stdout"]

FAILURE: Final = 1
BAD_USAGE: Final = 2

stdout = Console(highlight=False)
stderr = Console(stderr=True, highlight=False)


@contextlib.contextmanager
def failures_reported() -> Iterator[None]:
    """Turn this package's errors into a sentence on the standard error and an exit code."""
    try:
        with report_memory_errors():
            yield
    except PxdbgError as error:
        stderr.print(f"[bold red]Error:[/] {escape(str(error))}", soft_wrap=True)
        is_usage = isinstance(error, (ArgumentTypeError, ArgumentValueError))
        raise typer.Exit(BAD_USAGE if is_usage else FAILURE) from None


def end_on_sigterm() -> None:
    """Let a batch system's signal unwind the program, so that a half-written file is removed."""

    def end(signal_number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + signal_number)

    signal.signal(signal.SIGTERM, end)


def log_to_terminal() -> None:
    """Show the library's warnings, such as what the weights are worth, on the standard error."""
    logger = logging.getLogger("pxdbg_runtime")
    if not any(isinstance(handler, RichHandler) for handler in logger.handlers):
        logger.addHandler(RichHandler(console=stderr, show_time=False, show_path=False, level=logging.WARNING))
