"""``pxdbg overlay``: the sums, which events come together, and what the file records."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow.parquet
import pytest
from msgspec import structs

from pxdbg_runtime import Digits
from pxdbg_runtime.command_line.console import stderr
from pxdbg_runtime.errors import DigitFileError, OutputError
from pxdbg_runtime.formats import open_events
from pxdbg_runtime.formats.overlaid import OVERLAY_KEY, OverlayRecord, open_overlaid_writer
from pxdbg_runtime.overlaying import OVERLAID_DTYPES, overlay, overlay_event
from pxdbg_runtime.sensors import select_layer
from tests.digit_files import (
    COLUMNS,
    METADATA,
    PROVENANCE,
    SAMPLE,
    digits_of,
    each_suffix,
    list_columns,
    names_in,
    random_digits,
    renumber,
    write,
    write_plainly,
)
from tests.isolation import limit_file_size
from tests.test_command_line import invoke, require_failure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pxdbg_runtime import OverlaidDigits

SIGNAL = digits_of([(4, 8480, 1, 1, 250), (5, 8512, 17, 400, 250), (5, 8512, 17, 402, 9)])
"""Of the events 4 and 5, for the background SAMPLE, which has the events 3 to 6."""
SUMS = [(4, 8480, 1, 1, 250), (5, 8512, 17, 400, 257), (5, 8512, 17, 401, 22), (5, 8512, 17, 402, 9)]
SUMS += [(5, 16_672, 100, 5, 9)]


def read_rows(path: Path) -> list[tuple[int, ...]]:
    table = pyarrow.parquet.read_table(path)
    assert table.schema.names == list(OVERLAID_DTYPES)
    assert not any(field.nullable for field in table.schema)
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def open_record(tmp_path: Path) -> OverlayRecord:
    reader = open_events(write(tmp_path / "bg.npz", [SAMPLE]))
    return OverlayRecord(signal=reader, background=reader, n_events=5, saturate=None, reuses_background=False)


def write_overlaid(path: Path, record: OverlayRecord, events: Iterable[OverlaidDigits]) -> None:
    with open_overlaid_writer(path, record) as write_event:
        for overlaid in events:
            write_event(overlaid)


def read_record(path: Path) -> dict[str, Any]:
    text = pyarrow.parquet.read_metadata(path).metadata[OVERLAY_KEY.encode()]
    record: dict[str, Any] = json.loads(text)
    return record


@each_suffix
def test_sums_of_16_bits_and_both_provenances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """The signal is another tool's file, which has the five columns alone."""
    signal = write_plainly(tmp_path / f"signal{suffix}", list_columns(SIGNAL), None)
    background = write(tmp_path / f"bg{suffix}", [SAMPLE])
    output = tmp_path / "both.parquet"
    monkeypatch.setattr(stderr, "_width", 60)  # on which a long path is not broken
    result = invoke("overlay", signal, background, "--output", output)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"wrote {output}: 2 events, 5 digits, up to 257 ADU\n"
    assert f"not used, for lack of a signal: 2 events of {background}\n" in result.stderr
    assert read_rows(output) == SUMS
    assert str(pyarrow.parquet.read_schema(output).field("charge").type) == "uint16"
    record = read_record(output)
    assert record["signal"] == {"file": f"signal{suffix}", "is_checked": False, "metadata": None}
    assert record["background"] == {"file": f"bg{suffix}", "is_checked": True, "metadata": METADATA}
    assert (record["events"], record["saturate"], record["reuses_background"]) == (2, None, False)
    # Readers of digits refuse what no digit can be, and say it.
    expected = r"both\.parquet holds overlaid digits, whose charges have 16 bits, expected 8: .* --saturate 255"
    require_failure(invoke("show", output), 1, expected)


def test_saturated_sums_are_a_digit_file(tmp_path: Path) -> None:
    signal, background = (
        write_plainly(tmp_path / "s.npz", list_columns(SIGNAL), None),
        write(tmp_path / "b.npz", [SAMPLE]),
    )
    output = tmp_path / "both.parquet"
    result = invoke("overlay", signal, background, "--output", output, "--saturate", 255)
    assert result.stdout.endswith("up to 255 ADU\n")
    assert str(pyarrow.parquet.read_schema(output).field("charge").type) == "uint8"
    read = Digits.concatenate(open_events(output))
    assert read == overlay_event(SIGNAL, SAMPLE.of_event(5), saturate=255).to_digits()
    assert read.charge.tolist() == [250, 255, 22, 9, 9]
    assert read_record(output)["saturate"] == 255
    assert invoke("show", output).exit_code == 0


