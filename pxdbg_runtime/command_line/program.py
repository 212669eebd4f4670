"""A command line for batch systems: signals, exit codes, and output that nobody may read."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

from pxdbg_runtime.command_line.console import stderr
from pxdbg_runtime.command_line.output_streams import find_write_errors, protect_standard_streams
from pxdbg_runtime.command_line.signals import StopSignals
from pxdbg_runtime.formats.atomic_write import record_writes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typer.models import CommandInfo, TyperInfo

__all__ = ["Program"]


class Program(typer.Typer):
    """A typer app that ends cleanly when it runs as a program.

    - On a signal that ends jobs it removes its temporary files, names the signal on the standard error, and exits with
      128 + the signal's number. Further signals change nothing.
    - Output that cannot be printed does not change the exit code.

    ``name`` is the command that users type; with `completes`, shells can complete its arguments.
    """

    def __init__(
        self, name: str, *, summary: str | None = None, no_args_is_help: bool = False, completes: bool = False
    ) -> None:
        super().__init__(
            name=name,
            help=summary,
            no_args_is_help=no_args_is_help,
            add_completion=completes,
            pretty_exceptions_enable=False,
            rich_markup_mode="rich",
            context_settings={"help_option_names": ["-h", "--help"]},
        )

    def group(self, panels: Mapping[str, Sequence[str]]) -> None:
        """List the registered commands in named groups in the help text; names that are not registered are ignored."""
        titles = {command: title for title, commands in panels.items() for command in commands}
        registered: list[CommandInfo | TyperInfo] = [*self.registered_commands, *self.registered_groups]
        for each in registered:
            each.rich_help_panel = titles.get(_name_command(each), each.rich_help_panel)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # as typer's
        """Run the command that the arguments name, by default those of the process."""
        protect_standard_streams()
        signals = StopSignals()
        result = None
        with record_writes() as writes:
            try:
                try:
                    signals.install()
                    result = super().__call__(*args, **kwargs)
                finally:
                    signals.disarm()
            except BaseException:
                # After a signal, any exception is its consequence.
                if signals.received is None:
                    raise
            finally:
                for name, error in find_write_errors():
                    stderr.print(f"The {name} could not be written: {error.strerror}.", soft_wrap=True)
                signals.end()
        if signals.received is None:
            return result
        for each in writes:
            each.remove()
        if signals.describe_outcome is not None:
            outcome = signals.describe_outcome()
        else:
            written = ", ".join(str(each.target) for each in writes if each.is_in_place())
            outcome = f"{written} had been written" if written else "nothing was written"
        stderr.print(f"{self._format_command(args)} was stopped by {signals.received.name}: {outcome}.", soft_wrap=True)
        sys.exit(128 + signals.received)

    def _format_command(self, args: Sequence[Any]) -> str:
        name = self.info.name if isinstance(self.info.name, str) else "The program"
        words = args[0] if args else sys.argv[1:]
        command = []
        app: typer.Typer | None = self
        if len(_list_commands(self)) > 1:
            for word in words:
                if app is not None and word in (commands := _list_commands(app)):
                    command.append(word)
                    app = commands[word]
        return " ".join([name, *command])


def _list_commands(app: typer.Typer) -> dict[str, typer.Typer | None]:
    """List the names of an app's commands and groups; a group with its app."""
    commands: dict[str, typer.Typer | None] = {_name_command(each): None for each in app.registered_commands}
    groups = {each.name: each.typer_instance for each in app.registered_groups if isinstance(each.name, str)}
    return commands | groups


def _name_command(command: CommandInfo | TyperInfo) -> str:
    """Name a command as users type it, as typer does."""
    return str(command.name or getattr(command.callback, "__name__", "").replace("_", "-"))
