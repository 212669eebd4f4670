"""Draw the picture of the front page: a generated event, and the occupancy of each sensor beside Geant4's.

    python examples/landing_picture.py docs/landing.png

Needs pxdbg-runtime[cpu,plot]; takes a minute. Simulated events are not public, but their mean occupancies are.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from pxdbg_runtime import SENSORS, Digits, Generator
from pxdbg_runtime.plots.drawing import COLOUR_OF_LAYER, save_figure
from pxdbg_runtime.plots.histograms import fill_occupancies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

OCCUPANCIES: Final = Path(__file__).resolve().parent.parent / "docs" / "geant4-occupancies.json"
N_EVENTS: Final = 20
_WIDTH, _LENGTH = 250, 768
_LADDER_PITCH: Final = _WIDTH + 40
_SENSOR_PITCH: Final = _LENGTH + 30
_FIRST_EDGE: Final = {1: 0, 2: 8 * _LADDER_PITCH + 250}
"""Where the first ladder of a layer begins: the ladders of both layers stand side by side, in u cells."""
_COLOURS: Final = 256


def find_left_edges() -> list[int]:
    """Find where the first u cell of each sensor is drawn."""
    return [_FIRST_EDGE[sensor.layer] + (sensor.ladder - 1) * _LADDER_PITCH for sensor in SENSORS]


def draw_hits(axes: Axes, event: Digits) -> None:
    """Draw both layers unrolled, ladder by ladder, each hit at its cell."""
    for sensor, left in zip(SENSORS, find_left_edges(), strict=True):
        chosen = event.sensor_id == sensor.vxd_id
        bottom = (sensor.sensor - 1) * _SENSOR_PITCH
        axes.add_patch(Rectangle((left, bottom), _WIDTH, _LENGTH, facecolor="0.96", edgecolor="none"))
        hits = axes.scatter(
            left + event.u_cell[chosen],
            bottom + event.v_cell[chosen],
            c=event.charge[chosen],
            norm=LogNorm(7, 255),
            cmap="plasma_r",
            s=0.65,
            marker="s",
            linewidths=0,
        )
    axes.set(xticks=[], yticks=[(_LENGTH / 2) + place * _SENSOR_PITCH for place in (0, 1)], yticklabels=["1", "2"])
    axes.set(ylabel="sensor", ylim=(0, _SENSOR_PITCH + _LENGTH))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    scale = axes.inset_axes((1.012, 0, 0.012, 1))
    axes.figure.colorbar(hits, cax=scale, ticks=[7, 20, 50, 100, 200], format="%d", label="charge (ADU)")
    scale.minorticks_off()


def draw_occupancies(axes: Axes, events: Sequence[Digits], published: Sequence[float]) -> None:
    """Draw bars of the generated mean occupancies, and lines of the published ones, below the ladders."""
    histogram = fill_occupancies(events)
    variances = histogram.variances()
    half = _WIDTH / 2
    lefts = np.array(
        [left + (sensor.sensor - 1) * half for sensor, left in zip(SENSORS, find_left_edges(), strict=True)]
    )
    for layer, colour in COLOUR_OF_LAYER.items():
        chosen = np.array([sensor.layer == layer for sensor in SENSORS])
        axes.bar(
            lefts[chosen],
            histogram.values()[chosen],
            half,
            align="edge",
            yerr=None if variances is None else np.sqrt(variances)[chosen],
            color=colour,
            alpha=0.75,
            edgecolor="white",
            linewidth=0.5,
            error_kw={"linewidth": 1.0},
            label=f"generated, layer {layer}: mean of {len(events)} events",
        )
    axes.hlines(100 * np.array(published), lefts, lefts + half, color="black", linewidth=2.0, label="Geant4, published")
    ladders = {sensor: left for sensor, left in zip(SENSORS, find_left_edges(), strict=True) if sensor.sensor == 1}
    axes.set_xticks([left + half for left in ladders.values()], [f"{each.layer}.{each.ladder}" for each in ladders])
    axes.set(xlabel="ladder: layer.ladder, with its sensors 1 and 2", ylabel="occupancy (%)")
    axes.tick_params(axis="x", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def draw(events: Sequence[Digits], published: Sequence[float]) -> Figure:
    """Draw the first event above the occupancies of all."""
    figure = Figure(figsize=(8.6, 5.6), dpi=150, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1.15, 1.0))
    draw_hits(above, events[0])
    draw_occupancies(below, events, published)
    above.set_xlim(-60, max(find_left_edges()) + _WIDTH + 60)
    above.set_title(f"One event of the IEA-GAN stand-in: {len(events[0]):,} digits of forty sensors", fontsize="large")
    below.set_title("Occupancy of each sensor: generated, and simulated with Geant4", fontsize="large")
    above.tick_params(labelbottom=False)
    return figure


if __name__ == "__main__":
    target = Path(sys.argv[1])
    geant4 = json.loads(OCCUPANCIES.read_text(encoding="utf-8"))["occupancies"]
    generator = Generator("ieagan", seed=7)
    save_figure(draw([generator.generate(event) for event in range(N_EVENTS)], geant4), target)
    Image.open(target).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)
    print(f"{target}: {target.stat().st_size / 1000:.0f} kB")  # noqa: T201  # an example is a program
