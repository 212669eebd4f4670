"""Texts of files that try to be more than texts: for a terminal, for rich, for a browser, and as lines of ours."""

from __future__ import annotations

import html.parser
import json
import re
from typing import TYPE_CHECKING, Any, Final

import pytest
from msgspec import structs

from pxdbg_runtime.errors import MarginalsError
from pxdbg_runtime.formats.metadata import explain_difference
from pxdbg_runtime.validation.marginals import read_marginals
from tests.digit_files import PROVENANCE, SAMPLE, write
from tests.graphs import LATENT_CARD, latent_model, write_graph
from tests.test_command_line import invoke
from tests.validation_samples import build_marginals_content, write_marginals

if TYPE_CHECKING:
    from pathlib import Path

FORGED: Final = "digest: checked"
EVIL: Final = (
    f"\x1b[2J\x1b]8;;https://example.invalid\x07[link=https://example.invalid]here[/link]\n{FORGED}\r"
    "<script>alert('&')</script><img src=x onerror=alert(1)>\u202e"
)
BARE_LINES: Final = re.compile(rf"^{FORGED}", re.MULTILINE)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    card = structs.replace(LATENT_CARD, name=EVIL, family=EVIL, provenance=EVIL, nature="demonstration", min_charge=7)
    return write_graph(tmp_path / "graph.onnx", latent_model(), card).path


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    return write(tmp_path / "bg.npz", [SAMPLE], structs.replace(PROVENANCE, model=EVIL, provenance=EVIL, provider=EVIL))


def require_harmless(printed: str, *, says: str = "[link=https://example.invalid]here[/link]") -> None:
    assert says in " ".join(printed.split())
    assert not set(printed) & set("\x1b\x07\r\u202e")
    assert not BARE_LINES.search(printed)


@pytest.mark.parametrize("command", ["show", "generate", "check"])
def test_a_card_is_shown_harmlessly(graph: Path, command: str) -> None:
    options = ("--output", graph.parent / "out.npz", "--seed", 1) if command == "generate" else ()
    model = ("--model", graph) if command == "generate" else (graph,)
    result = invoke(command, *map(str, (*model, *options)))
    assert result.exit_code == (1 if command == "check" else 0)  # it has no known answers
    says = "https://example" if command == "check" else "[link=https://example.invalid]here[/link]"
    require_harmless(re.sub(r"[│┃]", "", result.output), says=says)


def test_show_prints_provenance_harmlessly(digits: Path) -> None:
    result = invoke("show", digits)
    assert result.exit_code == 0
    own = [line for line in result.stdout.splitlines() if line.startswith("digest: ")]
    assert own == ["digest: checked"]  # ours
    require_harmless(result.stdout.replace("\ndigest: checked", "", 1) + result.stderr)


def test_every_command_that_reads_digits_prints_provenance_harmlessly(digits: Path, tmp_path: Path) -> None:
    commands = (
        ("convert", digits, "--output", tmp_path / "out.parquet"),
        ("merge", digits, "--output", tmp_path / "merged.npz"),
        ("plot", digits, "--output", tmp_path / "event.svg"),
    )
    for command in commands:
        result = invoke(*map(str, command))
        assert result.exit_code == 0, result.output
        require_harmless(result.output, says="wrote")
    drawing = (tmp_path / "event.svg").read_text(encoding="utf-8")
    assert "<script" not in drawing
    assert "<img" not in drawing


def test_errors_quote_texts_harmlessly(tmp_path: Path) -> None:
    content = build_marginals_content()
    content[EVIL] = 1
    path = write_marginals(tmp_path / "evil.json", content)
    digits = write(tmp_path / "bg.npz", [SAMPLE])
    result = invoke("show", digits, "--reference", path)
    assert result.exit_code == 1
    require_harmless(result.stderr, says="is unknown")
    error, link = result.stderr.splitlines()
    assert error.startswith("Error: ")
    assert link.startswith("See docs/validation.md")


class _Elements(html.parser.HTMLParser):
    """Collects the elements of a page, and attributes that run scripts or load something."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.active: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        for name, value in attrs:
            is_picture = (value or "").startswith("data:image/png;base64,")
            if name.startswith("on") or (name in {"src", "href", "srcset", "style"} and not is_picture):
                self.active.append((name, value))


@pytest.mark.slow
def test_a_report_holds_no_script(tmp_path: Path) -> None:
    content = build_marginals_content("<b>ieagan</b><script>alert(2)</script>")
    content["source"] = EVIL
    reference = write_marginals(tmp_path / "marginals.json", content)
    provenance = structs.replace(PROVENANCE, model=EVIL, provenance=EVIL, min_charge=1)
    digits = write(tmp_path / "<script>alert(3)<script>.npz", [SAMPLE], provenance)
    report = tmp_path / "report.html"
    result = invoke("validate", digits, "--reference", reference, "--report", report)
    assert result.exit_code == 0, result.output
    require_harmless(result.output)
    page = report.read_text(encoding="utf-8")
    elements = _Elements()
    elements.feed(page)
    assert "script" not in elements.names
    assert elements.active == []
    assert "&lt;script&gt;alert" in page
    assert json.loads(report.with_suffix(".json").read_text(encoding="utf-8"))


def test_texts_of_two_jobs_are_compared_on_one_line() -> None:
    other = structs.replace(PROVENANCE, first_event=7, provenance=f"two\nlines{'x' * 5000}")
    difference = explain_difference(PROVENANCE, other)
    assert difference.startswith(r"their provenance differs, Made for a test: größer. and 'two\nlinesxxx")
    assert len(difference) < 400


def test_a_name_of_a_sample_is_shown_on_one_line(tmp_path: Path) -> None:
    content: dict[str, Any] = build_marginals_content("two\nlines")
    del content["samples"]["two\nlines"]["charge_counts"]
    path = write_marginals(tmp_path / "marginals.json", content)
    with pytest.raises(MarginalsError, match=r'in samples\."two\\nlines", the field charge_counts is missing\.$'):
        read_marginals(path)
