"""Bad digit files: damaged, foreign or with invalid rows; and errors that are not those of the file."""

from __future__ import annotations

import json
import re
import zipfile
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from pxdbg_runtime import N_U_CELLS, N_V_CELLS, SENSORS, Digits
from pxdbg_runtime.checks import MAX_EVENT
from pxdbg_runtime.digits import COLUMN_DTYPES
from pxdbg_runtime.errors import DigitFileError, ImageError, MemoryLimitError, OutputError, PxdbgError, ThreadLimitError
from pxdbg_runtime.formats import open_writer, read_digits
from pxdbg_runtime.formats.damage import report_damage
from pxdbg_runtime.formats.npz import NpzReader
from pxdbg_runtime.formats.parquet import ParquetReader
from tests.digit_files import (
    COLUMNS,
    METADATA,
    NOT_OURS,
    PROVENANCE,
    SAMPLE,
    each_suffix,
    in_first,
    names_in,
    require_refusal,
    write,
    write_plainly,
)
from tests.isolation import limit_file_size

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

NO_INTEGERS: Final = "must hold integers, but holds"
UNREADABLE: Final = f"{NOT_OURS}|cannot be read|does not hold the columns of Digits|does not say how"
N_FLIPPED: Final = 400


@each_suffix
def test_plain_tools_write_what_is_read(tmp_path: Path, suffix: str) -> None:
    """The other tests change one thing in this valid file."""
    # A field of a later release is ignored.
    content = read_digits(write_plainly(tmp_path / f"plain{suffix}", COLUMNS, json.dumps({**METADATA, "later": 1})))
    assert content.digits == SAMPLE
    assert content.provenance == PROVENANCE


@each_suffix
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (in_first("u_cell", 250), "holds u_cell from 17 to 250, expected 0 to 249"),
        (in_first("v_cell", 768), "holds v_cell from 5 to 768, expected 0 to 767"),
        (in_first("charge", 0), "holds charge from 0 to 255, expected 1 to 255"),
        (in_first("sensor_id", 0), "holds the VxdID 0, which is no sensor of the PXD: generate it again"),
        (in_first("sensor_id", 8481), "holds the VxdID 8481, which is no sensor of the PXD: "),
        (in_first("sensor_id", 24_864), "holds the VxdID 24864, which is no sensor of the PXD: "),
        (in_first("event", -1), f"holds event from -1 to 5, expected 0 to {MAX_EVENT}"),
        ({"event": COLUMNS["event"].astype(np.uint64) + np.uint64(2**63)}, "holds event from 9223372036854775811"),
        ({"charge": COLUMNS["charge"].astype(np.int64) + 256}, "holds charge from 257 to 511, expected 1 to 255"),
        ({"sensor_id": COLUMNS["sensor_id"].astype(np.int64) + 2**16}, "holds the VxdID 74016, which"),
        ({"sensor_id": np.full(len(SAMPLE), -1, dtype=np.int8)}, "holds the VxdID -1, which is no sensor"),
        ({"charge": COLUMNS["charge"].astype(np.int8)}, "holds charge from -1 to 22, expected 1 to 255"),
        ({"u_cell": COLUMNS["u_cell"].astype(float)}, f"u_cell {NO_INTEGERS} (float64|double)"),
        ({"u_cell": COLUMNS["u_cell"] > 5}, f"u_cell {NO_INTEGERS} bool"),
        ({"v_cell": np.array(["a"] * 5)}, f"v_cell {NO_INTEGERS} (string|<U1)"),
    ],
)
def test_columns_that_hold_no_digits(
    tmp_path: Path, suffix: str, changes: dict[str, NDArray[Any]], expected: str
) -> None:
    path = write_plainly(tmp_path / f"bad{suffix}", {**COLUMNS, **changes}, json.dumps(METADATA))
    require_refusal(path, expected)


