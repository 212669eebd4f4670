"""Figures of samples: what the axes show, styles without global state, and missing packages."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final, get_args

import matplotlib as mpl
import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from pxdbg_runtime import SENSORS, Digits
from pxdbg_runtime.errors import ArgumentValueError, MissingPackageError
from pxdbg_runtime.plots.drawing import StyleName, save_figure
from pxdbg_runtime.plots.event_display import draw_event
from pxdbg_runtime.plots.figures import draw_charges, draw_cluster_sizes, draw_occupancies, draw_sensor
from tests.digit_files import digits_of, random_digits

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.axes import Axes

    Draw = Callable[..., Axes]


def draw_first_sensor(events: Any, **options: Any) -> Axes:  # noqa: ANN401
    return draw_sensor(events, "1.1.1", **options)


each_function: Final = pytest.mark.parametrize(
    "draw", [draw_charges, draw_cluster_sizes, draw_occupancies, draw_first_sensor], ids=lambda draw: draw.__name__
)
TRIPLE: Final = [(0, 8480, 0, v_cell, 9) for v_cell in (5, 6, 7)]


@pytest.fixture(scope="module")
def events() -> list[Digits]:
    rng = np.random.default_rng(6)
    return [random_digits(rng, 30_000, event) for event in range(3)]


def heights_of(axes: Axes) -> dict[int, float]:
    """Read the bins that are not empty from the only histogram."""
    (steps,) = axes.patches
    values, edges, _baseline = steps.get_data()  # type: ignore[attr-defined]  # a StepPatch
    return {int(edge + 0.5): value for edge, value in zip(edges, values, strict=False) if value}


def legend_of(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_charges() -> None:
    digits = digits_of([(0, 8480, 0, v_cell, charge) for v_cell, charge in enumerate([1, 7, 7, 255])])
    axes = draw_charges(digits, title="four $digits")
    assert heights_of(axes) == {1: 0.25, 7: 0.5, 255: 0.25}
    assert legend_of(axes) == ["4 digits, mean 67.5 ADU", "mean of Geant4, 7 ADU or more: 22 ADU"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("charge (ADU)", "share of the digits / ADU")
    assert (axes.get_title(), axes.get_yscale()) == ("four $digits", "log")


def test_random_weights_are_not_compared_with_geant4(events: list[Digits]) -> None:
    digits = digits_of(TRIPLE)
    assert legend_of(draw_charges(digits, compare_geant4=False)) == ["3 digits, mean 9.0 ADU"]
    assert legend_of(draw_occupancies(events, compare_geant4=False)) == ["layer 1", "layer 2"]
    reference = np.linspace(0.001, 0.04, 40)
    assert "reference" in legend_of(draw_occupancies(events, reference=reference, compare_geant4=False))


def test_samples_share_axes() -> None:
    """Each is normalised, so that samples of different sizes can be compared."""
    first = draw_charges(digits_of(TRIPLE), label="one")
    second = draw_charges(digits_of(TRIPLE[:1]), label="$two", axes=first)
    assert second is first
    names = ["one: 3 digits, mean 9.0 ADU", "mean of Geant4, 7 ADU or more: 22 ADU", "$two: 1 digits, mean 9.0 ADU"]
    assert sorted(legend_of(first)) == sorted(names)
    heights = [steps.get_data().values.max() for steps in first.patches]  # type: ignore[attr-defined]  # StepPatches
    assert heights == [1.0, 1.0]


def test_a_line_of_the_caller_is_not_that_of_geant4() -> None:
    axes = Figure().subplots()
    axes.axvline(50)
    assert "mean of Geant4, 7 ADU or more: 22 ADU" in legend_of(draw_charges(digits_of(TRIPLE), axes=axes))


def test_cluster_sizes() -> None:
    long_one = [(0, 8512, 0, v_cell, 9) for v_cell in range(60)]
    axes = draw_cluster_sizes(digits_of([*TRIPLE, (0, 8480, 9, 9, 9)]))
    assert heights_of(axes) == {1: 0.5, 3: 0.5}
    assert axes.get_xlim() == (0.5, 15.5)
    assert legend_of(axes) == ["2 clusters, 50.0 % of one digit"]
    draw_cluster_sizes(digits_of(long_one), axes=axes)
    assert axes.get_xlim() == (0.5, 41.5)
    assert [label.get_text() for label in axes.get_xticklabels()][-2:] == ["35", "> 40"]
    draw_cluster_sizes(digits_of(TRIPLE), axes=axes)
    assert axes.get_xlim() == (0.5, 41.5)


def test_occupancies(events: list[Digits]) -> None:
    axes = draw_occupancies(events)
    percent = 100 * np.mean([(digits.to_images() > 0).mean(axis=(1, 2)) for digits in events], axis=0)
    bars = [bar for container in axes.containers for bar in getattr(container, "patches", [])]
    assert [bar.get_height() for bar in bars] == pytest.approx(percent)
    assert [label.get_text() for label in axes.get_xticklabels()] == [str(sensor) for sensor in SENSORS]
    assert [bar.get_x() + bar.get_width() / 2 for bar in bars] == pytest.approx(axes.get_xticks())
    assert legend_of(axes) == ["Geant4, mean of the layer, 7 ADU or more", "layer 1", "layer 2"]


def test_a_published_reference(events: list[Digits]) -> None:
    reference = np.linspace(0.001, 0.04, 40)
    axes = draw_occupancies(events[0], reference=reference, reference_name="geant4")
    (lines,) = axes.collections  # of one event there are no errors
    segments = np.array(lines.get_segments())  # type: ignore[attr-defined]  # a LineCollection
    assert segments[:, 0, 1] == pytest.approx(100 * reference)
    assert segments[:, :, 0].mean(axis=1) == pytest.approx(axes.get_xticks())
    assert legend_of(axes)[0] == "geant4"
    (same,) = draw_occupancies(events[0], reference=reference.tolist()).collections
    assert np.array_equal(same.get_segments(), segments)  # type: ignore[attr-defined]  # a LineCollection


def test_errors_are_of_several_events(events: list[Digits]) -> None:
    one, three = draw_occupancies(events[0]), draw_occupancies(events)
    assert len(three.collections) == len(one.collections) + 2  # the error bars of each layer
    percent = [100 * (digits.to_images()[0] > 0).mean() for digits in events]
    bar = three.collections[0].get_segments()[0]  # type: ignore[attr-defined]  # a LineCollection
    assert (bar[1, 1] - bar[0, 1]) / 2 == pytest.approx(np.std(percent, ddof=1) / np.sqrt(3))


def test_sensors_that_were_not_generated_have_no_bar(events: list[Digits]) -> None:
    axes = draw_occupancies(events, sensors=SENSORS[:2])
    assert [len(getattr(each, "patches", [])) for each in axes.containers if hasattr(each, "patches")] == [2, 0]
    assert legend_of(axes) == ["Geant4, mean of the layer, 7 ADU or more", "layer 1"]


@pytest.mark.parametrize("shape", [(), (39,), (1, 40)])
def test_a_reference_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ArgumentValueError, match="reference must have the occupancies of 40"):
        draw_occupancies(Digits.empty(), reference=np.zeros(shape))


def test_hits_and_charges_of_a_sensor(events: list[Digits]) -> None:
    hits, charges = draw_sensor(events, "2.1.1"), draw_sensor(events[0], 8480, weigh_by_charge=True, title="event 0")
    expected = np.sum([digits.to_images()[16] > 0 for digits in events], axis=0)
    for axes, values in ((hits, expected), (charges, events[0].to_images()[0])):
        (image,) = axes.images
        assert np.array_equal(np.ma.filled(np.ma.asarray(image.get_array()), 0), values)
        assert tuple(image.get_extent()) == (-0.5, 767.5, -0.5, 249.5)
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("v cell", "u cell")
    assert (hits.get_title(), charges.get_title()) == ("sensor 2.1.1", "event 0")
    scales = [next(other for other in axes.figure.axes if other is not axes).get_ylabel() for axes in (hits, charges)]
    assert scales == ["hits of each cell", "charge (ADU)"]
    assert hits.images[0].get_clim() == (1, max(2, expected.max()))  # a cell without a hit is white


@pytest.mark.parametrize(("charges", "first"), [([7, 40], 7), ([9, 255], 7), ([3, 40], 3), ([0, 1, 40], 1), ([], 7)])
def test_charges_have_the_same_colours_in_an_event_and_in_a_sensor(charges: list[int], first: int) -> None:
    """The scale begins at the read-out threshold, or below it if there are such charges."""
    digits = digits_of([(0, 8480, 0, v_cell, charge) for v_cell, charge in enumerate(charges)])
    layers = draw_event(digits, title="an event").axes[:2]
    image = draw_sensor(digits, "1.1.1", weigh_by_charge=True).images[0]
    colours = []
    for each in (*(axes.collections[0] for axes in layers), image):
        assert each.get_clim() == (first, 255)
        colours.append(np.asarray(each.to_rgba(np.array([first, 255]))))
    assert all(np.array_equal(each, colours[0]) for each in colours)
    assert colours[0][0, :3].max() < 0.9  # visible on white


def test_a_charge_of_0_is_drawn_in_the_lightest_colour() -> None:
    points = draw_event(digits_of([(0, 8480, 0, 0, 0)]), title="an event").axes[0].collections[0]
    assert points.get_clim() == (1, 255)
    lightest, zero = points.to_rgba(np.array([1, 0]))
    assert np.array_equal(zero, lightest)


def test_summed_charges_end_the_scale() -> None:
    events = [digits_of([(event, 8480, 0, 0, 255), (event, 8480, 0, 1, 64)]) for event in range(5)]
    image = draw_sensor(events, "1.1.1", weigh_by_charge=True).images[0]
    assert image.get_clim() == (7, 1275)
    sums = np.asarray(image.to_rgba(np.array([255, 320, 1275])))
    assert not np.array_equal(sums[1], sums[2])
    assert not np.array_equal(sums[0], sums[2])


@each_function
def test_no_digits(draw: Draw, tmp_path: Path) -> None:
    axes = draw(Digits.empty())
    save_figure(axes.figure, tmp_path / "empty.png")  # type: ignore[arg-type]  # no SubFigure
    assert matplotlib.image.imread(tmp_path / "empty.png").shape[2] == 4


@each_function
def test_axes_of_the_caller(draw: Draw) -> None:
    figure = Figure()
    given = figure.subplots()
    assert draw(digits_of(TRIPLE), axes=given) is given
    assert given.figure is figure


@pytest.mark.parametrize(
    ("draw", "style"), [*((draw_charges, style) for style in get_args(StyleName)), (draw_first_sensor, "CMS")]
)
def test_a_style_changes_the_picture_and_nothing_else(draw: Draw, style: StyleName, tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    pictures = []
    for name in (None, style):
        axes = draw(digits_of(TRIPLE), style=name)
        path = tmp_path / f"{name}.png"
        save_figure(axes.figure, path, style=name)  # type: ignore[arg-type]  # no SubFigure
        pictures.append(matplotlib.image.imread(path))
    assert dict(mpl.rcParams) == before
    plain, styled = pictures
    # Letters of any size keep their share of the picture.
    assert np.abs(np.subtract(plain.shape, styled.shape)).max() <= 2
    height, width = np.minimum(plain.shape, styled.shape)[:2]
    assert (plain[:height, :width] != styled[:height, :width]).any(axis=2).mean() > 0.005


def test_there_is_no_such_style() -> None:
    with pytest.raises(ArgumentValueError, match="style must be one of ATLAS, CMS, ROOT, but is 'Belle II'"):
        draw_charges(Digits.empty(), style="Belle II")  # type: ignore[arg-type]


@each_function
@pytest.mark.parametrize(("package", "purpose"), [("matplotlib", "A picture"), ("mplhep", "A style of mplhep")])
def test_a_missing_package(draw: Draw, package: str, purpose: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    expected = rf"^{purpose} needs {package}, which is not installed: pip install 'pxdbg-runtime\[plot\]'\.$"
    with pytest.raises(MissingPackageError, match=expected) as info:
        draw(Digits.empty(), style="ATLAS")
    assert (info.value.package, info.value.extra) == (package, "plot")


def test_nothing_loads_unless_used() -> None:
    code = (
        "import sys, pxdbg_runtime.plots.figures, pxdbg_runtime.command_line\n"
        "print({'matplotlib', 'hist', 'mplhep', 'numba', 'boost_histogram'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"
