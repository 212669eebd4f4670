"""The program that checks the links of the site finds what is broken, and nothing else."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM = Path(__file__).resolve().parent.parent / "docs" / "check_links.py"


def test_broken_links_are_found_and_those_to_other_sites_listed(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(
        '<h1 id="top">x</h1><a href="#top">1</a><a href="#gone">2</a><a href="other.md#a-heading--here">3</a>'
        '<a href="lost.html">4</a><img src="lost.png"><a href="https://example.org/">5</a><a href="mailto:a@b.c">6</a>'
    )
    (tmp_path / "other.md").write_text(
        "# A heading & here\n[1](page.html#top) [2](page.html#bottom)\n```\n[3](code.md)\n```\n"
    )
    find_broken_links: Callable[[list[Path]], tuple[list[str], dict[str, list[str]]]]
    find_broken_links = runpy.run_path(str(PROGRAM))["find_broken_links"]
    broken, elsewhere = find_broken_links([tmp_path / "page.html", tmp_path / "other.md"])
    assert broken == [
        "page.html: #gone has no such anchor",
        "page.html: lost.html does not exist",
        "page.html: lost.png does not exist",
        "other.md: page.html#bottom has no such anchor",
    ]
    assert elsewhere == {"https://example.org/": ["page.html"]}
