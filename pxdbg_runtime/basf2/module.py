"""The basf2 module."""

from __future__ import annotations

import functools
import inspect
from abc import ABC
from typing import TYPE_CHECKING, Final, Unpack, final

from pxdbg_runtime.basf2.background import Background
from pxdbg_runtime.basf2.release import import_release_module
from pxdbg_runtime.basf2.specs import Specs, SpecsFields

if TYPE_CHECKING:
    from types import ModuleType

    from pxdbg_runtime.basf2.release import Module

__all__ = ["PXDBackgroundGenerator"]


@final
class PXDBackgroundGenerator(ABC):  # noqa: B024  # abstract only to register the class of the release
    """The basf2 module that replaces the PXD digits of BGOverlayInput by generated ones.

    An instance is a ``basf2.Module``, to be added to a path after BGOverlayInput. Its real class derives from
    ``basf2.Module`` and is defined at the first call, so this module imports without basf2. If the payload is used, the
    global tag is appended to those of basf2: create the module before ``basf2.process``.

    Parameters
    ----------
    model, checkpoint, seed, nintra, ninter, globaltag
        As of `Specs`, by position or keyword. A `Specs` in place of all arguments is accepted too.
    **options
        The further arguments of `Specs`, by keyword.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If an argument has the wrong type or value.
    MissingReleaseError
        If basf2 is not installed.
    """

    __signature__: Final = inspect.signature(Specs)

    def __new__(cls, *arguments: object, **options: Unpack[SpecsFields]) -> Module:  # type: ignore[misc]  # see above
        """Create an instance of the class that derives from ``basf2.Module``."""
        if len(arguments) == 1 and isinstance(arguments[0], Specs) and not options:
            specs = arguments[0]
        else:
            specs = Specs(*arguments, **options)  # type: ignore[arg-type]  # Specs checks them
        basf2 = import_release_module("basf2")
        if specs.checkpoint is None:
            basf2.conditions.append_globaltag(specs.globaltag)
        module: Module = _define_class(basf2)(specs)
        return module


@functools.cache
def _define_class(basf2: ModuleType) -> type:
    class Generator(basf2.Module):  # type: ignore[name-defined,misc]  # known at run time only
        """Fills the PXD digits of beam background. See docs/basf2.md of pxdbg_runtime."""

        def __init__(self, specs: Specs) -> None:
            super().__init__()
            if specs.random_stream == "philox":  # events of the other stream depend on those before them
                self.set_property_flags(basf2.ModulePropFlags.PARALLELPROCESSINGCERTIFIED)
            self._background = Background(specs)

        def initialize(self) -> None:
            """Prepare, once, before workers are forked."""
            self._background.initialize()

        def event(self) -> None:
            """Replace the event's digits."""
            self._background.event()

        def terminate(self) -> None:
            """Release the generator, in each process."""
            self._background.terminate()

    Generator.__name__ = PXDBackgroundGenerator.__name__  # basf2 names the module after its class
    return PXDBackgroundGenerator.register(Generator)
