"""``memory``: peak resident size of ours and of its peers, each in a new process."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Final

from benchmarks import fresh_work
from benchmarks.benchmark import Benchmark, Plan
from benchmarks.environment import check_installed
from benchmarks.events import PEER_BATCH_SIZE
from benchmarks.fresh_process import run_fresh
from benchmarks.graphs import CPU_PRECISIONS, Workspace
from benchmarks.timing import Case, Run, build_cases
from pxdbg_runtime.model.card import Precision

_MEGABYTES: Final = "MB"
_IMPORTS: Final = ("numpy", "pxdbg_runtime", "torch", "openvino")


def measure_peak(work: Callable[..., Sequence[float]], *arguments: str) -> tuple[float]:
    """Call a function in a new process, and return the peak memory of the process, MB."""
    return (run_fresh(work, *arguments).peak_bytes / 1e6,)


def _list_cases(plan: Plan) -> Generator[tuple[Case, ...], None, None]:
    imports: dict[str, Callable[[], Run]] = {
        "Python alone": lambda: partial(measure_peak, fresh_work.import_modules),
        **{f"import {module}": partial(_prepare_import, module) for module in _IMPORTS},
        "import all that ours needs": lambda: partial(measure_peak, fresh_work.import_runtime),
    }
    cases = build_cases(("",), imports, _MEGABYTES)
    for family in plan.families:
        preparations: dict[str, Callable[[], Run]] = {
            **{
                f"ours, {precision}": partial(_prepare_ours, plan.workspace, family, precision)
                for precision in CPU_PRECISIONS
            },
            f"plain export, ONNX Runtime, batches of {PEER_BATCH_SIZE}": partial(
                _prepare_plain, plan.workspace, family
            ),
            "the original: PyTorch eager, 40 images at once": partial(_prepare_original, plan.workspace, family),
        }
        cases += build_cases((family,), preparations, _MEGABYTES)
    yield cases


def _prepare_import(module: str) -> Run:
    check_installed(module)
    return partial(measure_peak, fresh_work.import_modules, module)


def _prepare_ours(workspace: Workspace, family: str, precision: Precision) -> Run:
    graph = str(workspace.find_graph(family, precision).path.resolve())
    # The first process may compile the kernels, which takes further memory.
    run_fresh(fresh_work.generate_event, graph)
    return partial(measure_peak, fresh_work.generate_event, graph)


def _prepare_plain(workspace: Workspace, family: str) -> Run:
    return partial(measure_peak, fresh_work.run_graph, str(workspace.find_graph(family, rewrite=False).path.resolve()))


def _prepare_original(workspace: Workspace, family: str) -> Run:
    check_installed("torch")
    checkpoint = str(workspace.find_checkpoint(family).resolve())
    return partial(measure_peak, fresh_work.generate_original_event, checkpoint, family)


BENCHMARK: Final = Benchmark(
    name="memory",
    help="Peak resident size, each case in a new process.",
    columns=("model", "what"),
    remarks=("Largest resident size of a process that imports, or generates one event; 1 MB is 10^6 bytes.",),
    cases=_list_cases,
    title="Peak memory",
)
