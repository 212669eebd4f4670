"""``python -m benchmarks COMMAND``: measure pxdbg_runtime and its peers on this machine."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from benchmarks import basf2, formats, gpu, kernels, layer_profile, memory, passes, peers, providers, scaling, startup
from benchmarks.benchmark import QUICK_ROUNDS, ROUNDS, Benchmark, Plan, run_benchmark
from benchmarks.chart import check_format, draw_chart
from benchmarks.graphs import CPU_PRECISIONS, Workspace
from export.families import FAMILIES
from pxdbg_runtime.command_line.console import report_failures, stderr, stdout
from pxdbg_runtime.command_line.program import Program
from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.formats.atomic_write import check_target
from pxdbg_runtime.model.card import Precision
from pxdbg_runtime.plots.drawing import save_figure

_CACHE: Final = Path("build/benchmarks")
_MODULES: Final = (peers, gpu, providers, kernels, memory, startup, scaling, basf2, passes, formats, layer_profile)

app = Program("python -m benchmarks", no_args_is_help=True)


@app.callback(epilog="Example: python -m benchmarks peers --quick --json peers.json --plot peers.png")
def benchmarks(context: typer.Context) -> None:
    """Measure pxdbg_runtime and its peers on this machine.

    The cases of a command are interleaved, round after round; a table gives the median and the spread. Targets that are
    missed are marked in the table and change no exit code. Weights and graphs are created once and kept in a folder.
    """
    # The report names the weights once.
    logger = logging.getLogger("pxdbg_runtime")
    context.call_on_close(functools.partial(logger.setLevel, logger.level))
    logger.setLevel(logging.ERROR)


def _make_command(benchmark: Benchmark) -> Callable[..., None]:
    """Make the command of a benchmark; all commands have the same options."""

    def command(
        family: Annotated[
            list[str] | None,
            typer.Option(help=f"Architecture to measure: {' or '.join(FAMILIES)}; repeatable.", show_default="all"),
        ] = None,
        precision: Annotated[
            list[str] | None,
            typer.Option(help=f"For profile alone: {' or '.join(CPU_PRECISIONS)}; repeatable.", show_default="all"),
        ] = None,
        rounds: Annotated[
            int | None,
            typer.Option(min=1, help="Samples of each case.", show_default=f"{ROUNDS}, {QUICK_ROUNDS} with --quick"),
        ] = None,
        quick: Annotated[bool, typer.Option("--quick", help="One round and fewer events: some minutes.")] = False,
        checkpoint: Annotated[
            list[str] | None,
            typer.Option(
                help="FAMILY=FILE, the weights of a family; repeatable.", show_default="seeded random weights"
            ),
        ] = None,
        cache: Annotated[Path, typer.Option(help="Folder for weights and graphs.")] = _CACHE,
        json: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
        plot: Annotated[Path | None, typer.Option(help="Bar chart to write: .png, .pdf or .svg.")] = None,
    ) -> None:
        with report_failures():
            families = _parse_families(family, benchmark)
            precisions = _parse_precisions(precision, benchmark)
            checkpoints = _parse_checkpoints(checkpoint or (), families, benchmark)
            for target in filter(None, (json, plot)):
                check_target(target)
            if plot is not None:
                check_format(plot)
            plan = Plan(
                families=families,
                precisions=precisions,
                rounds=rounds or (QUICK_ROUNDS if quick else ROUNDS),
                quick=quick,
                workspace=Workspace(folder=cache, checkpoints=checkpoints, log=_log),
                log=_log,
            )
            report = run_benchmark(benchmark, plan)
            report.print_to(stdout)
            if json is not None:
                report.save_json(json)
            if plot is not None:
                save_figure(draw_chart(report), plot)

    return command


for _module in _MODULES:
    app.command(_module.BENCHMARK.name, help=_module.BENCHMARK.help)(_make_command(_module.BENCHMARK))


def _log(line: str) -> None:
    stderr.print(line, markup=False, soft_wrap=True)


def _parse_families(names: Sequence[str] | None, benchmark: Benchmark) -> tuple[str, ...]:
    if not benchmark.takes_family:
        _refuse_option("family", names, benchmark)
        return ()
    for name in names or ():
        if name not in FAMILIES:
            raise ArgumentValueError("family", f"--family must be {' or '.join(FAMILIES)}, but is {name!r}.")
    return tuple(dict.fromkeys(names or FAMILIES))


def _parse_precisions(names: Sequence[str] | None, benchmark: Benchmark) -> tuple[Precision, ...]:
    if names and not benchmark.takes_precision:
        message = f"--precision is for profile alone, not for {benchmark.name}."
        raise ArgumentValueError("precision", message)
    for name in names or ():
        if name not in CPU_PRECISIONS:
            message = f"--precision must be {' or '.join(CPU_PRECISIONS)}, but is {name!r}."
            raise ArgumentValueError("precision", message)
    return tuple(each for each in CPU_PRECISIONS if not names or each in names)


def _parse_checkpoints(texts: Sequence[str], families: Sequence[str], benchmark: Benchmark) -> dict[str, Path]:
    if not benchmark.takes_family:
        _refuse_option("checkpoint", texts, benchmark)
    checkpoints = {}
    for text in texts:
        family, _, file = text.partition("=")
        if family not in FAMILIES or not file:
            message = f"--checkpoint must be {' or '.join(f'{name}=FILE' for name in FAMILIES)}, but is {text!r}."
            raise ArgumentValueError("checkpoint", message)
        if not os.path.isfile(file):  # noqa: PTH113  # Path.is_file raises for a name that is too long
            raise ArgumentValueError("checkpoint", f"--checkpoint {text}: there is no such file.")
        if family not in families:
            message = f"--checkpoint {text}: {family} is not measured: add --family {family}."
            raise ArgumentValueError("checkpoint", message)
        checkpoints[family] = Path(file)
    return checkpoints


def _refuse_option(name: str, values: Sequence[str] | None, benchmark: Benchmark) -> None:
    if values:
        raise ArgumentValueError(name, f"--{name} is for other benchmarks: {benchmark.name} measures no model.")


if __name__ == "__main__":
    app()
