"""``startup``: what a cold process takes before its first event is there, and beside the event itself."""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import fresh_work
from benchmarks.claims import Claim, difference
from benchmarks.environment import describe_environment
from benchmarks.events import EVENT, SEED
from benchmarks.fresh_process import run_fresh
from benchmarks.graphs import CPU_PRECISIONS
from benchmarks.report import Report, claim_table, measurement_table
from benchmarks.timing import Case, Measurement, Run, chosen, interleaved, timed
from pxdbg_runtime import Generator

if TYPE_CHECKING:
    from benchmarks.plan import Plan
    from pxdbg_runtime.model.card import Precision

__all__ = ["MAX_BESIDE_S", "claim_of", "measure", "run_command"]

MAX_BESIDE_S: Final = 2.0
"""What a cold ``pxdbg generate --events 1`` may take beside a warm event, seconds."""
_COLUMNS: Final = ("model", "precision", "what")
_PARTS: Final = ("import", "session", "first event")
_WHOLE: Final = "pxdbg generate --events 1"
_WARM: Final = "a warm event"
_COMMAND: Final = "from pxdbg_runtime.command_line import app; app()"
_REMARK: Final = (
    "Import, session and first event are parts of one cold process, the command is another; files and compiled kernels "
    "are in the caches."
)


def measure(plan: Plan) -> Report:
    """Measure cold processes and warm events of all models and precisions, interleaved."""
    environment = describe_environment()
    kinds = [(family, precision) for family in plan.families for precision in CPU_PRECISIONS]
    cases = tuple(case for family, precision in kinds for case in _cases(plan, family, precision))
    measurements: tuple[Measurement, ...] = interleaved(cases, plan.rounds, plan.log)
    claims = tuple(claim_of(family, precision, measurements) for family, precision in kinds)
    return Report(
        command="startup",
        environment=environment,
        remarks=(*plan.workspace.remarks(plan.families), _REMARK),
        columns=_COLUMNS,
        measurements=measurements,
        claims=claims,
        tables=(
            measurement_table("Seconds of a cold process", _COLUMNS, measurements),
            claim_table("Beside the event itself, seconds", claims),
        ),
    )


def claim_of(family: str, precision: Precision, measurements: tuple[Measurement, ...]) -> Claim:
    """Compare what the command takes beside a warm event with what it may take."""
    return Claim(
        model=family,
        what=f"{precision}: {_WHOLE}, beside {_WARM}",
        bound="at most",
        target=MAX_BESIDE_S,
        samples=difference(
            chosen(measurements, family, precision, _WHOLE), chosen(measurements, family, precision, _WARM)
        ),
    )


def run_command(graph: Path) -> None:
    """Run the command as a user does, in a process of its own.

    Raises
    ------
    RuntimeError
        If it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = str(Path(folder) / "event.npz")
        command = [sys.executable, "-c", _COMMAND, "generate", "--model", str(graph), "--events", "1"]
        options = ["--seed", str(SEED), "--provider", "cpu", "--output", output]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        message = f"{_WHOLE} ended with exit code {done.returncode}: {' '.join(done.stderr.split())}"
        raise RuntimeError(message)


def _cases(plan: Plan, family: str, precision: Precision) -> tuple[Case, ...]:
    def graph() -> Path:
        return plan.workspace.graph(family, precision).path.resolve()

    def in_parts() -> Run:
        run = functools.partial(run_fresh, fresh_work.ours, str(graph()))
        run()
        return lambda: run().values

    def whole() -> Run:
        return timed(functools.partial(run_command, graph()))

    def warm() -> Run:
        generator = Generator(graph(), provider="cpu", seed=SEED)
        return timed(lambda: generator.generate(EVENT))

    labels = (family, precision)
    return (
        Case(rows=tuple((*labels, part) for part in _PARTS), prepare=in_parts),
        Case(rows=((*labels, _WHOLE),), prepare=whole),
        Case(rows=((*labels, _WARM),), prepare=warm),
    )
