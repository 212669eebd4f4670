"""``providers``: every execution provider of this machine in every precision, and the parts of an event."""

from __future__ import annotations

from collections import abc
from functools import cache, cached_property, partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.benchmark import Benchmark, Plan
from benchmarks.environment import count_cores
from benchmarks.events import EVENT, SEED, compute_images, consume_stream, split_sensors, time_session
from benchmarks.graphs import CPU_PRECISIONS, CUDA_PRECISIONS
from benchmarks.timing import Case, Run, build_cases, time_run
from pxdbg_runtime import Generator
from pxdbg_runtime.errors import PxdbgError
from pxdbg_runtime.inference.latents import create_stream
from pxdbg_runtime.inference.providers import CUDA, import_onnxruntime, resolve_provider
from pxdbg_runtime.inference.session import ImageSession
from pxdbg_runtime.model.card import Target
from pxdbg_runtime.model.graph_file import GraphFile

_EVENTS_PER_CALL: Final = (1, 10, 100)
_QUICK_EVENTS_PER_CALL: Final = (1, 2)


def _list_cases(plan: Plan) -> abc.Generator[tuple[Case, ...], None, None]:
    # CUDA is listed whether ONNX Runtime offers it or not.
    providers = dict.fromkeys((*import_onnxruntime().get_available_providers(), CUDA))
    for family in plan.families:
        yield tuple(case for provider in providers for case in _list_provider_cases(plan, family, provider))


def _list_provider_cases(plan: Plan, family: str, provider: str) -> tuple[Case, ...]:
    is_cuda = provider == CUDA
    target: Target = "cuda" if is_cuda else "cpu"
    labels = (family, provider.removesuffix("ExecutionProvider"))
    refusal = _find_refusal(plan, family, provider, target)
    if refusal is not None:
        return (Case(rows=((*labels, "", "", ""),), prepare=partial(_refuse, refusal)),)
    n_events = _QUICK_EVENTS_PER_CALL if plan.quick else _EVENTS_PER_CALL
    # The number of threads does not matter for a GPU.
    thread_counts = (1,) if is_cuda else tuple(dict.fromkeys((1, count_cores())))
    cases: tuple[Case, ...] = ()
    for precision in CUDA_PRECISIONS if is_cuda else CPU_PRECISIONS:
        load = cache(partial(plan.workspace.find_graph, family, precision, target=target))
        for n_threads in thread_counts:
            event = _Event(load, provider, n_threads)
            preparations: dict[str, abc.Callable[[], Run]] = {
                **{f"{n} event{'s' if n > 1 else ''} a call": partial(event.prepare_call, n) for n in n_events},
                "latents": event.prepare_latents,
                "inference": event.prepare_inference,
                "digits": event.prepare_digits,
                "a copy of the images": event.prepare_copy,
            }
            cases += build_cases((*labels, precision, str(n_threads)), preparations)
    return cases


def _find_refusal(plan: Plan, family: str, provider: str, target: Target) -> PxdbgError | None:
    """Find out why a provider does not run the float32 graph; None if it does."""
    try:
        resolve_provider(provider)
        ImageSession(plan.workspace.find_graph(family, target=target), provider=provider)
    except PxdbgError as error:
        return error
    return None


def _refuse(refusal: PxdbgError) -> Run:
    raise refusal


class _Event:
    """An event on one provider, whole and in parts; each session is created when it is first needed."""

    def __init__(self, load: abc.Callable[[], GraphFile], provider: str, n_threads: int) -> None:
        self._load = load
        self._provider = provider
        self._n_threads = n_threads

    def prepare_call(self, n_events: int) -> Run:
        consume = partial(consume_stream, self._generator)
        return time_run(partial(consume, n_events), warm_up=consume)

    def prepare_latents(self) -> Run:
        stream = create_stream("philox", SEED, self._load().card.draws)
        return time_run(lambda: stream.draw(EVENT))

    def prepare_inference(self) -> Run:
        return time_session(self._session, self._generator.batch_size)

    def prepare_digits(self) -> Run:
        from pxdbg_runtime.digitisation.digitiser import Digitiser

        digitiser = Digitiser(self._load().card)
        images = self._images

        def work() -> None:
            for sensors in split_sensors(self._generator.batch_size):
                digitiser.find_digits(images[sensors.start : sensors.stop], sensors=sensors)

        return time_run(work)

    def prepare_copy(self) -> Run:
        copy = np.empty_like(self._images)
        return time_run(lambda: np.copyto(copy, self._images))

    @cached_property
    def _generator(self) -> Generator:
        return Generator(self._load().path, provider=self._provider, seed=SEED, nintra=self._n_threads)

    @cached_property
    def _session(self) -> ImageSession:
        return ImageSession(self._load(), provider=self._provider, nintra=self._n_threads)

    @cached_property
    def _images(self) -> NDArray[np.float32]:
        return compute_images(self._session)


BENCHMARK: Final = Benchmark(
    name="providers",
    help="Every provider and precision: whole calls, and the parts of an event.",
    columns=("model", "provider", "precision", "threads", "what"),
    remarks=(
        "A call takes events from Generator.stream; its seconds are those of the whole call.",
        "The parts are those of one event in the batches of a call; the copy is in host memory.",
        "On a GPU, inference includes the copies to and from it.",
    ),
    cases=_list_cases,
    title="Execution providers",
)
