"""The pictures of a validation, drawn with matplotlib: spectra, profiles, seams, clusters, correlations and images."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from pxdbg_runtime.sensors import MAX_CHARGE_ADU, N_SENSORS, SENSORS
from pxdbg_runtime.validation.marginals import OCCUPANCY_BINS, OCCUPANCY_RANGE
from pxdbg_runtime.validation.report import correlate_sensors
from pxdbg_runtime.validation.scores import compute_pulls
from pxdbg_runtime.validation.seams import PERIODS, SEAM_BOUND_PERCENT, Axis, fold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from pxdbg_runtime.validation.marginals import Marginals, PublicMarginals
    from pxdbg_runtime.validation.sample import Sample

__all__ = ["Picture", "draw_pictures"]

_DPI: Final = 100
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Of Okabe and Ito: readers with colour-blindness can distinguish them."""
_IMAGES_FOR_FINE_BINS: Final = 100 * OCCUPANCY_BINS
_SHOWN_SENSOR: Final = 0
_SHOWN_V_CELLS: Final = 384
_LAYER_2: Final = next(sensor.index for sensor in SENSORS if sensor.layer == 2)
_AXES: Final[tuple[Axis, ...]] = ("u", "v")

_CAPTIONS: Final = {
    "Charge spectrum": "Hits per bin of 1 ADU, normalised. Below: pulls against {reference}.",
    "Occupancy of an image": f"All sensors and events, without images above {100 * OCCUPANCY_RANGE:g} %.",
    "Sensors": "Mean over the images of a sensor; the mean charge is the mean of the images' means.",
    "Profiles": "Hits of each u cell and v cell over all sensors and events, relative to their mean.",
    "Seams": (
        "Profiles divided by their trend and folded at each period; a boundary is before phase 0. "
        "The dotted lines are the bound, bars are standard errors."
    ),
    "Clusters": "8-connected, per cluster; the last bin of a histogram includes all larger values.",
    "Correlation of sensors": (
        f"Pearson's coefficient of the occupancies of two sensors over events; layer 2 starts at index {_LAYER_2}."
    ),
    "One image": (
        f"Sensor {SENSORS[_SHOWN_SENSOR]} of the first event that has a hit, the first {_SHOWN_V_CELLS} v cells."
    ),
}


class Picture(NamedTuple):
    """A picture of the page, a PNG in base64."""

    title: str
    caption: str
    png_base64: str


@dataclass(frozen=True, kw_only=True)
class _Style:
    color: str
    linestyle: str = "-"
    linewidth: float = 1.4


_Samples = tuple[tuple["Sample", _Style], ...]
_Spectra = tuple[tuple["Marginals", _Style], ...]


def draw_pictures(
    samples: Sequence[Sample], references: Sequence[Sample], public: Sequence[PublicMarginals]
) -> tuple[Picture, ...]:
    """Draw all pictures; requires matplotlib."""
    digits = (
        *((sample, _Style(color="0.35")) for sample in references),
        *((sample, _Style(color=_COLOURS[number % len(_COLOURS)])) for number, sample in enumerate(samples)),
    )
    marginals = (*_style_public(public), *((sample.bin_marginals(), style) for sample, style in digits))
    figures = {
        "Charge spectrum": _draw_charges(digits, marginals),
        "Occupancy of an image": _draw_occupancies(marginals),
        "Sensors": _draw_sensors(marginals),
        "Profiles": _draw_profiles(digits),
        "Seams": _draw_folds(digits),
        "Clusters": _draw_clusters(digits),
        "Correlation of sensors": _draw_correlations(digits),
        "One image": _draw_images(digits),
    }
    reference = marginals[0][0].name
    return tuple(
        Picture(title, _CAPTIONS[title].format(reference=reference), _encode_png(figure))
        for title, figure in figures.items()
    )


