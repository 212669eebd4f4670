"""Sphinx: the documentation site. ``make docs`` builds it, with warnings as errors."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer.cli
import typer.main
from typer.main import get_command

import export.errors
import pxdbg_runtime.errors
from pxdbg_runtime import __version__
from pxdbg_runtime.command_line import app as program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx

    from pxdbg_runtime.errors import PxdbgError

project = "pxdbg-runtime"
author = "The pxdbg_runtime developers"
copyright = f"2026, {author}"  # noqa: A001  # the name is Sphinx's
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_design", "sphinx_gallery.gen_gallery"]
myst_enable_extensions = ["attrs_inline", "colon_fence"]
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_use_rtype = False
exclude_patterns = ["examples"]
smartquotes = False  # dashes of options stay two
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_title = f"{project} {version}"
html_extra_path = ["campaign.html", "validation-convnet.html", "validation-ieagan.html", "validation-resnet.html"]
linkcheck_timeout = 20
sys.path.insert(0, str(Path(__file__).parent))  # for figure_scraper
sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "example-pages",
    "filename_pattern": r"/first_",  # these pages run
    "image_scrapers": ("figure_scraper.scrape_figures",),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
}


def write_command_reference(sphinx: Sphinx) -> None:
    """Write the page of the command line from the commands' own help texts."""
    command: Any = get_command(program)
    with command.make_context("pxdbg", [], resilient_parsing=True) as context:
        text = typer.cli.get_docs_for_click(obj=command, ctx=context, name="pxdbg", title="Command line")
    text = re.sub(r"(?<=: One of:\n)\n((?:[a-z0-9-]+: .*\n+)+)", _indent_choices, text)
    for each in _list_commands(command):
        text = text.replace(f"* `{each.name}`: {each.get_short_help_str()}\n", f"* `{each.name}`: {_summarise(each)}\n")
    text = re.sub(r"^([A-Z][^:`\n]*): (pxdbg .+)$", r"\1: `\2`", text, flags=re.MULTILINE)  # examples
    (sphinx.srcdir / "command-line.md").write_text(text, encoding="utf-8")


def _list_commands(group: Any) -> Iterator[Any]:  # noqa: ANN401  # click's, or typer's own copy of it
    """List the commands of a group, and those of the groups in it."""
    for each in group.commands.values():
        yield each
        if hasattr(each, "commands"):
            yield from _list_commands(each)


def _summarise(command: Any) -> str:  # noqa: ANN401
    """Find the first sentence of a command's help, which typer would cut at 45 letters."""
    text = " ".join(inspect.cleandoc(command.help).split("\n\n")[0].split())
    return re.split(r"(?<=\.) (?=[A-Z])", text)[0]


def _indent_choices(found: re.Match[str]) -> str:
    """Make a list below an option of the choices that its help has a paragraph for."""
    return "".join(f"  * {line}\n" for line in found[1].splitlines() if line)


ERRORS_INTRODUCTION = """# Errors

Every error that this package raises is a `pxdbg_runtime.errors.PxdbgError` and an exception of Python too, so that
`except ValueError` and the like catch it. Its message says what was expected, what came and what to do. The command
line prints the message after `Error:`, with a link to a section of this documentation if there is more to say, and ends
with exit code 1, or 2 for a wrong argument ([exit codes](running.md#exit-codes-and-signals)).
"""


def describe_error(kind: type[PxdbgError]) -> str:
    """Write the section of an error: its built-in base, when it is raised, what to do, its attributes, and a link."""
    base = next(each for each in kind.__mro__ if each.__module__ == "builtins").__name__
    paragraphs = inspect.cleandoc(kind.__doc__ or "").replace("``", "`").split("\n\n")
    when, advice, *rest = paragraphs
    more = f" [More]({kind.docs_section})" if kind.docs_section else ""
    parts = [f"### {kind.__name__}", f"`{base}`. {when}", f"**What to do.** {advice}{more}"]
    if rest:
        attributes = re.split(r"\n(?=\S)", rest[0])[2:]  # after the heading and its underline
        parts.append("\n".join(map(_describe_attribute, attributes)))
    return "\n\n".join(parts) + "\n"


def _describe_attribute(attribute: str) -> str:
    """Write a line from "name : type" and the text below it; without a text, the type stands for it."""
    head, _, text = attribute.partition("\n")
    name, _, kind = head.partition(" : ")
    return f"- `{name}`: {' '.join(text.split()) or kind}"


def write_error_reference(sphinx: Sphinx) -> None:
    """Write the page of the errors from the docstrings of their classes."""
    parts = [ERRORS_INTRODUCTION]
    for title, module in (
        ("Errors of pxdbg and the library", pxdbg_runtime.errors),
        ("Errors of the export", export.errors),
    ):
        kinds = [getattr(module, name) for name in module.__all__ if name[0].isupper() and name != "PxdbgError"]
        parts += [f"## {title}\n", *map(describe_error, kinds)]
    (sphinx.srcdir / "errors.md").write_text("\n".join(parts), encoding="utf-8")


def setup(sphinx: Sphinx) -> None:
    """Register what is made at each build."""
    sphinx.connect("builder-inited", write_command_reference)
    sphinx.connect("builder-inited", write_error_reference)
