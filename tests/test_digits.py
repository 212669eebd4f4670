"""Digits: what they hold, how they are selected, and what they refuse."""

from __future__ import annotations

import copy
import pickle
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxdbg_runtime.digits import COLUMN_DTYPES, DIGIT_DTYPE, Digits
from pxdbg_runtime.errors import ArgumentTypeError, ArgumentValueError
from pxdbg_runtime.sensors import N_SENSORS, N_U_CELLS, N_V_CELLS, SENSORS

if TYPE_CHECKING:
    from collections.abc import Callable

PIXELS = st.tuples(
    st.integers(0, N_SENSORS - 1), st.integers(0, N_U_CELLS - 1), st.integers(0, N_V_CELLS - 1), st.integers(1, 255)
)


def build_digits(rows: list[tuple[int, int, int, int, int]]) -> Digits:
    """Make digits of (event, sensor index, u, v, charge)."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * 5
    return Digits(
        event=np.array(columns[0], dtype=np.int64),
        sensor_id=np.array([SENSORS[index].vxd_id for index in columns[1]], dtype=np.uint16),
        u_cell=np.array(columns[2], dtype=np.uint16),
        v_cell=np.array(columns[3], dtype=np.uint16),
        charge=np.array(columns[4], dtype=np.uint8),
    )


TWO_EVENTS = [(3, 0, 1, 2, 7), (3, 39, 249, 767, 255), (4, 0, 0, 0, 1)]


def test_columns_and_structured_dtype_agree() -> None:
    assert list(COLUMN_DTYPES) == ["event", "sensor_id", "u_cell", "v_cell", "charge"]
    assert DIGIT_DTYPE.names == tuple(COLUMN_DTYPES)
    assert DIGIT_DTYPE.itemsize == 8 + 2 + 2 + 2 + 1


def test_length_equality_and_repr() -> None:
    digits = build_digits(TWO_EVENTS)
    assert len(digits) == 3
    assert repr(digits) == "Digits(3 digits, 2 events)"
    assert repr(digits.of_event(4)) == "Digits(1 digits, 1 event)"
    assert digits == build_digits(TWO_EVENTS)
    assert digits != build_digits(TWO_EVENTS[:2])
    assert digits != build_digits([*TWO_EVENTS[:2], (4, 0, 0, 0, 2)])
    assert digits != "digits"
    with pytest.raises(TypeError, match="unhashable type: 'Digits'"):
        hash(digits)


def test_empty_digits() -> None:
    empty = Digits.empty()
    assert len(empty) == 0
    assert empty == build_digits([]) == Digits.concatenate([])
    assert repr(empty) == "Digits(0 digits, 0 events)"
    assert not empty.to_images().any()
    assert empty.to_structured().shape == (0,)


def test_selection_by_event_and_by_sensor() -> None:
    digits = build_digits(TWO_EVENTS)
    assert digits.of_event(3) == build_digits(TWO_EVENTS[:2])
    assert len(digits.of_event(5)) == 0
    assert digits.of_sensor(SENSORS[39]) == digits.of_sensor(19520) == build_digits([TWO_EVENTS[1]])
    assert len(digits.of_sensor(SENSORS[20])) == 0
    with pytest.raises(ValueError, match="No PXD sensor has the VxdID 1"):
        digits.of_sensor(1)


@pytest.mark.parametrize(
    ("event", "error", "message"),
    [
        *((event, ArgumentTypeError, "an integer") for event in ("3", None, 3.0, True, [3, 4])),
        (-1, ArgumentValueError, r"lie in \[0, 2\^63 - 1\]"),
    ],
)
def test_an_event_that_is_no_number_is_refused(event: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^event must (be )?{message}, but is "):
        build_digits(TWO_EVENTS).of_event(event)  # type: ignore[arg-type]  # the point of the test


def test_concatenation_keeps_the_order_given() -> None:
    parts = [build_digits([row]) for row in TWO_EVENTS]
    assert Digits.concatenate(parts) == build_digits(TWO_EVENTS)
    assert Digits.concatenate(iter(reversed(parts))) == build_digits(TWO_EVENTS[::-1])


def test_arrays_are_locked_but_not_the_callers_own() -> None:
    columns = {name: np.zeros(2, dtype) for name, dtype in COLUMN_DTYPES.items()}
    digits = Digits(**columns)
    for name, column in columns.items():
        with pytest.raises(ValueError, match="read-only"):
            getattr(digits, name)[0] = 1
        column[0] = 1
        assert column.tolist() == [1, 0]


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, *(lambda each, p=p: pickle.loads(pickle.dumps(each, p)) for p in range(2, 6))],
)
def test_copies_are_locked_too(copied: Callable[[Digits], Digits]) -> None:
    original = build_digits(TWO_EVENTS)
    other = copied(original)
    assert other == original
    for name, dtype in COLUMN_DTYPES.items():
        assert getattr(other, name).dtype == dtype
        with pytest.raises(ValueError, match="read-only"):
            getattr(other, name)[0] = 1


def test_structured_array_holds_the_columns() -> None:
    table = build_digits(TWO_EVENTS).to_structured()
    assert table.dtype == DIGIT_DTYPE
    assert table["charge"].tolist() == [7, 255, 1]
    assert table["sensor_id"].tolist() == [8480, 19520, 8480]


@given(pixels=st.lists(PIXELS, max_size=30, unique_by=lambda pixel: pixel[:3]))
def test_to_images_puts_each_charge_in_its_pixel_and_nothing_elsewhere(
    pixels: list[tuple[int, int, int, int]],
) -> None:
    images = build_digits([(9, *pixel) for pixel in pixels]).to_images()
    assert images.shape == (N_SENSORS, N_U_CELLS, N_V_CELLS)
    assert images.dtype == np.uint8
    assert [images[pixel[:3]] for pixel in pixels] == [pixel[3] for pixel in pixels]
    assert np.count_nonzero(images) == len(pixels)


def test_to_images_refuses_several_events() -> None:
    with pytest.raises(ArgumentValueError, match=r"these digits belong to 2: select one with of_event\(\)") as caught:
        build_digits(TWO_EVENTS).to_images()
    assert caught.value.argument == "event"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("u_cell", 250, "u_cell must lie between 0 and 249, but a digit has 250"),
        ("u_cell", 65_535, "u_cell must lie between 0 and 249, but a digit has 65535"),
        ("v_cell", 768, "v_cell must lie between 0 and 767, but a digit has 768"),
        ("charge", 0, "charge must lie between 1 and 255 ADU, but a digit has 0"),
        ("sensor_id", 1, "No PXD sensor has the VxdID 1"),
        ("sensor_id", 0, "No PXD sensor has the VxdID 0"),
        ("sensor_id", 8481, "No PXD sensor has the VxdID 8481"),
    ],
)
def test_to_images_refuses_what_lies_nowhere(name: str, value: int, expected: str) -> None:
    one = build_digits(TWO_EVENTS[:2])
    columns = {each: getattr(one, each).copy() for each in COLUMN_DTYPES}
    columns[name][1] = value
    with pytest.raises(ArgumentValueError, match=expected) as caught:
        Digits(**columns).to_images()
    assert caught.value.argument == name


def test_to_images_refuses_a_pixel_that_comes_twice() -> None:
    with pytest.raises(ArgumentValueError, match="Each pixel of an event has at most one digit, but 2 are repeated"):
        build_digits([(3, 0, 1, 2, 7), (3, 0, 1, 2, 9), (3, 0, 1, 2, 7)]).to_images()


@pytest.mark.parametrize("name", list(COLUMN_DTYPES))
@pytest.mark.parametrize("came", ["float64", "list"])
def test_columns_of_another_type_are_refused(name: str, came: str) -> None:
    columns = {each: np.zeros(2, dtype) for each, dtype in COLUMN_DTYPES.items()}
    wrong = np.zeros(2) if came == "float64" else [0, 0]
    message = rf"{name} must be an array of {COLUMN_DTYPES[name]}, but is {came}"
    with pytest.raises(ArgumentTypeError, match=message) as caught:
        Digits(**{**columns, name: wrong})  # type: ignore[arg-type]  # the point of the test
    assert caught.value.argument == name


@pytest.mark.parametrize("name", list(COLUMN_DTYPES))
@pytest.mark.parametrize("mask", [[True, False], False])
def test_masked_columns_are_refused(name: str, mask: list[bool] | bool) -> None:
    columns = {each: np.ones(2, dtype) for each, dtype in COLUMN_DTYPES.items()}
    masked = np.ma.MaskedArray(columns[name], mask=mask)
    with pytest.raises(ArgumentTypeError, match=f"Digits: {name} must be an array without a mask") as caught:
        Digits(**{**columns, name: masked})
    assert caught.value.argument == name
    assert len(Digits(**{**columns, name: masked.filled(1)})) == 2


@pytest.mark.parametrize("name", ["sensor_id", "charge"])
@pytest.mark.parametrize("shape", [(1,), (3,), (2, 1), ()])
def test_columns_of_another_shape_are_refused(name: str, shape: tuple[int, ...]) -> None:
    columns = {each: np.zeros(2, dtype) for each, dtype in COLUMN_DTYPES.items()}
    with pytest.raises(ArgumentValueError, match=f"of equal length, but {name} has the shape {re.escape(str(shape))}"):
        Digits(**{**columns, name: np.zeros(shape, COLUMN_DTYPES[name])})


def test_columns_of_two_dimensions_are_refused_also_if_all_agree() -> None:
    columns = {each: np.zeros((2, 2), dtype) for each, dtype in COLUMN_DTYPES.items()}
    with pytest.raises(ArgumentValueError, match="event has the shape") as caught:
        Digits(**columns)
    assert caught.value.argument == "event"
