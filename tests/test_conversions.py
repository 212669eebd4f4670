"""Digits as tables of other libraries, compared with plain NumPy."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import awkward as ak
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxdbg_runtime import SENSORS, Digits
from pxdbg_runtime.digits import COLUMN_DTYPES
from pxdbg_runtime.errors import ArgumentTypeError, ArgumentValueError, MissingPackageError
from pxdbg_runtime.sensors import unpack_vxd_ids
from tests.digit_files import SAMPLE, random_digits

if TYPE_CHECKING:
    from collections.abc import Callable

GEOMETRY: Final = {"layer": np.dtype(np.uint8), "ladder": np.dtype(np.uint8), "sensor": np.dtype(np.uint8)}
DTYPES: Final = {**COLUMN_DTYPES, **GEOMETRY}


def draw_events(sizes: list[int]) -> Digits:
    """Make digits of the events 0, 2, 4, …, some without any."""
    rng = np.random.default_rng(len(sizes))
    return Digits.concatenate(random_digits(rng, size, 2 * number) for number, size in enumerate(sizes))


event_sizes = st.lists(st.sampled_from([0, 0, 1, 5, 40]), max_size=6)


def test_vxd_ids_are_those_of_the_sensors() -> None:
    numbers = unpack_vxd_ids(np.array([sensor.vxd_id for sensor in SENSORS], dtype=np.uint16))
    assert {name: column.dtype for name, column in numbers.items()} == GEOMETRY
    rows = list(zip(*(column.tolist() for column in numbers.values()), strict=True))
    assert rows == [(sensor.layer, sensor.ladder, sensor.sensor) for sensor in SENSORS]


def test_an_arrow_table_is_not_nullable() -> None:
    table = SAMPLE.to_arrow()
    assert table.schema == pa.schema(
        [pa.field(name, pa.from_numpy_dtype(dtype), nullable=False) for name, dtype in COLUMN_DTYPES.items()]
    )
    for name in COLUMN_DTYPES:
        assert table[name].to_pylist() == getattr(SAMPLE, name).tolist()
    table.validate(full=True)
    with_geometry = SAMPLE.to_arrow(geometry=True)
    assert with_geometry.column_names == list(DTYPES)
    assert with_geometry["layer"].to_pylist() == [1, 2, 1, 1, 2]
    assert not any(field.nullable for field in with_geometry.schema)
    assert Digits.empty().to_arrow(geometry=True).num_rows == 0


def test_a_data_frame_has_the_numbers_of_the_sensor() -> None:
    """A column of pandas has no >> that would unpack a VxdID: the numbers of the sensor come as columns."""
    frame = SAMPLE.to_pandas(geometry=True)
    assert isinstance(frame, pd.DataFrame)
    assert dict(frame.dtypes) == DTYPES
    assert frame["layer"].tolist() == [1, 2, 1, 1, 2]
    assert frame.groupby("event")["charge"].sum().to_dict() == {3: 256, 5: 38}
    frame.loc[0, "charge"] = 9  # a copy
    assert SAMPLE.charge[0] == 1
    assert list(SAMPLE.to_pandas().columns) == list(COLUMN_DTYPES)
    assert len(Digits.empty().to_pandas()) == 0


@given(sizes=event_sizes)
def test_an_awkward_array_has_one_record_for_each_event(sizes: list[int]) -> None:
    digits = draw_events(sizes)
    numbers = range(0, 2 * len(sizes), 2)
    for event_numbers, expected in (
        (numbers, list(numbers)),
        (np.arange(0, 2 * len(sizes), 2), list(numbers)),
        (None, [number for number, size in zip(numbers, sizes, strict=True) if size]),
    ):
        events = digits.to_awkward(event_numbers=event_numbers, geometry=True)
        assert ak.to_list(events["event"]) == expected
        for name in DTYPES:
            if name == "event":
                continue
            columns = {**{name: getattr(digits, name) for name in COLUMN_DTYPES}, **unpack_vxd_ids(digits.sensor_id)}
            assert ak.to_list(events[name]) == [columns[name][digits.event == event].tolist() for event in expected]


def test_an_awkward_array_has_no_options() -> None:
    events = SAMPLE.to_awkward(event_numbers=[3, 4, 5, 6])
    fields = "event: int64, sensor_id: var * uint16, u_cell: var * uint16, v_cell: var * uint16, charge: var * uint8"
    assert str(events.type) == f"4 * {{{fields}}}"
    assert ak.num(events.charge).tolist() == [2, 0, 3, 0]
    assert ak.to_list(ak.run_lengths(events.sensor_id)) == [[1, 1], [], [2, 1], []]
    assert ak.to_list(events.sensor_id >> 13) == [[1, 2], [], [1, 1, 2], []]
    assert ak.is_valid(events)
    assert len(Digits.empty().to_awkward()) == 0
    assert ak.to_list(Digits.empty().to_awkward(event_numbers=[7]).charge) == [[]]


@pytest.mark.parametrize(
    ("event_numbers", "error", "expected"),
    [
        ([3, 4], ArgumentValueError, "event_numbers must hold all events with digits, but lack 5"),
        ([], ArgumentValueError, "but lack 3"),
        ([5, 3], ArgumentValueError, "event_numbers must ascend, but 3 does not come in order"),
        ([3, 3, 5], ArgumentValueError, "event_numbers must ascend, but 3 does not"),
        (np.ma.array([3, 5], mask=[False, True]), ArgumentTypeError, "event_numbers must be an array without a mask"),
        (np.array([3, 5, 2**63], np.uint64), ArgumentValueError, "but one is 9223372036854775808"),
        ([-1, 3, 5], ArgumentValueError, r"must lie in \[0, 2\^63 - 1\], but one is -1"),
        ([[0], [1, 2]], ArgumentTypeError, "must be a sequence of integers, but is an array of object"),
        ([3.0, 5.0], ArgumentTypeError, "must be a sequence of integers, but is an array of float64"),
        ([[3, 5]], ArgumentTypeError, r"must be a sequence of integers, but is an array of int64 and shape \(1, 2\)"),
    ],
)
def test_event_numbers_that_do_not_fit(event_numbers: Any, error: type[Exception], expected: str) -> None:  # noqa: ANN401
    with pytest.raises(error, match=expected):
        SAMPLE.to_awkward(event_numbers=event_numbers)


def test_events_that_come_again_are_records_of_their_own() -> None:
    """Several files of different seeds, one after the other, may have equal numbers."""
    twice = Digits.concatenate([SAMPLE, SAMPLE])
    assert ak.to_list(twice.to_awkward().event) == [3, 5, 3, 5]
    with pytest.raises(ArgumentValueError, match="The digits must be ordered by event, but 3 does not come in order"):
        twice.to_awkward(event_numbers=[3, 5])


@pytest.mark.parametrize(
    ("package", "extra", "convert"),
    [
        ("awkward", "uproot", Digits.to_awkward),
        ("pyarrow", "parquet", Digits.to_arrow),
        ("pandas", "pandas", Digits.to_pandas),
    ],
)
def test_a_missing_package_is_named(
    package: str, extra: str, convert: Callable[[Digits], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        MissingPackageError, match=rf"needs {package}, .*pip install 'pxdbg-runtime\[{extra}\]'\."
    ) as info:
        convert(SAMPLE)
    assert (info.value.package, info.value.extra) == (package, extra)
