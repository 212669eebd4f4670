"""``pxdbg plot --kind``: what each kind draws, which options it takes, and how it fails."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from msgspec import structs

from pxdbg_runtime import SENSORS, Digits
from pxdbg_runtime.plots import event_display, figures
from tests.digit_files import (
    PROVENANCE,
    SAMPLE,
    digits_of,
    list_columns,
    names_in,
    write,
    write_plainly,
)
from tests.test_command_line import invoke, require_failure
from tests.validation_samples import build_marginals_content, count_empty_pixels, write_marginals

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

FUNCTION_OF_KIND = {
    "sensor": "draw_sensor",
    "charge": "draw_charges",
    "occupancy": "draw_occupancies",
    "clusters": "draw_cluster_sizes",
}
TITLE = "PXD background, 4 events: tiny, seed -7  (demonstration, no real physics)"


@pytest.fixture
def drawings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[Digits], dict[str, Any]]]:
    """Record each drawing: the function, its events, and its other arguments."""
    calls: list[tuple[str, list[Digits], dict[str, Any]]] = []

    def record(name: str) -> None:
        draw = getattr(figures, name)

        def draw_and_record(events: Any, *args: Any, **options: Any) -> Axes:  # noqa: ANN401
            listed = [events] if isinstance(events, Digits) else list(events)
            sensor = {"sensor": str(args[0])} if args else {}
            calls.append((name, listed, {**options, **sensor}))
            axes: Axes = draw(listed, *args, **options)
            return axes

        monkeypatch.setattr(figures, name, draw_and_record)

    for name in FUNCTION_OF_KIND.values():
        record(name)
    return calls


def test_a_simulation_is_not_called_no_real_physics(
    tmp_path: Path, drawings: list[tuple[str, list[Digits], dict[str, Any]]]
) -> None:
    simulation = structs.replace(PROVENANCE, nature="simulation", precision=None, graph_sha256=None)
    path = write(tmp_path / "bg.npz", [SAMPLE], simulation)
    assert invoke("plot", path, "--kind", "charge", "--output", tmp_path / "a.png").exit_code == 0
    assert drawings[0][2]["title"] == "PXD background, 4 events: tiny, seed -7"


@pytest.mark.parametrize("kind", ["charge", "occupancy", "clusters"])
def test_a_kind_draws_all_events(tmp_path: Path, drawings: list[tuple[str, list[Digits], Any]], kind: str) -> None:
    path = write(tmp_path / "bg.parquet", [SAMPLE])
    output = tmp_path / "a.png"
    result = invoke("plot", path, "--kind", kind, "--output", output)
    assert (result.exit_code, result.stdout) == (0, f"wrote {output}\n")
    assert re.search(r"events: 4/4", result.stderr)
    assert output.read_bytes().startswith(b"\x89PNG")
    ((name, events, options),) = drawings
    assert name == FUNCTION_OF_KIND[kind]
    assert events == [SAMPLE.of_event(event) for event in (3, 4, 5, 6)]
    assert (options["title"], options["style"]) == (TITLE, None)


@pytest.mark.parametrize("kind", ["charge", "occupancy"])
@pytest.mark.parametrize("nature", ["demonstration", "stand-in", "checkpoint"])
def test_random_weights_are_not_compared_with_geant4(
    tmp_path: Path, drawings: list[tuple[str, list[Digits], Any]], kind: str, nature: str
) -> None:
    path = write(tmp_path / "bg.parquet", [SAMPLE], structs.replace(PROVENANCE, nature=nature))
    assert invoke("plot", path, "--kind", kind, "--output", tmp_path / "a.png").exit_code == 0
    assert drawings[0][2]["compare_geant4"] == (nature != "demonstration")


@pytest.mark.parametrize(("threshold", "is_comparable"), [(1, True), (7, True), (8, False)])
@pytest.mark.parametrize("is_known", [True, False])
def test_geant4_stands_beside_hits_of_its_own_cut_alone(
    tmp_path: Path,
    drawings: list[tuple[str, list[Digits], Any]],
    monkeypatch: pytest.MonkeyPatch,
    threshold: int,
    is_known: bool,
    is_comparable: bool,
) -> None:
    """The smallest charge of another tool's file is its threshold."""
    compared: list[bool] = []

    def record_and_draw_nothing(_digits: Digits, *, compare_geant4: bool, **_options: object) -> Figure:
        compared.append(compare_geant4)
        return Figure()

    monkeypatch.setattr(event_display, "draw_event", record_and_draw_nothing)
    digits = digits_of([(3, 8480, 0, 0, threshold), (4, 8480, 0, 1, 100), (4, 16_672, 0, 0, threshold + 1)])
    if is_known:
        path = write(
            tmp_path / "bg.npz", [digits], structs.replace(PROVENANCE, nature="stand-in", min_charge=threshold)
        )
    else:
        path = write_plainly(tmp_path / "bg.npz", list_columns(digits), None)
    for kind in ("event", "charge", "occupancy"):
        assert invoke("plot", path, "--kind", kind, "--output", tmp_path / "a.png").exit_code == 0
    (_, _, charge), (_, _, occupancy) = drawings
    assert [*compared, charge["compare_geant4"], occupancy["compare_geant4"]] == [is_comparable] * 3
    assert occupancy["min_charge"] == (7 if is_comparable else 1)
    assert occupancy["title"].endswith("7 ADU or more") == is_comparable


