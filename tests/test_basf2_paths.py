"""Where the module goes on a path, and what the release's own simulation gets."""

from __future__ import annotations

import importlib
import inspect
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
BEFORE: Final = ["StatisticsSummary", "BGOverlayInput"]
AFTER: Final = ["Gearbox", "Geometry", "FullSim", "PXDDigitizer", "BGOverlayExecutor", "PXDDigitSorter"]
WITH_MODULE: Final = [*BEFORE, "PXDBackgroundGenerator", *AFTER]
FILES: Final = ["overlay.root"]


def list_names(path: object) -> list[str]:
    return [module.name() for module in path.modules()]  # type: ignore[attr-defined]  # of the double


@pytest.mark.slow
def test_the_simulation_has_the_module_right_after_the_overlay(double: ModuleType) -> None:
    path = double.create_path()
    add_simulation(path, bkgfiles=FILES, pxd_background_generator=SPECS)
    assert list_names(path) == WITH_MODULE
    overlay = path.modules()[1]
    assert overlay.parameters == {"inputFileNames": FILES}


def test_all_else_is_passed_on(double: ModuleType) -> None:
    path = double.create_path()
    add_simulation(path, ["SVD"], bkgfiles=FILES, pxd_background_generator=SPECS)
    assert list_names(path) == [name for name in WITH_MODULE if name not in {"PXDDigitizer", "PXDDigitSorter"}]


def test_what_is_on_the_path_is_not_added_again(double: ModuleType) -> None:
    path = double.create_path()
    path.add_module("EventInfoSetter")
    gearbox = path.add_module("Gearbox")
    add_simulation(path, bkgfiles=FILES, pxd_background_generator=SPECS)
    expected = [name for name in WITH_MODULE if name != "Gearbox"]
    assert list_names(path) == ["EventInfoSetter", "Gearbox", *expected]
    assert path.modules()[1] is gearbox


def test_none_changes_nothing(double: ModuleType) -> None:
    simulation = importlib.import_module("simulation")
    path = double.create_path()
    add_pxd_background_generator(path, None)
    assert list_names(path) == []
    add_simulation(path, bkgfiles=FILES)
    assert list_names(path) == [*BEFORE, *AFTER]
    assert inject_simulation(None) is simulation.add_simulation
    assert double.conditions.globaltags == []


def test_the_module_is_appended_to_a_path(double: ModuleType) -> None:
    path = double.create_path()
    path.add_module("BGOverlayInput", inputFileNames=FILES)
    add_pxd_background_generator(path, SPECS)
    assert list_names(path) == ["BGOverlayInput", "PXDBackgroundGenerator"]


def test_an_injected_simulation_has_the_module_and_patches_nothing(double: ModuleType) -> None:
    simulation = importlib.import_module("simulation")
    before = dict(vars(simulation))
    module = PXDBackgroundGenerator("resnet", checkpoint="builtin:resnet")
    add = inject_simulation(module)
    assert vars(simulation) == before
    assert add.__doc__ == simulation.add_simulation.__doc__
    path = double.create_path()
    add(path, bkgfiles=FILES)
    assert list_names(path) == WITH_MODULE
    assert path.modules()[2] is module
    other = double.create_path()
    simulation.add_simulation(other, bkgfiles=FILES)
    assert list_names(other) == [*BEFORE, *AFTER]


def test_any_module_of_basf2_can_be_injected(double: ModuleType) -> None:
    path = double.create_path()
    inject_simulation(double.register_module("Progress"))(path, bkgfiles=FILES)
    assert list_names(path) == [*BEFORE, "Progress", *AFTER]


@pytest.mark.parametrize("wrong", ["PXDBackgroundGenerator", SPECS, PXDBackgroundGenerator])
def test_only_modules_are_injected(double: ModuleType, wrong: object) -> None:  # noqa: ARG001  # it must be there
    with pytest.raises(ArgumentTypeError, match=r"module must be a basf2\.Module or None, but is .+ \(\w+\)"):
        inject_simulation(wrong)


