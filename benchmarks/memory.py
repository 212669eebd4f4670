"""``memory``: peak resident size of ours and of its peers, each in a new process."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Generator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Final

from benchmarks import fresh_work
from benchmarks.benchmark import Benchmark, Plan
from benchmarks.environment import check_installed
from benchmarks.events import PEER_BATCH_SIZE
from benchmarks.fresh_process import run_fresh
from benchmarks.graphs import CPU_PRECISIONS, Workspace
from benchmarks.report import Claim
from benchmarks.timing import Case, Measurement, Run, build_cases, find_measurement
from pxdbg_runtime.model.card import Precision

_MEGABYTES: Final = "MB"
_OURS: Final = "ours, {}"
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
                _OURS.format(precision): partial(_prepare_ours, plan.workspace, family, precision)
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


@cache
def read_memory_targets() -> dict[str, dict[Precision, float]]:
    """Read the targets by family and precision, MB."""
    return tomllib.loads(Path(__file__).with_name("memory_targets.toml").read_text(encoding="utf-8"))


def compare_peaks(family: str, measurements: Sequence[Measurement]) -> tuple[Claim, ...]:
    """Compare the peak memory of a family's graphs with its targets; a precision without a target is no claim."""
    return tuple(
        Claim(
            model=family,
            what=f"{precision}, peak memory, {_MEGABYTES}",
            bound="at most",
            target=target,
            samples=find_measurement(measurements, family, _OURS.format(precision)).samples,
        )
        for precision, target in read_memory_targets().get(family, {}).items()
    )


def _find_claims(plan: Plan, measurements: Sequence[Measurement]) -> tuple[Claim, ...]:
    return tuple(claim for family in plan.families for claim in compare_peaks(family, measurements))


BENCHMARK: Final = Benchmark(
    name="memory",
    help="Peak resident size, each case in a new process.",
    columns=("model", "what"),
    remarks=("Largest resident size of a process that imports, or generates one event; 1 MB is 10^6 bytes.",),
    cases=_list_cases,
    title="Peak memory",
    claim_title="Targets",
    find_claims=_find_claims,
)
