"""Overlay of digits, against the plain rule: background is added to the first signal digit of its channel."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pxdbg_runtime
from pxdbg_runtime import Digits, OverlaidDigits, overlay
from pxdbg_runtime.digits import COLUMN_DTYPES
from pxdbg_runtime.errors import ArgumentTypeError, ArgumentValueError
from pxdbg_runtime.overlaying import OVERLAID_DTYPES, overlay_event
from tests.digit_files import Hit, digits_of, random_digits

if TYPE_CHECKING:
    from numpy.typing import NDArray

AnyDigits = Digits | OverlaidDigits
HITS: Final = st.lists(
    st.tuples(
        st.integers(0, 2),  # few events and channels, so that many are common and many come twice
        st.sampled_from([8480, 8512, 19_520]),
        st.sampled_from([0, 249]),
        st.sampled_from([0, 1, 767]),
        st.integers(0, 255),
    ),
    max_size=40,
)


def overlaid_of(hits: list[Hit]) -> OverlaidDigits:
    columns = zip(*hits, strict=True) if hits else [()] * len(OVERLAID_DTYPES)
    return OverlaidDigits(**{n: np.array(c, d) for (n, d), c in zip(OVERLAID_DTYPES.items(), columns, strict=True)})


def list_hits(digits: AnyDigits) -> list[Hit]:
    columns: list[list[int]] = [getattr(digits, name).tolist() for name in COLUMN_DTYPES]
    return list(zip(*columns, strict=True))


def overlay_plainly(signal: AnyDigits, background: AnyDigits, saturate: int | None) -> list[Hit]:
    """Search the signal for each background digit, as a loop over basf2's arrays would."""
    result = [list(hit) for hit in list_hits(signal)]
    n_signal = len(result)
    for hit in list_hits(background):
        first = next((each for each in result[:n_signal] if each[:4] == list(hit[:4])), None)
        if first is None:
            result.append(list(hit))
        else:
            first[4] += hit[4]
    result.sort(key=lambda hit: hit[:4])  # stable
    return [(*hit[:4], (hit[4] if saturate is None else min(hit[4], saturate)) % 2**16) for hit in result]  # type: ignore[misc]


@given(signal=HITS, background=HITS, saturate=st.sampled_from([None, 1, 255, 300, 65_535]))
def test_against_the_plain_rule(signal: list[Hit], background: list[Hit], saturate: int | None) -> None:
    """Digits come in any order; several may have one channel."""
    found = overlay_event(digits_of(signal), digits_of(background), saturate=saturate)
    assert list_hits(found) == overlay_plainly(digits_of(signal), digits_of(background), saturate)


@given(
    signal=st.lists(st.integers(0, 65_535), min_size=1, max_size=3),
    background=st.lists(st.integers(0, 65_535), min_size=1, max_size=3),
    saturate=st.sampled_from([None, 255, 65_535]),
)
def test_sums_have_16_bits(signal: list[int], background: list[int], saturate: int | None) -> None:
    """They start again from 0, and are not cut at 65,535; what saturates does not start again."""
    ours, theirs = (overlaid_of([(4, 8480, 1, 2, charge) for charge in charges]) for charges in (signal, background))
    found = overlay(ours, theirs, saturate=saturate)
    assert list_hits(found) == overlay_plainly(ours, theirs, saturate)
    assert found.charge.dtype == np.uint16


def test_whole_events_against_images() -> None:
    rng = np.random.default_rng(5)
    signal, background = random_digits(rng, 30_000, 7), random_digits(rng, 70_000, 7)
    images = signal.to_images().astype(np.int64) + background.to_images()
    found = overlay(signal, background)
    assert len(found) == np.count_nonzero(images)
    assert np.array_equal(found.charge, images[images > 0])
    assert np.count_nonzero(found.charge > 255) > 100
    shuffled = [digits.select_rows(rng.permutation(len(digits))) for digits in (signal, background)]
    assert overlay(*shuffled) == found
    assert np.array_equal(overlay(signal, background, saturate=255).to_digits().to_images(), images.clip(max=255))


def test_each_event_takes_the_background_of_its_number() -> None:
    signal = digits_of([(3, 8480, 0, 0, 10), (5, 8480, 0, 0, 20)])
    background = digits_of([(3, 8480, 0, 0, 1), (4, 8480, 0, 0, 2), (5, 8480, 0, 1, 3)])
    expected = [(3, 8480, 0, 0, 11), (4, 8480, 0, 0, 2), (5, 8480, 0, 0, 20), (5, 8480, 0, 1, 3)]
    assert list_hits(overlay(signal, background)) == expected
    assert overlay(signal, background) == overlaid_of(expected)


