"""Where the module goes on a path, and what the release's own simulation gets."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Final

import pytest

from pxdbg_runtime.basf2 import (
    PXDBackgroundGenerator,
    Specs,
    add_pxd_background_generator,
    add_simulation,
    inject_simulation,
)
from pxdbg_runtime.errors import ArgumentTypeError, ArgumentValueError, MissingReleaseError

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

SPECS: Final = Specs(model="resnet", checkpoint="builtin:resnet", seed=1)
PLAIN: Final = ["Gearbox", "Geometry", "BGOverlayInput", "FullSim", "PXDDigitizer", "BGOverlayExecutor"]
WITH_MODULE: Final = [*PLAIN[:3], "PXDBackgroundGenerator", *PLAIN[3:]]
FILES: Final = ["overlay.root"]


def list_names(path: object) -> list[str]:
    return [module.name() for module in path.modules()]  # type: ignore[attr-defined]  # of the double


def test_the_simulation_has_the_module_right_after_the_overlay(double: ModuleType) -> None:
    path = double.create_path()
    add_simulation(path, bkgfiles=FILES, pxd_background_generator=SPECS)
    assert list_names(path) == WITH_MODULE
    overlay = path.modules()[2]
    assert overlay.parameters == {"inputFileNames": FILES}


def test_all_else_is_passed_on(double: ModuleType) -> None:
    path = double.create_path()
    add_simulation(path, ["SVD"], bkgfiles=FILES, pxd_background_generator=SPECS)
    assert list_names(path) == [name for name in WITH_MODULE if name != "PXDDigitizer"]


def test_what_is_on_the_path_is_not_added_again(double: ModuleType) -> None:
    path = double.create_path()
    path.add_module("EventInfoSetter")
    gearbox = path.add_module("Gearbox")
    add_simulation(path, bkgfiles=FILES, pxd_background_generator=SPECS)
    assert list_names(path) == ["EventInfoSetter", *WITH_MODULE]
    assert path.modules()[1] is gearbox


def test_none_changes_nothing(double: ModuleType) -> None:
    simulation = importlib.import_module("simulation")
    release_own = simulation.add_simulation
    path = double.create_path()
    add_pxd_background_generator(path, None)
    assert list_names(path) == []
    add_simulation(path, bkgfiles=FILES)
    assert list_names(path) == PLAIN
    inject_simulation(None)
    assert simulation.add_simulation is release_own
    assert double.conditions.globaltags == []


def test_the_module_is_appended_to_a_path(double: ModuleType) -> None:
    path = double.create_path()
    path.add_module("BGOverlayInput", inputFileNames=FILES)
    add_pxd_background_generator(path, SPECS)
    assert list_names(path) == ["BGOverlayInput", "PXDBackgroundGenerator"]


def test_an_injected_simulation_has_the_last_module_alone(double: ModuleType) -> None:
    simulation = importlib.import_module("simulation")
    inject_simulation(PXDBackgroundGenerator(SPECS))
    module = PXDBackgroundGenerator(model="resnet", checkpoint="builtin:resnet")
    inject_simulation(module)
    path = double.create_path()
    simulation.add_simulation(path, bkgfiles=FILES)
    assert list_names(path) == WITH_MODULE
    assert path.modules()[3] is module
    assert simulation.add_simulation.__doc__.startswith("Add the simulation")
    other = double.create_path()
    add_simulation(other, bkgfiles=FILES, pxd_background_generator=SPECS)
    assert list_names(other) == WITH_MODULE
    assert other.modules()[3] is not module


def test_a_simulation_without_overlay_is_refused(double: ModuleType) -> None:
    path = double.create_path()
    with pytest.raises(ArgumentValueError, match=r"no BGOverlayInput, .*: pass background files"):
        add_simulation(path, pxd_background_generator=SPECS)
    assert list_names(path) == []


def test_the_global_tag_is_appended_where_the_payload_is_used(double: ModuleType) -> None:
    double.conditions.append_globaltag("of the user")
    PXDBackgroundGenerator(SPECS)
    PXDBackgroundGenerator(model="resnet", globaltag="mine")
    assert double.conditions.globaltags == ["of the user", "mine"]


@pytest.mark.parametrize("arguments", [{"specs": "resnet"}, {"specs": SPECS, "seed": 3}])
def test_specs_and_arguments_are_not_mixed(arguments: dict[str, object]) -> None:
    with pytest.raises(ArgumentTypeError, match="takes either one Specs or the arguments of one, but got"):
        PXDBackgroundGenerator(**arguments)  # type: ignore[arg-type]  # the point of the test


def test_without_a_release_each_call_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    path = object()
    for name in ("basf2", "simulation"):
        monkeypatch.setitem(sys.modules, name, None)
    for name, call in (
        ("basf2", lambda: PXDBackgroundGenerator(SPECS)),
        ("simulation", lambda: add_simulation(path, pxd_background_generator=SPECS)),  # type: ignore[arg-type]
        ("simulation", lambda: inject_simulation(path)),  # type: ignore[arg-type]
    ):
        with pytest.raises(
            MissingReleaseError, match=f"The Python module {name} is missing: .* needs a release"
        ) as caught:
            call()
        assert caught.value.module == name


def test_a_release_that_lacks_a_module_of_its_own_is_not_blamed_on_basf2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "basf2.py").write_text("import its_own_requirement\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="No module named 'its_own_requirement'") as caught:
        PXDBackgroundGenerator(SPECS)
    assert not isinstance(caught.value, MissingReleaseError)