def test_backgrounds_are_used_in_turn_and_again(tmp_path: Path) -> None:
    """A signal of seven events, some without digits, on four background events of other numbers."""
    rng = np.random.default_rng(2)
    backgrounds = [random_digits(rng, n_hits, event) for event, n_hits in ((3, 50), (4, 0), (5, 80), (6, 10))]
    signals = [random_digits(rng, n_hits, event) for event, n_hits in ((10, 40), (12, 30), (13, 5), (16, 20))]
    provenance = structs.replace(PROVENANCE, first_event=10, events=7)
    signal, background = write(tmp_path / "s.npz", signals, provenance), write(tmp_path / "b.npz", backgrounds)
    output = tmp_path / "both.parquet"
    result = invoke("overlay", signal, background, "--output", output, "--reuse")
    assert result.exit_code == 0, result.stderr
    turn = [renumber(backgrounds[place % 4], 10 + place) for place in range(7)]
    expected = overlay_event(Digits.concatenate(signals), Digits.concatenate(turn))
    assert read_rows(output) == list(zip(*(getattr(expected, n).tolist() for n in OVERLAID_DTYPES), strict=True))
    assert (read_record(output)["events"], read_record(output)["reuses_background"]) == (7, True)
    assert "not used" not in result.stderr


LAYERS: Final = {"both": None, **{str(layer): tuple(map(str, select_layer(layer))) for layer in (1, 2)}}


def write_layer(path: Path, layer: str) -> Path:
    """Write the digits of SIGNAL, which are of layer 1, as a file of some sensors or of unknown ones."""
    if layer == "unknown":
        return write_plainly(path, list_columns(SIGNAL), None)
    provenance = structs.replace(PROVENANCE, sensors=LAYERS[layer])
    return write(path, [] if layer == "2" else [SIGNAL], provenance)


@pytest.mark.parametrize("options", [(), ("--reuse",)])
@pytest.mark.parametrize(
    ("signal", "expected"),
    [
        ("unknown", "bg.npz holds layer 1 alone, but signal.npz has all 40 sensors: .* or without, for all sensors"),
        ("both", "bg.npz holds layer 1 alone, but signal.npz has all 40 sensors"),
        ("2", "bg.npz holds layer 1 alone, but signal.npz has layer 2: .* with the --sensors or --layer of the signal"),
    ],
)
def test_a_background_without_sensors_of_the_signal_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signal: str, expected: str, options: tuple[str, ...]
) -> None:
    write_layer(tmp_path / "signal.npz", signal)
    write_layer(tmp_path / "bg.npz", "1")
    monkeypatch.chdir(tmp_path)
    result = invoke("overlay", "signal.npz", "bg.npz", "--output", "both.parquet", *options)
    require_failure(result, 2, expected)
    assert names_in(tmp_path) == ["bg.npz", "signal.npz"]


@pytest.mark.parametrize(("signal", "background"), [("1", "1"), ("1", "both"), ("unknown", "both"), ("both", "both")])
def test_a_background_with_all_sensors_of_the_signal_is_added(tmp_path: Path, signal: str, background: str) -> None:
    signal_path = write_layer(tmp_path / "signal.npz", signal)
    background_path = write_layer(tmp_path / "bg.npz", background)
    result = invoke("overlay", signal_path, background_path, "--output", tmp_path / "both.parquet")
    assert result.exit_code == 0, result.stderr
    assert read_rows(tmp_path / "both.parquet")[0] == (4, 8480, 1, 1, 500)


@pytest.mark.parametrize(
    ("arguments", "exit_code", "expected"),
    [
        (
            "early.npz bg.npz --output a.parquet",
            2,
            r"early.npz has event 2, and bg.npz has not \(1 such events\).*--reuse",
        ),
        ("signal.npz bg.npz --output a.npz", 2, r"a.npz must end in .parquet, the format of overlaid digits"),
        ("signal.npz bg.npz --output a.parquet --saturate 0", 2, "--saturate"),
        ("signal.npz bg.npz", 2, "Missing option '--output'"),
        ("signal.npz gone.npz --output a.parquet", 1, "gone.npz cannot be read"),
        ("signal.npz bg.npz --output nowhere/a.parquet", 1, "the folder nowhere does not exist"),
        ("bg.parquet bg.npz --output bg.parquet", 2, "--output would write over bg.parquet, which is read"),
        ("signal.npz bg.parquet --output ./bg.parquet", 2, "which is read: name another file to write"),
    ],
)
def test_what_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, exit_code: int, expected: str
) -> None:
    write_plainly(tmp_path / "signal.npz", list_columns(SIGNAL), None)
    write_plainly(tmp_path / "early.npz", {**COLUMNS, "event": np.array([2, 3, 5, 5, 5])}, None)
    for suffix in (".npz", ".parquet"):
        write(tmp_path / f"bg{suffix}", [SAMPLE])
    before = names_in(tmp_path)
    monkeypatch.chdir(tmp_path)
    require_failure(invoke("overlay", *arguments.split()), exit_code, expected)
    assert names_in(tmp_path) == before


