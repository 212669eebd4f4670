"""The double refuses what basf2 refuses: else the tests of the module would say nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
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
    found: list[str] = []
    for known in ({}, {("tag", "mine"): "mine.root"}):
        double.conditions.payloads = known
        double.conditions.globaltags = ["tag"]
        run(double, initialize=lambda: found.append(str(accessor().getFilename())))  # type: ignore[attr-defined]
    assert found == ["", "mine.root"]


def test_no_payload_is_known_before_the_numbers_of_the_first_event(double: ModuleType) -> None:
    double.conditions.payloads = {("tag", "mine"): "mine.root"}
    double.conditions.globaltags = ["tag"]
    belle2, found = double.ROOT.Belle2, []

    class Early(double.Module):  # type: ignore[name-defined,misc]  # known at run time alone
        def initialize(self) -> None:
            payload = belle2.DBAccessorBase(belle2.DBStoreEntry.c_RawFile, "mine", False)
            found.append(str(payload.getFilename()))

    path = double.create_path()
    path.add_module(Early())
    path.add_module("EventInfoSetter")
    double.process(path)
    assert found == [""]


def test_the_flag_as_durability_makes_another_array(double: ModuleType) -> None:
    belle2 = double.ROOT.Belle2
    sizes = []

    def array(*durability: int) -> object:
        made: object = belle2.PyStoreArray(belle2.PXDDigit.Class(), "PXDDigits", *durability)
        return made

    def initialize() -> None:
        for each in (array(), array(belle2.DataStore.c_DontWriteOut)):
            each.registerInDataStore(belle2.DataStore.c_ErrorIfAlreadyRegistered)  # type: ignore[attr-defined]

    def event() -> None:
        array(belle2.DataStore.c_DontWriteOut).appendNew()  # type: ignore[attr-defined]
        sizes.append([each.getEntries() for each in (array(), array(belle2.DataStore.c_Persistent))])  # type: ignore[attr-defined]

    run(double, initialize=initialize, event=event)
    assert sizes == [[0, 1], [0, 2]]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"sensorID": np.uint16}, r"takes the arguments of PXDDigit, but got \['sensorID'\]"),
        (dict.fromkeys(("sensorID", "uCellID", "vCellID", "charge"), np.uint8), "takes arrays of unsigned shorts"),
    ],
)
def test_fill_array_takes_columns_of_unsigned_shorts(
    double: ModuleType, columns: dict[str, type], message: str
) -> None:
    arrays: dict[str, np.ndarray] = {name: np.ones(2, dtype=dtype) for name, dtype in columns.items()}
    with pytest.raises((ValueError, TypeError), match=message):
        digits(double).fillArray(**arrays)  # type: ignore[attr-defined]


def test_a_path_is_split_at_the_first_certified_module_and_the_next_that_is_not(double: ModuleType) -> None:
    path = double.create_path()
    for name in ("EventInfoSetter", "Gearbox", "Geometry", "BGOverlayInput", "FullSim"):
        path.add_module(name)
    stages = [[module.name() for module in stage] for stage in double.split_path(path.modules())]
    assert stages == [["EventInfoSetter"], ["Gearbox", "Geometry"], ["BGOverlayInput", "FullSim"]]
    assert double.split_path(path.modules()[:1]) == (path.modules()[:1], [], [])
    assert not double.Module().has_properties(double.ModulePropFlags.PARALLELPROCESSINGCERTIFIED)


def test_only_modules_go_on_a_path(double: ModuleType) -> None:
    with pytest.raises(TypeError, match="not a module: 3"):
        double.create_path().add_module(3)
