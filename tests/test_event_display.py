"""Pictures of events: every hit is drawn at its place, and the file is complete or absent."""

from __future__ import annotations

import errno
import itertools
import os
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

import matplotlib.image
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pxdbg_runtime import N_U_CELLS, N_V_CELLS, SENSORS, Digits
from pxdbg_runtime.errors import ArgumentValueError, MissingPackageError, OutputError
from pxdbg_runtime.plots.event_display import draw_event, save_event
from tests.digit_files import digits_of, names_in, random_digits
from tests.isolation import limit_file_size

if TYPE_CHECKING:
    import io
    from pathlib import Path

    from numpy.typing import NDArray


TITLE: Final = r"model $7, \frac and $8"


def event_of(n_hits: int) -> Digits:
    return random_digits(np.random.default_rng(n_hits), n_hits, 4)


def mirror(digits: Digits) -> Digits:
    """Move the hits to other places; counts, charges and all texts of the picture stay."""
    return Digits(
        event=digits.event,
        sensor_id=digits.sensor_id,
        u_cell=np.uint16(N_U_CELLS - 1) - digits.u_cell,
        v_cell=digits.v_cell // np.uint16(2),
        charge=digits.charge,
    )


def pixels_of(digits: Digits, path: Path) -> NDArray[np.float32]:
    save_event(digits, path, title=TITLE)
    return read_pixels(path)


def read_pixels(path: Path) -> NDArray[np.float32]:
    pixels = matplotlib.image.imread(path)
    assert pixels.shape == (880, 1320, 4)
    return np.asarray(pixels, dtype=np.float32)


