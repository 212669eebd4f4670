"""The command-line option that names a family of generators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from export.families import FAMILIES

__all__ = ["FamilyOption"]

if TYPE_CHECKING:
    _FamilyName = str
else:
    _FamilyName = Literal[tuple(FAMILIES)]

FamilyOption = Annotated[_FamilyName, typer.Option("--family", help="Architecture.")]
