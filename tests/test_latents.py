"""The random streams: Philox against its definition in plain Python, the other against PyTorch itself."""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pxdbg_runtime.checks import MAX_EVENT, MAX_SEED, MIN_SEED
from pxdbg_runtime.errors import ArgumentTypeError, ArgumentValueError
from pxdbg_runtime.inference.latents import PhiloxStream, TorchStream, create_stream
from pxdbg_runtime.model.card import Draw

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pxdbg_runtime.inference.latents import RandomStream, RandomStreamName

LATENT: Final = Draw(name="latent", shape=(40, 96))
MOOD: Final = Draw(name="mood", shape=(40, 4))
CONDITIONAL_LATENT: Final = Draw(name="latent", shape=(40, 128))
ODD: Final = Draw(name="odd", shape=(40, 3))
"""120 values: not a multiple of the sixteen that PyTorch fills at a time."""
SEEDS: Final = st.integers(MIN_SEED, MAX_SEED)
EVENTS: Final = st.integers(0, MAX_EVENT)
MASK: Final = 2**64 - 1


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x64 of ten rounds, as Salmon et al. (SC11) define it."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product_0, product_2 = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (product_2 >> 64) ^ c1 ^ k0, product_2 & MASK, (product_0 >> 64) ^ c3 ^ k1, product_0 & MASK
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & MASK, (k1 + 0xBB67AE8584CAA73B) & MASK
    return c0, c1, c2, c3


def compute_defined_normals(seed: int, event: int, draw: int, n_values: int) -> list[float]:
    """Make a draw's values from the definition: blocks of four words, counted from one, pair by pair."""
    values: list[float] = []
    block = 1
    while len(values) < n_values:
        words = philox((block, draw, 0, event), (seed % 2**64, 0))
        for a, b in (words[:2], words[2:]):
            radius = math.sqrt(-2 * math.log(((a >> 11) + 1) * 2.0**-53))
            angle = 2 * math.pi * ((b >> 11) * 2.0**-53)
            values += [radius * math.cos(angle), radius * math.sin(angle)]
        block += 1
    return values[:n_values]


def draw_event(name: RandomStreamName, seed: int = 1, event: int = 0) -> tuple[NDArray[np.float32], ...]:
    return create_stream(name, seed, [LATENT]).draw(event)


