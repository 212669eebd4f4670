"""What a command is to measure, and how thoroughly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.graphs import Workspace

__all__ = ["FAMILIES", "QUICK_ROUNDS", "ROUNDS", "Plan"]

FAMILIES: Final = ("resnet", "convnet")
ROUNDS: Final = 3
QUICK_ROUNDS: Final = 1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a command is to measure, and how thoroughly.

    Attributes
    ----------
    families : tuple of str
        Models, in order.
    rounds : int
        Times that each case is measured.
    quick : bool
        Whether to take fewer events, to be done in some minutes.
    workspace : Workspace
        Gives the graphs.
    log : callable
        Called with a line after each step.
    """

    families: tuple[str, ...]
    rounds: int
    quick: bool
    workspace: Workspace
    log: Callable[[str], None]
