"""The example that draws all pictures, and the page that shows them."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tests.digit_files import names_in, random_digits

if TYPE_CHECKING:
    from collections.abc import Callable

    from pxdbg_runtime import Digits

CHECKOUT = Path(__file__).resolve().parent.parent
MAX_BYTES = 100_000


def test_the_gallery_is_drawn(tmp_path: Path) -> None:
    draw_gallery: Callable[[list[Digits], Path, str], list[Path]]
    draw_gallery = runpy.run_path(str(CHECKOUT / "examples" / "gallery.py"))["draw_gallery"]
    rng = np.random.default_rng(4)
    paths = draw_gallery([random_digits(rng, 2_000, event) for event in range(2)], tmp_path, "two events")
    assert names_in(tmp_path) == sorted(path.name for path in paths) == names_in(CHECKOUT / "docs" / "gallery")
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_the_page_shows_each_picture_once() -> None:
    page = (CHECKOUT / "docs" / "plots.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^]]+\]\(gallery/([^)]+)\)", page)
    assert sorted(shown) == names_in(CHECKOUT / "docs" / "gallery")
    assert all(path.stat().st_size < MAX_BYTES for path in (CHECKOUT / "docs" / "gallery").iterdir())
