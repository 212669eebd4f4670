"""Digit files for the tests: digits, a provenance, and writers of valid and of arbitrary files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from msgspec import structs

from pxdbg_runtime import DIGIT_DTYPE, N_SENSORS, N_U_CELLS, N_V_CELLS, SENSORS, Digits
from pxdbg_runtime.digits import COLUMN_DTYPES
from pxdbg_runtime.errors import DigitFileError
from pxdbg_runtime.formats import SUFFIX_LIST, FileMetadata, Provenance, open_events, open_writer, read_digits
from pxdbg_runtime.formats.run_numbers import RunNumbers
from pxdbg_runtime.plots.summary import SummaryCounter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pxdbg_runtime import Sensor
    from pxdbg_runtime.plots.summary import PartSummary

Hit = tuple[int, int, int, int, int]
"""Event, VxdID, u cell, v cell, charge."""

PROVENANCE: Final = Provenance(
    model="tiny",
    nature="demonstration",
    provenance="Made for a test: größer.",
    precision="float32",
    graph_sha256="0123456789abcdef" * 4,
    seed=-7,
    random_stream="philox",
    first_event=3,
    events=4,
    min_charge=1,
    provider="CPUExecutionProvider",
    version="0.1.0",
)

PLAIN_SUFFIXES: Final = (".parquet", ".npz")
"""Of the formats that `write_plainly` writes too; test_formats has the tests of all formats."""
each_suffix = pytest.mark.parametrize("suffix", PLAIN_SUFFIXES)
ANY_SUFFIX: Final = re.escape(SUFFIX_LIST)
"""Pattern of what messages say about the suffix of a digit file."""


def digits_of(hits: Iterable[Hit]) -> Digits:
    table = np.array(list(hits), dtype=DIGIT_DTYPE)
    return Digits(**{name: table[name].copy() for name in COLUMN_DTYPES})


def list_columns(digits: Digits) -> dict[str, NDArray[Any]]:
    return {name: getattr(digits, name) for name in COLUMN_DTYPES}


def random_digits(rng: np.random.Generator, n_hits: int, event: int) -> Digits:
    """Make digits of one event with different pixels, in order."""
    pixels = np.sort(rng.choice(N_SENSORS * N_U_CELLS * N_V_CELLS, n_hits, replace=False))
    index, u_cell, v_cell = np.unravel_index(pixels, (N_SENSORS, N_U_CELLS, N_V_CELLS))
    vxd_ids = np.array([sensor.vxd_id for sensor in SENSORS], dtype=np.uint16)
    return Digits(
        event=np.full(n_hits, event, dtype=np.int64),
        sensor_id=vxd_ids[index],
        u_cell=u_cell.astype(np.uint16),
        v_cell=v_cell.astype(np.uint16),
        charge=rng.integers(1, 256, n_hits).astype(np.uint8),
    )


def summarise(digits: Digits, n_events: int, sensors: Sequence[Sensor] = SENSORS) -> tuple[PartSummary, ...]:
    counter = SummaryCounter()
    counter.add(digits)
    return counter.summarise(n_events, sensors)


def renumber(digits: Digits, event: int) -> Digits:
    """Give the same pixels and charges to another event."""
    return Digits(**{**list_columns(digits), "event": np.full(len(digits), event)})


SAMPLE: Final = digits_of(
    [
        (3, 8480, 0, 0, 1),
        (3, 19520, 249, 767, 255),
        (5, 8512, 17, 400, 7),
        (5, 8512, 17, 401, 22),
        (5, 16672, 100, 5, 9),
    ]
)
"""Digits of the events 3 and 5 of the four of PROVENANCE; the limits of each column occur."""
NOT_OURS: Final = "is not a digit file written by pxdbg-runtime, or is damaged"
COLUMNS: Final[dict[str, NDArray[Any]]] = list_columns(SAMPLE)
METADATA: Final = {"schema": 1, **structs.asdict(PROVENANCE)}


def build_metadata(*jobs: Provenance) -> FileMetadata:
    """Build metadata with which every format can be written."""
    return FileMetadata(jobs=jobs, run_numbers=RunNumbers(experiment=1003))


def write(
    path: Path,
    parts: Iterable[Digits],
    provenance: Provenance | FileMetadata = PROVENANCE,
    format_name: str | None = None,
) -> Path:
    """Write a file; a format that is named gets all that any format needs beside the jobs."""
    if format_name is not None and isinstance(provenance, Provenance):
        provenance = build_metadata(provenance)
    with open_writer(path, provenance, format_name=format_name) as writer:
        for digits in parts:
            writer.write(digits)
    return path


def write_plainly(path: Path, columns: Mapping[str, NDArray[Any]], text: str | bytes | None) -> Path:
    """Write a file with plain NumPy or pyarrow, so that it can hold anything."""
    if path.suffix == ".npz":
        metadata = {} if text is None else {"pxdbg": np.array(text)}
        np.savez(path, **columns, **metadata)  # type: ignore[arg-type]  # no column is called allow_pickle
    else:
        table = pa.table(columns).replace_schema_metadata(None if text is None else {"pxdbg": text})
        pyarrow.parquet.write_table(table, path)
    return path


def in_first(name: str, value: int) -> dict[str, NDArray[Any]]:
    """Put a value into the first row of a column of SAMPLE."""
    column = COLUMNS[name].copy()
    column[0] = value
    return {**COLUMNS, name: column}


def read_provenance(path: Path) -> Provenance:
    """Read the provenance of a file, which must be known."""
    provenance = read_digits(path).provenance
    assert provenance is not None
    return provenance


def require_refusal(path: Path, expected: str) -> None:
    """Require the same error from both ways to read a file."""
    messages = []
    for read in (read_digits, lambda path: list(open_events(path))):
        with pytest.raises(DigitFileError, match=expected) as info:
            read(path)
        assert info.value.path == path
        messages.append(str(info.value))
    assert messages[0] == messages[1]
    assert messages[0].startswith(str(path))
    assert "\n" not in messages[0]


def names_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())
