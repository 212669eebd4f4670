"""``python -m pxdbg_runtime.basf2.selfcheck``: check that a release of basf2 has all that the module relies on."""

from __future__ import annotations

import functools
import operator
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from pxdbg_runtime.basf2.background import NAME
from pxdbg_runtime.basf2.filling import HEADER, choose_fill, compile_bulk_fill
from pxdbg_runtime.basf2.module import PXDBackgroundGenerator
from pxdbg_runtime.basf2.paths import inject_simulation
from pxdbg_runtime.basf2.release import import_release_module
from pxdbg_runtime.basf2.specs import Specs
from pxdbg_runtime.errors import MissingReleaseError, ModuleStateError, one_line
from pxdbg_runtime.generator import Generator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import ModuleType

__all__ = ["main"]

_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "basf2": (
        "B2ERROR",
        "B2INFO",
        "B2WARNING",
        "Module.name",
        "Module.set_property_flags",
        "Module.type",
        "ModulePropFlags.PARALLELPROCESSINGCERTIFIED",
        "Path.add_module",
        "Path.modules",
        "conditions.append_globaltag",
        "create_path",
        "get_nprocesses",
        "get_random_seed",
        "process",
    ),
    "simulation": ("add_simulation",),
    "ROOT": (
        "Belle2.BackgroundInfo.getExtensionName",
        "Belle2.DBAccessorBase.getFilename",
        "Belle2.DBStoreEntry.c_RawFile",
        "Belle2.DataStore.c_DontWriteOut",
        "Belle2.DataStore.c_Persistent",
        "Belle2.EventMetaData.getEvent",
        "Belle2.EventMetaData.getExperiment",
        "Belle2.EventMetaData.getRun",
        "Belle2.PXDDigit.Class",
        "Belle2.PyStoreArray.appendNew",
        "Belle2.PyStoreArray.getPtr",
        "Belle2.PyStoreArray.registerInDataStore",
        "Belle2.PyStoreObj.isRequired",
        "Belle2.PyStoreObj.isValid",
        "Belle2.PyStoreObj.obj",
        "Belle2.VxdID.getID",
        "TClonesArray.Delete",
        "gInterpreter.Declare",
    ),
}
_SPECS: Final = Specs("resnet", "builtin:resnet", seed=1)
_COLOURS: Final = {"right": "green", "found": "green", "not found": "yellow", "wrong": "red"}
_HAS_HEADER: Final = f"""
#if __has_include(<{HEADER}>)
namespace pxdbg_runtime {{ constexpr bool has_header = true; }}
#else
namespace pxdbg_runtime {{ constexpr bool has_header = false; }}
#endif
"""


@dataclass(frozen=True, kw_only=True)
class _Row:
    """Result of one check."""

    what: str
    result: Literal["right", "wrong", "found", "not found"]
    remark: str


def main() -> None:
    """Print what works and what does not; the exit code is 1 if anything does not, or if there is no basf2."""
    try:
        modules = {name: import_release_module(name) for name in _NAMES}
    except MissingReleaseError as error:
        sys.exit(f"There is nothing to check without the Python module {error.module}: set up a release (b2setup).")
    basf2, root = modules["basf2"], modules["ROOT"]
    console = Console(highlight=False, markup=False, emoji=False)
    names = [
        _check(f"{module}.{name}", functools.partial(_describe_name, modules, module, name))
        for module, each in _NAMES.items()
        for name in each
    ]
    console.print(_tabulate("name", names))  # before the calls, because a B2FATAL ends the process
    calls = [
        _check("add_simulation with BGOverlayInput", lambda: _check_simulation(basf2)),
        _check("compiled function that writes digits", lambda: _check_compilation(root)),
    ]
    console.print(_tabulate("call", calls))
    payloads: list[str] = []
    job = [_check("job of one event", lambda: _check_event(basf2, root, payloads)), _describe_payload(payloads)]
    console.print(_tabulate("job", job))
    if any(row.result == "wrong" for row in (*names, *calls, *job)):
        sys.exit(1)


def _check(what: str, check: Callable[[], str]) -> _Row:
    try:
        return _Row(what=what, result="right", remark=check())
    except Exception as error:  # noqa: BLE001  # a release may raise anything
        return _Row(what=what, result="wrong", remark=one_line(error))