@each_suffix
def test_missing_columns(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bad{suffix}"
    some = {name: COLUMNS[name] for name in ("event", "charge")}
    for columns, expected in ((some, f"{NOT_OURS} .it has no (columns|arrays) sensor_id"), ({}, NOT_OURS)):
        require_refusal(write_plainly(path, columns, json.dumps(METADATA)), expected)


@pytest.mark.parametrize(
    ("name", "column", "expected"),
    [
        ("charge", np.ones(4, np.uint8), r"equal length, but charge has the shape \(4,\) and event \(5,\)"),
        ("event", np.full(1, 3), r"equal length, but sensor_id has the shape \(5,\) and event \(1,\)"),
        ("charge", np.ones((5, 1), np.uint8), r"equal length, but charge has the shape \(5, 1\)"),
        ("event", np.array(3), r"event has the shape \(\)"),
        ("charge", COLUMNS["charge"].astype(object), f"{NOT_OURS}.*charge claims to be an array of object"),
        ("charge", np.zeros(5, [("charge", "u1")]), f"charge {NO_INTEGERS}"),
    ],
)
def test_arrays_that_are_no_columns(tmp_path: Path, name: str, column: NDArray[Any], expected: str) -> None:
    require_refusal(write_plainly(tmp_path / "bad.npz", {**COLUMNS, name: column}, json.dumps(METADATA)), expected)


@pytest.mark.parametrize(
    ("name", "column", "expected"),
    [
        ("charge", pa.array([1, 2, None, 4, 5], pa.uint8()), "charge has 1 empty values"),
        ("event", pa.array([[3]] * 5), f"event {NO_INTEGERS} list<"),
        ("u_cell", pa.array([{"u": 3}] * 5), f"u_cell {NO_INTEGERS} struct<"),
        ("v_cell", pa.array([None] * 5), f"v_cell {NO_INTEGERS} null"),
        ("v_cell", pa.array(["a"] * 5).dictionary_encode(), f"v_cell {NO_INTEGERS} string"),
        ("event", pa.array([3] * 5, pa.timestamp("ns")), f"event {NO_INTEGERS} timestamp"),
    ],
)
def test_parquet_columns_that_are_no_columns(tmp_path: Path, name: str, column: pa.Array, expected: str) -> None:
    path = tmp_path / "bad.parquet"
    table = pa.table({**COLUMNS, name: column}).replace_schema_metadata({"pxdbg": json.dumps(METADATA)})
    pyarrow.parquet.write_table(table, path)
    require_refusal(path, f"does not hold the columns of Digits: {expected}")


WRONG_FIELDS: Final[dict[str, tuple[object, ...]]] = {
    "schema": (2, "1"),
    "model": ("", "\ud800"),  # JSON can spell half of a surrogate pair, which fails wherever it is printed later
    "nature": ("real",),
    "provenance": (None,),
    "precision": ("bfloat16",),
    "graph_sha256": ("0123", "0" * 64 + "\n"),
    "seed": (2**63, 1.5),
    "random_stream": ("mt",),
    "first_event": (-1,),
    "events": (0, 10**9, 10**400),
    "min_charge": (0, 256, True),
    "provider": ([],),
    "version": (1,),
    "sensors": ("1.1.1", [], 8480, ["1.9.1"], ["1.1.1", "1.1.1"], ["1.1.2", "1.1.1"], [*map(str, SENSORS)]),
}
OPTIONAL_FIELDS: Final = ("sensors",)
"""Files of older releases lack them."""


@each_suffix
@pytest.mark.parametrize("field", METADATA)
def test_metadata_without_a_field_or_with_a_wrong_one(tmp_path: Path, suffix: str, field: str) -> None:
    path = tmp_path / f"bad{suffix}"
    without = {key: value for key, value in METADATA.items() if key != field}
    for content, expected in (
        *([] if field in OPTIONAL_FIELDS else [(without, f"the field {field} is missing")]),
        *(({**METADATA, field: value}, f"{field} must be ") for value in WRONG_FIELDS[field]),
    ):
        write_plainly(path, COLUMNS, json.dumps(content))
        require_refusal(path, f"does not say how its digits were generated: {expected}")


@each_suffix
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("made with care", "it is not JSON"),
        ("", "it is not JSON"),
        ('{"schema": 1', "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("[1]", r"it must be an object, but is \[1\]"),
        ("{}", "the field schema is missing"),
        (json.dumps({**METADATA, "first_event": 2**63 - 1}), "events must end at 9223372036854775807, but 4"),
    ],
)
def test_metadata_that_is_none(tmp_path: Path, suffix: str, text: str, expected: str) -> None:
    require_refusal(write_plainly(tmp_path / f"bad{suffix}", COLUMNS, text), expected)


