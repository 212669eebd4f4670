"""The sections that errors refer to exist, and are shown after the message."""

from __future__ import annotations

import importlib.metadata
import inspect
import re
from email.message import Message
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import typer

import export.errors
from pxdbg_runtime.command_line.console import report_failures
from pxdbg_runtime.documentation import link_section
from pxdbg_runtime.errors import ArgumentValueError, MemoryLimitError, PxdbgError

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
SECTION: Final = "running.md#grid-slots"


def list_errors(kind: type[PxdbgError] = PxdbgError) -> Iterator[type[PxdbgError]]:
    for each in kind.__subclasses__():
        yield each
        yield from list_errors(each)


def list_anchors(page: str) -> set[str]:
    """List the anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#{1,4} +(.+)$", (DOCS / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_all_sections_exist() -> None:
    assert export.errors.FidelityError in list_errors()
    sections = {error.docs_section for error in list_errors() if error.docs_section} | {"running.md#providers"}
    assert len(sections) >= 13
    for section in sections:
        page, _, anchor = section.partition("#")
        assert anchor in list_anchors(page), section


def test_every_error_says_what_to_do() -> None:
    """In the second paragraph of its docstring, from which docs/conf.py writes the page of the errors."""
    for error in list_errors():
        if not error.__name__.startswith("_"):
            when, advice, *attributes = inspect.cleandoc(error.__doc__ or "").split("\n\n")
            assert when.endswith("."), error
            assert advice.endswith("."), error
            assert not attributes or attributes[0].startswith("Attributes\n"), error


def fail(error: PxdbgError) -> None:
    with report_failures():
        raise error


def test_the_section_follows_the_message(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        fail(MemoryLimitError(1, "It does not fit."))
    assert capsys.readouterr().err == f"Error: It does not fit.\nSee {link_section(SECTION)}\n"


def test_a_message_that_says_all_stands_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        fail(ArgumentValueError("seed", "seed must be smaller."))
    assert capsys.readouterr().err == "Error: seed must be smaller.\n"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://docs.example.org/en/", "https://docs.example.org/en/running.html#grid-slots"),
        ("https://pxdbg-runtime.invalid/", f"docs/{SECTION}"),
        (None, f"docs/{SECTION}"),
    ],
)
def test_the_site_is_that_of_the_metadata(monkeypatch: pytest.MonkeyPatch, address: str | None, expected: str) -> None:
    metadata = Message()
    metadata["Project-URL"] = "Changelog, https://example.org/changes"
    if address is not None:
        metadata["Project-URL"] = f"Documentation, {address}"
    monkeypatch.setattr(importlib.metadata, "metadata", lambda _: metadata)
    assert link_section(SECTION) == expected


def test_without_metadata_the_sources_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Message:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "metadata", refuse)
    assert link_section(SECTION) == f"docs/{SECTION}"
