"""The example that draws all pictures, and the page that shows them."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.digit_files import SAMPLE, names_in, random_digits, write
from tests.test_command_line import invoke

if TYPE_CHECKING:
    from collections.abc import Callable

    from pxdbg_runtime import Digits

CHECKOUT = Path(__file__).resolve().parent.parent
MAX_BYTES = 100_000


@pytest.mark.slow
def test_the_gallery_is_drawn(tmp_path: Path) -> None:
    draw_gallery: Callable[[list[Digits], Path, str], list[Path]]
    draw_gallery = runpy.run_path(str(CHECKOUT / "examples" / "gallery.py"))["draw_gallery"]
    rng = np.random.default_rng(4)
    paths = draw_gallery([random_digits(rng, 2_000, event) for event in range(2)], tmp_path, "two events")
    assert names_in(tmp_path) == sorted(path.name for path in paths) == names_in(CHECKOUT / "docs" / "gallery")
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("bg.parquet", "int8.parquet"):
        write(Path(name), [SAMPLE])
    page = (CHECKOUT / "docs" / "plots.md").read_text(encoding="utf-8")
    found: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL):
        exec(block, found)  # of our own page
    assert names_in(tmp_path) == ["bg.parquet", "charge.png", "int8.parquet", "occupancy.pdf"]
    assert found["charges"].sum() == len(SAMPLE)


def test_the_code_of_overlay_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its first block, which generates an event."""
    monkeypatch.chdir(tmp_path)
    write(Path("bg.parquet"), [SAMPLE])
    assert invoke("overlay", "bg.parquet", "bg.parquet", "--output", "both.parquet").exit_code == 0
    page = (CHECKOUT / "docs" / "overlay.md").read_text(encoding="utf-8")
    _first, last = re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    found: dict[str, Any] = {}
    exec(last, found)  # of our own page
    assert found["record"]["background"]["metadata"]["seed"] == -7


def test_the_page_shows_each_picture_once() -> None:
    page = (CHECKOUT / "docs" / "plots.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^]]+\]\(gallery/([^)]+)\)", page)
    assert sorted(shown) == names_in(CHECKOUT / "docs" / "gallery")
    assert all(path.stat().st_size < MAX_BYTES for path in (CHECKOUT / "docs" / "gallery").iterdir())
