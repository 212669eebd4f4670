"""``startup``: the time of a new process until its first event, beside the event itself."""

from __future__ import annotations

import operator
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import fresh_work
from benchmarks.benchmark import Benchmark, Plan
from benchmarks.events import SEED, time_generator
from benchmarks.fresh_process import run_fresh
from benchmarks.graphs import CPU_PRECISIONS
from benchmarks.report import Claim, combine_rounds
from benchmarks.timing import Case, Measurement, Run, find_measurement, time_run
from pxdbg_runtime.model.card import Precision
from pxdbg_runtime.model.graph_file import GraphFile

_MAX_BESIDE_S: Final = 0.8
"""Target of a cold ``pxdbg generate --events 1`` less a warm event, seconds."""
_PARTS: Final = ("import", "session", "first event")
_WHOLE: Final = "pxdbg generate --events 1"
_WARM: Final = "a warm event"
_COMMAND: Final = "from pxdbg_runtime.command_line import app; app()"


def build_claim(family: str, precision: Precision, measurements: Sequence[Measurement]) -> Claim:
    """Compare the seconds of the command less those of a warm event with the target."""
    whole = find_measurement(measurements, family, precision, _WHOLE)
    warm = find_measurement(measurements, family, precision, _WARM)
    return Claim(
        model=family,
        what=f"{precision}: {_WHOLE}, beside {_WARM}",
        bound="at most",
        target=_MAX_BESIDE_S,
        samples=combine_rounds(operator.sub, whole, warm),
    )


def run_command(graph: Path) -> None:
    """Run the command in a new process, as a user does; raises RuntimeError if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        output = str(Path(folder) / "event.npz")
        command = [sys.executable, "-c", _COMMAND, "generate", "--model", str(graph), "--events", "1"]
        options = ["--seed", str(SEED), "--provider", "cpu", "--output", output]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        message = f"{_WHOLE} ended with exit code {done.returncode}: {' '.join(done.stderr.split())}"
        raise RuntimeError(message)


def _list_cases(plan: Plan) -> Generator[tuple[Case, ...], None, None]:
    cases: list[Case] = []
    for labels in _list_kinds(plan):
        load = partial(plan.workspace.find_graph, *labels)
        cases += (
            Case(rows=tuple((*labels, part) for part in _PARTS), prepare=partial(_prepare_parts, load)),
            Case(rows=((*labels, _WHOLE),), prepare=partial(_prepare_command, load)),
            Case(rows=((*labels, _WARM),), prepare=partial(_prepare_warm_event, load)),
        )
    yield tuple(cases)


def _list_kinds(plan: Plan) -> list[tuple[str, Precision]]:
    return [(family, precision) for family in plan.families for precision in CPU_PRECISIONS]


def _prepare_parts(load: Callable[[], GraphFile]) -> Run:
    run = partial(run_fresh, fresh_work.generate_event, str(load().path.resolve()))
    run()
    return lambda: run().values


def _prepare_command(load: Callable[[], GraphFile]) -> Run:
    return time_run(partial(run_command, load().path.resolve()))


def _prepare_warm_event(load: Callable[[], GraphFile]) -> Run:
    return time_generator(load())


def _find_claims(plan: Plan, measurements: Sequence[Measurement]) -> tuple[Claim, ...]:
    return tuple(build_claim(family, precision, measurements) for family, precision in _list_kinds(plan))


BENCHMARK: Final = Benchmark(
    name="startup",
    help="A new process: import, session, first event, and the whole command.",
    columns=("model", "precision", "what"),
    remarks=(
        "Import, session and first event are parts of one new process, the command is another.",
        "Files and compiled kernels are in the caches.",
    ),
    cases=_list_cases,
    title="Seconds of a new process",
    claim_title="Beside the event itself, seconds",
    find_claims=_find_claims,
)