def _tabulate(title: str, rows: Iterable[_Row]) -> Table:
    table = Table(Column(title, overflow="fold"), "result", Column("remark", overflow="fold"))
    for row in rows:
        table.add_row(row.what, Text(row.result, style=_COLOURS[row.result]), row.remark)
    return table


def _describe_name(modules: Mapping[str, ModuleType], module: str, name: str) -> str:
    """Return the value of a constant, or the first line of a function's documentation: in C++ its signature."""
    found: object = operator.attrgetter(name)(modules[module])
    text = (found.__doc__ or "") if callable(found) else repr(found)
    return text.strip().partition("\n")[0]


def _check_simulation(basf2: ModuleType) -> str:
    path = basf2.create_path()
    inject_simulation(PXDBackgroundGenerator(_SPECS))(path, bkgfiles=["selfcheck.root"])
    names = [str(module.name()) for module in path.modules()]
    if NAME not in names:
        message = f"The simulation has no BGOverlayInput: its modules are {', '.join(names)}."
        raise ModuleStateError(message)
    return " → ".join(names[: names.index(NAME) + 2])


def _check_compilation(root: ModuleType) -> str:
    root.Belle2.PXDDigit, root.Belle2.VxdID  # noqa: B018  # a look-up loads the library
    if not compile_bulk_fill(root):
        message = "ROOT's interpreter does not compile it."
        raise ModuleStateError(message)
    if not hasattr(root.pxdbg_runtime, "has_header"):
        root.gInterpreter.Declare(_HAS_HEADER)
    return f"with the header {HEADER}" if root.pxdbg_runtime.has_header else f"without the header {HEADER}"


def _check_event(basf2: ModuleType, root: ModuleType, payloads: list[str]) -> str:
    """Run a job of one event, and compare the digits in the data store with those of a `Generator`.

    The job also looks for a payload of the global tag, as the module does without a checkpoint. Its file, or an empty
    text, is appended to `payloads`.
    """
    belle2 = root.Belle2
    found: list[list[tuple[int, int, int, int]]] = []

    class Overlay(basf2.Module):  # type: ignore[name-defined,misc]  # known at run time only
        """Registers what BGOverlayInput registers."""

        def initialize(self) -> None:
            background_info = belle2.PyStoreObj("BackgroundInfo", belle2.DataStore.c_Persistent)
            background_info.registerInDataStore()
            background_info.create()
            payload = belle2.DBAccessorBase(belle2.DBStoreEntry.c_RawFile, _SPECS.payload, False)
            payloads.append(str(payload.getFilename()))

    class Reader(basf2.Module):  # type: ignore[name-defined,misc]  # known at run time only
        """Reads the digits."""

        def event(self) -> None:
            background_info = belle2.PyStoreObj("BackgroundInfo", belle2.DataStore.c_Persistent)
            name = "PXDDigits" + str(background_info.obj().getExtensionName())
            digits = belle2.PyStoreArray(belle2.PXDDigit.Class(), name).getPtr()
            found.append(
                [
                    (digit.getSensorID().getID(), digit.getUCellID(), digit.getVCellID(), digit.getCharge())
                    for digit in digits
                ]
            )

    basf2.conditions.append_globaltag(_SPECS.globaltag)
    path = basf2.create_path()
    path.add_module("EventInfoSetter", expList=[0], runList=[0], evtNumList=[1])
    for module in (Overlay(), PXDBackgroundGenerator(_SPECS), Reader()):
        path.add_module(module)
    basf2.process(path)
    digits = Generator("resnet", seed=1).generate(1)
    columns = (digits.sensor_id, digits.u_cell, digits.v_cell, digits.charge)
    if found != [list(zip(*(column.tolist() for column in columns), strict=True))]:
        message = f"The data store does not hold the {len(digits)} digits that were generated."
        raise ModuleStateError(message)
    return f"{len(digits)} digits in the data store, written {choose_fill(root, belle2.PyStoreArray)[1]}"


def _describe_payload(payloads: list[str]) -> _Row:
    """Describe what the job found of the payload, which a module with a checkpoint does not need."""
    what = f"payload {_SPECS.payload}"
    if not payloads:
        return _Row(what=what, result="wrong", remark="The job ended before it looked for the payload.")
    if payloads[0]:
        return _Row(what=what, result="found", remark=payloads[0])
    remark = f"The global tags, {_SPECS.globaltag} included, have none: give the module a checkpoint."
    return _Row(what=what, result="not found", remark=remark)


if __name__ == "__main__":
    main()