def test_a_simulation_without_overlay_is_the_releases_with_a_warning(double: ModuleType) -> None:
    for add, options in (
        (inject_simulation(PXDBackgroundGenerator(SPECS)), {}),
        (add_simulation, {"pxd_background_generator": SPECS}),
    ):
        path = double.create_path()
        double.logged.clear()
        add(path, **options)
        assert list_names(path) == [name for name in [*BEFORE, *AFTER] if not name.startswith("BGOverlay")]
        ((level, text),) = double.logged
        assert level == "WARNING"
        assert text.startswith("PXDBackgroundGenerator: the simulation adds no BGOverlayInput, ")
        assert text.endswith(": pass background files (bkgfiles) to add_simulation.")


def test_the_module_is_an_instance_of_both_classes(double: ModuleType) -> None:
    module = PXDBackgroundGenerator(SPECS)
    assert isinstance(module, double.Module)
    assert isinstance(module, PXDBackgroundGenerator)
    assert not isinstance(double.register_module("Progress"), PXDBackgroundGenerator)
    assert module.name() == "PXDBackgroundGenerator"  # type: ignore[attr-defined]  # of basf2.Module


def test_the_module_takes_the_arguments_of_the_original(double: ModuleType) -> None:
    PXDBackgroundGenerator()
    PXDBackgroundGenerator("resnet", None, -5, 2, 3, "by position")
    PXDBackgroundGenerator(model="ieagan", globaltag="by keyword", random_stream="torch")
    assert double.conditions.globaltags == ["PXDBackgroundGenerator", "by position", "by keyword"]
    assert str(inspect.signature(PXDBackgroundGenerator)) == str(inspect.signature(Specs))
    with pytest.raises(ArgumentTypeError, match=r"nintra must be an integer, but is '2'"):
        PXDBackgroundGenerator("resnet", None, -5, "2")
    with pytest.raises(ArgumentValueError, match="model must be one of convnet, resnet, ieagan, but is 'vae'"):
        PXDBackgroundGenerator("vae")
    with pytest.raises(TypeError, match="unexpected keyword argument 'sede'"):
        PXDBackgroundGenerator("resnet", sede=3)  # type: ignore[call-arg]  # the point of the test


def test_the_global_tag_is_appended_where_the_payload_is_used(double: ModuleType) -> None:
    double.conditions.append_globaltag("of the user")
    PXDBackgroundGenerator(SPECS)
    PXDBackgroundGenerator(model="resnet", globaltag="mine")
    assert double.conditions.globaltags == ["of the user", "mine"]


def test_specs_and_arguments_are_not_mixed() -> None:
    with pytest.raises(ArgumentTypeError, match=r"model must be text, but is Specs\("):
        PXDBackgroundGenerator(SPECS, seed=3)


def test_without_a_release_each_call_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    path = object()
    for name in ("basf2", "simulation"):
        monkeypatch.setitem(sys.modules, name, None)
    for name, call in (
        ("basf2", lambda: PXDBackgroundGenerator(SPECS)),
        ("basf2", lambda: add_simulation(path, pxd_background_generator=SPECS)),  # type: ignore[arg-type]
        ("basf2", lambda: inject_simulation(None)),
    ):
        with pytest.raises(
            MissingReleaseError, match=f"The Python module {name} is missing: .* needs a release"
        ) as caught:
            call()
        assert caught.value.module == name
    assert not isinstance(path, PXDBackgroundGenerator)


def test_a_release_that_lacks_a_module_of_its_own_is_not_blamed_on_basf2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "basf2.py").write_text("import its_own_requirement\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="No module named 'its_own_requirement'") as caught:
        PXDBackgroundGenerator(SPECS)
    assert not isinstance(caught.value, MissingReleaseError)
