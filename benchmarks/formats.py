"""``formats``: the size of an event, and the time to write and to read it, in every format of digit files."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.benchmark import Benchmark, Plan
from benchmarks.events import SEED
from benchmarks.report import Table, describe_absence, format_figures
from benchmarks.timing import Case, Measurement, Run, find_measurement
from pxdbg_runtime.digits import Digits
from pxdbg_runtime.formats import FORMATS, FileMetadata, open_writer, read_digits
from pxdbg_runtime.formats.run_numbers import RunNumbers
from pxdbg_runtime.optional_imports import require

N_EVENTS: Final = 100
N_QUICK_EVENTS: Final = 10
_SIZE, _WRITE, _READ = "size", "write", "read"
_KILOBYTES: Final = "kB"
_COLUMNS: Final = ("format", "what")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Digits of some events, what describes them, and the folder of the files that are written of them."""

    events: Sequence[Digits]
    metadata: FileMetadata
    folder: Path

    def name_file(self, name: str) -> Path:
        """Name the file of a format."""
        return self.folder / f"digits-{name}{FORMATS[name].suffixes[0]}"

    def time_format(self, name: str) -> tuple[float, float]:
        """Write the events to a file of a format and read them back: seconds of an event for each.

        Raises
        ------
        RuntimeError
            If other digits are read than were written.
        """
        path = self.name_file(name)
        start = time.perf_counter()
        with open_writer(path, self.metadata, format_name=name) as writer:
            for digits in self.events:
                writer.write(digits)
        written = time.perf_counter()
        content = read_digits(path)
        read = time.perf_counter()
        if content.digits != Digits.concatenate(self.events):
            message = f"the format {name} holds other digits than those that were written"
            raise RuntimeError(message)
        n_events = len(self.events)
        return (written - start) / n_events, (read - written) / n_events

    def measure_size(self, name: str) -> tuple[float]:
        """Return the kB of an event in the file of a format that was written last."""
        return (self.name_file(name).stat().st_size / 1e3 / len(self.events),)


def _list_cases(plan: Plan) -> Generator[tuple[Case, ...], None, None]:
    from artifacts.standins.simulated_events import describe_simulation, simulate_events

    numbers = range(N_QUICK_EVENTS if plan.quick else N_EVENTS)
    plan.log(f"simulating {len(numbers)} events")
    events = tuple(simulate_events(numbers, SEED))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # Only overlay files record the experiment.
        metadata = FileMetadata(jobs=(describe_simulation(numbers, SEED),), run_numbers=RunNumbers(experiment=1003))
        sample = Sample(events=events, metadata=metadata, folder=folder)
        cases: list[Case] = []
        for name in FORMATS:
            cases += (
                Case(rows=((name, _WRITE), (name, _READ)), prepare=partial(_prepare_times, sample, name)),
                Case(rows=((name, _SIZE),), prepare=partial(_prepare_size, sample, name), unit=_KILOBYTES),
            )
        yield tuple(cases)


def _prepare_times(sample: Sample, name: str) -> Run:
    _require_package(name)
    run = partial(sample.time_format, name)
    run()  # imports the package
    return run


def _prepare_size(sample: Sample, name: str) -> Run:
    _require_package(name)
    return partial(sample.measure_size, name)


def _require_package(name: str) -> None:
    package, extra = FORMATS[name].package, FORMATS[name].extra
    if package is not None and extra is not None:
        require(package, extra=extra, purpose=name)


def _build_tables(_plan: Plan, measurements: Sequence[Measurement]) -> tuple[Table, ...]:
    rows = []
    for name in FORMATS:
        found = [find_measurement(measurements, name, what) for what in (_SIZE, _WRITE, _READ)]
        cells = (format_figures(each.median) if each.samples else describe_absence(each) for each in found)
        rows.append((name, *cells))
    columns = ("format", "kB", "s to write", "s to read")
    return (Table(title="An event in a file, medians", columns=columns, rows=tuple(rows)),)


BENCHMARK: Final = Benchmark(
    name="formats",
    help="Size, writing and reading of an event, in every format of digit files.",
    columns=_COLUMNS,
    remarks=(
        f"{N_EVENTS} events of the simulation in artifacts/standins, {N_QUICK_EVENTS} with --quick; seed {SEED}.",
        "Written event by event, then read whole and compared with the digest; the files are in the disk cache.",
    ),
    cases=_list_cases,
    takes_family=False,
    build_tables=_build_tables,
)