def _style_public(public: Sequence[PublicMarginals]) -> _Spectra:
    styled: list[tuple[Marginals, _Style]] = []
    for number, file in enumerate(public):
        styled.append((file.reference, _Style(color="black", linestyle=":" if number else "-", linewidth=1.8)))
        styled += [
            (each, _Style(color=_COLOURS[-1 - place % len(_COLOURS)], linestyle="--", linewidth=0.9))
            for place, each in enumerate(file.published)
        ]
    return tuple(styled)


def _encode_png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _create_figure(height_inches: float, width_inches: float = 8) -> Figure:
    from matplotlib.figure import Figure as NewFigure

    return NewFigure(figsize=(width_inches, height_inches), layout="constrained")


def _escape(name: str) -> str:
    """Escape what matplotlib reads as mathematics, omits from a legend (a leading underscore) or cannot encode."""
    text = name.encode(errors="backslashreplace").decode().replace("$", r"\$")
    return f"\N{ZERO WIDTH SPACE}{text}" if name.startswith("_") else text


def _add_legend(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize="small")


def _draw_histogram(
    axes: Axes, counts: NDArray[np.int64], edges: tuple[float, float], name: str, style: _Style
) -> None:
    """Draw a histogram of equal bins, normalised to an area of 1."""
    if counts.any():
        density = counts / counts.sum() * len(counts) / (edges[1] - edges[0])
        axes.stairs(density, np.linspace(*edges, len(counts) + 1), label=_escape(name), **vars(style))


def _draw_charges(digits: _Samples, marginals: _Spectra) -> Figure:
    figure = _create_figure(6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    reference, _style = marginals[0]
    edges = (reference.min_charge - 0.5, MAX_CHARGE_ADU + 0.5)
    for each, style in marginals:
        _draw_histogram(above, each.charge_counts, edges, each.name, style)
    charges = np.arange(reference.min_charge, MAX_CHARGE_ADU + 1)
    for sample, style in digits:
        each = sample.bin_marginals()
        if each.name != reference.name:
            pulls = compute_pulls(each.charge_counts, reference.charge_counts)
            below.plot(charges, pulls, ".", markersize=2, color=style.color)
    below.axhline(0, color="black", linewidth=0.5)
    below.set(xlabel="charge (ADU)", ylabel="pull", xlim=edges)
    above.set(ylabel="share / ADU", yscale="log")
    _add_legend(above)
    return figure


def _draw_occupancies(marginals: _Spectra) -> Figure:
    figure = _create_figure(4.5)
    axes = figure.subplots()
    for each, style in marginals:
        # Few images need coarser bins.
        n_merged = 1 if each.occupancy_counts.sum() > _IMAGES_FOR_FINE_BINS else 4
        counts = each.occupancy_counts.reshape(-1, n_merged).sum(axis=1)
        _draw_histogram(axes, counts, (0, 100 * OCCUPANCY_RANGE), each.name, style)
    axes.set(xlabel="occupancy (%)", ylabel="share / percentage point", xlim=(0, 100 * OCCUPANCY_RANGE))
    _add_legend(axes)
    return figure


def _draw_sensors(marginals: _Spectra) -> Figure:
    figure = _create_figure(6)
    above, below = figure.subplots(2, 1, sharex=True)
    for each, style in marginals:
        look: dict[str, Any] = {
            **vars(style),
            "linewidth": style.linewidth / 2,
            "marker": "o" if style.linestyle == "-" else ".",
            "markersize": 3.0,
        }
        above.plot(range(N_SENSORS), 100 * each.sensor_mean_occupancy, label=_escape(each.name), **look)
        below.plot(range(N_SENSORS), each.sensor_mean_charge, **look)
    for axes in (above, below):
        axes.axvline(_LAYER_2 - 0.5, color="0.8", linewidth=0.8)
    above.set(ylabel="mean occupancy (%)")
    below.set(ylabel="mean charge (ADU)", xlabel="sensor index (layer 1 | layer 2)")
    # Outside the axes, as the curves fill them.
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize="small")
    return figure


