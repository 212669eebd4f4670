"""Add the module to a path, right after BGOverlayInput."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.basf2.module import PXDBackgroundGenerator
from pxdbg_runtime.basf2.release import import_release_module
from pxdbg_runtime.errors import ArgumentValueError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pxdbg_runtime.basf2.release import Module, Path
    from pxdbg_runtime.basf2.specs import Specs

__all__ = ["add_pxd_background_generator", "add_simulation", "inject_simulation"]

_OVERLAY_INPUT: Final = "BGOverlayInput"
_RELEASE_FUNCTION: Final = "_pxdbg_release_function"
"""Attribute of an injected function: the release's function that it replaces."""


def add_pxd_background_generator(path: Path, specs: Specs | None) -> None:
    """Append the module to a path whose last module is BGOverlayInput.

    Parameters
    ----------
    path : basf2.Path
    specs : Specs or None
        None leaves the path as it is.
    """
    if specs is not None:
        path.add_module(PXDBackgroundGenerator(specs))


def add_simulation(
    path: Path, *arguments: object, pxd_background_generator: Specs | None = None, **options: object
) -> None:
    """Add the release's simulation to a path, with the module right after BGOverlayInput.

    Parameters
    ----------
    path : basf2.Path
    *arguments, **options
        Passed on to ``simulation.add_simulation``.
    pxd_background_generator : Specs or None
        None adds no module.

    Raises
    ------
    ArgumentValueError
        If the simulation has no BGOverlayInput: it needs ``bkgfiles``.
    MissingReleaseError
        If basf2 is not installed.
    """
    simulation = import_release_module("simulation")
    if pxd_background_generator is None:
        simulation.add_simulation(path, *arguments, **options)
        return
    module = PXDBackgroundGenerator(pxd_background_generator)
    _add_with_module(module, _find_release_function(simulation.add_simulation), path, *arguments, **options)


def inject_simulation(module: Module | None) -> None:
    """Replace ``simulation.add_simulation`` by a function that also adds a module right after BGOverlayInput.

    Call it before names are imported from ``simulation``. A second call replaces the module of the first.

    Parameters
    ----------
    module : basf2.Module or None
        From `PXDBackgroundGenerator`; None changes nothing.

    Raises
    ------
    MissingReleaseError
        If basf2 is not installed.
    """
    if module is None:
        return
    simulation = import_release_module("simulation")
    release_function = _find_release_function(simulation.add_simulation)

    @functools.wraps(release_function)
    def add_simulation(path: Path, *arguments: object, **options: object) -> None:
        _add_with_module(module, release_function, path, *arguments, **options)

    setattr(add_simulation, _RELEASE_FUNCTION, release_function)
    simulation.add_simulation = add_simulation  # type: ignore[attr-defined]  # the release's module


def _find_release_function(add: Callable[..., None]) -> Callable[..., None]:
    own: Callable[..., None] = getattr(add, _RELEASE_FUNCTION, add)
    return own


def _add_with_module(
    module: Module, add: Callable[..., None], path: Path, *arguments: object, **options: object
) -> None:
    """Call the release's function, and add its modules to a path with another one after BGOverlayInput.

    Modules can only be appended to a path. So the function gets a copy of the user's path, because it skips modules
    that the path already has.
    """
    whole: Path = import_release_module("basf2").create_path()
    for each in path.modules():
        whole.add_module(each)
    n_before = len(whole.modules())
    add(whole, *arguments, **options)
    added = whole.modules()[n_before:]
    if not any(each.type() == _OVERLAY_INPUT for each in added):
        message = (
            f"The simulation has no {_OVERLAY_INPUT}, whose PXD digits the generator replaces: pass background files "
            "(bkgfiles) to add_simulation, or no pxd_background_generator."
        )
        raise ArgumentValueError("bkgfiles", message)
    for each in added:
        path.add_module(each)
        if each.type() == _OVERLAY_INPUT:
            path.add_module(module)
