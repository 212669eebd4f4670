"""The consoles that the commands print to, and the report of a failure."""

from __future__ import annotations

import contextlib
import logging
from typing import IO, TYPE_CHECKING, Any, Final

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.segment import Segment
from rich.text import Text

from pxdbg_runtime.command_line.output_streams import find_terminal_stream
from pxdbg_runtime.command_line.safe_text import make_line, make_safe
from pxdbg_runtime.command_line.signals import is_stopped
from pxdbg_runtime.documentation import link_section
from pxdbg_runtime.errors import ArgumentTypeError, ArgumentValueError, MachineMismatchError, PxdbgError
from pxdbg_runtime.limits.address_space import report_memory_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import ConsoleOptions, ConsoleRenderable, RenderableType

__all__ = [
    "BAD_USAGE",
    "BUSY",
    "FAILURE",
    "UNFIT_MACHINE",
    "format_event_count",
    "log_to_terminal",
    "report_failures",
    "stderr",
    "stdout",
]

FAILURE: Final = 1
BAD_USAGE: Final = 2
BUSY: Final = 75
"""Try again later: another process does the work (EX_TEMPFAIL of sysexits.h)."""
UNFIT_MACHINE: Final = 78
"""Try again on another machine (EX_CONFIG)."""


class _SafeConsole(Console):
    """A console that prints texts of users' files without markup, emoji or control characters.

    Pass a `rich.text.Text` to print with a style.
    """

    def __init__(self, *, to_stderr: bool) -> None:
        super().__init__(stderr=to_stderr, highlight=False, markup=False, emoji=False)

    @property
    def file(self) -> IO[str]:
        """The standard stream, which tests and notebooks replace."""
        return find_terminal_stream(super().file)

    @file.setter
    def file(self, _: IO[str]) -> None:
        message = "This console prints only to a standard stream."
        raise AttributeError(message)

    @property
    def draws_bars(self) -> bool:
        """Whether it prints to a terminal that can move its cursor; FORCE_COLOR does not make it one."""
        return self.is_terminal and self.file.isatty() and not self.is_dumb_terminal

    def render_str(self, text: str, **options: Any) -> Text:  # noqa: ANN401  # as rich's
        """Convert a string to a text, made safe first, so that a table measures what it prints."""
        return super().render_str(make_safe(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render anything; all output passes here."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(make_safe(segment.text), segment.style)


stdout = _SafeConsole(to_stderr=False)
stderr = _SafeConsole(to_stderr=True)


@contextlib.contextmanager
def report_failures() -> Iterator[None]:
    """Turn this package's errors into a sentence on the standard error and an exit code."""
    try:
        with report_memory_errors():
            yield
    except PxdbgError as error:
        if is_stopped():  # the error is a consequence of the signal
            raise
        stderr.print(Text.assemble(("Error:", "bold red"), " ", make_line(str(error))), soft_wrap=True)
        if error.docs_section is not None:
            stderr.print(f"See {link_section(error.docs_section)}", soft_wrap=True)
        raise typer.Exit(_choose_exit_code(error)) from None


def _choose_exit_code(error: PxdbgError) -> int:
    if isinstance(error, (ArgumentTypeError, ArgumentValueError)):
        return BAD_USAGE
    return UNFIT_MACHINE if isinstance(error, MachineMismatchError) else FAILURE


def format_event_count(n_events: int) -> str:
    """Write a number of events with its unit."""
    return "1 event" if n_events == 1 else f"{n_events:,} events"


class _SafeHandler(RichHandler):
    def render_message(self, record: logging.LogRecord, message: str) -> ConsoleRenderable:
        return super().render_message(record, make_line(message))


def log_to_terminal() -> None:
    """Show the library's warnings, such as that of a demonstration's weights, on the standard error."""
    logger = logging.getLogger("pxdbg_runtime")
    if not any(isinstance(handler, _SafeHandler) for handler in logger.handlers):
        logger.addHandler(_SafeHandler(console=stderr, show_time=False, show_path=False, level=logging.WARNING))
