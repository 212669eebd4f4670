"""The pictures of a validation, drawn with matplotlib: spectra, profiles, seams, clusters, correlations and images."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from pxdbg_runtime.sensors import MAX_CHARGE_ADU, SENSORS
from pxdbg_runtime.validation.classifier_figure import ClassifiedSample, draw_importances
from pxdbg_runtime.validation.correlations import MIN_EVENTS_TO_CORRELATE, correlate_sensors
from pxdbg_runtime.validation.figure_style import Style, create_figure, escape_name
from pxdbg_runtime.validation.marginals import OCCUPANCY_BINS, OCCUPANCY_RANGE
from pxdbg_runtime.validation.scores import compute_pulls
from pxdbg_runtime.validation.seams import PERIODS, SEAM_BOUND_PERCENT, Axis, fold
from pxdbg_runtime.validation.sensor_figures import SensorSeries, draw_sensors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from pxdbg_runtime.validation.marginals import Marginals, PublicMarginals
    from pxdbg_runtime.validation.report import Report
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
    "Occupancy of each sensor": (
        "Mean over the images of a sensor. Below: ratio to {reference}. Bars are standard errors of samples of digits; "
        "those of the ratio include the errors of a reference of digits, as of independent events."
    ),
    "Mean charge of each sensor": (
        "Mean over the images of a sensor of their mean charges. Below: ratio to {reference}. Bars as above."
    ),
    "Profiles": "Hits of each u cell and v cell over all sensors and events, relative to their mean.",
    "Seams": (
        "Profiles divided by their trend and folded at each period; a boundary is before phase 0. "
        "The dotted lines are the bound, bars are standard errors."
    ),
    "Clusters": "8-connected, per cluster; the last bin of a histogram includes all larger values.",
    "Correlation of sensors": (
        f"Pearson's coefficient of the occupancies of two sensors over events; layer 2 starts at index {_LAYER_2}."
    ),
    "Classifier test": (
        "What tells a sample from {simulation}. Left: each feature alone, relative to its sensor; 0.5 tells nothing, 1 "
        "all. Right: what the classifier loses if the feature is exchanged between images; near 0 if others replace it."
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


_Samples = tuple[tuple["Sample", Style], ...]
_Spectra = tuple[tuple["Marginals", Style], ...]


def draw_pictures(report: Report, samples: Sequence[Sample], references: Sequence[Sample]) -> tuple[Picture, ...]:
    """Draw all pictures; requires matplotlib.

    Parameters
    ----------
    report : Report
        Of the same samples and references.
    samples, references : sequence of Sample
    """
    digits = (
        *((sample, Style(color="0.35")) for sample in references),
        *((sample, Style(color=_COLOURS[number % len(_COLOURS)])) for number, sample in enumerate(samples)),
    )
    marginals = (*_style_public(report.public), *((sample.bin_marginals(), style) for sample, style in digits))
    occupancies, charges = _list_sensor_series(marginals, digits)
    figures = {
        "Charge spectrum": _draw_charges(digits, marginals),
        "Occupancy of an image": _draw_occupancies(marginals),
        "Occupancy of each sensor": draw_sensors("occupancy (%)", occupancies),
        "Mean charge of each sensor": draw_sensors("mean charge (ADU)", charges),
        "Profiles": _draw_profiles(digits),
        "Seams": _draw_folds(digits),
        "Clusters": _draw_clusters(digits),
        "Correlation of sensors": _draw_correlations(digits),
    }
    classified = _list_classified(report, digits)
    if classified:
        figures["Classifier test"] = draw_importances(classified)
    figures["One image"] = _draw_images(digits)
    reference = marginals[0][0].name
    simulation = report.references[0].name if report.references else ""
    return tuple(
        Picture(title, _CAPTIONS[title].format(reference=reference, simulation=simulation), _encode_png(figure))
        for title, figure in figures.items()
    )


def _list_classified(report: Report, digits: _Samples) -> list[ClassifiedSample]:
    """List the samples that were classified against the first reference of digits."""
    if not report.references:
        return []
    found = [
        (report.find_comparison(sample.name, "sample", report.references[0].name), style) for sample, style in digits
    ]
    return [
        ClassifiedSample(each.name, each.classification, style)
        for each, style in found
        if each is not None and each.classification is not None
    ]


def _style_public(public: Sequence[PublicMarginals]) -> _Spectra:
    styled: list[tuple[Marginals, Style]] = []
    for number, file in enumerate(public):
        styled.append((file.reference, Style(color="black", linestyle=":" if number else "-", linewidth=1.8)))
        styled += [
            (each, Style(color=_COLOURS[-1 - place % len(_COLOURS)], linestyle="--", linewidth=0.9))
            for place, each in enumerate(file.published)
        ]
    return tuple(styled)


def _encode_png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _add_legend(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize="small")


def _draw_histogram(axes: Axes, counts: NDArray[np.int64], edges: tuple[float, float], name: str, style: Style) -> None:
    """Draw a histogram of equal bins, normalised to an area of 1."""
    if counts.any():
        density = counts / counts.sum() * len(counts) / (edges[1] - edges[0])
        axes.stairs(density, np.linspace(*edges, len(counts) + 1), label=escape_name(name), **vars(style))


def _draw_charges(digits: _Samples, marginals: _Spectra) -> Figure:
    figure = create_figure(6)
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
    figure = create_figure(4.5)
    axes = figure.subplots()
    for each, style in marginals:
        # Few images need coarser bins.
        n_merged = 1 if each.occupancy_counts.sum() > _IMAGES_FOR_FINE_BINS else 4
        counts = each.occupancy_counts.reshape(-1, n_merged).sum(axis=1)
        _draw_histogram(axes, counts, (0, 100 * OCCUPANCY_RANGE), each.name, style)
    axes.set(xlabel="occupancy (%)", ylabel="share / percentage point", xlim=(0, 100 * OCCUPANCY_RANGE))
    _add_legend(axes)
    return figure


def _list_sensor_series(marginals: _Spectra, digits: _Samples) -> tuple[list[SensorSeries], list[SensorSeries]]:
    """List the occupancies, in percent, and the mean charges, in ADU."""
    n_public = len(marginals) - len(digits)
    errors = [None] * n_public + [sample.sensor_errors for sample, _style in digits]
    occupancies, charges = [], []
    for (each, style), error in zip(marginals, errors, strict=True):
        percent, percent_error = 100 * each.sensor_mean_occupancy, None if error is None else 100 * error.occupancy
        occupancies.append(SensorSeries(each.name, percent, percent_error, style))
        charge_error = None if error is None else error.charge_adu
        charges.append(SensorSeries(each.name, each.sensor_mean_charge, charge_error, style))
    return occupancies, charges


def _draw_profiles(digits: _Samples) -> Figure:
    figure = create_figure(6)
    for number, (axes, axis) in enumerate(zip(figure.subplots(2, 1), _AXES, strict=True)):
        for sample, style in digits:
            profile = sample.profiles[number]
            edges = np.arange(len(profile) + 1) - 0.5
            axes.stairs(profile / profile.mean(), edges, color=style.color, label=escape_name(sample.name))
        axes.set(xlabel=f"{axis} cell", ylabel="hits / mean", ylim=(0, None))
        _add_legend(axes)
    return figure


def _draw_folds(digits: _Samples) -> Figure:
    figure = create_figure(6)
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
    figure = create_figure(4)
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
    figure = create_figure(3.9 * n_rows)
    for place, (sample, _style) in enumerate(digits):
        axes = figure.add_subplot(n_rows, 2, place + 1)
        axes.set_title(escape_name(sample.name), fontsize="medium")
        correlations = correlate_sensors(sample.hits)
        if correlations is None:
            text = f"fewer than {MIN_EVENTS_TO_CORRELATE} events"
            axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)
            axes.set_axis_off()
            continue
        image = axes.imshow(correlations, vmin=-1, vmax=1, cmap="RdBu_r", origin="lower")
        axes.set(xlabel="sensor index", ylabel="sensor index")
        figure.colorbar(image, ax=axes, shrink=0.8)
    return figure


def _draw_images(digits: _Samples) -> Figure:
    from matplotlib.colors import LogNorm

    figure = create_figure(6.4 * len(digits), 11)
    for place, (sample, _style) in enumerate(digits):
        axes = figure.add_subplot(len(digits), 1, place + 1)
        charges = sample.shown_images[_SHOWN_SENSOR, :, :_SHOWN_V_CELLS]
        norm = LogNorm(sample.min_charge, MAX_CHARGE_ADU + 1)
        image = axes.imshow(
            np.ma.masked_equal(charges, 0), norm=norm, cmap="viridis_r", origin="lower", interpolation="nearest"
        )
        axes.set(xlabel="v cell", ylabel="u cell")
        axes.set_title(escape_name(sample.name), fontsize="medium")
        figure.colorbar(image, ax=axes, label="charge (ADU)", fraction=0.03, pad=0.01)
    return figure
