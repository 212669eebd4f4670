"""docs/formats.md: each format has a section, and its Python code runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from msgspec.structs import replace

from pxdbg_runtime.formats import FORMATS
from tests.digit_files import PROVENANCE, SAMPLE, renumber, write
from tests.test_formats import name_file

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "formats.md"


def read_sections() -> dict[str, str]:
    parts = re.split(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(["", *parts[1::2]], parts[::2], strict=True))


def find_code(text: str) -> Iterator[str]:
    yield from re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", FORMATS)
def test_the_code_of_each_format_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    write(name_file(Path(), name, "bg"), [SAMPLE], format_name=name)
    blocks = list(find_code(read_sections()[name]))
    assert blocks
    found: dict[str, object] = {}
    for block in blocks:
        exec(block, found)  # of our own page
    if name == "parquet-compact":
        table = found["table"]
        assert table["u_cell"].tolist() == SAMPLE.u_cell.tolist()  # type: ignore[index]
        assert table["v_cell"].tolist() == SAMPLE.v_cell.tolist()  # type: ignore[index]
    elif name == "overlay":
        assert found["number"].to_list() == [3, 4, 5, 6]  # type: ignore[attr-defined]
        assert found["charge"].to_list() == [[1, 255], [], [7, 22, 9], []]  # type: ignore[attr-defined]
    elif "charge" in found:
        expected = SAMPLE.of_event(3) if name == "hdf5" else SAMPLE
        assert found["charge"].tolist() == expected.charge.tolist()  # type: ignore[attr-defined]
    elif "events" in found:
        assert found["events"].charge.to_list() == [[1, 255], [], [7, 22, 9], []]  # type: ignore[attr-defined]


def test_the_first_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    later = replace(PROVENANCE, first_event=8, events=2)
    write(Path("monday.parquet"), [SAMPLE])
    write(Path("tuesday.root"), [renumber(SAMPLE.of_event(5), 9)], later, "ttree")
    (block,) = find_code(read_sections()[""])
    found: dict[str, object] = {}
    exec(block, found)  # of our own page
    assert found["events"].event.to_list() == [3, 5, 9]  # type: ignore[attr-defined]
    lines = capsys.readouterr().out.splitlines()
    assert lines[:-1] == ["2 256", "0 0", "3 38", "0 0", "0 0", "3 38"]
    assert lines[-1] == str((PROVENANCE, later))


def test_the_table_lists_all_formats() -> None:
    listed = re.findall(r"^\| \[`([a-z0-9-]+)`\]\(#\1\) \| (.+?) \|", read_sections()[""], flags=re.MULTILINE)
    suffixes = {name: tuple(re.findall(r"`([^`]+)`", each)) for name, each in listed}
    assert {name: each.suffixes for name, each in FORMATS.items()}.items() <= suffixes.items()
