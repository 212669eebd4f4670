"""The double refuses what basf2 refuses: else the tests of the module would say nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


def run(basf2: ModuleType, **steps: Callable[[], object]) -> None:
    """Run two events of a path with a module that does something in some steps of its life."""

    class Doing(basf2.Module):  # type: ignore[name-defined,misc]  # known at run time alone
        def __init__(self) -> None:
            super().__init__()
            for name, step in steps.items():
                setattr(self, name, step)

    path = basf2.create_path()
    path.add_module("EventInfoSetter", expList=[0], runList=[0], evtNumList=[2])
    path.add_module(Doing())
    basf2.process(path)


def digits(basf2: ModuleType) -> object:
    belle2 = basf2.ROOT.Belle2
    return belle2.PyStoreArray(belle2.PXDDigit.Class(), "PXDDigits")


def test_an_array_lives_for_an_event(double: ModuleType) -> None:
    sizes = []

    def event() -> None:
        array = digits(double)
        sizes.append((array.isValid(), array.getEntries()))  # type: ignore[attr-defined]  # of ROOT
        array.appendNew()  # type: ignore[attr-defined]

    run(double, initialize=lambda: digits(double).registerInDataStore(), event=event)  # type: ignore[attr-defined]
    assert sizes == [(False, 0), (False, 0)]


def test_registration_belongs_into_initialize(double: ModuleType) -> None:
    with pytest.raises(Exception, match="registered outside of initialize: PXDDigits"):
        run(double, event=lambda: digits(double).registerInDataStore())  # type: ignore[attr-defined]


def test_an_array_is_not_registered_twice_in_different_ways(double: ModuleType) -> None:
    flags = double.ROOT.Belle2.DataStore

    def initialize() -> None:
        for flag in (flags.c_DontWriteOut, flags.c_DontWriteOut, flags.c_WriteOut):
            digits(double).registerInDataStore(flag)  # type: ignore[attr-defined]

    with pytest.raises(Exception, match="registered before in another way: PXDDigits"):
        run(double, initialize=initialize)


def test_an_array_that_nobody_registered_cannot_be_used(double: ModuleType) -> None:
    with pytest.raises(Exception, match="not registered: PXDDigits"):
        run(double, event=lambda: digits(double).getPtr())  # type: ignore[attr-defined]


def test_an_array_cannot_be_used_before_events(double: ModuleType) -> None:
    def initialize() -> None:
        digits(double).registerInDataStore()  # type: ignore[attr-defined]
        digits(double).getPtr()  # type: ignore[attr-defined]

    with pytest.raises(Exception, match="used outside of events: PXDDigits"):
        run(double, initialize=initialize)


def test_an_array_is_cleared_through_its_pointer_alone(double: ModuleType) -> None:
    assert not hasattr(digits(double), "clear")
    assert not hasattr(digits(double), "Delete")


def test_an_error_in_initialize_ends_the_job_before_events(double: ModuleType) -> None:
    events: list[int] = []
    with pytest.raises(RuntimeError, match=r"1 error\(s\) in initialize: \['it is wrong'\]"):
        run(double, initialize=lambda: double.B2ERROR("it is wrong"), event=lambda: events.append(1))
    assert events == []


def test_global_tags_cannot_be_changed_by_a_module(double: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="the global tags cannot be changed any more"):
        run(double, initialize=lambda: double.conditions.append_globaltag("late"))


def test_payloads_are_asked_for_in_initialize_and_known_in_a_run(double: ModuleType) -> None:
    belle2 = double.ROOT.Belle2

    def accessor() -> object:
        made: object = belle2.DBAccessorBase(belle2.DBStoreEntry.c_RawFile, "mine", False)
        return made

    with pytest.raises(Exception, match="a payload is asked for outside of initialize: mine"):
        run(double, event=accessor)
    with pytest.raises(Exception, match="no run yet, for which a payload would hold: mine"):
        run(double, initialize=lambda: accessor().getFilename())  # type: ignore[attr-defined]


def test_only_certified_modules_run_in_workers(double: ModuleType) -> None:
    double.set_nprocesses(2)
    with pytest.raises(RuntimeError, match="Doing is not certified for parallel processing"):
        run(double)


def test_only_modules_go_on_a_path(double: ModuleType) -> None:
    with pytest.raises(TypeError, match="not a module: 3"):
        double.create_path().add_module(3)
