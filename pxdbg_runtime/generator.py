"""The generator: a seed and an event number become digits."""

from __future__ import annotations

import functools
import logging
import math
import secrets
from contextlib import closing
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np

from pxdbg_runtime.checks import check_integer
from pxdbg_runtime.digits import Digits
from pxdbg_runtime.errors import ArgumentValueError, GraphFileError
from pxdbg_runtime.inference.batches import compute_batches
from pxdbg_runtime.inference.latents import MIN_SEED, RandomStreamName, check_event, check_seed, make_stream
from pxdbg_runtime.limits.address_space import check_room_for_events, check_room_for_libraries
from pxdbg_runtime.model.builtin_models import find_graph, is_best_for_cpu, is_path
from pxdbg_runtime.optional_imports import require
from pxdbg_runtime.sensors import N_SENSORS, N_U_CELLS, N_V_CELLS

if TYPE_CHECKING:
    import collections.abc
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from pxdbg_runtime.digitisation.kernels import Images

__all__ = ["DEFAULT_BATCH_SIZE", "Generator", "PrecisionChoice"]

PrecisionChoice = Literal["auto", "float32", "float16", "int8"]
DEFAULT_BATCH_SIZE: Final = 2
"""Images a call of ONNX Runtime on a CPU: small batches stay in cache and in a grid slot's memory (docs/running.md)."""
_OF_FLOAT32: Final = 1
"""The same in float32, whose images are four times as large."""
_WHOLE_EVENT: Final = N_SENSORS
"""Images a call on any other provider, where a call costs more than its images."""

_log = logging.getLogger(__name__)


