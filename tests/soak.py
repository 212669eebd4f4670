"""``python -m tests.soak``: generate many events and check that resident memory stays flat.

Prints a line of figures for each graph; the exit code is 1 if the memory of one grows by more than the limit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime import Generator
from pxdbg_runtime.formats import describe_generation, open_writer
from pxdbg_runtime.limits.heap import return_freed_memory
from tests.graphs import EVENT_WIDE_CARD, event_wide_model, write_graph

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["LIMIT_KB", "Soak", "measure_resident_kb", "soak"]

LIMIT_KB: Final = 1.0
"""Growth for each event; a sample of a million events would then grow by a gigabyte."""
WARM_UP: Final = 0.2
"""Share of the events before the memory is compared: caches and buffers fill first."""
N_MEASUREMENTS: Final = 200
SMALL_MIN_CHARGE: Final = 25
"""Threshold that leaves some thousand digits an event."""
SMALL_SENSORS: Final = ("1.1.1", "1.5.2", "2.1.1", "2.12.2")
"""Of the small graph, so that its events take milliseconds."""
_PAGE_KB: Final = 4


@dataclass(frozen=True, kw_only=True)
class Soak:
    """Resident memory over many events.

    Attributes
    ----------
    events : int
    digits : int
    seconds : float
    resident_kb : ndarray of float64, shape (measurements,)
    at_event : ndarray of float64, shape (measurements,)
    """

    events: int
    digits: int
    seconds: float
    resident_kb: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
    at_event: np.ndarray[tuple[int, ...], np.dtype[np.float64]]

    @property
    def slope_kb(self) -> float:
        """Growth for each event after the warm-up: the slope of a straight line fitted to resident memory, kB."""
        late = self.at_event >= WARM_UP * self.events
        return float(np.polyfit(self.at_event[late], self.resident_kb[late], 1)[0])

    @property
    def slope_error_kb(self) -> float:
        """Standard error of the slope, kB an event."""
        late = self.at_event >= WARM_UP * self.events
        _, covariance = np.polyfit(self.at_event[late], self.resident_kb[late], 1, cov=True)
        return float(np.sqrt(covariance[0, 0]))

    def __str__(self) -> str:
        """Write the figures in a line."""
        return (
            f"{self.events:,} events, {self.digits:,} digits, {self.seconds:,.0f} s; resident memory "
            f"{self.resident_kb[0] / 1000:.1f} MB at first, {self.resident_kb[-1] / 1000:.1f} MB at last, slope "
            f"{self.slope_kb:+.3f} ± {self.slope_error_kb:.3f} kB an event (limit {LIMIT_KB:g})"
        )


def soak(generator: Generator, events: int, path: Path, sensors: Sequence[str] | None = None) -> Soak:
    """Generate events, or some sensors of them, into a file, and measure resident memory on the way."""
    every = max(1, events // N_MEASUREMENTS)
    measured: list[tuple[int, float]] = []
    n_digits = 0

    def measure(event: int) -> None:
        if event % every == 0:
            measured.append((event, measure_resident_kb()))

    start = time.monotonic()
    with open_writer(path, describe_generation(generator, range(events), sensors)) as writer:
        for event, digits in enumerate(generator.stream(range(events), sensors)):
            writer.write(digits)
            n_digits += len(digits)
            measure(event)
    at_event, resident = np.array(measured, dtype=np.float64).T
    return Soak(
        events=events, digits=n_digits, seconds=time.monotonic() - start, resident_kb=resident, at_event=at_event
    )


def measure_resident_kb() -> float:
    """Measure the resident memory of this process, kB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * _PAGE_KB * 1.024


def _soak_all(folder: Path, small_events: int, builtin_events: int, model: str) -> Iterator[tuple[str, Soak]]:
    path = folder / "events.parquet"
    if small_events:
        graph = write_graph(folder / "small.onnx", event_wide_model(), EVENT_WIDE_CARD)
        generator = Generator(graph.path, seed=1, provider="cpu", min_charge=SMALL_MIN_CHARGE)
        yield "small graph, four sensors", soak(generator, small_events, path, SMALL_SENSORS)
    if builtin_events:
        generator = Generator(model, precision="int8", seed=1, provider="cpu")
        yield f"built-in {model} int8", soak(generator, builtin_events, path)


def main() -> None:
    """Read the arguments and soak both graphs, with the settings of the commands for many events."""
    return_freed_memory()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000, help="events of the small graph; 0 for none")
    parser.add_argument("--builtin-events", type=int, default=500, help="events of the built-in graph; 0 for none")
    parser.add_argument("--model", default="ieagan", help="the built-in graph, in int8")
    arguments = parser.parse_args()
    is_flat = True
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, result in _soak_all(folder, arguments.events, arguments.builtin_events, arguments.model):
            print(f"{name}: {result}", flush=True)  # noqa: T201
            is_flat &= result.slope_kb - 2 * result.slope_error_kb <= LIMIT_KB
    sys.exit(not is_flat)


if __name__ == "__main__":
    main()