def _draw_profiles(digits: _Samples) -> Figure:
    figure = _create_figure(6)
    for number, (axes, axis) in enumerate(zip(figure.subplots(2, 1), _AXES, strict=True)):
        for sample, style in digits:
            profile = sample.profiles[number]
            edges = np.arange(len(profile) + 1) - 0.5
            axes.stairs(profile / profile.mean(), edges, color=style.color, label=_escape(sample.name))
        axes.set(xlabel=f"{axis} cell", ylabel="hits / mean", ylim=(0, None))
        _add_legend(axes)
    return figure


def _draw_folds(digits: _Samples) -> Figure:
    figure = _create_figure(6)
    grid = figure.subplots(2, len(PERIODS), sharey=True)
    for row, axis in enumerate(_AXES):
        for column, period in enumerate(PERIODS):
            axes = grid[row, column]
            for sample, style in digits:
                folded = fold(sample.profiles[row], axis, period)
                if folded is not None:
                    deviation, error = 100 * (folded.mean - 1), 100 * folded.error
                    axes.errorbar(
                        range(period), deviation, error, fmt=".", markersize=3, linewidth=0.7, color=style.color
                    )
            for bound in (-SEAM_BOUND_PERCENT, SEAM_BOUND_PERCENT):
                axes.axhline(bound, color="0.5", linestyle=":", linewidth=0.8)
            axes.set_title(f"{axis}, period {period}", fontsize="medium")
    grid[0, 0].set_ylabel("deviation (%)")
    grid[1, 0].set_ylabel("deviation (%)")
    grid[1, 1].set_xlabel("generated row or column, modulo the period")
    return figure


def _draw_clusters(digits: _Samples) -> Figure:
    figure = _create_figure(4)
    left, right = figure.subplots(1, 2)
    for sample, style in digits:
        sizes, charges = sample.all_clusters.sizes, sample.all_clusters.charges
        shown_sizes = np.append(sizes[:40], sizes[40:].sum())
        _draw_histogram(left, shown_sizes, (-0.5, 40.5), sample.name, style)
        shown_charges = np.append(charges[:399], charges[399:].sum()).reshape(-1, 4).sum(axis=1)
        _draw_histogram(right, shown_charges, (-0.5, 399.5), sample.name, style)
    left.set(xlabel="cluster size (hits)", ylabel="share of clusters", yscale="log", xlim=(0.5, 40.5))
    right.set(xlabel="cluster charge (ADU)", ylabel="share of clusters / ADU", yscale="log", xlim=(0, 400))
    _add_legend(left)
    return figure


def _draw_correlations(digits: _Samples) -> Figure:
    n_rows = (len(digits) + 1) // 2
    figure = _create_figure(3.9 * n_rows)
    for place, (sample, _style) in enumerate(digits):
        axes = figure.add_subplot(n_rows, 2, place + 1)
        axes.set_title(_escape(sample.name), fontsize="medium")
        correlations = correlate_sensors(sample)
        if correlations is None:
            axes.text(0.5, 0.5, "fewer than three events", ha="center", va="center", transform=axes.transAxes)
            axes.set_axis_off()
            continue
        image = axes.imshow(correlations, vmin=-1, vmax=1, cmap="RdBu_r", origin="lower")
        axes.set(xlabel="sensor index", ylabel="sensor index")
        figure.colorbar(image, ax=axes, shrink=0.8)
    return figure


def _draw_images(digits: _Samples) -> Figure:
    from matplotlib.colors import LogNorm

    figure = _create_figure(6.4 * len(digits), 11)
    for place, (sample, _style) in enumerate(digits):
        axes = figure.add_subplot(len(digits), 1, place + 1)
        charges = sample.shown_images[_SHOWN_SENSOR, :, :_SHOWN_V_CELLS]
        norm = LogNorm(sample.min_charge, MAX_CHARGE_ADU + 1)
        image = axes.imshow(
            np.ma.masked_equal(charges, 0), norm=norm, cmap="viridis_r", origin="lower", interpolation="nearest"
        )
        axes.set(xlabel="v cell", ylabel="u cell")
        axes.set_title(_escape(sample.name), fontsize="medium")
        figure.colorbar(image, ax=axes, label="charge (ADU)", fraction=0.03, pad=0.01)
    return figure
