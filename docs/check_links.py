"""Check the links of the built site and of the Markdown files beside it, without a network.

    python docs/check_links.py build/docs

Every link to a page, a picture, a file or an anchor of the project must lead somewhere. Links to other sites are
listed, with the pages that have them, in ``external-links.txt`` beside the site; with a network,
``python -m sphinx -b linkcheck docs build/links`` tries them.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

CHECKOUT: Final = Path(__file__).resolve().parent.parent
MARKDOWN: Final = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
_NOT_OURS: Final = re.compile(r"_static/|_sources/")
"""Files of Sphinx's themes and copies of sources, whose links are not those of the site."""
_LINK: Final = re.compile(r"(?<!`)\[[^]]*\]\(([^)\s]+)\)")


@dataclass
class Page:
    """What a page links to, and the anchors that it has."""

    targets: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)


class _PageParser(HTMLParser):
    """Collect targets and anchors of an HTML page."""

    def __init__(self) -> None:
        super().__init__()
        self.page = Page()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value is None:
                continue
            if name == "id" or (name == "name" and tag == "a"):
                self.page.anchors.add(value)
            elif name in {"href", "src"}:
                self.page.targets.append(value)


def read_html(path: Path) -> Page:
    """Read targets and anchors of an HTML page."""
    parser = _PageParser()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser.page


def read_markdown(path: Path) -> Page:
    """Read targets of a Markdown page, and the anchors of its headings as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#{1,6} +(.+)$", text, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
    return Page(targets=_LINK.findall(text), anchors=anchors)


def read_page(path: Path) -> Page:
    """Read a page of either kind; any other file has no anchors."""
    if path.suffix == ".html":
        return read_html(path)
    return read_markdown(path) if path.suffix == ".md" else Page()


def find_broken_links(paths: list[Path]) -> tuple[list[str], dict[str, list[str]]]:
    """Find links that lead nowhere, and list those to other sites with the pages that have them."""
    pages = {path.resolve(): read_page(path) for path in paths}
    broken: list[str] = []
    elsewhere: defaultdict[str, list[str]] = defaultdict(list)
    for path, page in list(pages.items()):
        for target in dict.fromkeys(page.targets):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                if parts.scheme in {"http", "https"}:
                    elsewhere[target].append(path.name)
                continue
            led = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not led.exists():
                broken.append(f"{path.name}: {target} does not exist")
            elif parts.fragment and led.suffix in {".html", ".md"}:
                if led not in pages:
                    pages[led] = read_page(led)
                if unquote(parts.fragment) not in pages[led].anchors:
                    broken.append(f"{path.name}: {target} has no such anchor")
    return broken, dict(elsewhere)


def main(site: Path) -> int:
    """Print each broken link; return the exit code."""
    ours = [path for path in sorted(site.rglob("*.html")) if not _NOT_OURS.search(str(path.relative_to(site)))]
    paths = [*ours, *(CHECKOUT / name for name in MARKDOWN)]
    broken, elsewhere = find_broken_links(paths)
    lines = [f"{target}  ({', '.join(sorted(set(names)))})" for target, names in sorted(elsewhere.items())]
    (site.parent / "external-links.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(paths)} pages, {len(broken)} broken links; {len(lines)} links to other sites were not tried")  # noqa: T201
    for line in broken:
        print(line)  # noqa: T201
    return min(1, len(broken))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
