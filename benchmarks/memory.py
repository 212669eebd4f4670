"""``memory``: peak resident size of ours and of peers, each in a process of its own."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

from benchmarks import fresh_work
from benchmarks.environment import check_installed, describe_environment
from benchmarks.events import PEER_BATCH_SIZE
from benchmarks.fresh_process import run_fresh
from benchmarks.graphs import CPU_PRECISIONS
from benchmarks.report import Report, measurement_table
from benchmarks.timing import Case, Measurement, Run, interleaved

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.plan import Plan
    from pxdbg_runtime.model.card import Precision

__all__ = ["measure", "peak_run"]

_COLUMNS: Final = ("model", "what")
_MEGABYTES: Final = "MB"
_IMPORTS: Final = ("numpy", "pxdbg_runtime", "torch", "openvino")
_REMARK: Final = "Largest resident size of a process that imports, or makes one event; 1 MB is 10^6 bytes."


def measure(plan: Plan) -> Report:
    """Measure the memory of all cases, interleaved."""
    environment = describe_environment()
    cases = (*_import_cases(), *(case for family in plan.families for case in _cases(plan, family)))
    measurements: tuple[Measurement, ...] = interleaved(cases, plan.rounds, plan.log)
    return Report(
        command="memory",
        environment=environment,
        remarks=(*plan.workspace.remarks(plan.families), _REMARK),
        columns=_COLUMNS,
        measurements=measurements,
        tables=(measurement_table("Peak memory", _COLUMNS, measurements),),
    )


def peak_run(work: Callable[..., Sequence[float]], *arguments: str) -> Run:
    """Make what runs a function in a process of its own and gives its peak in MB."""
    return lambda: (run_fresh(work, *arguments).peak_bytes / 1e6,)


def _import_cases() -> tuple[Case, ...]:
    def imported(module: str) -> Run:
        check_installed(module)
        return peak_run(fresh_work.imports, module)

    preparations: dict[str, Callable[[], Run]] = {
        "Python alone": lambda: peak_run(fresh_work.imports),
        **{f"import {module}": functools.partial(imported, module) for module in _IMPORTS},
        "import all that ours needs": lambda: peak_run(fresh_work.our_imports),
    }
    return _made_of("", preparations)


def _made_of(family: str, preparations: dict[str, Callable[[], Run]]) -> tuple[Case, ...]:
    return tuple(
        Case(rows=((family, what),), prepare=prepare, unit=_MEGABYTES) for what, prepare in preparations.items()
    )


def _cases(plan: Plan, family: str) -> tuple[Case, ...]:
    workspace = plan.workspace

    def ours(precision: Precision) -> Run:
        graph = str(workspace.graph(family, precision).path.resolve())
        # The first process may compile the kernels, which takes memory of its own.
        run_fresh(fresh_work.ours, graph)
        return peak_run(fresh_work.ours, graph)

    def plain() -> Run:
        return peak_run(fresh_work.plain, str(workspace.graph(family, rewrite=False).path.resolve()))

    def original() -> Run:
        check_installed("torch")
        return peak_run(fresh_work.original, str(workspace.checkpoint(family).resolve()), family)

    preparations: dict[str, Callable[[], Run]] = {
        **{f"ours, {precision}": functools.partial(ours, precision) for precision in CPU_PRECISIONS},
        f"plain export, ONNX Runtime, batches of {PEER_BATCH_SIZE}": plain,
        "the original: PyTorch eager, 40 images at once": original,
    }
    return _made_of(family, preparations)
