"""The part of basf2's Python interface that steering files and modules use here, as strict as basf2 is.

Modules are initialised in the order of the path before any event; what logs an error then ends the job before the first
event; workers are forked after that. The data store and the conditions database are C++ (classes.hpp) in a real ROOT.
"""

from __future__ import annotations

import enum
import os
import traceback
import warnings
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, NoReturn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the wheel says on import that it is young
    import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

if not hasattr(ROOT, "Belle2") and not ROOT.gInterpreter.Declare(
    f'#include "{FilePath(__file__).with_name("classes.hpp")}"'
):
    message = "classes.hpp does not compile"
    raise RuntimeError(message)

_Store = ROOT.Belle2.DataStore
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


class _Registered(Module):
    """A module of the release that does nothing here."""

    def __init__(self, kind: str) -> None:
        super().__init__()
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
        self.event_meta_data.obj().set(*numbers)


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
        errors = [text for level, text in logged[n_before:] if level == "ERROR"]
        if errors:
            B2FATAL(f"{len(errors)} error(s) in initialize: {errors}")
        store.phase = _Store.c_Processing
        n_workers = get_nprocesses()
        if n_workers == 0:
            _process_events(modules, 0, 1)
        else:
            _fork_workers(modules, n_workers)
    finally:
        store.phase = _Store.c_Building


def _process_events(modules: list[Module], first: int, step: int) -> None:
    (master,) = (module for module in modules if isinstance(module, _EventInfoSetter))
    for numbers in master.numbers()[first::step]:
        _Store.Instance().invalidateEvent()
        master.set_event(numbers)
        for module in modules:
            module.event()
    for module in modules:
        module.terminate()


def _fork_workers(modules: list[Module], n_workers: int) -> None:
    """Deal the events out to processes; a module that is not certified would run in a process of its own."""
    for module in modules:
        if not module.has_properties(ModulePropFlags.PARALLELPROCESSINGCERTIFIED):
            message = f"{module.name()} is not certified for parallel processing"
            raise RuntimeError(message)
    workers = []
    for number in range(n_workers):
        worker = os.fork()
        if worker == 0:
            status = 1
            try:
                _process_events(modules, number, n_workers)
                status = 0
            except Exception:  # noqa: BLE001  # a worker must not come back
                traceback.print_exc()
            finally:
                os._exit(status)
        workers.append(worker)
    failed = [worker for worker in workers if os.waitpid(worker, 0)[1] != 0]
    if failed:
        B2FATAL(f"{len(failed)} of {n_workers} workers failed")