def draw_with_torch(seed: int, draws: list[Draw], n_events: int) -> list[list[NDArray[np.float32]]]:
    """Draw as the original does: seeded once, then one torch.randn a draw, event after event."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return [[torch.randn(*draw.shape).numpy() for draw in draws] for _ in range(n_events)]


def check_against_torch(seed: int, draws: list[Draw], n_events: int) -> None:
    stream = TorchStream(seed, draws)
    for event, expected in enumerate(draw_with_torch(seed, draws, n_events)):
        check_equal(stream.draw(event), expected)


def check_equal(found: tuple[NDArray[np.float32], ...], expected: list[NDArray[np.float32]]) -> None:
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == np.float32
        assert np.array_equal(mine, theirs)


def test_philox_of_this_module_gives_the_authors_known_answers() -> None:
    assert philox((0, 0, 0, 0), (0, 0)) == (
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    )
    assert philox((MASK, MASK, MASK, MASK), (MASK, MASK)) == (
        0x87B092C3013FE90B,
        0x438C3C67BE8D0224,
        0x9CC7D7C69CD777B6,
        0xA09CAEBF594F0BA0,
    )


@settings(max_examples=40)
@given(seed=SEEDS, event=EVENTS)
@example(seed=0, event=0)
@example(seed=-1, event=MAX_EVENT)
@example(seed=MIN_SEED, event=1)
@example(seed=MAX_SEED, event=5)
def test_philox_stream_follows_its_definition(seed: int, event: int) -> None:
    draws = [MOOD, ODD, Draw(name="one", shape=(1, 1))]
    found = PhiloxStream(seed, draws).draw(event)
    for number, (values, draw) in enumerate(zip(found, draws, strict=True)):
        n_values = draw.shape[0] * draw.shape[1]
        expected = (
            np.array(compute_defined_normals(seed, event, number, n_values)).astype(np.float32).reshape(draw.shape)
        )
        assert values.shape == draw.shape
        assert values.dtype == np.float32
        # The machine's logarithm and cosine may differ in the last bit, which may show in a float32's last.
        np.testing.assert_array_max_ulp(values, expected, maxulp=1)
        assert np.count_nonzero(values != expected) <= 1


@settings(max_examples=30)
@given(seed=SEEDS, events=st.lists(EVENTS, min_size=1, max_size=5))
def test_philox_gives_an_event_the_same_values_alone_and_in_any_order(seed: int, events: list[int]) -> None:
    stream = PhiloxStream(seed, [MOOD, ODD])
    in_order = {event: stream.draw(event) for event in events}
    for event in reversed(events):
        alone = PhiloxStream(seed, [MOOD, ODD]).draw(event)
        for again in (alone, stream.draw(event)):
            assert all(np.array_equal(a, b) for a, b in zip(again, in_order[event], strict=True))


@pytest.mark.parametrize("name", ["philox", "torch"])
def test_seeds_events_and_draws_differ(name: RandomStreamName) -> None:
    drawn = [
        values.tobytes()
        for seed in (0, 1, -1, 2**31)
        for event in (0, 1, 7)
        for values in create_stream(name, seed, [MOOD, MOOD]).draw(event)
    ]
    assert len(set(drawn)) == 4 * 3 * 2


@pytest.mark.parametrize(("word", "largest"), [(0, math.sqrt(106 * math.log(2))), (MASK, 0.0)])
def test_philox_makes_numbers_of_the_smallest_and_largest_words(
    word: int, largest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Words:
        def __init__(self, **_: object) -> None:
            self.random_raw = lambda n_words: np.full(n_words, word, dtype=np.uint64)

    monkeypatch.setattr(np.random, "Philox", Words)
    (values,) = PhiloxStream(1, [ODD]).draw(0)
    assert np.all(np.isfinite(values))
    assert values.max() == np.float32(largest)


def test_philox_knows_all_64_bits_of_a_seed_and_of_an_event() -> None:
    seeds = {PhiloxStream(1 + (1 << bit), [ODD]).draw(0)[0].tobytes() for bit in range(1, 63)}
    events = {PhiloxStream(1, [ODD]).draw(1 << bit)[0].tobytes() for bit in range(63)}
    assert (len(seeds), len(events)) == (62, 63)


@pytest.mark.parametrize("name", ["philox", "torch"])
def test_values_are_standard_normal_and_independent(name: RandomStreamName) -> None:
    stream = create_stream(name, 20, [LATENT])
    values = np.concatenate([stream.draw(event)[0].astype(np.float64).ravel() for event in range(100)])
    n = len(values)
    assert abs(values.mean()) < 4 / math.sqrt(n)
    assert abs(values.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((values**3).mean()) < 4 * math.sqrt(15 / n)
    assert abs((values**4).mean() - 3) < 4 * math.sqrt(96 / n)
    for lag in (1, 8, 96):
        assert abs((values[lag:] * values[:-lag]).mean()) < 4 / math.sqrt(n)
    # Kolmogorov-Smirnov against the normal distribution, at the level of one in a thousand.
    cumulative = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in np.sort(values)])
    steps = np.arange(n + 1) / n
    distance = max(np.abs(cumulative - steps[1:]).max(), np.abs(cumulative - steps[:-1]).max())
    assert distance < 1.95 / math.sqrt(n)


@settings(max_examples=60)
@given(seed=SEEDS)
@example(seed=0)
@example(seed=-5)
@example(seed=MIN_SEED)
@example(seed=MAX_SEED)
@example(seed=2**40 + 17)
@example(seed=2**32 - 1)
def test_torch_stream_gives_the_values_of_pytorch(seed: int) -> None:
    check_against_torch(seed, [LATENT], 2)


@pytest.mark.slow
def test_torch_stream_gives_millions_of_values_of_pytorch_to_the_bit() -> None:
    check_against_torch(77, [Draw(name="many", shape=(4000, 1283))], 1)


@settings(max_examples=30)
@given(
    seed=SEEDS,
    draws=st.lists(
        st.tuples(st.just(40), st.integers(1, 20)).map(lambda shape: Draw(name="any", shape=shape)),
        min_size=1,
        max_size=3,
    ),
)
@example(seed=7, draws=[LATENT, MOOD])
@example(seed=7, draws=[LATENT, ODD])
@example(seed=-7, draws=[ODD, LATENT, ODD])
@example(seed=3, draws=[Draw(name="sixteen", shape=(16, 1)), Draw(name="seventeen", shape=(17, 1))])
def test_torch_stream_does_for_any_draws(seed: int, draws: list[Draw]) -> None:
    check_against_torch(seed, draws, 3)


@settings(max_examples=30)
@given(seed=SEEDS)
@example(seed=0)
@example(seed=-5)
@example(seed=MIN_SEED)
@example(seed=MAX_SEED)
@example(seed=2**40 + 17)
def test_torch_stream_draws_conditional_latents_and_event_noise_by_turns(seed: int) -> None:
    check_against_torch(seed, [CONDITIONAL_LATENT, MOOD], 3)


def test_the_values_of_a_philox_draw_do_not_depend_on_the_other_draws() -> None:
    (alone,) = PhiloxStream(7, [CONDITIONAL_LATENT]).draw(5)
    first, second = PhiloxStream(7, [CONDITIONAL_LATENT, MOOD]).draw(5)
    assert np.array_equal(first, alone)
    swapped = PhiloxStream(7, [MOOD, CONDITIONAL_LATENT]).draw(5)
    assert np.array_equal(second.ravel()[:100], swapped[1].ravel()[:100]), "the number of a draw counts, not its shape"
    assert np.array_equal(first.ravel()[:160], swapped[0].ravel())


@pytest.mark.parametrize("draws", [[LATENT], [LATENT, MOOD], [LATENT, ODD]])
@pytest.mark.parametrize("order", [(5, 2, 5), (0, 0), (3, 2, 1, 0), (0, 1, 5, 6, 2)])
def test_torch_stream_skips_and_rewinds(draws: list[Draw], order: tuple[int, ...]) -> None:
    expected = draw_with_torch(31, draws, max(order) + 1)
    stream = TorchStream(31, draws)
    for event in order:
        check_equal(stream.draw(event), expected[event])


def test_torch_stream_keeps_what_is_past_an_event_for_later_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[int] = []
    start = TorchStream._create_bits

    def count(stream: TorchStream) -> tuple[int, np.random.MT19937]:
        starts.append(len(stream._idle))
        return start(stream)

    monkeypatch.setattr(TorchStream, "_create_bits", count)
    expected = draw_with_torch(31, [LATENT], 8)
    stream = TorchStream(31, [LATENT])
    for event in (5, 2, 6, 3, 7, 4):  # two ranges by turns: one bit generator for each
        check_equal(stream.draw(event), expected[event])
    assert starts == [0, 1]


def test_torch_stream_keeps_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pxdbg_runtime.inference.latents._MAX_IDLE", 3)
    expected = draw_with_torch(31, [LATENT], 8)
    stream = TorchStream(31, [LATENT])
    for event in (7, 6, 5, 4, 3, 2, 7, 0, 1):
        check_equal(stream.draw(event), expected[event])
        assert len(stream._idle) <= 3


def test_torch_stream_refuses_a_draw_too_small_to_be_filled_in_blocks() -> None:
    message = r"'torch' is defined for draws of 16 values or more, .* one of 15: use random_stream='philox'"
    with pytest.raises(ArgumentValueError, match=message) as caught:
        TorchStream(1, [LATENT, Draw(name="few", shape=(15, 1))])
    assert caught.value.argument == "random_stream"


@pytest.mark.parametrize("name", ["philox", "torch"])
@pytest.mark.parametrize(
    ("argument", "value"),
    [("seed", MIN_SEED - 1), ("seed", MAX_SEED + 1), ("seed", np.uint64(2**63)), ("event", -1), ("event", 2**63)],
)
def test_seeds_and_events_out_of_range_are_refused(name: RandomStreamName, argument: str, value: int) -> None:
    limits = {"seed": r"\[-2\^63, 2\^63 - 1\]", "event": r"\[0, 2\^63 - 1\]"}[argument]
    with pytest.raises(ArgumentValueError, match=rf"{argument} must lie in {limits}, but is {value}") as caught:
        draw_event(name, **{argument: value})
    assert caught.value.argument == argument


@pytest.mark.parametrize("name", ["philox", "torch"])
@pytest.mark.parametrize("argument", ["seed", "event"])
@pytest.mark.parametrize("value", [True, 1.0, None])
def test_seeds_and_events_that_are_no_integers_are_refused(
    name: RandomStreamName, argument: str, value: object
) -> None:
    with pytest.raises(ArgumentTypeError, match=f"{argument} must be an integer, but is") as caught:
        draw_event(name, **{argument: value})  # type: ignore[arg-type]  # the point of the test
    assert caught.value.argument == argument


@pytest.mark.parametrize("name", ["x", "", "Philox", 3, None, ["philox"]])
def test_streams_that_are_not_there_are_refused(name: object) -> None:
    with pytest.raises(ArgumentValueError, match="random_stream must be one of philox, torch, but is") as caught:
        create_stream(name, 1, [LATENT])  # type: ignore[arg-type]  # the point of the test
    assert caught.value.argument == "random_stream"


# Threads and copies


@pytest.mark.parametrize("name", ["philox", "torch"])
def test_threads_may_share_a_stream(name: RandomStreamName) -> None:
    n_threads, n_events = 8, 32
    draws = [LATENT, MOOD]
    alone = create_stream(name, 5, draws)
    expected = [alone.draw(event) for event in range(n_events)]
    stream = create_stream(name, 5, draws)
    barrier = threading.Barrier(n_threads)
    wrong: list[int] = []

    def draw(first: int) -> None:
        for event in range(first, n_events, n_threads):
            barrier.wait(timeout=60)
            if not all(map(np.array_equal, stream.draw(event), expected[event])):
                wrong.append(event)

    threads = [threading.Thread(target=draw, args=(first,)) for first in range(n_threads)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []


@pytest.mark.parametrize("name", ["philox", "torch"])
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_a_copy_of_a_stream_draws_the_same(name: RandomStreamName, copied: Callable[[object], RandomStream]) -> None:
    stream = create_stream(name, 5, [LATENT])
    stream.draw(0)
    other = copied(stream)
    expected = [create_stream(name, 5, [LATENT]).draw(event)[0] for event in range(1, 4)]
    for event, values in enumerate(expected, start=1):
        for each in (stream, other):
            assert np.array_equal(each.draw(event)[0], values)


def test_a_draw_imports_nothing() -> None:
    """A fork beside another thread's first draw would inherit the lock of the import, and wait for it for ever."""
    program = (
        "import sys\n"
        "from pxdbg_runtime.inference.latents import create_stream\n"
        "from pxdbg_runtime.model.card import Draw\n"
        "streams = [create_stream(name, 1, [Draw(name='latent', shape=(40, 96))]) for name in ('philox', 'torch')]\n"
        "before = set(sys.modules)\n"
        "for stream in streams: stream.draw(1)\n"
        "print(sorted(set(sys.modules) - before))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
