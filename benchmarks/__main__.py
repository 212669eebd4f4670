"""``python -m benchmarks COMMAND``: programs that time ours and its peers on this machine."""

from __future__ import annotations

import functools
import logging
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from benchmarks import basf2, kernels, memory, passes, peers, providers, scaling, startup
from benchmarks.chart import check_format, save_chart
from benchmarks.graphs import Workspace
from benchmarks.plan import FAMILIES, QUICK_ROUNDS, ROUNDS, Plan
from pxdbg_runtime.command_line.console import report_failures, stderr, stdout
from pxdbg_runtime.command_line.program import Program
from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.formats.atomic_write import check_target

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.report import Report

__all__ = ["app"]

_CACHE: Final = Path("build/benchmarks")

app = Program(
    name="python -m benchmarks",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Family(StrEnum):
    """The models that can be measured."""

    RESNET = "resnet"
    CONVNET = "convnet"


@app.callback(epilog="Example: python -m benchmarks peers --model resnet --quick --json peers.json --plot peers.png")
def benchmarks(context: typer.Context) -> None:
    """Time pxdbg_runtime and its peers on this machine.

    All cases of a command are interleaved, round after round; a table gives the median and the spread. Nothing is
    asserted: what does not hold is said in the table. Weights and graphs are made once and kept in a folder.
    """
    # The report says once what the weights are worth.
    logger = logging.getLogger("pxdbg_runtime")
    context.call_on_close(functools.partial(logger.setLevel, logger.level))
    logger.setLevel(logging.ERROR)


def _command(measure: Callable[[Plan], Report]) -> Callable[..., None]:
    """Make a command of a measurement; all have the same options."""

    def command(
        model: Annotated[
            list[Family] | None, typer.Option(help="Model to measure; may be repeated.", show_default="all")
        ] = None,
        rounds: Annotated[
            int | None,
            typer.Option(
                min=1, help="Times that each case is measured.", show_default=f"{ROUNDS}, {QUICK_ROUNDS} with --quick"
            ),
        ] = None,
        quick: Annotated[bool, typer.Option("--quick", help="One round and fewer events: some minutes.")] = False,
        checkpoint: Annotated[
            list[str] | None,
            typer.Option(
                help="MODEL=FILE: weights to take; may be repeated.", show_default="seeded random demonstration weights"
            ),
        ] = None,
        cache: Annotated[Path, typer.Option(help="Folder of the weights and graphs.")] = _CACHE,
        json: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
        plot: Annotated[Path | None, typer.Option(help="Bar chart to write: .png, .pdf or .svg.")] = None,
    ) -> None:
        with report_failures():
            for target in (json, plot):
                if target is not None:
                    check_target(target)
            if plot is not None:
                check_format(plot)
            report = measure(
                Plan(
                    families=tuple(dict.fromkeys(each.value for each in model or Family)),
                    rounds=rounds or (QUICK_ROUNDS if quick else ROUNDS),
                    quick=quick,
                    workspace=Workspace(folder=cache, checkpoints=_parsed(checkpoint or []), log=_say),
                    log=_say,
                )
            )
            report.show(stdout)
            if json is not None:
                report.save_json(json)
            if plot is not None:
                save_chart(report, plot)

    return command


app.command("peers", help="Ours on one thread, beside the original, other runtimes and the floor.")(
    _command(peers.measure)
)
app.command("providers", help="Every provider and precision: whole calls, and the parts of an event apart.")(
    _command(providers.measure)
)
app.command("kernels", help="The digitisation, beside NumPy, PyTorch, a plain read and a copy.")(
    _command(kernels.measure)
)
app.command("memory", help="Peak resident size, each case in a process of its own.")(_command(memory.measure))
app.command("startup", help="A cold process: import, session, first event, and the whole command.")(
    _command(startup.measure)
)
app.command("scaling", help="Events a second on one core and on all, as processes and as threads.")(
    _command(scaling.measure)
)
app.command("basf2", help="Digits into ROOT's array: in one call of compiled code, and one by one. Needs ROOT.")(
    _command(basf2.measure)
)
app.command("passes", help="What each pass of the graph compiler gained.")(_command(passes.measure))


def _say(line: str) -> None:
    stderr.print(line, markup=False, soft_wrap=True)


def _parsed(checkpoints: list[str]) -> dict[str, Path]:
    parsed = {}
    for each in checkpoints:
        family, _, file = each.partition("=")
        if family not in FAMILIES or not file:
            message = f"--checkpoint must be {' or '.join(f'{name}=FILE' for name in FAMILIES)}, but is {each!r}."
            raise ArgumentValueError("checkpoint", message)
        if not os.path.isfile(file):  # noqa: PTH113  # Path.is_file raises for a name that is too long
            message = f"--checkpoint {each}: there is no such file."
            raise ArgumentValueError("checkpoint", message)
        parsed[family] = Path(file)
    return parsed


if __name__ == "__main__":
    app()
