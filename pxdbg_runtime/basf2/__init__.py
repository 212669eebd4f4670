"""The generator as a basf2 module that replaces the original one: see docs/basf2.md.

This package imports on any machine. Adding a module to a path needs basf2; running it needs PyROOT too.
"""

from __future__ import annotations

from pxdbg_runtime.basf2.module import PXDBackgroundGenerator
from pxdbg_runtime.basf2.paths import add_pxd_background_generator, add_simulation, inject_simulation
from pxdbg_runtime.basf2.specs import Specs

__all__ = [
    "PXDBackgroundGenerator",
    "Specs",
    "add_pxd_background_generator",
    "add_simulation",
    "inject_simulation",
]
