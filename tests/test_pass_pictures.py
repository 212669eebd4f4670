"""The pictures of the graph passes are those that the passes draw now, and the page shows each of them."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from export.graph.compiler import list_passes

if TYPE_CHECKING:
    from collections.abc import Callable

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
PAGE: Final = (DOCS / "graph-passes.md").read_text(encoding="utf-8")
DRAWN: Final = [name.removesuffix(".svg").replace("-", " ") for name in re.findall(r"\(passes/(.+\.svg)\)", PAGE)]
SLOW: Final = "compose linear layers"


@pytest.mark.parametrize("name", [name for name in DRAWN if name != SLOW])
def test_a_picture_is_that_of_the_pass(name: str) -> None:
    draw_pass: Callable[[str], str] = runpy.run_path(str(DOCS / "draw_passes.py"))["draw_pass"]
    file = DOCS / "passes" / f"{name.replace(' ', '-')}.svg"
    assert file.read_text(encoding="utf-8") == draw_pass(name), "python docs/draw_passes.py docs/passes"


def test_the_page_tells_every_pass() -> None:
    files = {path.stem.replace("-", " ") for path in (DOCS / "passes").glob("*.svg")}
    assert set(DRAWN) == files
    others = re.findall(r"^\| ([a-z ]+) \|", PAGE.partition("## Without pictures")[2], flags=re.MULTILINE)
    assert {each.name for each in list_passes("cpu")} == files | set(others) - {"pass"}
