"""The part of basf2's Python interface that steering files and modules use here, as strict as basf2 is.

Modules are initialised in the order of the path before any event. The numbers of the first event, and so the payloads,
are known from the module on that sets them. What logs an error then ends the job before the first event. After that a
job with parallel processes is split into three stages: see `split_path`. The data store and the conditions database are
C++ (classes.hpp) in a real ROOT.
"""

from __future__ import annotations

import enum
import multiprocessing
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from pxdbg_runtime.formats.overlay_classes import compile_classes, set_members
from pxdbg_runtime.formats.root_library import import_root

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = import_root("The double of basf2")
compile_classes(ROOT)
if not hasattr(ROOT.Belle2, "DataStore") and not ROOT.gInterpreter.Declare(
    f'#include "{FilePath(__file__).with_name("classes.hpp")}"'
):
    message = "classes.hpp does not compile"
    raise RuntimeError(message)

_Store = ROOT.Belle2.DataStore
_COLUMNS = ("sensorID", "uCellID", "vCellID", "charge")
_Event = tuple[tuple[int, int, int], dict[str, np.ndarray]]
"""Numbers of an event, and its digits by the names of their arrays, as one process streams them to the next."""


def _fill_array(array: object, **columns: np.ndarray) -> None:
    """Append a digit for each row: PyStoreArray.fillArray, which releases since 2024-07 have."""
    if tuple(sorted(columns)) != tuple(sorted(_COLUMNS)):
        message = f"fillArray takes the arguments of PXDDigit, but got {sorted(columns)}"
        raise ValueError(message)
    if {column.dtype for column in columns.values()} != {np.dtype(np.uint16)}:
        message = "fillArray takes arrays of unsigned shorts"
        raise TypeError(message)
    (size,) = {len(column) for column in columns.values()}
    array.append(*(columns[name] for name in _COLUMNS), size)  # type: ignore[attr-defined]  # of ROOT


ROOT.Belle2.PyStoreArray.fillArray = _fill_array
logged: list[tuple[str, str]] = []
"""Level and text of everything that was logged."""


class ModulePropFlags(enum.IntFlag):
    """What a module says of itself."""

    PARALLELPROCESSINGCERTIFIED = 4


class Module:
    """The base of modules in Python."""

    def __init__(self) -> None:
        self._flags = ModulePropFlags(0)
        self.parameters: dict[str, object] = {}

    def set_property_flags(self, flags: ModulePropFlags) -> None:
        self._flags = flags

    def has_properties(self, flags: ModulePropFlags) -> bool:
        return flags in self._flags

    def type(self) -> str:
        return "PyModule"

    def name(self) -> str:
        return type(self).__name__

    def initialize(self) -> None: ...

    def event(self) -> None: ...

    def terminate(self) -> None: ...


_UNCERTIFIED = {"EventInfoSetter", "EvtGenInput", "BGOverlayInput", "RootOutput"}