@pytest.fixture(scope="module")
def full_picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw an event with a title that matplotlib would refuse as a formula, alone in a folder."""
    path = tmp_path_factory.mktemp("full") / "event.png"
    save_event(event_of(3_000), path, title=TITLE)
    return path


class Panels(NamedTuple):
    """The parts of a picture."""

    layers: tuple[Axes, Axes]
    spectrum: Axes
    occupancies: Axes
    bar: Axes


def find_panels(figure: Figure) -> Panels:
    first, second, occupancies, bar = figure.axes
    (spectrum,) = first.child_axes
    assert isinstance(spectrum, Axes)
    return Panels((first, second), spectrum, occupancies, bar)


def texts_of(axes: Axes) -> list[str]:
    """Names and occupancies of the sensors, then the title of the layer."""
    return [text.get_text() for text in axes.texts]


@pytest.mark.slow
def test_hits_change_pixels(full_picture: Path, tmp_path: Path) -> None:
    digits = event_of(3_000)
    empty = pixels_of(Digits.empty(), tmp_path / "empty.png")
    full = read_pixels(full_picture)
    moved = pixels_of(mirror(digits), tmp_path / "moved.png")
    again = pixels_of(digits, tmp_path / "again.png")
    assert np.ptp(empty) > 0.5
    assert (full != empty).any(axis=2).sum() > 3_000
    assert (full != moved).any(axis=2).sum() > 3_000
    assert (full == again).all()


@pytest.mark.parametrize(
    ("suffix", "beginning"),
    [
        ("svg", b"<?xml"),
        ("pdf", b"%PDF-"),
        ("PNG", b"\x89PNG\r\n\x1a\n"),
        ("jpg", b"\xff\xd8\xff"),
    ],
)
def test_formats(tmp_path: Path, suffix: str, beginning: bytes) -> None:
    """The title may be any text, and is not read as a formula."""
    path = tmp_path / f"event.{suffix}"
    save_event(event_of(500), path, title=TITLE)
    content = path.read_bytes()
    assert content.startswith(beginning)
    assert (b"<svg" in content) == (suffix == "svg")
    assert names_in(tmp_path) == [path.name]


def test_the_usual_format(full_picture: Path) -> None:
    content = full_picture.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert b"<svg" not in content
    assert names_in(full_picture.parent) == ["event.png"]


def test_every_hit_is_drawn() -> None:
    digits = event_of(5_000)
    for layer, axes in enumerate(find_panels(draw_event(digits, title="event 4")).layers, 1):
        chosen = digits.sensor_id >> 13 == layer
        (points,) = axes.collections
        colours = points.get_array()
        assert colours is not None
        assert chosen.sum() > 1_000
        assert len(np.asarray(points.get_offsets())) == chosen.sum()
        assert np.array_equal(np.asarray(colours), digits.charge[chosen])
        assert texts_of(axes)[-1].startswith(f"layer {layer}: {chosen.sum():,} digits, occupancy 0.0")


def test_hits_are_at_their_cells() -> None:
    hits = [
        (0, 8480, 3, 5, 1),  # 1.1.1
        (0, 8512, 3, 5, 2),  # 1.1.2
        (0, 10_272, 249, 767, 3),  # 1.8.1
        (0, 16_672, 0, 0, 4),  # 2.1.1
        (0, 19_520, 249, 767, 5),  # 2.12.2
    ]
    cells = {(1, 1, 1): (5, 3), (1, 1, 2): (5, 3), (1, 8, 1): (767, 249), (2, 1, 1): (0, 0), (2, 12, 2): (767, 249)}
    first, second = find_panels(draw_event(digits_of(hits), title="five hits")).layers
    for layer, axes in enumerate((first, second), 1):
        frames = {
            (layer, ladder, sensor): axes.patches[2 * (ladder - 1) + sensor - 1]
            for ladder in range(1, 1 + len(axes.patches) // 2)
            for sensor in (1, 2)
        }
        drawn = np.asarray(axes.collections[0].get_offsets()).tolist()
        assert drawn == [
            [frames[sensor].get_x() + v_cell, frames[sensor].get_y() + u_cell]  # type: ignore[attr-defined]
            for sensor, (v_cell, u_cell) in cells.items()
            if sensor[0] == layer
        ]
    # One scale, so that the eye can compare the densities.
    assert first.get_xlim() == second.get_xlim()
    assert first.get_ylim() == second.get_ylim()
    assert first.get_position().height == pytest.approx(second.get_position().height)


def test_sensors_do_not_overlap_and_are_named() -> None:
    for layer, axes in enumerate(find_panels(draw_event(event_of(40_000), title="event 4")).layers, 1):
        sensors = [sensor for sensor in SENSORS if sensor.layer == layer]
        boxes = [frame.get_bbox() for frame in axes.patches]  # type: ignore[attr-defined]  # rectangles
        assert len(boxes) == len(sensors)
        assert all((box.width, box.height) == (N_V_CELLS, N_U_CELLS) for box in boxes)
        assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
        names = [text for text in axes.texts if text.get_text() in map(str, sensors)]
        assert [text.get_text() for text in names] == [str(sensor) for sensor in sensors]
        for name, box in zip(names, boxes, strict=True):
            assert name.get_position() == (box.x0, box.y1)


@pytest.mark.slow
def test_the_occupancy_of_each_sensor_is_written_and_drawn() -> None:
    n_hits = {sensor: 500 + 100 * sensor.index for sensor in SENSORS}
    digits = digits_of(
        (0, sensor.vxd_id, *divmod(pixel, N_V_CELLS), 20) for sensor, n in n_hits.items() for pixel in range(n)
    )
    panels = find_panels(draw_event(digits, title="forty sensors"))
    percent = [100 * n / (N_U_CELLS * N_V_CELLS) for n in n_hits.values()]
    written = [text for axes in panels.layers for text in texts_of(axes) if text.endswith(" %") and "layer" not in text]
    assert written == [f"{each:.2f} %" for each in percent]
    bars = [bar for container in panels.occupancies.containers for bar in container]
    assert [bar.get_width() for bar in bars] == pytest.approx(percent)
    assert [bar.get_y() + bar.get_height() / 2 for bar in bars] == pytest.approx(panels.occupancies.get_yticks())
    assert [label.get_text() for label in panels.occupancies.get_yticklabels()] == [str(sensor) for sensor in SENSORS]
    colours = [bar.get_facecolor() for bar in bars]
    assert (len(set(colours[:16])), len(set(colours[16:])), len(set(colours))) == (1, 1, 2)


def test_a_selection_of_sensors() -> None:
    """Others are hatched; one without a digit is not. The mean is that of the generated sensors."""
    hits = [(0, 8480, 0, v_cell, 9) for v_cell in range(192)] + [(0, 8512, 0, v_cell, 9) for v_cell in range(576)]
    figure = draw_event(digits_of(hits), title="three sensors", sensors=SENSORS[:2] + SENSORS[3:4])
    first, second = find_panels(figure).layers
    labels = ["1.1.1", "0.10 %", "1.1.2", "0.30 %", "1.2.1", "not generated", "1.2.2", "0.00 %"]
    assert texts_of(first)[:8] == labels
    assert texts_of(first)[-1] == "layer 1: 3 of 16 sensors, 768 digits, occupancy 0.13 %"
    assert texts_of(second)[-1] == "layer 2: not generated"
    assert [bool(frame.get_hatch()) for frame in first.patches] == [False, False, True, False] + [True] * 12
    assert all(frame.get_hatch() for frame in second.patches)


@pytest.fixture(scope="module")
def hundred_hits() -> Figure:
    return draw_event(event_of(100), title="PXD background, event 4")


def test_the_axes_say_what_they_show(hundred_hits: Figure) -> None:
    layers, spectrum, occupancies, bar = find_panels(hundred_hits)
    assert hundred_hits.get_suptitle() == "PXD background, event 4"
    for axes, n_ladders in zip(layers, (8, 12), strict=True):
        assert "v cell" in axes.get_xlabel()
        assert axes.get_ylabel() == "ladder (250 u cells each)"
        assert [label.get_text() for label in axes.get_yticklabels()] == [str(1 + each) for each in range(n_ladders)]
    assert (spectrum.get_xlabel(), spectrum.get_ylabel()) == ("charge (ADU)", "digits / ADU")
    assert bar.get_xlabel() == "charge (ADU)"
    assert occupancies.get_title() == "occupancy of each sensor,\n7 ADU or more"
    assert occupancies.get_xlabel() == "occupancy (%)\ndashed: Geant4, layer mean,\n7 ADU or more"


@pytest.mark.parametrize(
    ("charges", "compare_geant4", "n_drawn", "title"),
    [
        ((6, 7, 8), True, 2, "occupancy of each sensor,\n7 ADU or more"),
        ((6, 7, 8), False, 3, "occupancy of each sensor"),
        ((7, 8, 9), True, 3, "occupancy of each sensor"),
        ((), True, 0, "occupancy of each sensor"),
    ],
)
def test_beside_geant4_occupancies_have_its_cut(
    charges: tuple[int, ...], compare_geant4: bool, n_drawn: int, title: str
) -> None:
    digits = digits_of((0, SENSORS[0].vxd_id, 0, v_cell, charge) for v_cell, charge in enumerate(charges))
    panels = find_panels(draw_event(digits, title="", compare_geant4=compare_geant4))
    (first, *others), _ = panels.occupancies.containers
    assert first.get_width() == pytest.approx(100 * n_drawn / (N_U_CELLS * N_V_CELLS))
    assert not any(bar.get_width() for bar in others)
    assert panels.occupancies.get_title() == title
    assert f"{100 * len(charges) / (N_U_CELLS * N_V_CELLS):.2f} %" in texts_of(panels.layers[0])


def test_random_weights_are_not_compared_with_geant4(hundred_hits: Figure) -> None:
    compared = find_panels(hundred_hits).occupancies
    alone = find_panels(draw_event(event_of(100), title="", compare_geant4=False)).occupancies
    assert (len(compared.collections), len(alone.collections)) == (2, 0)
    assert alone.get_xlabel() == "occupancy (%)"


def test_the_spectrum_counts_charges() -> None:
    digits = digits_of([(0, 8480, 0, v_cell, charge) for v_cell, charge in enumerate([1, 7, 7, 7, 255])])
    spectrum = find_panels(draw_event(digits, title="five hits")).spectrum
    (steps,) = spectrum.patches
    values, edges, _baseline = steps.get_data()  # type: ignore[attr-defined]  # a StepPatch
    assert {int(edge + 0.5): int(value) for edge, value in zip(edges, values, strict=False) if value} == {
        1: 1,
        7: 3,
        255: 1,
    }
    assert spectrum.get_title() == "charge spectrum, mean 55.4 ADU"
    assert spectrum.get_yscale() == "log"


def test_digits_of_other_detectors_are_not_drawn() -> None:
    digits = digits_of([(0, 8480, 0, 0, 9), (0, 19_520, 0, 0, 11), (0, 3 << 13, 0, 0, 255), (0, 8481, 0, 0, 1)])
    layers, spectrum, _occupancies, bar = find_panels(draw_event(digits, title="two hits"))
    (steps,) = spectrum.patches
    values, _edges, _baseline = steps.get_data()  # type: ignore[attr-defined]  # a StepPatch
    assert np.flatnonzero(values).tolist() == [8, 10]
    assert spectrum.get_title() == "charge spectrum, mean 10.0 ADU"
    assert [texts_of(axes)[-1] for axes in layers] == [
        "layer 1: 1 digits, occupancy 0.00 %",
        "layer 2: 1 digits, occupancy 0.00 %",
    ]
    alone = find_panels(draw_event(digits.select_rows(slice(2)), title="two hits"))
    assert bar.get_xlim() == alone.bar.get_xlim()  # the scale of the colours


def test_digits_of_several_events_are_refused(tmp_path: Path) -> None:
    digits = digits_of([(4, 8480, 0, 0, 9), (5, 8480, 0, 0, 9)])
    for attempt in (draw_event, lambda digits, title: save_event(digits, tmp_path / "event.png", title=title)):
        with pytest.raises(ArgumentValueError, match=r"digits must be of one event, but are of 2: select one") as info:
            attempt(digits, title="two events")
        assert info.value.argument == "digits"
    assert names_in(tmp_path) == []


def test_an_event_without_hits() -> None:
    (first, second), spectrum, _occupancies, _bar = find_panels(draw_event(Digits.empty(), title="nothing"))
    assert texts_of(first)[-1] == "layer 1: 0 digits, occupancy 0.00 %"
    assert texts_of(second)[-1] == "layer 2: 0 digits, occupancy 0.00 %"
    assert (spectrum.get_title(), spectrum.get_yscale()) == ("charge spectrum", "linear")


@pytest.mark.parametrize("name", ["event.bmp", "event", "event.root", "event.png.gz", "event.pgf"])
def test_another_format(tmp_path: Path, name: str) -> None:
    """matplotlib writes PGF with LaTeX."""
    with pytest.raises(ArgumentValueError, match=r"must end in a picture format: .*\.png") as info:
        save_event(event_of(10), tmp_path / name, title="event 4")
    assert info.value.argument == "output"
    assert names_in(tmp_path) == []


def test_a_file_that_may_not_grow_leaves_the_old_picture(tmp_path: Path) -> None:
    path = tmp_path / "event.png"
    path.write_bytes(b"the old picture")
    with limit_file_size(1_000), pytest.raises(OutputError, match=r"event\.png cannot be written: File too large\."):
        save_event(event_of(10), path, title="event 4")
    assert names_in(tmp_path) == ["event.png"]
    assert path.read_bytes() == b"the old picture"


def test_an_error_of_drawing_is_not_blamed_on_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def savefig(_figure: Figure, _target: io.BytesIO, **_options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/home/fonts.cache")

    monkeypatch.setattr(Figure, "savefig", savefig)
    with pytest.raises(OSError, match=r"fonts\.cache") as info:
        save_event(event_of(10), tmp_path / "event.png", title="event 4")
    assert type(info.value) is OSError
    assert names_in(tmp_path) == []


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    expected = r"A picture needs matplotlib, which is not installed: pip install 'pxdbg-runtime\[plot\]'\."
    for attempt in (draw_event, lambda digits, title: save_event(digits, tmp_path / "event.png", title=title)):
        with pytest.raises(MissingPackageError, match=expected) as info:
            attempt(event_of(10), title="event 4")
        assert (info.value.package, info.value.extra) == ("matplotlib", "plot")
    assert names_in(tmp_path) == []
