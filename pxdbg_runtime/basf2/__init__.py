"""The generator as a basf2 module, in place of the original one: see docs/basf2.md.

Everything here imports on any machine. What puts a module on a path needs basf2, and the module PyROOT.
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