@pytest.mark.parametrize("options", [(), ("--reuse",)])
def test_a_background_is_read_to_its_end(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Also the events that are not used: only then are the rows compared with the digest."""
    background = tmp_path / "bg.npz"
    write(background, [SAMPLE])
    with np.load(background) as content:
        stored, digest = dict(content), content.zip.comment
    stored["charge"][-1] += 1
    np.savez(background, **stored)
    with zipfile.ZipFile(background, "a") as changed:
        changed.comment = digest
    signal = write_plainly(tmp_path / "s.npz", list_columns(SIGNAL.of_event(4)), None)
    result = invoke("overlay", signal, background, "--output", tmp_path / "both.parquet", *options)
    require_failure(result, 1, "other rows")
    assert names_in(tmp_path) == ["bg.npz", "s.npz"]


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    background = write(tmp_path / "bg.npz", [random_digits(np.random.default_rng(0), 100_000, 3)])
    with limit_file_size(20_000):
        result = invoke("overlay", background, background, "--output", tmp_path / "both.parquet")
    require_failure(result, 1, r"both\.parquet cannot be written: File too large")
    assert names_in(tmp_path) == ["bg.npz"]


@pytest.mark.parametrize("n_hits", [1, 100_000])
@pytest.mark.parametrize("n_bytes", [3, 100, 1000])
def test_a_disk_that_fills_at_any_byte(tmp_path: Path, n_bytes: int, n_hits: int) -> None:
    """A short file is written when it is closed; after a row group that cannot be written, closing fails too."""
    record = open_record(tmp_path)
    digits = random_digits(np.random.default_rng(0), n_hits, 3)
    overlaid = overlay(digits, digits)
    path = tmp_path / "both.parquet"
    with limit_file_size(n_bytes), pytest.raises(OutputError, match="cannot be written: File too large") as caught:
        write_overlaid(path, record, [overlaid])
    assert caught.value.path == path
    assert names_in(tmp_path) == ["bg.npz"]


def test_an_error_of_an_input_on_a_full_disk(tmp_path: Path) -> None:
    record = open_record(tmp_path)
    error = DigitFileError(record.signal.path, "bg.npz is damaged.")

    def read_damaged() -> Iterator[OverlaidDigits]:
        yield overlay(SAMPLE, SAMPLE)
        raise error

    with limit_file_size(3), pytest.raises(DigitFileError, match=r"^bg\.npz is damaged\.$") as caught:
        write_overlaid(tmp_path / "both.parquet", record, read_damaged())
    assert caught.value is error
    assert names_in(tmp_path) == ["bg.npz"]


def test_long_files_have_row_groups_of_whole_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pxdbg_runtime.formats.overlaid._GROUP_ROWS", 100)
    rng = np.random.default_rng(3)
    record = open_record(tmp_path)
    events = [random_digits(rng, n_hits, event) for event, n_hits in enumerate([60, 70, 0, 200, 1])]
    path = tmp_path / "both.parquet"
    write_overlaid(path, record, (overlay(digits, digits) for digits in events))
    file = pyarrow.parquet.ParquetFile(path)
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [130, 200, 1]
    assert np.array_equal(file.read()["charge"], 2 * np.concatenate([each.charge.astype(int) for each in events]))


def test_a_large_event_is_one_row_group(tmp_path: Path) -> None:
    """By itself pyarrow begins another group after 1,048,576 rows."""
    digits = random_digits(np.random.default_rng(3), 1_050_000, 0)
    path = tmp_path / "both.parquet"
    write_overlaid(path, open_record(tmp_path), [overlay(digits, digits)])
    assert pyarrow.parquet.read_metadata(path).num_row_groups == 1