def test_hits_of_a_sensor(tmp_path: Path, drawings: list[tuple[str, list[Digits], Any]]) -> None:
    path = write(tmp_path / "bg.npz", [SAMPLE])
    for number, options in enumerate([(), ("--event", 5, "--style", "ROOT")]):
        result = invoke(
            "plot", path, "--kind", "sensor", "--sensor", "1.1.2", "--output", f"{tmp_path}/{number}.svg", *options
        )
        assert result.exit_code == 0, result.stderr
    (_, all_events, of_all), (_, one_event, of_one) = drawings
    assert (all_events, one_event) == ([SAMPLE.of_event(event) for event in (3, 4, 5, 6)], [SAMPLE.of_event(5)])
    assert of_all == {"sensor": "1.1.2", "weigh_by_charge": False, "title": f"{TITLE}, sensor 1.1.2", "style": None}
    title = TITLE.replace("4 events", "event 5")
    assert of_one == {"sensor": "1.1.2", "weigh_by_charge": True, "title": f"{title}, sensor 1.1.2", "style": "ROOT"}
    assert names_in(tmp_path) == ["0.svg", "1.svg", "bg.npz"]


def test_occupancies_beside_published_ones(tmp_path: Path, drawings: list[tuple[str, list[Digits], Any]]) -> None:
    occupancies = np.linspace(0.001, 0.04, 40)
    content: dict[str, Any] = build_marginals_content()
    content["samples"]["geant4"]["sensor_mean_occupancy"] = occupancies.tolist()
    count_empty_pixels(content["samples"]["geant4"])
    reference = write_marginals(tmp_path / "marginals.json", content)
    path = write(tmp_path / "bg.npz", [SAMPLE])
    result = invoke("plot", path, "--kind", "occupancy", "--reference", reference, "--output", tmp_path / "a.png")
    assert result.exit_code == 0, result.stderr
    ((_, _, options),) = drawings
    assert options["reference"] == pytest.approx(occupancies)
    assert (options["reference_name"], options["min_charge"]) == ("published: geant4", 7)
    assert options["title"] == f"{TITLE}, 7 ADU or more"


def test_sensors_that_were_not_generated(tmp_path: Path, drawings: list[tuple[str, list[Digits], Any]]) -> None:
    provenance = structs.replace(PROVENANCE, sensors=("1.1.1", "1.1.2"))
    path = write(tmp_path / "bg.npz", [SAMPLE.select_rows(slice(2, 4))], provenance)
    assert invoke("plot", path, "--kind", "occupancy", "--output", tmp_path / "a.png").exit_code == 0
    assert drawings[0][2]["sensors"] == SENSORS[:2]
    assert "2 of 40 sensors" in drawings[0][2]["title"]
    some = write(tmp_path / "some.npz", [], structs.replace(provenance, nature="stand-in"))
    assert invoke("plot", some, "--kind", "charge", "--output", tmp_path / "c.png").exit_code == 0
    assert not drawings[1][2]["compare_geant4"]  # its mean charge is that of all sensors
    result = invoke("plot", path, "--kind", "sensor", "--sensor", "2.1.1", "--output", tmp_path / "b.png")
    require_failure(result, 2, r"--sensor must be one of those in .*bg\.npz, sensors 1\.1\.1, 1\.1\.2, but is 2\.1\.1")


