"""Python modules of a basf2 release and ROOT, and protocols for the types of both that are used here."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Protocol

from pxdbg_runtime.errors import MissingReleaseError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["ClonesArray", "Digit", "Path", "StoreArray", "StoreObject", "import_release_module"]


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
    """basf2's PyStoreArray. Only the array behind its pointer can be cleared."""

    def getPtr(self) -> ClonesArray:  # noqa: N802
        """Return the array of the event."""
        ...

    def appendNew(self) -> Digit:  # noqa: N802
        """Append a default element."""
        ...


class EventMetaData(Protocol):
    """The numbers of an event."""

    def getExperiment(self) -> int:  # noqa: N802
        """Return the experiment number."""
        ...

    def getRun(self) -> int:  # noqa: N802
        """Return the run number."""
        ...

    def getEvent(self) -> int:  # noqa: N802
        """Return the event number."""
        ...


class StoreObject(Protocol):
    """basf2's PyStoreObj of the event's numbers."""

    def obj(self) -> EventMetaData:
        """Return the object."""
        ...


class Module(Protocol):
    """A module on a path."""

    def type(self) -> str:
        """Return the registered name of the module."""
        ...


class Path(Protocol):
    """A path of modules."""

    def add_module(self, module: object) -> object:
        """Append a module."""
        ...

    def modules(self) -> list[Module]:
        """List the modules in order."""
        ...


def import_release_module(name: str) -> ModuleType:
    """Import a Python module that comes with a release of basf2.

    Parameters
    ----------
    name : str
        ``basf2``, ``simulation`` or ``ROOT``.

    Raises
    ------
    MissingReleaseError
        If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        message = (
            f"The Python module {name} is missing: adding the generator to a path needs a release of basf2 "
            "(b2setup) with pxdbg-runtime installed in it. pxdbg_runtime.Generator generates the same digits "
            "without one."
        )
        raise MissingReleaseError(name, message) from None