def test_metadata_that_is_no_text(tmp_path: Path) -> None:
    require_refusal(write_plainly(tmp_path / "bad.parquet", COLUMNS, b"\xff\xfe"), NOT_OURS)
    require_refusal(write_plainly(tmp_path / "bad.npz", COLUMNS, b"\xff\xfe"), f"{NOT_OURS} .pxdbg must be a text")


@each_suffix
def test_no_file(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"folder{suffix}").mkdir()
    (tmp_path / "file").touch()
    for name, reason in (
        ("gone", "No such file or directory"),
        ("folder", "Is a directory"),
        ("file/digits", "Not a directory"),
        ("a" * 300, "File name too long"),
    ):
        require_refusal(tmp_path / f"{name}{suffix}", rf"cannot be read: {reason}\.")


@each_suffix
def test_truncated(tmp_path: Path, suffix: str) -> None:
    whole = write(tmp_path / f"whole{suffix}", [SAMPLE]).read_bytes()
    path = tmp_path / f"truncated{suffix}"
    lengths = [*range(20), *range(20, len(whole), 97), *range(len(whole) - 20, len(whole))]
    for length in lengths:
        path.write_bytes(whole[:length])
        require_refusal(path, UNREADABLE)


@each_suffix
@pytest.mark.parametrize("prefix", [b"", b"PAR1", b"PK\x03\x04", b"PK\x05\x06", b"\x93NUMPY\x01\x00", b"\x80\x04."])
def test_random_bytes(tmp_path: Path, suffix: str, prefix: bytes) -> None:
    path = tmp_path / f"random{suffix}"
    rng = np.random.default_rng(len(prefix))
    for n_bytes in (0, 1, 8, 100, 5_000):
        path.write_bytes(prefix + rng.bytes(n_bytes) + (b"PAR1" if prefix == b"PAR1" else b""))
        require_refusal(path, NOT_OURS)


def test_foreign_files(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.table({"charge": [1, 2]}), tmp_path / "foreign.parquet")
    np.savez(tmp_path / "foreign.npz", charge=np.arange(3))
    write(tmp_path / "a.parquet", [SAMPLE]).rename(tmp_path / "parquet.npz")
    write(tmp_path / "a.npz", [SAMPLE]).rename(tmp_path / "npz.parquet")
    for name in names_in(tmp_path):
        require_refusal(tmp_path / name, NOT_OURS)
    np.save(tmp_path / "single.npy", COLUMNS["charge"])
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")
    require_refusal(tmp_path / "single.npz", rf"{NOT_OURS} \(it is a single array\)")
    with zipfile.ZipFile(tmp_path / "archive.npz", "w") as archive:
        archive.writestr("readme.txt", "no array")
        for name in (*COLUMN_DTYPES, "pxdbg"):
            archive.writestr(f"{name}.npy", "no array")
    require_refusal(tmp_path / "archive.npz", f"{NOT_OURS}|does not say how")


# In the directory at the end of a zip file, an entry begins with PK\1\2; flags and method stand 8 and 10 bytes on.
@pytest.mark.parametrize(("offset", "value"), [(8, 1), (10, 99)], ids=["encrypted", "unknown compression"])
def test_entries_that_zipfile_cannot_open(tmp_path: Path, offset: int, value: int) -> None:
    path = write(tmp_path / "bad.npz", [SAMPLE])
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + offset] = value
    path.write_bytes(content)
    require_refusal(path, NOT_OURS)


