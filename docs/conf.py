"""Sphinx: the documentation site. ``make docs`` builds it, with warnings as errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer.cli
import typer.main
from typer.main import get_command

from pxdbg_runtime import __version__
from pxdbg_runtime.command_line import app as program

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "pxdbg-runtime"
author = "The pxdbg_runtime developers"
copyright = f"2026, {author}"  # noqa: A001  # the name is Sphinx's
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_design"]
myst_enable_extensions = ["attrs_inline", "colon_fence"]
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_use_rtype = False
smartquotes = False  # dashes of options stay two
html_theme = "furo"
html_title = f"{project} {version}"
html_extra_path = ["campaign.html", "validation-convnet.html", "validation-ieagan.html", "validation-resnet.html"]
linkcheck_timeout = 20


def write_command_reference(sphinx: Sphinx) -> None:
    """Write the page of the command line from the commands' own help texts."""
    command: Any = get_command(program)
    with command.make_context("pxdbg", [], resilient_parsing=True) as context:
        text = typer.cli.get_docs_for_click(obj=command, ctx=context, name="pxdbg", title="Command line")
    (sphinx.srcdir / "command-line.md").write_text(text, encoding="utf-8")


def setup(sphinx: Sphinx) -> None:
    """Register what is made at each build."""
    sphinx.connect("builder-inited", write_command_reference)
