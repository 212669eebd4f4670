"""The module's place on a path: right after BGOverlayInput."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.basf2.module import PXDBackgroundGenerator
from pxdbg_runtime.basf2.release import release_module
from pxdbg_runtime.errors import ArgumentValueError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pxdbg_runtime.basf2.release import Module, Path
    from pxdbg_runtime.basf2.specs import Specs

__all__ = ["add_pxd_background_generator", "add_simulation", "inject_simulation"]

_OVERLAY_INPUT: Final = "BGOverlayInput"
_RELEASE_OWN: Final = "_pxdbg_release_own"
"""Attribute of an injected function: the one that it took the place of."""


def add_pxd_background_generator(path: Path, specs: Specs | None) -> None:
    """Append the module to a path, which must end in BGOverlayInput by then.

    Parameters
    ----------
    path : basf2.Path
    specs : Specs or None
        None changes nothing.
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
        None changes nothing.

    Raises
    ------
    ArgumentValueError
        If the simulation has no BGOverlayInput: it needs ``bkgfiles``.
    MissingReleaseError
        Without basf2.
    """
    simulation = release_module("simulation")
    if pxd_background_generator is None:
        simulation.add_simulation(path, *arguments, **options)
        return
    module = PXDBackgroundGenerator(pxd_background_generator)
    _add_with(module, _release_own(simulation.add_simulation), path, *arguments, **options)


def inject_simulation(module: Module | None) -> None:
    """Make ``simulation.add_simulation`` put a module right after BGOverlayInput from now on.

    Call it before names are imported from ``simulation``. A second call replaces the module of the first.

    Parameters
    ----------
    module : basf2.Module or None
        What `PXDBackgroundGenerator` made; None changes nothing.

    Raises
    ------
    MissingReleaseError
        Without basf2.
    """
    if module is None:
        return
    simulation = release_module("simulation")
    release_own = _release_own(simulation.add_simulation)

    @functools.wraps(release_own)
    def add_simulation(path: Path, *arguments: object, **options: object) -> None:
        _add_with(module, release_own, path, *arguments, **options)

    setattr(add_simulation, _RELEASE_OWN, release_own)
    simulation.add_simulation = add_simulation  # type: ignore[attr-defined]  # the release's module


def _release_own(add: Callable[..., None]) -> Callable[..., None]:
    own: Callable[..., None] = getattr(add, _RELEASE_OWN, add)
    return own


def _add_with(module: Module, add: Callable[..., None], path: Path, *arguments: object, **options: object) -> None:
    """Call the release's function, and add what it adds to a path with a module in its place.

    A path can only be appended to. The function gets one that begins like the user's, because it leaves out what is
    there already.
    """
    whole: Path = release_module("basf2").create_path()
    for each in path.modules():
        whole.add_module(each)
    n_before = len(whole.modules())
    add(whole, *arguments, **options)
    added = whole.modules()[n_before:]
    if not any(each.type() == _OVERLAY_INPUT for each in added):
        message = (
            f"The simulation has no {_OVERLAY_INPUT}, whose PXD digits are to be replaced: give add_simulation "
            "the background files (bkgfiles), or no pxd_background_generator."
        )
        raise ArgumentValueError("bkgfiles", message)
    for each in added:
        path.add_module(each)
        if each.type() == _OVERLAY_INPUT:
            path.add_module(module)
