"""Random streams: the standard normal values of an event from a seed and the event number.

`PhiloxStream`
    Event k depends on the seed and k only. The bits come from NumPy's Philox4x64-10 with

    - key: (seed modulo 2^64, 0);
    - counter, four 64-bit words from the lowest: (0, number of the draw within the event, 0, event).

    Words are taken in the order of the bit generator. The upper 53 bits of each pair of words (a, b)
    give u = (a >> 11 plus 1) 2^-53, in (0, 1], and w = (b >> 11) 2^-53, in [0, 1); then, in float64,
    r = sqrt(-2 ln u), and the pair's values are r cos 2 pi w and r sin 2 pi w, rounded to float32. NumPy
    guarantees its bit streams from version to version, but not its normal distribution, hence our own. NumPy increments
    the counter before each block, so the first four words are Philox of (1, draw, 0, event).

`TorchStream`
    The values of ``torch.manual_seed(seed)`` followed by one ``torch.randn`` per draw on the CPU, event after
    event, bit for bit (`torch_normal.py` says of which PyTorch). Event k depends on all events before it, so a later
    event draws and discards those between.
"""

from __future__ import annotations

import contextlib
import importlib
import operator
from typing import TYPE_CHECKING, Final, Literal, cast

import numpy as np

from pxdbg_runtime.checks import check_event, check_seed
from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.inference.torch_normal import TORCH_BLOCK, transform_blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.random._mt19937 import _MT19937State as _Mt19937State
    from numpy.typing import NDArray

    from pxdbg_runtime.model.card import Draw

__all__ = [
    "RANDOM_STREAMS",
    "PhiloxStream",
    "RandomStream",
    "RandomStreamName",
    "TorchStream",
    "create_stream",
]

RandomStreamName = Literal["philox", "torch"]
RANDOM_STREAMS: Final[tuple[RandomStreamName, ...]] = ("philox", "torch")

_WORD: Final = 2**64
_MAX_TORCH_EVENT: Final = 10**9
"""Later events would take hours of drawing and discarding."""
_MAX_IDLE: Final = 64
"""Bit generators that a stream keeps, of 2.5 kB each: more than the threads that share a stream."""


class PhiloxStream:
    """Counter-based stream: events are independent of each other. The module's docstring defines it.

    Examples
    --------
    >>> from pxdbg_runtime.model.card import Draw
    >>> (latent,) = PhiloxStream(7, [Draw(name="latent", shape=(40, 96))]).draw(5)
    >>> latent.shape, latent.dtype.name
    ((40, 96), 'float32')
    """

    def __init__(self, seed: int, draws: Sequence[Draw]) -> None:
        self._key = (check_seed(seed) % _WORD, 0)
        self._shapes = tuple(draw.shape for draw in draws)

    def draw(self, event: int) -> tuple[NDArray[np.float32], ...]:
        """Draw an event's values.

        Parameters
        ----------
        event : int
            Event number, 0 or more.

        Returns
        -------
        tuple of ndarray of float32
            One array for each draw of the model card, in its order.
        """
        event = check_event(event)
        return tuple(self._draw_normal(event, number, shape) for number, shape in enumerate(self._shapes))

    def _draw_normal(self, event: int, number: int, shape: tuple[int, int]) -> NDArray[np.float32]:
        bits = np.random.Philox(
            key=np.array(self._key, dtype=np.uint64),
            counter=np.array((0, number, 0, event), dtype=np.uint64),
        )
        n_values = shape[0] * shape[1]
        n_pairs = (n_values + 1) // 2
        mantissas = (bits.random_raw(2 * n_pairs) >> np.uint64(11)).reshape(n_pairs, 2)
        radius = np.sqrt(-2.0 * np.log((mantissas[:, 0] + np.uint64(1)) * 2.0**-53))
        angle = (2.0 * np.pi) * (mantissas[:, 1] * 2.0**-53)
        pairs = np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=1)
        return pairs.reshape(-1)[:n_values].astype(np.float32).reshape(shape)


