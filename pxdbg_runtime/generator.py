"""The generator: compute the digits of an event from a seed and an event number."""

from __future__ import annotations

import functools
import itertools
import logging
import math
import secrets
from contextlib import closing
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np

from pxdbg_runtime.checks import MIN_SEED, check_event, check_integer, check_seed
from pxdbg_runtime.digits import Digits
from pxdbg_runtime.errors import ArgumentValueError, GraphFileError
from pxdbg_runtime.inference.batches import Batch, compute_batches
from pxdbg_runtime.inference.latents import RandomStreamName, create_stream
from pxdbg_runtime.limits.address_space import (
    report_memory_errors,
    require_address_space_for_events,
    require_address_space_for_libraries,
)
from pxdbg_runtime.model.builtin_models import DEFAULT_MODEL, find_graph, is_best_for_cpu, is_path
from pxdbg_runtime.model.card import describe_weights
from pxdbg_runtime.sensors import N_SENSORS, N_U_CELLS, N_V_CELLS, select_sensors

if TYPE_CHECKING:
    import collections.abc
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from pxdbg_runtime.checks import StrPath
    from pxdbg_runtime.digitisation.digitiser import Images
    from pxdbg_runtime.inference.session import ImageSession
    from pxdbg_runtime.model.card import Precision, Target
    from pxdbg_runtime.model.graph_file import GraphFile
    from pxdbg_runtime.sensors import Sensor, SensorLike

__all__ = ["DEFAULT_BATCH_SIZE", "Generator", "PrecisionChoice"]

PrecisionChoice = Literal["auto", "float32", "float16", "int8"]
DEFAULT_BATCH_SIZE: Final = 2
"""Images per call of ONNX Runtime in int8 on a CPU: small batches fit into caches and grid slots (docs/running.md)."""
_FLOAT_BATCH_SIZE: Final = 1
"""Images per call in float32 and float16 on a CPU: their images are four times as large."""
_OTHER_BATCH_SIZE: Final = N_SENSORS
"""Images per call on any other provider, where the overhead of a call dominates."""

_log = logging.getLogger(__name__)


