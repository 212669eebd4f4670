"""Add the module to a path, right after BGOverlayInput."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.basf2.background import NAME
from pxdbg_runtime.basf2.module import PXDBackgroundGenerator
from pxdbg_runtime.basf2.release import import_release_module
from pxdbg_runtime.errors import ArgumentTypeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pxdbg_runtime.basf2.release import Path
    from pxdbg_runtime.basf2.specs import Specs

__all__ = ["add_pxd_background_generator", "add_simulation", "inject_simulation"]

_OVERLAY_INPUT: Final = "BGOverlayInput"


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
        Passed on to ``simulation.add_simulation``. Without ``bkgfiles`` there is no BGOverlayInput, so the module is
        not added, and a B2WARNING says so.
    pxd_background_generator : Specs or None
        None adds no module.

    Raises
    ------
    MissingReleaseError
        If basf2 is not installed.
    """
    module = None if pxd_background_generator is None else PXDBackgroundGenerator(pxd_background_generator)
    inject_simulation(module)(path, *arguments, **options)


def inject_simulation(module: object) -> Callable[..., None]:
    """Return a function that adds the release's simulation to a path, with a module right after BGOverlayInput.

    Parameters
    ----------
    module : basf2.Module or None
        From `PXDBackgroundGenerator`, for instance.

    Returns
    -------
    callable
        To be called in place of ``simulation.add_simulation``, with its arguments; for None, that function itself.
        Without ``bkgfiles`` there is no BGOverlayInput, so the module is not added, and a B2WARNING says so.

    Raises
    ------
    ArgumentTypeError
        If it is not a module.
    MissingReleaseError
        If basf2 is not installed.
    """
    basf2 = import_release_module("basf2")
    release_function: Callable[..., None] = import_release_module("simulation").add_simulation
    if module is None:
        return release_function
    if not isinstance(module, basf2.Module):
        message = f"module must be a basf2.Module or None, but is {module!r} ({type(module).__name__})."
        raise ArgumentTypeError("module", message)

    @functools.wraps(release_function)
    def add_simulation(path: Path, *arguments: object, **options: object) -> None:
        # Modules can only be appended to a path, so the release adds its modules to a copy. The copy has the modules
        # of the user's path, because the release skips those that the path already has.
        whole: Path = basf2.create_path()
        for each in path.modules():
            whole.add_module(each)
        n_before = len(whole.modules())
        release_function(whole, *arguments, **options)
        added = whole.modules()[n_before:]
        if not any(each.type() == _OVERLAY_INPUT for each in added):
            basf2.B2WARNING(
                f"{NAME}: the simulation adds no {_OVERLAY_INPUT}, whose PXD digits {NAME} replaces, so no background "
                "is generated: pass background files (bkgfiles) to add_simulation."
            )
        for each in added:
            path.add_module(each)
            if each.type() == _OVERLAY_INPUT:
                path.add_module(module)

    return add_simulation