class Generator:
    """Generates PXD background events.

    Making one loads ONNX Runtime and makes the session, so that what cannot run says so at once. Threads may share a
    generator. A pickled or copied one is made again from its arguments, with the seed that was drawn, and refuses a
    graph with another SHA-256. In a fork, one with ``ninter=1`` works, and any other is an error (docs/running.md).

    Parameters
    ----------
    model : str or Path
        Name of a shipped model (``pxdbg models`` lists them), or the path of a graph made by
        ``python -m export``.
    precision : {"auto", "float32", "float16", "int8"}
        Which of a shipped model's graphs. ``auto`` takes float16 on CUDA, and int8 on a CPU, if its digits were found as good
        as float32's at export; else float32. It depends on the model and the provider alone, never on the machine's CPU.
    provider : str
        ``auto``, ``cpu``, ``cuda``, or another execution provider of ONNX Runtime, by its name. Nothing falls
        back silently; ``auto`` logs what it chose.
    provider_options : mapping of str to str, optional
        Passed on to the provider.
    seed : int, optional
        In [-2^63, 2^63 - 1]; drawn from the system if None, see the attribute.
    random_stream : {"philox", "torch"}
        ``philox``: each event on its own. ``torch``: the original's latents, event after event.
    nintra, ninter : int
        Threads within an operator, and operators at a time.
    batch_size : int, optional
        Images a call of ONNX Runtime, 1 to 40. It does not change the digits. If None, on a CPU 2 in int8 and
        1 else, and 40 elsewhere.
    min_charge : int, optional
        Zero-suppression threshold in ADU; the model's own if None, and not less than that.
    verify : bool
        Compute a known image of the graph and compare it with its reference, unless that passed on this machine before: see
        `pxdbg_runtime.inference.verification`. It costs the time of one image.

    Attributes
    ----------
    card : ModelCard
    graph_sha256 : str
        Of the graph file's bytes that the session was made of.
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
        If there is no such model, or its file is not whole.
    ArgumentTypeError, ArgumentValueError
        If an argument makes no sense.
    MissingPackageError, ProviderError, InferenceError
        If the graph cannot run here as asked.
    MemoryLimitError, ThreadLimitError
        If the job has too little memory or address space, or may start too few threads.
    KnownAnswerError
        If the installed ONNX Runtime computes the graph wrongly on this machine.

    Examples
    --------
    >>> generator = Generator("resnet", seed=7)
    >>> digits = generator.generate(event=0)
    >>> digits.charge.dtype.name, int(digits.event[0])
    ('uint8', 0)
    """

    def __init__(
        self,
        model: str | Path = "resnet",
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
        self.seed = _fresh_seed() if seed is None else check_seed(seed)
        self.random_stream = random_stream
        checked_batch_size = _checked_batch_size(batch_size)
        # ONNX Runtime and numba load here, when first needed: importing the package must stay cheap.
        check_room_for_libraries()
        from pxdbg_runtime.inference.providers import CPU, guess_target
        from pxdbg_runtime.inference.session import ImageSession
        from pxdbg_runtime.inference.verification import require_known_answer

        asked_precision = None if precision == "auto" else precision
        target = guess_target(provider)
        while True:
            graph = find_graph(model, asked_precision, target)
            self.card, self.graph_sha256 = graph.card, graph.sha256
            self._stream = make_stream(random_stream, self.seed, self.card.draws)
            self._session = ImageSession(
                graph,
                provider=provider,
                provider_options=provider_options,
                nintra=nintra,
                ninter=ninter,
            )
            self.provider = self._session.provider
            if target == "cpu" or self.provider != CPU or is_best_for_cpu(model, asked_precision, graph.card):
                break
            # provider='auto' took the CPU, for which another graph may be better. The memory of the first one is freed
            # before the second one is read.
            del self._session, graph
            target = "cpu"
        path = graph.path.absolute()
        del graph  # its content is of no more use, and takes more memory than all that loads below
        require("numba", extra="cpu", purpose="The digitisation")
        from pxdbg_runtime.digitisation.digitiser import Digitiser

        self._digitiser = Digitiser(self.card, min_charge)
        self.min_charge = self._digitiser.min_charge
        on_cpu = DEFAULT_BATCH_SIZE if self.card.precision == "int8" else _OF_FLOAT32
        default = on_cpu if self.provider == CPU else _WHOLE_EVENT
        self.batch_size = default if checked_batch_size is None else checked_batch_size
        if self.provider == CPU:
            check_room_for_events(
                self.card.precision, self.batch_size, sum(math.prod(d.shape) for d in self.card.draws)
            )
        if verify:
            require_known_answer(self._session)
        if self.card.nature != "checkpoint":
            _log.warning("The model %s is a %s. %s", self.card.name, self.card.nature, self.card.provenance)
        # The precision, provider and seed that were chosen, not 'auto' and None: a copy on another machine must not choose
        # others.
        self._recipe = functools.partial(
            type(self),
            path if is_path(model) else model,
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

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_generator, (self._recipe, self.graph_sha256)

    def generate(self, event: int) -> Digits:
        """Generate one event.

        Parameters
        ----------
        event : int
            Event number, 0 or more.

        Returns
        -------
        Digits

        Raises
        ------
        ArgumentTypeError, ArgumentValueError
            If the event number makes no sense.
        InferenceError, ImageError
            If ONNX Runtime fails, or the graph gives no sound images.
        """
        with closing(self._batches(event)) as batches:
            return Digits.concatenate(
                self._digitiser.digits(images, event=event, first_sensor=sensors.start) for sensors, images in batches
            )

    def generate_images(self, event: int) -> NDArray[np.uint8]:
        """Generate the charges of one event's forty sensors.

        Parameters
        ----------
        event : int
            Event number, 0 or more.

        Returns
        -------
        ndarray of uint8, shape (40, 250, 768)
            ADU; 0 where there is no hit. Raises as `generate` does.
        """
        charges = np.empty((N_SENSORS, N_U_CELLS, N_V_CELLS), dtype=np.uint8)
        with closing(self._batches(event)) as batches:
            for sensors, images in batches:
                charges[sensors.start : sensors.stop] = self._digitiser.charges(images)
        return charges

    def stream(self, events: Iterable[int]) -> Iterator[Digits]:
        """Generate events one after the other, each when it is asked for.

        Parameters
        ----------
        events : iterable of int
            Event numbers, in any order. Raises as `generate` does.
        """
        for event in events:
            yield self.generate(event)

    def _batches(self, event: int) -> collections.abc.Generator[tuple[range, Images], None, None]:
        """Give the images of an event in batches, and the indices of their sensors; close it if not all are used."""
        values = self._stream.draw(check_event(event))
        draws = {draw.name: drawn for draw, drawn in zip(self.card.draws, values, strict=True)}
        starts = range(0, N_SENSORS, self.batch_size)
        batches = [range(start, min(start + self.batch_size, N_SENSORS)) for start in starts]
        yield from compute_batches(self._session, batches, draws)


def _rebuild_generator(recipe: Callable[[], Generator], graph_sha256: str) -> Generator:
    """Make a generator from its pickled arguments, and refuse a graph with another SHA-256."""
    generator = recipe()
    if generator.graph_sha256 != graph_sha256:
        path = generator._session.path
        message = (
            f"The graph {path} has the SHA-256 {generator.graph_sha256} here, but {graph_sha256} where the generator was "
            "made, so its digits would be others: give every process the same graph and the same pxdbg-runtime."
        )
        raise GraphFileError(path, message)
    return generator


def _fresh_seed() -> int:
    seed = secrets.randbits(64) + MIN_SEED
    _log.info("seed=None drew the seed %d", seed)
    return seed


def _checked_batch_size(batch_size: int | None) -> int | None:
    if batch_size is None:
        return None
    return check_integer("batch_size", batch_size, 1, N_SENSORS, unit="images")
