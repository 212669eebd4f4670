"""What a release of basf2 brings: its Python modules, ROOT, and the few types of both that are used here."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Protocol

from pxdbg_runtime.errors import MissingReleaseError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["ClonesArray", "Digit", "Path", "StoreArray", "StoreObject", "release_module"]


class ClonesArray(Protocol):
    """ROOT's TClonesArray."""

    def Delete(self) -> None:  # noqa: N802  # ROOT's name, as below
        """Remove all elements."""
        ...


class Digit(Protocol):
    """An element of the store array."""

    def __assign__(self, other: object) -> object:
        """Call the C++ assignment."""
        ...


class StoreArray(Protocol):
    """basf2's PyStoreArray. It has no function that clears it: its pointer has."""

    def getPtr(self) -> ClonesArray:  # noqa: N802
        """Give the event's array."""
        ...

    def appendNew(self) -> Digit:  # noqa: N802
        """Append an element, made without arguments."""
        ...


class EventMetaData(Protocol):
    """The numbers of an event."""

    def getExperiment(self) -> int:  # noqa: N802
        """Give the number of the experiment."""
        ...

    def getRun(self) -> int:  # noqa: N802
        """Give the number of the run."""
        ...

    def getEvent(self) -> int:  # noqa: N802
        """Give the number of the event."""
        ...


class StoreObject(Protocol):
    """basf2's PyStoreObj of the event's numbers."""

    def obj(self) -> EventMetaData:
        """Give the object."""
        ...


class Module(Protocol):
    """A module on a path."""

    def type(self) -> str:
        """Give the name that the module was registered with."""
        ...


class Path(Protocol):
    """A path of modules."""

    def add_module(self, module: object) -> object:
        """Append a module."""
        ...

    def modules(self) -> list[Module]:
        """List the modules in order."""
        ...


def release_module(name: str) -> ModuleType:
    """Import a Python module that comes with a release of basf2.

    Parameters
    ----------
    name : str
        ``basf2``, ``simulation`` or ``ROOT``.

    Raises
    ------
    MissingReleaseError
        If it is not there.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        message = (
            f"The Python module {name} is missing: what puts the generator on a path needs a release of basf2 "
            "(b2setup), with pxdbg-runtime installed in it. pxdbg_runtime.Generator makes the same digits without one."
        )
        raise MissingReleaseError(name, message) from None