def test_of_two_signal_digits_of_a_channel_the_first_gets_the_sum() -> None:
    signal = digits_of([(0, 8480, 0, 0, 50), (0, 8480, 0, 0, 10)])
    background = digits_of([(0, 8480, 0, 0, 7), (0, 8480, 0, 0, 8)])
    assert overlay(signal, background).charge.tolist() == [65, 10]


def test_channels_that_are_no_pixels_are_not_confused() -> None:
    """Cells have 16 bits here: v 65,536 cells further is not u one further."""
    signal = digits_of([(0, 1, 0, 65_535, 1), (0, 1, 1, 0, 2), (0, 2, 0, 0, 4)])
    background = digits_of([(0, 1, 0, 65_535, 10), (0, 2, 0, 0, 40)])
    assert overlay(signal, background).charge.tolist() == [11, 2, 44]


@pytest.mark.parametrize(("n_signal", "n_background"), [(0, 0), (0, 100), (100, 0)])
def test_nothing_on_one_side(n_signal: int, n_background: int) -> None:
    rng = np.random.default_rng(1)
    signal, background = random_digits(rng, n_signal, 2), random_digits(rng, n_background, 2)
    assert list_hits(overlay_event(signal, background)) == list_hits(signal) + list_hits(background)


def test_a_signal_event_without_background() -> None:
    signal = digits_of([(event, 8480, 0, 0, 9) for event in (1, 3, 5)])
    background = digits_of([(1, 8480, 0, 0, 9), (2, 8480, 0, 0, 9)])
    expected = r"matched by event number, but signal event 3 has no background digit, and 2 signal events in all"
    with pytest.raises(ArgumentValueError, match=expected) as info:
        overlay(signal, background)
    assert info.value.argument == "background"


@pytest.mark.parametrize("saturate", [0, -1, 65_536, 255.0, True])
def test_an_invalid_saturation(saturate: object) -> None:
    with pytest.raises((ArgumentTypeError, ArgumentValueError), match=r"^saturate must"):
        overlay(Digits.empty(), Digits.empty(), saturate=saturate)  # type: ignore[arg-type]  # floats too


@pytest.mark.parametrize("argument", ["signal", "background"])
def test_what_is_no_digits(argument: str) -> None:
    arguments: dict[str, Any] = {"signal": Digits.empty(), "background": Digits.empty(), argument: [1]}
    with pytest.raises(ArgumentTypeError, match=f"^{argument} must be Digits or OverlaidDigits, but is list"):
        overlay(**arguments)


def test_charges_beyond_8_bits_are_no_digits() -> None:
    with pytest.raises(ArgumentValueError, match=r"has 256: overlay with saturate=255"):
        overlaid_of([(0, 8480, 0, 0, 255), (0, 8480, 0, 1, 256)]).to_digits()
    assert overlaid_of([(0, 8480, 0, 0, 255)]).to_digits() == digits_of([(0, 8480, 0, 0, 255)])
    assert overlaid_of([]).to_digits() == Digits.empty()


def test_overlaid_digits_are_read_only_also_as_copies() -> None:
    digits = overlaid_of([(3, 8480, 0, 0, 300)])
    for each in (digits, pickle.loads(pickle.dumps(digits)), copy.deepcopy(digits)):
        assert each == digits
        assert repr(each) == "OverlaidDigits(1 digits, 1 event)"
        with pytest.raises(ValueError, match="read-only"):
            each.charge[0] = 1
    assert digits != overlaid_of([(3, 8480, 0, 0, 301)])


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"charge": np.zeros(1, np.uint8)}, "OverlaidDigits: charge must be an array of uint16, but is uint8"),
        ({"charge": [1]}, "OverlaidDigits: charge must be an array of uint16, but is list"),
        ({"v_cell": np.zeros(2, np.uint16)}, r"OverlaidDigits: .* v_cell has the shape \(2,\) and event \(1,\)"),
    ],
)
def test_columns_of_another_kind(columns: dict[str, NDArray[Any]], expected: str) -> None:
    valid: dict[str, Any] = {name: np.zeros(1, dtype) for name, dtype in OVERLAID_DTYPES.items()}
    with pytest.raises((ArgumentTypeError, ArgumentValueError), match=expected):
        OverlaidDigits(**{**valid, **columns})


@pytest.mark.slow
def test_numba_loads_with_the_first_overlay() -> None:
    code = (
        "import sys, pxdbg_runtime as p\n"
        "before = 'numba' in sys.modules\n"
        "p.overlay(p.Digits.empty(), p.Digits.empty())\n"
        "print(before, 'numba' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False True\n"


def test_the_name_is_public() -> None:
    assert {"overlay", "OverlaidDigits"} <= set(pxdbg_runtime.__all__)