class TorchStream:
    """The stream of the original: PyTorch's CPU generator, event after event, without PyTorch.

    Source: MT19937 seeded with the low 32 bits of the seed; for n >= 16 values one 32-bit word each, transformed to
    normal values in blocks of sixteen; if n is not a multiple of sixteen, the last sixteen are drawn again.

    Threads may share a stream: a draw removes a bit generator from a list and puts it back with the number of the
    next event. There is no lock, which a fork could inherit locked.
    """

    def __init__(self, seed: int, draws: Sequence[Draw]) -> None:
        self._seed = check_seed(seed) % 2**32
        self._shapes = tuple(draw.shape for draw in draws)
        counts = [_count_torch_words(rows * columns) for rows, columns in self._shapes]
        self._draws_per_event = sum(counts)
        self._idle: list[tuple[int, np.random.MT19937]] = []

    def _create_bits(self) -> tuple[int, np.random.MT19937]:
        bits = np.random.MT19937()
        # NumPy seeds its bit generators differently; only RandomState has the classic initialiser.
        bits.state = cast("_Mt19937State", np.random.RandomState(self._seed).get_state(legacy=False))
        return 0, bits

    def draw(self, event: int) -> tuple[NDArray[np.float32], ...]:
        """Draw an event's values; see `PhiloxStream.draw`."""
        event = check_event(event)
        if event > _MAX_TORCH_EVENT:
            message = (
                f"random_stream 'torch' draws all events before event {event}, which would take hours: expected "
                f"{_MAX_TORCH_EVENT} or less; random_stream='philox' draws each event alone."
            )
            raise ArgumentValueError("event", message)
        next_event, bits = self._take_idle(event) or self._create_bits()
        for _ in range(next_event, event):
            bits.random_raw(self._draws_per_event, output=False)
        values = tuple(
            _draw_torch_normal(bits, rows * columns).reshape(rows, columns) for rows, columns in self._shapes
        )
        self._idle.append((event + 1, bits))
        if len(self._idle) > _MAX_IDLE:
            with contextlib.suppress(IndexError):  # other threads emptied the list
                self._idle.pop(0)
        return values

    def _take_idle(self, event: int) -> tuple[int, np.random.MT19937] | None:
        """Take the bit generator with the largest next event up to this one; None if there is none."""
        usable = [idle for idle in tuple(self._idle) if idle[0] <= event]
        for idle in sorted(usable, key=operator.itemgetter(0), reverse=True):
            with contextlib.suppress(ValueError):  # another thread took it
                self._idle.remove(idle)
                return idle
        return None


def _draw_torch_normal(bits: np.random.MT19937, n_values: int) -> NDArray[np.float32]:
    uniform = _draw_torch_uniform(bits, n_values)
    n_whole = n_values - n_values % TORCH_BLOCK
    values = np.empty(n_values, dtype=np.float32)
    values[:n_whole] = transform_blocks(uniform[:n_whole])
    if n_whole < n_values:
        values[-TORCH_BLOCK:] = transform_blocks(_draw_torch_uniform(bits, TORCH_BLOCK))
    return values


def _draw_torch_uniform(bits: np.random.MT19937, n_values: int) -> NDArray[np.float32]:
    raw = bits.random_raw(n_values)
    return (raw & np.uint64(2**24 - 1)).astype(np.float32) * np.float32(2.0**-24)


def _count_torch_words(n_values: int) -> int:
    if n_values < TORCH_BLOCK:
        message = (
            f"random_stream 'torch' is defined for draws of {TORCH_BLOCK} values or more, but the model "
            f"card has one of {n_values}: use random_stream='philox'."
        )
        raise ArgumentValueError("random_stream", message)
    return n_values + (TORCH_BLOCK if n_values % TORCH_BLOCK else 0)


RandomStream = PhiloxStream | TorchStream
_STREAMS: Final[dict[RandomStreamName, type[RandomStream]]] = {"philox": PhiloxStream, "torch": TorchStream}


def create_stream(name: RandomStreamName, seed: int, draws: Sequence[Draw]) -> RandomStream:
    """Create a random stream by name.

    Raises
    ------
    ArgumentValueError
        If no stream has this name.
    """
    if name not in RANDOM_STREAMS:
        message = f"random_stream must be one of {', '.join(RANDOM_STREAMS)}, but is {name!r}."
        raise ArgumentValueError("random_stream", message)
    # NumPy would import it at the first draw: a fork meanwhile would inherit the lock of the import and wait for ever.
    importlib.import_module("numpy.random")
    return _STREAMS[name](seed, draws)
