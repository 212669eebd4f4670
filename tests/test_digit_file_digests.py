"""The digest of a digit file: how it is computed, which changes it finds, and files without one."""

from __future__ import annotations

import hashlib
import itertools
import json
import zipfile
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from msgspec.structs import replace

from pxdbg_runtime.digits import COLUMN_DTYPES
from pxdbg_runtime.errors import DigitFileError
from pxdbg_runtime.formats import open_events, read_digits
from tests.digit_files import COLUMNS, PROVENANCE, SAMPLE, each_suffix, require_refusal, write, write_plainly
from tests.test_command_line import invoke, require_failure, words

if TYPE_CHECKING:
    from pathlib import Path

CHANGED: Final = "it is damaged, or was changed after it was written: generate it again"


def read_stored_digest(path: Path) -> str:
    if path.suffix == ".npz":
        with np.load(path) as content:
            return str(content.zip.comment.decode())
    metadata: dict[bytes, bytes] = pyarrow.parquet.read_metadata(path).metadata
    return metadata[b"pxdbg_digest"].decode()


@each_suffix
def test_the_digest_as_it_is_documented(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"bg{suffix}", [SAMPLE.of_event(3), SAMPLE.of_event(5)])
    columns = [
        hashlib.sha256(getattr(SAMPLE, name).astype(dtype.newbyteorder("<")).tobytes()).digest()
        for name, dtype in COLUMN_DTYPES.items()
    ]
    assert json.loads(read_stored_digest(path)) == {
        "schema": 1,
        "rows": 5,
        "rows_sha256": hashlib.sha256(b"".join(columns)).hexdigest(),
        "metadata_sha256": hashlib.sha256(PROVENANCE.to_json().encode()).hexdigest(),
    }
    assert read_digits(path).is_checked
    assert open_events(path).is_checked
    assert "digest: checked" in words(invoke("show", path).stdout)


@each_suffix
def test_files_of_older_releases_have_no_digest(tmp_path: Path, suffix: str) -> None:
    path = write_plainly(tmp_path / f"bg{suffix}", COLUMNS, PROVENANCE.to_json())
    content = read_digits(path)
    assert (content.digits, content.provenance, content.is_checked) == (SAMPLE, PROVENANCE, False)
    assert not open_events(path).is_checked
    assert "digest: not checked (an older release or another tool wrote the file)" in words(invoke("show", path).stdout)


def with_digest_of(path: Path, source: Path, columns: pa.Table) -> None:
    """Write rows with the metadata, digest and mark of another file, as only an attacker or an accident does."""
    texts = pyarrow.parquet.read_metadata(source).metadata
    with path.open("wb") as file:
        sink = pa.PythonFile(file, "w")
        with pyarrow.parquet.ParquetWriter(sink, columns.schema) as writer:
            writer.write_table(columns)
            writer.add_key_value_metadata({key: text for key, text in texts.items() if key.startswith(b"pxdbg")})
            sink.write(b"pxdbg_digest\n")


def test_rows_that_differ_from_the_digest(tmp_path: Path) -> None:
    """Each value is valid, so only the digest reveals the change."""
    source = write(tmp_path / "source.parquet", [SAMPLE])
    path = tmp_path / "bg.parquet"
    table = pa.table({name: getattr(SAMPLE, name) for name in COLUMN_DTYPES})
    with_digest_of(path, source, table)
    assert read_digits(path).is_checked
    other_charge = table.set_column(4, "charge", pa.array([1, 255, 7, 22, 10], pa.uint8()))
    for changed in (other_charge, table.slice(0, 4), table.slice(0, 0)):
        with_digest_of(path, source, changed)
        require_refusal(path, f"holds other rows than those that its digest was computed from: {CHANGED}")
        require_failure(invoke("show", path), 1, "other rows")
        require_failure(invoke("plot", path, "--output", tmp_path / "event.png"), 1, "other rows")
        assert not (tmp_path / "event.png").exists()


def test_an_edited_seed_of_parquet(tmp_path: Path) -> None:
    path = write(tmp_path / "bg.parquet", [SAMPLE], replace(PROVENANCE, seed=7))
    content = path.read_bytes()
    assert content.count(b'"seed": 7') == 1
    path.write_bytes(content.replace(b'"seed": 7', b'"seed": 9'))
    expected = f"has other metadata than those that its digest was computed from: {CHANGED}"
    require_refusal(path, expected)
    require_failure(invoke("show", path), 1, expected)


def test_metadata_of_another_npz(tmp_path: Path) -> None:
    path = write(tmp_path / "bg.npz", [SAMPLE])
    digest = read_stored_digest(path)
    with np.load(path) as content:
        arrays = {**content, "pxdbg": np.array(replace(PROVENANCE, seed=9).to_json())}
    np.savez(path, **arrays)
    assert not read_digits(path).is_checked
    for comment, expected in (
        (digest.encode(), "has other metadata than those that its digest was computed from"),
        (digest.replace("schema", "scheme").encode(), "has a digest that cannot be read"),
        (b"Written by another tool, in Latin-1: \xe4.", None),
    ):
        with zipfile.ZipFile(path, "a") as archive:
            archive.comment = comment
        if expected:
            require_refusal(path, f"{expected}: {CHANGED}")
    assert not read_digits(path).is_checked


def test_a_flipped_bit_of_the_footer_is_an_error_or_changes_nothing(tmp_path: Path) -> None:
    """The footer has no checksum: the test flips one bit in every second byte."""
    path = write(tmp_path / "bg.parquet", [SAMPLE.of_event(3), SAMPLE.of_event(5)])
    whole = path.read_bytes()
    footer = int.from_bytes(whole[-8:-4], "little") + 8
    n_found = n_read = 0
    for place, bit in zip(range(len(whole) - footer, len(whole), 2), itertools.cycle((0, 3, 6, 1, 5)), strict=False):
        content = bytearray(whole)
        content[place] ^= 1 << bit
        path.write_bytes(content)
        try:
            found = read_digits(path)
        except DigitFileError:
            n_found += 1
            continue
        n_read += 1
        assert (found.digits, found.provenance, found.is_checked) == (SAMPLE, PROVENANCE, True), (
            f"bit {bit} of byte {place}"
        )
    # What changes nothing: names of other texts, statistics, Arrow's copy of the schema.
    assert n_found > 500
    assert n_found + n_read == -(-footer // 2)


def test_a_cut_comment_of_an_npz(tmp_path: Path) -> None:
    """zipfile accepts a file that ends within its comment."""
    path = write(tmp_path / "bg.npz", [SAMPLE])
    whole = path.read_bytes()
    for length in range(len(whole) - len(read_stored_digest(path)) - 3, len(whole)):
        path.write_bytes(whole[:length])
        require_refusal(path, "is damaged|cannot be read")
