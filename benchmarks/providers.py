"""``providers``: every execution provider of this machine in every precision, and the parts of an event apart."""

from __future__ import annotations

import functools
from collections import deque
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.environment import core_count, describe_environment
from benchmarks.events import EVENT, SEED, batches, event_images, session_run
from benchmarks.graphs import CPU_PRECISIONS, CUDA_PRECISIONS
from benchmarks.report import Report, measurement_table
from benchmarks.timing import Case, Measurement, Run, interleaved, timed
from pxdbg_runtime import Generator
from pxdbg_runtime.errors import PxdbgError
from pxdbg_runtime.generator import DEFAULT_BATCH_SIZE
from pxdbg_runtime.inference.latents import make_stream
from pxdbg_runtime.inference.providers import CUDA, import_onnxruntime, resolve_provider

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from benchmarks.plan import Plan
    from pxdbg_runtime.inference.session import ImageSession
    from pxdbg_runtime.model.card import Target
    from pxdbg_runtime.model.graph_file import GraphFile

__all__ = ["measure"]

_COLUMNS: Final = ("model", "provider", "precision", "threads", "what")
_EVENTS_A_CALL: Final = (1, 10, 100)
_QUICK_EVENTS_A_CALL: Final = (1, 2)
_REMARKS: Final = (
    "A call takes events from Generator.stream; its seconds are those of the whole call.",
    f"The parts are those of one event in batches of {DEFAULT_BATCH_SIZE} images; the copy is one in the host's memory.",
    "On a GPU inference includes the copies to and from it.",
)


def measure(plan: Plan) -> Report:
    """Measure all providers, one model after the other, all cases of a model interleaved."""
    environment = describe_environment()
    measurements: tuple[Measurement, ...] = ()
    for family in plan.families:
        cases = tuple(case for provider in _providers() for case in _cases(plan, family, provider))
        measurements += interleaved(cases, plan.rounds, plan.log)
    return Report(
        command="providers",
        environment=environment,
        remarks=(*plan.workspace.remarks(plan.families), *_REMARKS),
        columns=_COLUMNS,
        measurements=measurements,
        tables=(measurement_table("Execution providers", _COLUMNS, measurements),),
    )


def _providers() -> tuple[str, ...]:
    """List what ONNX Runtime offers, and CUDA whether it does or not."""
    return tuple(dict.fromkeys((*import_onnxruntime().get_available_providers(), CUDA)))


def _short(provider: str) -> str:
    return provider.removesuffix("ExecutionProvider")


def _target(provider: str) -> Target:
    return "cuda" if provider == CUDA else "cpu"


def _refusal(plan: Plan, family: str, provider: str) -> PxdbgError | None:
    """Find out why a provider does not run the float32 graph; None if it does."""
    from pxdbg_runtime.inference.session import ImageSession

    try:
        resolve_provider(provider)
        ImageSession(plan.workspace.graph(family, target=_target(provider)), provider=provider)
    except PxdbgError as error:
        return error
    return None


def _cases(plan: Plan, family: str, provider: str) -> tuple[Case, ...]:
    refusal = _refusal(plan, family, provider)
    if refusal is not None:
        return (Case(rows=((family, _short(provider), "", "", ""),), prepare=functools.partial(_refuse, refusal)),)
    is_cuda = provider == CUDA
    counts = _QUICK_EVENTS_A_CALL if plan.quick else _EVENTS_A_CALL
    # A GPU does not care for threads of the host.
    thread_counts = (1,) if is_cuda else tuple(dict.fromkeys((1, core_count())))
    cases: list[Case] = []
    for precision in CUDA_PRECISIONS if is_cuda else CPU_PRECISIONS:
        graph = functools.partial(plan.workspace.graph, family, precision, target=_target(provider))
        for threads in thread_counts:
            parts = _Parts(functools.cache(graph), provider, threads)
            works: dict[str, Callable[[], Run]] = {
                f"{_counted(n)} a call": functools.partial(parts.call, n) for n in counts
            }
            works |= {
                "latents": parts.latents,
                "inference": parts.inference,
                "digits": parts.digits,
                "a copy of the images": parts.copies,
            }
            labels = (family, _short(provider), precision, str(threads))
            cases += [Case(rows=((*labels, what),), prepare=prepare) for what, prepare in works.items()]
    return tuple(cases)


def _refuse(refusal: PxdbgError) -> Run:
    raise refusal


class _Parts:
    """An event in one precision on one provider, whole and in parts; sessions are made once, when first needed."""

    def __init__(self, graph: Callable[[], GraphFile], provider: str, threads: int) -> None:
        self._graph = graph
        self._provider = provider
        self._threads = threads

    def call(self, n_events: int) -> Run:
        """Make what times a call that takes some events."""
        generator = self._generator

        def work() -> None:
            # A deque without room consumes the stream and keeps nothing.
            deque(generator.stream(range(n_events)), maxlen=0)

        return timed(work, warm_up=lambda: generator.generate(EVENT))

    def latents(self) -> Run:
        """Make what times the random numbers."""
        stream = make_stream("philox", SEED, self._graph().card.draws)
        return timed(lambda: stream.draw(EVENT))

    def inference(self) -> Run:
        """Make what times the session alone."""
        return session_run(self._session, self._graph().card, DEFAULT_BATCH_SIZE)

    def digits(self) -> Run:
        """Make what times the digitisation of images that are there."""
        from pxdbg_runtime.digitisation.digitiser import Digitiser

        digitiser = Digitiser(self._graph().card)
        images = self._images

        def work() -> None:
            for sensors in batches(DEFAULT_BATCH_SIZE):
                digitiser.find_digits(images[sensors.start : sensors.stop], first_sensor=sensors.start)

        return timed(work)

    def copies(self) -> Run:
        """Make what times a copy of the images."""
        copy = np.empty_like(self._images)
        return timed(lambda: np.copyto(copy, self._images))

    @functools.cached_property
    def _generator(self) -> Generator:
        return Generator(self._graph().path, provider=self._provider, seed=SEED, nintra=self._threads)

    @functools.cached_property
    def _session(self) -> ImageSession:
        from pxdbg_runtime.inference.session import ImageSession

        return ImageSession(self._graph(), provider=self._provider, nintra=self._threads)

    @functools.cached_property
    def _images(self) -> NDArray[np.float32]:
        return event_images(self._session, self._graph().card)


def _counted(n_events: int) -> str:
    return f"{n_events} event{'s' if n_events != 1 else ''}"
