"""``kernels``: the digitisation of one event, beside NumPy, PyTorch, and a read and a copy of the same bytes."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.benchmark import Benchmark, Plan
from benchmarks.environment import check_installed
from benchmarks.events import EVENT, compute_images
from benchmarks.report import Table, build_measurement_table
from benchmarks.timing import SECONDS, Case, Measurement, Run, build_cases, time_run
from pxdbg_runtime import N_SENSORS, N_U_CELLS, N_V_CELLS, Digits
from pxdbg_runtime.inference.session import ImageSession
from pxdbg_runtime.model.card import ModelCard

_COLUMNS: Final = ("model", "what")
_RATE: Final = "GB/s"
_N_PIXELS: Final = N_SENSORS * N_U_CELLS * N_V_CELLS
_FIND_HITS: Final = "kernels.find_hits, of charges"
_BYTES_PER_PIXEL: Final = {_FIND_HITS: 1}
"""Of what each row reads: charges, and float32 values in all other rows."""
_time = partial(time_run, repeats=10)  # each takes milliseconds


def digitise_with_numpy(
    images: NDArray[np.float32], card: ModelCard, *, event: int = 0, first_sensor: int = 0
) -> Digits:
    """Digitise tanh values of consecutive sensors (n, 250, 768) in plain NumPy, as `Digitiser.find_digits` does."""
    table = card.compute_charge_table()
    image, u_cell, v_cell = np.nonzero(images >= table[card.min_charge - 1])
    return Digits(
        event=np.full(len(image), event, dtype=np.int64),
        sensor_id=np.array(card.sensors, dtype=np.uint16)[first_sensor + image],
        u_cell=u_cell.astype(np.uint16),
        v_cell=v_cell.astype(np.uint16),
        charge=np.searchsorted(table, images[image, u_cell, v_cell], side="right").astype(np.uint8),
    )


def compute_rates(measurements: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """Convert the seconds of an event to gigabytes of its images or charges a second."""
    return tuple(
        replace(
            each, unit=_RATE, samples=tuple(_count_bytes(each.labels[-1]) / sample / 1e9 for sample in each.samples)
        )
        for each in measurements
    )


def _count_bytes(what: str) -> int:
    return _N_PIXELS * _BYTES_PER_PIXEL.get(what, 4)


def _list_cases(plan: Plan) -> Generator[tuple[Case, ...], None, None]:
    for family in plan.families:
        graph = plan.workspace.find_graph(family)
        plan.log(f"{family}: computing the images of one event")
        images = compute_images(ImageSession(graph, provider="cpu"))
        preparations = {
            "a plain read (np.max)": partial(_time, partial(np.max, images)),
            "a copy (np.copyto)": partial(_time, partial(np.copyto, np.empty_like(images), images)),
            _FIND_HITS: partial(_prepare_find_hits, graph.card, images),
            "Digitiser.find_digits": partial(_prepare_digitiser, graph.card, images),
            "NumPy": partial(_time, partial(digitise_with_numpy, images, graph.card)),
            "PyTorch's chain": partial(_prepare_pytorch, images, graph.card.cut),
        }
        yield build_cases((family,), preparations)


def _prepare_find_hits(card: ModelCard, images: NDArray[np.float32]) -> Run:
    from pxdbg_runtime.digitisation import kernels
    from pxdbg_runtime.digitisation.digitiser import Digitiser

    charges = Digitiser(card).compute_charges(images)
    sensors = np.array(card.sensors, dtype=np.uint16)
    sensor_id, u_cell, v_cell = (np.empty(images.size, dtype=np.uint16) for _ in range(3))
    charge = np.empty(images.size, dtype=np.uint8)
    return _time(lambda: kernels.find_hits(charges, card.min_charge, sensors, sensor_id, u_cell, v_cell, charge))


def _prepare_digitiser(card: ModelCard, images: NDArray[np.float32]) -> Run:
    from pxdbg_runtime.digitisation.digitiser import Digitiser

    digitiser = Digitiser(card)
    return _time(lambda: digitiser.find_digits(images, event=EVENT))


def _prepare_pytorch(images: NDArray[np.float32], cut: float | None) -> Run:
    check_installed("torch")
    import torch

    from benchmarks.pytorch_peers import find_hits

    tensor = torch.from_numpy(images)
    return time_run(lambda: find_hits(tensor, cut))


def _build_tables(_plan: Plan, measurements: Sequence[Measurement]) -> tuple[Table, ...]:
    return tuple(
        build_measurement_table(title, _COLUMNS, [each for each in measurements if each.unit == unit])
        for title, unit in (("Digitisation of an event", SECONDS), ("The same as rates", _RATE))
    )


BENCHMARK: Final = Benchmark(
    name="kernels",
    help="The digitisation, beside NumPy, PyTorch, a plain read and a copy.",
    columns=_COLUMNS,
    remarks=(
        "Images of one event, float32, in memory, one thread; find_hits reads their charges, one byte a pixel.",
        "GB/s are bytes read a second.",
    ),
    cases=_list_cases,
    derive=compute_rates,
    build_tables=_build_tables,
)