def test_another_tools_file(tmp_path: Path, drawings: list[tuple[str, list[Digits], Any]]) -> None:
    path = write_plainly(tmp_path / "bg.parquet", list_columns(SAMPLE), None)
    assert invoke("plot", path, "--kind", "charge", "--output", tmp_path / "a.png").exit_code == 0
    assert drawings[0][2]["title"] == "PXD background, 2 events: provenance unknown"


@pytest.mark.parametrize(
    ("options", "exit_code", "expected"),
    [
        ("--kind charge --event 3", 2, "--event goes with --kind event or sensor, but --kind is charge"),
        ("--kind clusters --sensor 1.1.1", 2, "--sensor goes with --kind sensor, but --kind is clusters"),
        ("--kind charge --reference m.json", 2, "--reference goes with --kind occupancy, but --kind is charge"),
        ("--style CMS", 2, "--style goes with --kind sensor or charge or occupancy or clusters, but --kind is event"),
        ("--kind sensor", 2, r"--kind sensor needs the sensor to draw: add --sensor 1\.1\.1, or another"),
        ("--kind sensor --sensor 3.1.1", 2, r"No PXD sensor has the name '3\.1\.1'"),
        ("--kind sensor --sensor 1.1.1 --event 7", 2, r"--event must be one of those in bg\.npz, 3 to 6, but is 7"),
        ("--kind hits", 2, "--kind"),
        ("--kind charge --style Belle2", 2, "--style"),
        ("--kind occupancy --reference gone.json", 1, r"gone\.json cannot be read"),
        ("--kind occupancy --reference bg.npz", 1, r"bg\.npz is not a JSON file of marginals"),
    ],
)
def test_what_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str, exit_code: int, expected: str
) -> None:
    write(tmp_path / "bg.npz", [SAMPLE])
    monkeypatch.chdir(tmp_path)
    require_failure(invoke("plot", "bg.npz", "--output", "a.png", *options.split()), exit_code, expected)
    assert names_in(tmp_path) == ["bg.npz"]


def test_an_unknown_picture_format_is_refused_before_the_file_is_read(tmp_path: Path) -> None:
    result = invoke("plot", tmp_path / "gone.npz", "--kind", "charge", "--output", tmp_path / "a.bmp")
    require_failure(result, 2, "must end in a picture format")


def test_a_reference_is_not_written_over(tmp_path: Path) -> None:
    path, reference = (
        write(tmp_path / "bg.npz", [SAMPLE]),
        write_marginals(tmp_path / "m.json", build_marginals_content()),
    )
    result = invoke("plot", path, "--kind", "occupancy", "--reference", reference, "--output", reference)
    require_failure(result, 2, r"--output would write .*, which is read")


def test_a_sample_with_a_larger_threshold(tmp_path: Path) -> None:
    path = write(tmp_path / "bg.npz", [], structs.replace(PROVENANCE, min_charge=8))
    reference = write_marginals(tmp_path / "m.json", build_marginals_content())
    result = invoke("plot", path, "--kind", "occupancy", "--reference", reference, "--output", tmp_path / "a.png")
    require_failure(result, 2, "made with a threshold of 8 ADU, but published marginals are cut at 7 ADU")


def test_a_file_of_unknown_threshold_beside_published_marginals(tmp_path: Path) -> None:
    digits = digits_of([(0, 8480, 0, 0, 20), (0, 8480, 0, 1, 100)])
    path = write_plainly(tmp_path / "bg.npz", list_columns(digits), None)
    reference = write_marginals(tmp_path / "m.json", build_marginals_content())
    result = invoke("plot", path, "--kind", "occupancy", "--reference", reference, "--output", tmp_path / "a.png")
    require_failure(result, 2, r"bg\.npz holds no charge below 20 ADU, but published marginals are cut at 7 ADU")


@pytest.mark.parametrize(("package", "options"), [("hist", ""), ("matplotlib", ""), ("mplhep", "--style CMS")])
def test_a_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, options: str) -> None:
    path = write(tmp_path / "bg.npz", [SAMPLE])
    monkeypatch.setitem(sys.modules, package, None)
    result = invoke("plot", path, "--kind", "charge", "--output", tmp_path / "a.png", *options.split())
    require_failure(result, 1, rf"needs {package}, which is not installed: pip install 'pxdbg-runtime\[plot\]'")
    assert names_in(tmp_path) == ["bg.npz"]