class Generator:
    """Generates PXD background events.

    The constructor loads ONNX Runtime and creates the session, so it reports at once what cannot run. Threads may
    share a generator. A pickled or copied generator is created again from its arguments, with the seed that was
    drawn, and refuses a graph with another SHA-256. In a fork of its process, a generator on a CPU with ``ninter=1``
    works if no other thread ran the graph at the time of the fork, and any other raises an error. Attributes cannot be
    changed: setting one raises `AttributeError`.

    Parameters
    ----------
    model : str or path
        Name of a built-in model (``pxdbg models`` lists them), or the path of a graph from ``python -m export``.
    precision : {"auto", "float32", "float16", "int8"}
        Which graph of a built-in model: float32 or int8, since none has a float16 graph. ``auto`` takes int8 on a CPU
        if at export its digits were as good as float32's, else float32. The choice depends on the model and the
        provider only, never on the machine's CPU. A graph that is given by its path runs in its own precision.
    provider : str
        ``auto``, ``cpu``, ``cuda``, or the name of another execution provider of ONNX Runtime. Nothing falls back
        silently; ``auto`` logs its choice.
    provider_options : mapping of str to str, optional
        Passed on to the provider.
    seed : int, optional
        In [-2^63, 2^63 - 1]; drawn from the system's random source if None, see the attribute.
    random_stream : {"philox", "torch"}
        ``philox``: each event is independent of the others. ``torch``: the original's latents, drawn event after event.
    nintra : int
        Threads within an operator.
    ninter : int
        Operators that run at a time.
    batch_size : int, optional
        Images per call of ONNX Runtime, 1 to 40. On a CPU it does not change the digits; on CUDA in float32 it
        changes a few. If None: on a CPU 2 in int8 and 1 in other precisions, on other providers 40.
    min_charge : int, optional
        Smallest charge of a hit in ADU, from the model's own to 255; None takes the model's own.
    verify : bool
        Compute a known image of the graph and compare it with its reference, unless that passed on this machine
        before (see `pxdbg_runtime.inference.verification`). It costs the time of one image.

    Attributes
    ----------
    card : ModelCard
    graph_path : Path
        The graph file, which was read when the generator was created.
    graph_sha256 : str
    provider : str
        ONNX Runtime's name of the execution provider that runs the graph.
    seed : int
    random_stream : str
    batch_size : int
    min_charge : int
        Smallest charge of a hit in ADU.

    Raises
    ------
    ModelNotFoundError, GraphFileError, CardError, ManifestError
        If there is no such model, or its file is damaged or not valid.
    ArgumentTypeError, ArgumentValueError
        If an argument has the wrong type or value.
    MissingPackageError, ProviderError, InferenceError
        If the graph cannot run here as requested.
    MemoryLimitError, ThreadLimitError
        If the job has too little memory or address space, or may start too few threads.
    KnownAnswerError
        If the installed ONNX Runtime computes the graph wrongly on this machine.

    Examples
    --------
    >>> generator = Generator("resnet", seed=7)
    >>> generator
    Generator('resnet', precision='int8', provider='CPUExecutionProvider', seed=7, random_stream='philox')
    >>> digits = generator.generate(event=0)
    >>> digits.charge.dtype.name, int(digits.event[0])
    ('uint8', 0)
    >>> generator.generate(event=0, sensors=["1.1.1"]) == digits.of_sensor("1.1.1")
    True
    """

    def __init__(
        self,
        model: StrPath = DEFAULT_MODEL,
        *,
        precision: PrecisionChoice = "auto",
        provider: str = "auto",
        provider_options: Mapping[str, str] | None = None,
        seed: int | None = None,
        random_stream: RandomStreamName = "philox",
        nintra: int = 1,
        ninter: int = 1,
        batch_size: int | None = None,
        min_charge: int | None = None,
        verify: bool = True,
    ) -> None:
        if precision not in get_args(PrecisionChoice):
            message = f"precision must be one of {', '.join(get_args(PrecisionChoice))}, but is {precision!r}."
            raise ArgumentValueError("precision", message)
        self.seed = _draw_seed() if seed is None else check_seed(seed)
        self.random_stream = random_stream
        if batch_size is not None:
            batch_size = check_integer("batch_size", batch_size, 1, N_SENSORS, unit="images")
        # ONNX Runtime is imported here, on first use, so that importing the package stays cheap.
        require_address_space_for_libraries()
        from pxdbg_runtime.inference.providers import CPU, guess_target
        from pxdbg_runtime.inference.session import ImageSession
        from pxdbg_runtime.inference.verification import require_known_answer

        create_session = functools.partial(
            ImageSession, provider=provider, provider_options=provider_options, nintra=nintra, ninter=ninter
        )
        wanted = None if precision == "auto" else precision
        self._session = _open_session(model, wanted, guess_target(provider), create_session)
        self.card, self.graph_sha256, self.provider = self._session.card, self._session.sha256, self._session.provider
        self.graph_path = self._session.path.absolute()
        self._stream = create_stream(random_stream, self.seed, self.card.draws)
        from pxdbg_runtime.digitisation.digitiser import Digitiser

        self._digitiser = Digitiser(self.card, min_charge)
        self.min_charge = self._digitiser.min_charge
        on_cpu = DEFAULT_BATCH_SIZE if self.card.precision == "int8" else _FLOAT_BATCH_SIZE
        self.batch_size = batch_size or (on_cpu if self.provider == CPU else _OTHER_BATCH_SIZE)
        if self.provider == CPU:
            require_address_space_for_events(
                self.card.precision, self.batch_size, sum(math.prod(d.shape) for d in self.card.draws)
            )
        if verify:
            require_known_answer(self._session)
        if self.card.nature != "checkpoint":
            weights = describe_weights(self.card.nature, self.card.provenance)
            _log.warning("The model %s is a %s", self.card.name, weights)
        # The chosen precision, provider and seed, not 'auto' and None: a copy elsewhere must not choose others.
        self._recreate = functools.partial(
            type(self),
            self.graph_path if is_path(model) else model,
            precision=self.card.precision,
            provider=self.provider,
            provider_options=None if provider_options is None else dict(provider_options),
            seed=self.seed,
            random_stream=random_stream,
            nintra=nintra,
            ninter=ninter,
            batch_size=batch_size,
            min_charge=min_charge,
            verify=verify,
        )

    if not TYPE_CHECKING:  # a type checker would accept all names

        def __setattr__(self, name: str, value: object) -> None:
            if "_recreate" in vars(self) and not name.startswith("_"):
                message = f"A generator stays as it was created: create another one for another {name}."
                raise AttributeError(message)
            super().__setattr__(name, value)

    def __repr__(self) -> str:
        chosen = f"{self.card.name!r}, precision={self.card.precision!r}, provider={self.provider!r}"
        return f"{type(self).__name__}({chosen}, seed={self.seed}, random_stream={self.random_stream!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_generator, (self._recreate, self.graph_sha256)

    def generate(self, event: int, sensors: Iterable[SensorLike] | None = None) -> Digits:
        """Generate one event, or some sensors of it.

        Parameters
        ----------
        event : int
            Event number, 0 or more.
        sensors : iterable of Sensor, str or int, optional
            Different sensors in any order: a `pxdbg_runtime.Sensor`, a name such as "1.1.1", or a VxdID. Only their
            images are computed, and their digits are those of the whole event (on CUDA in float32 but for a few, as
            with another `batch_size`). All forty if None.

        Returns
        -------
        Digits
            Ordered by the index of the sensor, whatever the order of `sensors`.

        Raises
        ------
        ArgumentTypeError, ArgumentValueError
            If `event` is not an integer in [0, 2^63 - 1], or beyond 10^9 with ``random_stream="torch"``, or if
            `sensors` are not different sensors of the PXD, at least one.
        InferenceError, ImageError
            If ONNX Runtime fails, an image holds NaN or values beyond [-1, 1], or a fork cannot run the graph.
        MemoryLimitError, ThreadLimitError
            If the job has too little memory, or may not start a second thread.
        """
        (digits,) = self._generate([event], select_sensors(sensors))
        return digits

    @report_memory_errors("to generate images", has_batch=True)
    def generate_images(self, event: int, sensors: Iterable[SensorLike] | None = None) -> NDArray[np.uint8]:
        """Generate the charges of all pixels of one event, or of some sensors of it.

        Parameters
        ----------
        event : int
            Event number, 0 or more.
        sensors : iterable of Sensor, str or int, optional
            As of `generate`.

        Returns
        -------
        ndarray of uint8, shape (sensors, 250, 768)
            ADU; 0 where there is no hit. One image for each of the sensors, all forty if None, ordered by their
            index, whatever the order of `sensors`. Raises the errors of `generate`.
        """
        chosen = select_sensors(sensors)
        charges = np.empty((len(chosen), N_U_CELLS, N_V_CELLS), dtype=np.uint8)
        start = 0
        with closing(self._compute_batches([event], chosen)) as batches:
            for batch, images in batches:
                charges[start : start + len(batch.sensors)] = self._digitiser.compute_charges(images)
                start += len(batch.sensors)
        return charges

    def stream(self, events: Iterable[int], sensors: Iterable[SensorLike] | None = None) -> Iterator[Digits]:
        """Generate events one after the other.

        On a CPU each is generated on request. On any other provider the next one is computed while the caller uses
        one, so `events` is read one event ahead.

        Parameters
        ----------
        events : iterable of int
            Event numbers, in any order.
        sensors : iterable of Sensor, str or int, optional
            As of `generate`, whose errors it raises.
        """
        from pxdbg_runtime.inference.providers import CPU

        chosen = select_sensors(sensors)
        if self.provider != CPU:
            yield from self._generate(events, chosen)
            return
        for event in events:
            yield self.generate(event, chosen)

    def _generate(self, events: Iterable[int], sensors: Sequence[Sensor]) -> Iterator[Digits]:
        """Generate events, the next one while the caller uses one."""
        n_batches = -(-len(sensors) // self.batch_size)
        with (
            report_memory_errors("to generate events", has_batch=True),
            closing(self._compute_batches(events, sensors)) as batches,
        ):
            while parts := [
                self._digitiser.find_digits(images, event=batch.event, sensors=batch.sensors)
                for batch, images in itertools.islice(batches, n_batches)
            ]:
                yield Digits.concatenate(parts)

    def _compute_batches(
        self, events: Iterable[int], sensors: Sequence[Sensor]
    ) -> collections.abc.Generator[tuple[Batch, Images], None, None]:
        """Yield batches of events and their images; close it unless all are used."""
        batches = (batch for event in events for batch in self._split(event, [sensor.index for sensor in sensors]))
        return compute_batches(self._session, batches, min(self.batch_size, len(sensors)))

    def _split(self, event: int, indices: Sequence[int]) -> Iterator[Batch]:
        """Split an event into batches."""
        values = self._stream.draw(check_event(event))  # of the whole event, whatever the sensors
        draws = {draw.name: drawn for draw, drawn in zip(self.card.draws, values, strict=True)}
        for start in range(0, len(indices), self.batch_size):
            yield Batch(event, indices[start : start + self.batch_size], draws)


def _open_session(
    model: StrPath,
    precision: Precision | None,
    target: Target | None,
    create_session: Callable[[GraphFile], ImageSession],
) -> ImageSession:
    """Find the graph of a model and create its session, with another graph if provider='auto' chose the CPU."""
    from pxdbg_runtime.inference.providers import CPU

    graph = find_graph(model, precision, target)
    session = create_session(graph)
    if target == "cpu" or session.provider != CPU or is_best_for_cpu(model, precision, graph.card):
        return session
    del session, graph  # frees their memory before the second graph is read
    return create_session(find_graph(model, precision, "cpu"))


def _rebuild_generator(recreate: Callable[[], Generator], graph_sha256: str) -> Generator:
    """Create a generator from its pickled arguments, and refuse a graph with another SHA-256."""
    generator = recreate()
    if generator.graph_sha256 != graph_sha256:
        path = generator._session.path
        message = (
            f"The graph {path} has the SHA-256 {generator.graph_sha256} here, but {graph_sha256} where the generator "
            "was created, so the digits would differ: give every process the same graph and the same pxdbg-runtime."
        )
        raise GraphFileError(path, message)
    return generator


def _draw_seed() -> int:
    seed = secrets.randbits(64) + MIN_SEED
    _log.info("seed=None drew the seed %d", seed)
    return seed
