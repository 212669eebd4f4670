"""The basf2 module."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Unpack

from pxdbg_runtime.basf2.background import Background
from pxdbg_runtime.basf2.release import import_release_module
from pxdbg_runtime.basf2.specs import Specs, SpecsFields
from pxdbg_runtime.errors import ArgumentTypeError

if TYPE_CHECKING:
    from types import ModuleType

    from pxdbg_runtime.basf2.release import Module

__all__ = ["PXDBackgroundGenerator"]


def PXDBackgroundGenerator(specs: Specs | None = None, **fields: Unpack[SpecsFields]) -> Module:  # noqa: N802
    """Create the basf2 module; a function, because its class can only be defined where basf2 is installed.

    If the payload is used, the global tag is appended to those of basf2: create the module before ``basf2.process``.

    Parameters
    ----------
    specs : Specs, optional
    **fields
        The arguments of `Specs`, instead of `specs`.

    Returns
    -------
    basf2.Module
        To be added to a path after BGOverlayInput.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If an argument has the wrong type or value.
    MissingReleaseError
        If basf2 is not installed.
    """
    if specs is None:
        specs = Specs(**fields)
    elif fields or not isinstance(specs, Specs):
        message = (
            f"PXDBackgroundGenerator takes either one Specs or the arguments of one, but got {specs!r} and {fields}."
        )
        raise ArgumentTypeError("specs", message)
    basf2 = import_release_module("basf2")
    if specs.checkpoint is None:
        basf2.conditions.append_globaltag(specs.globaltag)
    module: Module = _define_class(basf2)(Background(specs))
    return module


@functools.cache
def _define_class(basf2: ModuleType) -> type:
    class PXDBackgroundGenerator(basf2.Module):  # type: ignore[name-defined,misc]  # known at run time only
        """Fills the PXD digits of beam background. See docs/basf2.md of pxdbg_runtime."""

        def __init__(self, background: Background) -> None:
            super().__init__()
            self.set_property_flags(basf2.ModulePropFlags.PARALLELPROCESSINGCERTIFIED)
            self._background = background

        def initialize(self) -> None:
            """Prepare, once, before workers are forked."""
            self._background.initialize()

        def event(self) -> None:
            """Replace the event's digits."""
            self._background.event()

        def terminate(self) -> None:
            """Release the generator, in each process."""
            self._background.terminate()

    return PXDBackgroundGenerator
