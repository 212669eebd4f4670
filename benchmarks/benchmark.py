"""What all benchmarks have in common: cases become measurements, claims, tables and a report."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from benchmarks.environment import describe_environment
from benchmarks.graphs import CPU_PRECISIONS, Workspace
from benchmarks.report import Claim, Report, Table, build_claim_table, build_measurement_table
from benchmarks.timing import Case, Measurement, measure_interleaved
from pxdbg_runtime.model.card import Precision

ROUNDS: Final = 3
QUICK_ROUNDS: Final = 1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure, and how thoroughly: `quick` is for fewer events, `log` is called with a line after each step."""

    families: tuple[str, ...]
    precisions: tuple[Precision, ...] = CPU_PRECISIONS
    rounds: int
    quick: bool
    workspace: Workspace
    log: Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A command of ``python -m benchmarks``: `columns` names the labels of its cases, `title` its default table.

    Attributes
    ----------
    cases : callable
        Yields groups of cases; the cases of a group are interleaved.
    remarks : tuple of str
        What a reader must know beside the numbers.
    list_remarks : callable, optional
        Lists what a reader must know of this machine beside its CPU; called after the measurements.
    takes_family : bool
        Whether it measures the graphs of families, whose weights the remarks name.
    find_claims : callable, optional
        Compares the measurements with targets, for the table with `claim_title`.
    derive : callable, optional
        Computes further measurements.
    build_tables : callable, optional
        Builds the tables of measurements; by default there is one, of all measurements.
    takes_precision : bool
        Whether it can measure one precision alone.
    """

    name: str
    help: str
    columns: tuple[str, ...]
    cases: Callable[[Plan], Generator[Sequence[Case], None, None]]
    title: str = ""
    remarks: tuple[str, ...] = ()
    list_remarks: Callable[[], tuple[str, ...]] | None = None
    takes_family: bool = True
    claim_title: str = ""
    find_claims: Callable[[Plan, Sequence[Measurement]], tuple[Claim, ...]] | None = None
    derive: Callable[[Sequence[Measurement]], tuple[Measurement, ...]] | None = None
    build_tables: Callable[[Plan, Sequence[Measurement]], tuple[Table, ...]] | None = None
    takes_precision: bool = False


def run_benchmark(benchmark: Benchmark, plan: Plan) -> Report:
    """Measure all cases of a benchmark, and report them."""
    environment = describe_environment()
    measurements: tuple[Measurement, ...] = ()
    with closing(benchmark.cases(plan)) as groups:
        for cases in groups:
            measurements += measure_interleaved(cases, plan.rounds, plan.log)
    if benchmark.derive is not None:
        measurements += benchmark.derive(measurements)
    tables: tuple[Table, ...] = (build_measurement_table(benchmark.title, benchmark.columns, measurements),)
    if benchmark.build_tables is not None:
        tables = benchmark.build_tables(plan, measurements)
    claims: tuple[Claim, ...] = ()
    if benchmark.find_claims is not None:
        claims = benchmark.find_claims(plan, measurements)
        tables += (build_claim_table(benchmark.claim_title, claims),)
    found = benchmark.list_remarks() if benchmark.list_remarks is not None else ()
    return Report(
        command=benchmark.name,
        environment=environment,
        families=plan.families,
        rounds=plan.rounds,
        quick=plan.quick,
        remarks=(*found, *plan.workspace.describe_weights(plan.families), *benchmark.remarks),
        columns=benchmark.columns,
        measurements=measurements,
        claims=claims,
        tables=tables,
    )
