"""Generate a part of an event: what ``auto`` chooses, whether a known image is right, and how long an event takes."""

from __future__ import annotations

import logging
import math
import statistics
import time
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.diagnosis.finding import Finding
from pxdbg_runtime.diagnosis.machine import diagnose_cache, diagnose_memory
from pxdbg_runtime.errors import KnownAnswerError, ModelNotFoundError, PxdbgError
from pxdbg_runtime.generator import Generator
from pxdbg_runtime.inference.providers import CPU
from pxdbg_runtime.sensors import N_SENSORS, SENSORS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["diagnose_generation"]

_REPEATS: Final = 3
_HOUR_S: Final = 3600


def diagnose_generation(model: str | Path, *, timing: bool = True) -> Iterator[Finding]:
    """Create a generator as the defaults do, check a known image, and time some sensors.

    Parameters
    ----------
    model : str or Path
        As of `Generator`.
    timing : bool
        Time the sensors of one call, three times, and scale to an event.

    Raises
    ------
    ModelNotFoundError
        If there is no such model, which says nothing about the machine.
    """
    logger = logging.getLogger("pxdbg_runtime.generator")
    logger.addFilter(_is_below_warning)  # hides the warning that weights are a stand-in or a demonstration
    try:
        generator = Generator(model, seed=0)
    except ModelNotFoundError:
        raise
    except KnownAnswerError as error:
        yield Finding(subject="known image", state="fails", text=str(error))
        return
    except PxdbgError as error:
        yield Finding(subject="choice of auto", state="fails", text=str(error))
        return
    finally:
        logger.removeFilter(_is_below_warning)
    card = generator.card
    chosen = f"{card.name} {card.precision} on {generator.provider}, batches of {generator.batch_size}"
    yield Finding(subject="choice of auto", state="ok", text=chosen)
    if card.known_answers is None:
        text = "the graph has none, so its images are not checked: export the checkpoint again"
        yield Finding(subject="known image", state="note", text=text)
    else:
        yield Finding(subject="known image", state="ok", text="right (pxdbg check computes those of all graphs)")
    if generator.provider == CPU:
        yield diagnose_memory(card.precision, generator.batch_size, sum(math.prod(each.shape) for each in card.draws))
    yield diagnose_cache()
    if timing:
        yield _time_event(generator)


def _is_below_warning(record: logging.LogRecord) -> bool:
    return record.levelno < logging.WARNING


def _time_event(generator: Generator) -> Finding:
    sensors = SENSORS[: generator.batch_size]
    times_s = []
    try:
        generator.generate(0, sensors)  # compiles the kernels
        for event in range(1, _REPEATS + 1):
            start = time.perf_counter()
            generator.generate(event, sensors)
            times_s.append(time.perf_counter() - start)
    except PxdbgError as error:
        return Finding(subject="time of an event", state="fails", text=str(error))
    event_s = statistics.median(times_s) * N_SENSORS / len(sensors)
    measured = "the whole event" if len(sensors) == N_SENSORS else f"{len(sensors)} of {N_SENSORS} images"
    per_hour = _HOUR_S / event_s
    text = f"about {event_s:.2g} s, {per_hour:,.0f} an hour in one process ({measured}, timed {_REPEATS} times)"
    return Finding(subject="time of an event", state="ok", text=text)
