"""``kernels``: the digitisation of one event's images, beside NumPy, PyTorch, a plain read and a copy of the same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.environment import check_installed, describe_environment
from benchmarks.events import EVENT, event_images
from benchmarks.report import Report, measurement_table
from benchmarks.timing import Case, Measurement, Run, interleaved, timed
from pxdbg_runtime import N_SENSORS, N_U_CELLS, N_V_CELLS, Digits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from benchmarks.plan import Plan
    from pxdbg_runtime.model.card import ModelCard

__all__ = ["measure", "numpy_digits", "rates_of"]

_COLUMNS: Final = ("model", "what")
_REPEATS: Final = 10
"""Runs a sample: each takes milliseconds."""
_EVENT_BYTES: Final = N_SENSORS * N_U_CELLS * N_V_CELLS * 4
"""Of the float32 images."""
_REMARK: Final = "Images of one event, float32, in memory, one thread; GB/s are bytes of images a second."


def measure(plan: Plan) -> Report:
    """Measure the kernels and what they are compared with, on an event of each model."""
    from pxdbg_runtime.inference.session import ImageSession

    environment = describe_environment()
    seconds: tuple[Measurement, ...] = ()
    for family in plan.families:
        graph = plan.workspace.graph(family)
        plan.log(f"{family}: making the images of one event")
        images = event_images(ImageSession(graph, provider="cpu"), graph.card)
        seconds += interleaved(_cases(family, graph.card, images), plan.rounds, plan.log)
    rates = rates_of(seconds)
    return Report(
        command="kernels",
        environment=environment,
        remarks=(*plan.workspace.remarks(plan.families), _REMARK),
        columns=_COLUMNS,
        measurements=(*seconds, *rates),
        tables=(
            measurement_table("Digitisation of an event", _COLUMNS, seconds),
            measurement_table("The same as rates", _COLUMNS, rates),
        ),
    )


def numpy_digits(images: NDArray[np.float32], card: ModelCard, *, event: int = 0, first_sensor: int = 0) -> Digits:
    """Make digits in plain NumPy, as `pxdbg_runtime.digitisation.digitiser.Digitiser.find_digits` does.

    Parameters
    ----------
    images : ndarray of float32, shape (n, 250, 768)
        Tanh values of consecutive sensors, without NaN.
    card : ModelCard
    event : int
    first_sensor : int
        Index of the first image's sensor.
    """
    table = card.compute_charge_table()
    image, u_cell, v_cell = np.nonzero(images >= table[card.min_charge - 1])
    return Digits(
        event=np.full(len(image), event, dtype=np.int64),
        sensor_id=np.array(card.sensors, dtype=np.uint16)[first_sensor + image],
        u_cell=u_cell.astype(np.uint16),
        v_cell=v_cell.astype(np.uint16),
        charge=np.searchsorted(table, images[image, u_cell, v_cell], side="right").astype(np.uint8),
    )


def rates_of(seconds: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """Turn the seconds of an event into bytes of its images a second."""
    return tuple(
        Measurement(
            labels=each.labels,
            unit="GB/s",
            samples=tuple(_EVENT_BYTES / sample / 1e9 for sample in each.samples),
            reason=each.reason,
        )
        for each in seconds
    )


def _cases(family: str, card: ModelCard, images: NDArray[np.float32]) -> tuple[Case, ...]:
    copy = np.empty_like(images)
    preparations: dict[str, Callable[[], Run]] = {
        "a plain read (np.max)": lambda: _repeated(lambda: np.max(images)),
        "a copy (np.copyto)": lambda: _repeated(lambda: np.copyto(copy, images)),
        "kernels.find_hits": lambda: _find(card, images),
        "Digitiser.find_digits": lambda: _digitiser(card, images),
        "NumPy": lambda: _repeated(lambda: numpy_digits(images, card)),
        "PyTorch's chain": lambda: _pytorch(images),
    }
    return tuple(Case(rows=((family, what),), prepare=prepare) for what, prepare in preparations.items())


def _repeated(work: Callable[[], object]) -> Run:
    """Make what times several runs and gives the seconds of one."""

    def several() -> None:
        for _ in range(_REPEATS):
            work()

    run = timed(several, warm_up=work)
    return lambda: tuple(seconds / _REPEATS for seconds in run())


def _find(card: ModelCard, images: NDArray[np.float32]) -> Run:
    from pxdbg_runtime.digitisation import kernels
    from pxdbg_runtime.digitisation.digitiser import TANH_LIMITS

    table = card.compute_charge_table()
    threshold = table[card.min_charge - 1]
    sensors = np.array(card.sensors, dtype=np.uint16)
    sensor_id, u_cell, v_cell = (np.empty(images.size, dtype=np.uint16) for _ in range(3))
    charge = np.empty(images.size, dtype=np.uint8)
    return _repeated(
        lambda: kernels.find_hits(images, threshold, table, TANH_LIMITS, sensors, sensor_id, u_cell, v_cell, charge)
    )


def _digitiser(card: ModelCard, images: NDArray[np.float32]) -> Run:
    from pxdbg_runtime.digitisation.digitiser import Digitiser

    digitiser = Digitiser(card)
    return _repeated(lambda: digitiser.find_digits(images, event=EVENT))


def _pytorch(images: NDArray[np.float32]) -> Run:
    check_installed("torch")
    import torch

    from benchmarks.pytorch_peers import digits_of

    tensor = torch.from_numpy(images)
    return timed(lambda: digits_of(tensor))
