"""The pictures of a validation: spectra, profiles and images, drawn with matplotlib and mplhep from hist's histograms."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime.sensors import N_SENSORS, SENSORS
from pxdbg_runtime.validation.marginals import MAX_CHARGE, OCCUPANCY_BINS, OCCUPANCY_RANGE
from pxdbg_runtime.validation.report import correlation
from pxdbg_runtime.validation.scores import pulls
from pxdbg_runtime.validation.seams import PERIODS, SEAM_BOUND_PERCENT, Axis, fold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

    from pxdbg_runtime.validation.marginals import Marginals, PublicMarginals
    from pxdbg_runtime.validation.sample import Sample

__all__ = ["Picture", "draw_pictures"]

_DPI: Final = 100
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's, which readers with colour-blindness tell apart."""
_IMAGES_FOR_FINE_BINS: Final = 100 * OCCUPANCY_BINS
_SHOWN_SENSOR: Final = 0
_SHOWN_V_CELLS: Final = 384


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of the page.

    Attributes
    ----------
    title, caption : str
    png_base64 : str
    """

    title: str
    caption: str
    png_base64: str


@dataclass(frozen=True, kw_only=True)
class _Style:
    colour: str
    line: str
    width: float


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """What a picture draws: how each thing looks."""

    samples: tuple[tuple[Sample, _Style], ...]
    references: tuple[tuple[Sample, _Style], ...]
    marginals: tuple[tuple[Marginals, _Style], ...]

    @property
    def with_digits(self) -> tuple[tuple[Sample, _Style], ...]:
        return (*self.references, *self.samples)


def draw_pictures(
    samples: Sequence[Sample], references: Sequence[Sample], public: Sequence[PublicMarginals]
) -> tuple[Picture, ...]:
    """Draw all pictures; matplotlib, hist and mplhep must be there."""
    drawn = _styled(samples, references, public)
    return (
        _picture("Charge spectrum", _charge_caption(drawn), _charge(drawn)),
        _picture("Occupancy of an image", "All sensors and events; images above 2 % are not drawn.", _occupancy(drawn)),
        _picture(
            "Sensors",
            "Mean over the images of a sensor; its mean charge is the mean of the images' means.",
            _sensors(drawn),
        ),
        _picture(
            "Profiles",
            "Hits of each u cell and v cell over all sensors and events, relative to their mean.",
            _profiles(drawn),
        ),
        _picture(
            "Seams",
            "Profiles with their trend divided out, folded at each period; a boundary lies before phase 0. "
            "The dotted lines are the bound, bars are standard errors.",
            _folds(drawn),
        ),
        _picture(
            "Clusters", "8-connected, per cluster; the last bin of a histogram takes what is larger.", _clusters(drawn)
        ),
        _picture(
            "Correlation of sensors",
            "Pearson's coefficient of the occupancies of two sensors over events; index 0 to 39, layer 2 from 16 on.",
            _correlations(drawn),
        ),
        _picture(
            "One image",
            f"Sensor {SENSORS[_SHOWN_SENSOR]} of the first event that has a hit, the first {_SHOWN_V_CELLS} v cells, coloured by charge.",
            _images(drawn),
        ),
    )


def _styled(samples: Sequence[Sample], references: Sequence[Sample], public: Sequence[PublicMarginals]) -> _Drawn:
    of_samples = [
        (sample, _Style(colour=_COLOURS[number % len(_COLOURS)], line="-", width=1.4))
        for number, sample in enumerate(samples)
    ]
    of_references = [(sample, _Style(colour="0.35", line="-", width=1.4)) for sample in references]
    marginals: list[tuple[Marginals, _Style]] = []
    for number, of_one in enumerate(public):
        marginals.append((of_one.reference, _Style(colour="black", line="-" if number == 0 else ":", width=1.8)))
        marginals += [
            (each, _Style(colour=_COLOURS[-1 - place % len(_COLOURS)], line="--", width=0.9))
            for place, each in enumerate(of_one.published)
        ]
    marginals += [(sample.marginals(), style) for sample, style in (*of_references, *of_samples)]
    return _Drawn(samples=tuple(of_samples), references=tuple(of_references), marginals=tuple(marginals))


def _picture(title: str, caption: str, figure: Figure) -> Picture:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return Picture(title=title, caption=caption, png_base64=base64.b64encode(buffer.getvalue()).decode("ascii"))


def _figure(width_inches: float, height_inches: float) -> Figure:
    from matplotlib.figure import Figure as NewFigure

    return NewFigure(figsize=(width_inches, height_inches), layout="constrained")


def _label(name: str) -> str:
    """Keep matplotlib from reading mathematics into a name, or from leaving it out of a legend."""
    return ("\N{ZERO WIDTH SPACE}" if name.startswith("_") else "") + name.replace("$", r"\$")


def _draw_histogram(axes: Axes, counts: ArrayLike, edges: tuple[float, float], label: str, style: _Style) -> None:
    """Draw a histogram of equal bins, normalised to an area of 1."""
    import hist
    import mplhep

    values = np.asarray(counts, dtype=np.float64)
    if not values.any():
        return
    histogram = hist.Hist(hist.axis.Regular(len(values), *edges), storage=hist.storage.Double())
    histogram.view()[:] = values / values.sum() * len(values) / (edges[1] - edges[0])
    mplhep.histplot(
        histogram,
        ax=axes,
        yerr=False,
        label=_label(label),
        color=style.colour,
        linestyle=style.line,
        linewidth=style.width,
    )


def _charge_caption(drawn: _Drawn) -> str:
    first, _style = drawn.marginals[0]
    return f"Hits a bin of 1 ADU, normalised. Below: pulls against {first.name}, difference over the Poisson error of both."


def _charge(drawn: _Drawn) -> Figure:
    figure = _figure(8, 6)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    reference, _style = drawn.marginals[0]
    edges = (reference.min_charge - 0.5, MAX_CHARGE + 0.5)
    for marginals, style in drawn.marginals:
        _draw_histogram(axes, marginals.charge_counts, edges, marginals.name, style)
    for sample, style in drawn.with_digits:
        marginals = sample.marginals()
        if marginals.name != reference.name:
            charges = np.arange(marginals.min_charge, MAX_CHARGE + 1)
            each = pulls(marginals.charge_counts, reference.charge_counts)
            below.plot(charges, each, ".", markersize=2, color=style.colour)
    below.axhline(0, color="black", linewidth=0.5)
    below.set(xlabel="charge (ADU)", ylabel="pull", xlim=edges)
    axes.set(xlabel="", ylabel="share / ADU", yscale="log")
    axes.legend(frameon=False, fontsize="small")
    return figure


def _occupancy(drawn: _Drawn) -> Figure:
    figure = _figure(8, 4.5)
    axes = figure.subplots()
    for marginals, style in drawn.marginals:
        # A few images fill the published bins badly.
        together = 1 if marginals.occupancy_counts.sum() > _IMAGES_FOR_FINE_BINS else 4
        counts = marginals.occupancy_counts.reshape(-1, together).sum(axis=1)
        _draw_histogram(axes, counts, (0, 100 * OCCUPANCY_RANGE), marginals.name, style)
    axes.set(xlabel="occupancy (%)", ylabel="share / percentage point", xlim=(0, 100 * OCCUPANCY_RANGE))
    axes.legend(frameon=False, fontsize="small")
    return figure


def _sensors(drawn: _Drawn) -> Figure:
    figure = _figure(8, 6)
    above, below = figure.subplots(2, 1, sharex=True)
    index = np.arange(N_SENSORS)
    for marginals, style in drawn.marginals:
        marker = "o" if style.line == "-" else "."
        look = {"color": style.colour, "linewidth": style.width / 2, "markersize": 3.0}
        above.plot(
            index,
            100 * marginals.sensor_mean_occupancy,
            marker,
            linestyle=style.line,
            label=_label(marginals.name),
            **look,
        )
        below.plot(index, marginals.sensor_mean_charge, marker, linestyle=style.line, **look)
    layer_2 = next(sensor.index for sensor in SENSORS if sensor.layer == 2)
    for axes in (above, below):
        axes.axvline(layer_2 - 0.5, color="0.8", linewidth=0.8)
    above.set(ylabel="mean occupancy (%)")
    below.set(ylabel="mean charge (ADU)", xlabel="sensor index (layer 1 | layer 2)")
    # Curves go up and down over the whole width: inside, it would cover some.
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize="small")
    return figure


def _profiles(drawn: _Drawn) -> Figure:
    figure = _figure(8, 6)
    for axes, number, label in zip(figure.subplots(2, 1), (0, 1), ("u cell", "v cell"), strict=True):
        for sample, style in drawn.with_digits:
            profile = sample.profiles[number]
            axes.stairs(
                profile / profile.mean(),
                np.arange(len(profile) + 1) - 0.5,
                color=style.colour,
                label=_label(sample.name),
            )
        axes.set(xlabel=label, ylabel="hits / mean", ylim=(0, None))
        axes.legend(frameon=False, fontsize="small")
    return figure


def _folds(drawn: _Drawn) -> Figure:
    figure = _figure(8, 6)
    grid = figure.subplots(2, len(PERIODS), sharey=True)
    by_axis: tuple[Axis, ...] = ("u", "v")
    for row, axis in enumerate(by_axis):
        for column, period in enumerate(PERIODS):
            axes = grid[row, column]
            for sample, style in drawn.with_digits:
                folded = fold(sample.profiles[row], axis, period)
                if folded is not None:
                    axes.errorbar(
                        np.arange(period), 100 * (folded.mean - 1), 100 * folded.error,
                        fmt=".", markersize=3, linewidth=0.7, color=style.colour, label=_label(sample.name),
                    )  # fmt: skip
            for bound in (-SEAM_BOUND_PERCENT, SEAM_BOUND_PERCENT):
                axes.axhline(bound, color="0.5", linestyle=":", linewidth=0.8)
            axes.set_title(f"{axis}, period {period}", fontsize="medium")
    grid[0, 0].set_ylabel("deviation (%)")
    grid[1, 0].set_ylabel("deviation (%)")
    grid[1, 1].set_xlabel("generated row or column, modulo the period")
    return figure


def _clusters(drawn: _Drawn) -> Figure:
    figure = _figure(8, 4)
    left, right = figure.subplots(1, 2)
    for sample, style in drawn.with_digits:
        clusters = sample.all_clusters
        sizes = _up_to(clusters.sizes, 40)
        _draw_histogram(left, sizes, (-0.5, len(sizes) - 0.5), sample.name, style)
        charges = _up_to(clusters.charges, 399).reshape(-1, 4).sum(axis=1)
        _draw_histogram(right, charges, (-0.5, 399.5), sample.name, style)
    left.set(xlabel="cluster size (hits)", ylabel="share of clusters", yscale="log", xlim=(0.5, 40.5))
    right.set(xlabel="cluster charge (ADU)", ylabel="share of clusters / ADU", yscale="log", xlim=(0, 400))
    left.legend(frameon=False, fontsize="small")
    return figure


def _up_to(counts: NDArray[np.int64], largest: int) -> NDArray[np.int64]:
    return np.append(counts[:largest], counts[largest:].sum())


def _correlations(drawn: _Drawn) -> Figure:
    n_shown = len(drawn.with_digits)
    figure = _figure(8, 3.9 * ((n_shown + 1) // 2))
    for place, (sample, _style) in enumerate(drawn.with_digits):
        axes = figure.add_subplot((n_shown + 1) // 2, 2, place + 1)
        axes.set_title(sample.name, fontsize="medium", parse_math=False)
        matrix = correlation(sample)
        if matrix is None:
            axes.text(0.5, 0.5, "fewer than three events", ha="center", va="center", transform=axes.transAxes)
            axes.set_axis_off()
            continue
        image = axes.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu_r", origin="lower")
        axes.set(xlabel="sensor index", ylabel="sensor index")
        figure.colorbar(image, ax=axes, shrink=0.8)
    return figure


def _images(drawn: _Drawn) -> Figure:
    from matplotlib.colors import LogNorm

    n_shown = len(drawn.with_digits)
    figure = _figure(11, 6.4 * n_shown)
    for place, (sample, _style) in enumerate(drawn.with_digits):
        axes = figure.add_subplot(n_shown, 1, place + 1)
        image = sample.shown_images[_SHOWN_SENSOR, :, :_SHOWN_V_CELLS]
        shown = axes.imshow(
            np.ma.masked_equal(image, 0), norm=LogNorm(sample.min_charge, MAX_CHARGE + 1), cmap="viridis_r",
            origin="lower", aspect="equal", interpolation="nearest",
        )  # fmt: skip
        axes.set(xlabel="v cell", ylabel="u cell")
        axes.set_title(sample.name, fontsize="medium", parse_math=False)
        figure.colorbar(shown, ax=axes, label="charge (ADU)", fraction=0.03, pad=0.01)
    return figure