def require_valid(digits: Digits) -> None:
    assert all(getattr(digits, name).dtype == dtype for name, dtype in COLUMN_DTYPES.items())
    assert all(getattr(digits, name).shape == (len(digits),) for name in COLUMN_DTYPES)
    for event, sensor_id, u_cell, v_cell, charge in digits.to_structured().tolist():
        assert event >= 0
        assert sensor_id in {sensor.vxd_id for sensor in SENSORS}
        assert u_cell < N_U_CELLS
        assert v_cell < N_V_CELLS
        assert charge >= 1


@pytest.mark.parametrize("seed", [1, 2])
@each_suffix
def test_flipped_bytes_never_surprise(tmp_path: Path, suffix: str, seed: int) -> None:
    """Either the damage is found, or the digits are valid; no other exception escapes."""
    whole = write(tmp_path / f"whole{suffix}", [SAMPLE.of_event(3), SAMPLE.of_event(5)]).read_bytes()
    path = tmp_path / f"flipped{suffix}"
    rng = np.random.default_rng(seed)
    n_found = 0
    for _ in range(N_FLIPPED):
        content = bytearray(whole)
        for place in rng.integers(len(whole), size=rng.integers(1, 4)):
            content[place] ^= int(rng.integers(1, 256))
        path.write_bytes(content)
        try:
            require_valid(read_digits(path).digits)
        except DigitFileError as error:
            assert re.search(f"^{re.escape(str(path))} ", str(error))  # noqa: PT017  # reading may succeed too
            n_found += 1
    assert n_found > N_FLIPPED // 2


@each_suffix
def test_a_flipped_byte_does_not_change_digits(tmp_path: Path, suffix: str) -> None:
    """Both formats hold checksums; the test changes every third byte of the first half of the file."""
    whole = write(tmp_path / f"whole{suffix}", [SAMPLE]).read_bytes()
    path = tmp_path / f"flipped{suffix}"
    for place in range(0, len(whole) // 2, 3):
        content = bytearray(whole)
        content[place] ^= 0x04
        path.write_bytes(content)
        try:
            digits = read_digits(path).digits
        except DigitFileError:
            continue
        assert digits == SAMPLE, f"byte {place} of {len(whole)}"


def test_an_interrupt_counts_and_not_that_the_file_cannot_be_closed(tmp_path: Path) -> None:
    path = tmp_path / "digits.parquet"
    with limit_file_size(10), pytest.raises(KeyboardInterrupt, match="enough"), open_writer(path, PROVENANCE):
        raise KeyboardInterrupt("enough")
    message = r"digits\.parquet cannot be written: .*File too large"
    with limit_file_size(10), pytest.raises(OutputError, match=message), open_writer(path, PROVENANCE):
        pass
    assert names_in(tmp_path) == []


@each_suffix
@pytest.mark.parametrize("raised", [MemoryError("Unable to allocate 7 GiB"), pa.ArrowMemoryError("malloc failed")])
def test_too_little_memory_is_not_blamed_on_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, raised: MemoryError
) -> None:
    path = write(tmp_path / f"digits{suffix}", [SAMPLE])

    def fail(*_arguments: object) -> None:
        raise raised

    source = ParquetReader if suffix == ".parquet" else NpzReader
    for method in ("read_texts", "read_blocks"):
        with monkeypatch.context() as patch:
            patch.setattr(source, method, fail)
            message = (
                rf"^There is not enough memory to read {re.escape(str(path))}: {raised}\. .* limit.* more memory\.$"
            )
            with pytest.raises(MemoryLimitError, match=message):
                read_digits(path)


@pytest.mark.parametrize(
    "error", [ThreadLimitError(4, 1, "Four threads."), MemoryLimitError(7, "Importing."), ImageError("An image.")]
)
def test_errors_of_this_package_pass_while_a_file_is_read(tmp_path: Path, error: PxdbgError) -> None:
    with pytest.raises(type(error), match=rf"^{error}$") as caught, report_damage(tmp_path / "digits.npz"):
        raise error
    assert caught.value is error