class _Registered(Module):
    """A module of the release that does nothing here."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        if kind not in _UNCERTIFIED:
            self.set_property_flags(ModulePropFlags.PARALLELPROCESSINGCERTIFIED)
        self._kind = kind

    def type(self) -> str:
        return self._kind

    def name(self) -> str:
        return self._kind


class _EventInfoSetter(_Registered):
    def initialize(self) -> None:
        self.event_meta_data = ROOT.Belle2.PyStoreObj("EventMetaData")
        self.event_meta_data.registerInDataStore()

    def numbers(self) -> list[tuple[int, int, int]]:
        columns = [self.parameters.get(name, [default]) for name, default in _EVENT_LISTS.items()]
        return [
            (experiment, run, event)
            for experiment, run, n_events in zip(*columns, strict=True)
            for event in range(1, n_events + 1)
        ]

    def set_event(self, numbers: tuple[int, int, int]) -> None:
        self.event_meta_data.create()
        members = dict(zip(("m_experiment", "m_run", "m_event"), numbers, strict=True))
        set_members(ROOT, self.event_meta_data.obj(), members)


_EVENT_LISTS = {"expList": 0, "runList": 0, "evtNumList": 1}


class _BGOverlayInput(_Registered):
    """Registers the digits of recorded background, and reads two in each event."""

    def initialize(self) -> None:
        belle2 = ROOT.Belle2
        if not self.parameters.get("inputFileNames"):
            B2FATAL("BGOverlayInput has no inputFileNames")
        background_info = belle2.PyStoreObj("BackgroundInfo", _Store.c_Persistent)
        background_info.registerInDataStore()
        background_info.create()
        extension = str(self.parameters.get("extensionName", "_beamBG"))
        background_info.obj().setExtensionName(extension)
        self.digits = belle2.PyStoreArray(belle2.PXDDigit.Class(), "PXDDigits" + extension)
        self.digits.registerInDataStore(_Store.c_DontWriteOut)

    def event(self) -> None:
        for v_cell in (1, 2):
            self.digits.appendNew().__assign__(ROOT.Belle2.PXDDigit(ROOT.Belle2.VxdID(8480), 0, v_cell, 255))


def register_module(kind: str) -> Module:
    """Make a module of the release."""
    return {"EventInfoSetter": _EventInfoSetter, "BGOverlayInput": _BGOverlayInput}.get(kind, _Registered)(kind)


class Path:
    """A path: modules can be appended, and nothing else."""

    def __init__(self) -> None:
        self._modules: list[Module] = []

    def add_module(self, module: object, **parameters: object) -> Module:
        if isinstance(module, str):
            module = register_module(module)
        if not isinstance(module, Module):
            message = f"not a module: {module!r}"
            raise TypeError(message)
        module.parameters.update(parameters)
        self._modules.append(module)
        return module

    def modules(self) -> list[Module]:
        return list(self._modules)

    def __contains__(self, name: str) -> bool:
        return any(module.name() == name for module in self._modules)


def create_path() -> Path:
    return Path()


class _Conditions:
    """Settings of the conditions database: they cannot be changed once basf2 is at work."""

    def __init__(self) -> None:
        self.globaltags: list[str] = []
        self.payloads: dict[tuple[str, str], str] = {}

    def append_globaltag(self, name: str) -> None:
        if _Store.Instance().phase != _Store.c_Building:
            message = "the global tags cannot be changed any more"
            raise RuntimeError(message)
        self.globaltags.append(name)


conditions = _Conditions()
_settings: dict[str, str] = {}


def set_random_seed(seed: int | str) -> None:
    _settings["seed"] = str(seed)


def get_random_seed() -> str:
    return _settings.get("seed", "drawn by basf2")


def set_nprocesses(n_processes: int) -> None:
    _settings["nprocesses"] = str(n_processes)


def get_nprocesses() -> int:
    return int(_settings.get("nprocesses", 0))


def _level(level: str) -> Callable[[str], None]:
    return lambda text: logged.append((level, text))


B2INFO, B2WARNING, B2ERROR = (_level(level) for level in ("INFO", "WARNING", "ERROR"))


def B2FATAL(text: str) -> NoReturn:  # noqa: N802
    logged.append(("FATAL", text))
    raise RuntimeError(text)


def process(path: Path) -> None:
    """Run a path: initialize, fork if asked to, events, terminate."""
    store = _Store.Instance()
    store.reset()
    files = ROOT.Belle2.DBAccessorBase.files()
    files.clear()
    for (tag, name), file in conditions.payloads.items():
        if tag in conditions.globaltags:
            files[name] = file
    modules = path.modules()
    store.phase = _Store.c_Initialize
    try:
        n_before = len(logged)
        for module in modules:
            module.initialize()
            if isinstance(module, _EventInfoSetter):
                module.set_event(module.numbers()[0])
        errors = [text for level, text in logged[n_before:] if level == "ERROR"]
        if errors:
            B2FATAL(f"{len(errors)} error(s) in initialize: {errors}")
        store.phase = _Store.c_Processing
        (master,) = (module for module in modules if isinstance(module, _EventInfoSetter))
        events: list[_Event] = [(numbers, {}) for numbers in master.numbers()]
        n_workers = get_nprocesses()
        if n_workers == 0:
            _run_stage(master, modules, events)
        else:
            _compile_streaming(store)
            before, parallel, after = split_path(modules)
            events = _run_in_process(master, before, events)
            shares = [_run_in_process(master, parallel, events[first::n_workers]) for first in range(n_workers)]
            _run_in_process(master, after, [event for share in shares for event in share], passes_on=False)
    finally:
        store.phase = _Store.c_Building


def split_path(modules: list[Module]) -> tuple[list[Module], list[Module], list[Module]]:
    """Split a path into what the input process, the parallel processes and the output process run.

    Parallel is the first run of certified modules. All that follows is the output process's, certified or not.
    """
    certified = [module.has_properties(ModulePropFlags.PARALLELPROCESSINGCERTIFIED) for module in modules]
    first = certified.index(True) if True in certified else len(modules)
    last = certified.index(False, first) if False in certified[first:] else len(modules)
    return modules[:first], modules[first:last], modules[last:]


def _compile_streaming(store: object) -> None:
    """Stream no digits: PyROOT compiles a function at its first call, here once instead of in each forked process."""
    for name in store.listArrays():  # type: ignore[attr-defined]  # of ROOT
        store.unpackDigits(name, np.zeros(1, dtype=np.uint16), 0)  # type: ignore[attr-defined]
        np.array(store.packDigits(name))  # type: ignore[attr-defined]


def _run_stage(
    master: _EventInfoSetter, modules: list[Module], events: list[_Event], *, passes_on: bool = False
) -> list[_Event]:
    """Run modules for events as a process receives them, and return the events as it passes them on, if it does."""
    store = _Store.Instance()
    passed_on: list[_Event] = []
    for numbers, arrays in events:
        store.invalidateEvent()
        master.set_event(numbers)
        for name, values in arrays.items():
            if len(values):  # PyROOT makes no pointer of an empty array
                store.unpackDigits(name, values, len(values))
        for module in modules:
            module.event()
        if passes_on:
            passed_on.append((numbers, {str(name): np.array(store.packDigits(name)) for name in store.listArrays()}))
    for module in modules:
        module.terminate()
    return passed_on


def _run_in_process(
    master: _EventInfoSetter, modules: list[Module], events: list[_Event], *, passes_on: bool = True
) -> list[_Event]:
    """Run a stage in a forked process; one after the other, so a worker's events arrive before those of the next."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(_run_stage(master, modules, events, passes_on=passes_on)))
    process.start()
    sender.close()
    try:
        received: list[_Event] = receiver.recv()
    except EOFError:
        B2FATAL("a process failed")
    process.join()
    return received
