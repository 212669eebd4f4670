"""The page of a validation: one HTML file that needs nothing else, on a desk or on a phone."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.validation.figures import Picture, draw_pictures
from pxdbg_runtime.validation.summary_table import summary_columns, summary_rows
from pxdbg_runtime.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pxdbg_runtime.validation.report import DigitReport, Report
    from pxdbg_runtime.validation.sample import Sample
    from pxdbg_runtime.validation.scores import HistogramScores

__all__ = ["render_page"]

_STYLE: Final = """
:root { color-scheme: light; }
body { font: 16px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 0 1rem 3rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd; }
img { max-width: 100%; height: auto; }
figure { margin: 1rem 0; } figcaption, .note { color: #555; font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #e4e4e4; text-align: right; white-space: nowrap; vertical-align: top; }
th:first-child { text-align: left; position: sticky; left: 0; background: #fff; white-space: normal; min-width: 8rem; }
td.text { text-align: left; white-space: normal; min-width: 14rem; overflow-wrap: anywhere; }
.kind { display: block; font-weight: normal; color: #666; }
.pass { color: #00694e; } .fail { color: #b3261e; font-weight: bold; } .undecided { color: #8a5a00; }
dt { font-weight: bold; margin-top: .6rem; } dd { margin-left: 1rem; }
"""

_DEFINITIONS: Final = (
    ("The cut", "Hits below {cut} ADU are dropped before all else; only their share of the pixels is told."),
    (
        "Charge spectrum",
        "Hits in bins of 1 ADU, normalised to 1: p, and q for the reference; P and Q are running sums.",
    ),
    ("W1", "Sum of |P - Q| times the bin width: ADU for charges, percentage points for occupancies."),
    ("KS", "Largest |P - Q|."),
    ("Jensen-Shannon", "The distance, root of the divergence, in base 2: 0 to 1."),
    ("Separation power", "Half the sum of (p - q)² / (p + q): 0 to 1."),
    (
        "Pulls",
        (
            "(p - q) over the Poisson error of both, bin by bin; the root of the mean square is 1 where only Poisson noise "
            "differs. Hits of a cluster come together, so compare with half against half."
        ),
    ),
    (
        "Occupancy of an image",
        (
            "Share of a sensor's pixels with a hit, in 200 equal bins from 0 to 2 %, normalised without the images above; "
            "an image without a hit counts as 0."
        ),
    ),
    ("Total occupancy", "Relative difference of the mean over all images."),
    ("Mean charge of a sensor", "Mean over its images of the image's mean."),
    (
        "Half against half",
        "The same scores for a sample's events of even number against those of odd: what chance makes of it.",
    ),
    (
        "Seams",
        (
            "Profiles along u and v, without the outer 8 cells; a running mean over two periods is divided out, and what is "
            "left is folded at 8, 16 and 32. Told is the phase that deviates most from 1; its error comes from the spread "
            "between periods. Below 5 % it passes; one above 5 % but below three errors decides nothing. Three generated "
            "rows are cut off before u cell 0, so seams along u lie where u + 3 is a multiple of the period."
        ),
    ),
    ("Clusters", "Hits that touch by a side or a corner; their number, and the sum of their charges."),
    (
        "Repeated images and tiles",
        (
            "Images that equal an earlier one of the sample, hits and charges; and, in its first 1000 images, pairs of tiles "
            "of 16 x 16 cells with six hits or more, at the same place of two images, that are equal. Busiest pixel: images "
            "of those in which one pixel fires, and how many independent hits on equal pixels would give at the most. "
            "Spread of pixels: what is left of the spread of their rates without Poisson noise, relative to the mean."
        ),
    ),
    (
        "Correlation of sensors",
        "Pearson's coefficient of the occupancies of two sensors over events, mean of all pairs.",
    ),
)


def render_page(report: Report, samples: Sequence[Sample], references: Sequence[Sample]) -> str:
    """Make the page, in HTML.

    Parameters
    ----------
    report : Report
        Made of the same samples.
    samples, references : sequence of Sample
    """
    pictures = draw_pictures(samples, references, report.public)
    return "".join(_page(report, pictures))


def _page(report: Report, pictures: Iterable[Picture]) -> Iterable[str]:
    title = "PXD background: " + ", ".join(each.name for each in report.samples)
    yield '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n<h1>{escape(title)}</h1>\n"
    yield from _summary(report)
    yield from _origins(report)
    for picture in pictures:
        yield f"<h2>{escape(picture.title)}</h2>\n<figure>"
        yield f'<img alt="{escape(picture.title)}" src="data:image/png;base64,{picture.png_base64}">'
        yield f"<figcaption>{escape(picture.caption)}</figcaption></figure>\n"
    yield from _scores(report)
    yield from _layers(report)
    yield from _seams(report)
    yield from _repeats(report)
    yield "<h2>What the figures mean</h2>\n<dl>"
    for term, meaning in _DEFINITIONS:
        yield f"<dt>{escape(term)}</dt><dd>{escape(meaning.format(cut=report.min_charge))}</dd>\n"
    yield f'</dl>\n<p class="note">Made by pxdbg-runtime {__version__}.</p>\n</body></html>\n'


def _summary(report: Report) -> Iterable[str]:
    against = "no reference was given" if report.primary is None else f"distances are from {report.primary}"
    yield f'<p class="note">Hits of {report.min_charge} ADU or more; {escape(against)}.</p>\n'
    yield '<div class="wide"><table id="summary"><thead><tr><th></th>'
    for column in summary_columns(report):
        yield f'<th>{escape(column.name)}<span class="kind">{escape(column.kind)}</span></th>'
    yield "</tr></thead><tbody>\n"
    for row in summary_rows(report):
        cells = "".join(
            f'<td class="{cell.mark}">{escape(cell.text)}</td>' if cell.mark else f"<td>{escape(cell.text)}</td>"
            for cell in row.cells
        )
        yield f"<tr><th>{escape(row.label)}</th>{cells}</tr>\n"
    yield "</tbody></table></div>\n"


def _origins(report: Report) -> Iterable[str]:
    yield "<h2>Where they come from</h2>\n"
    head = ("", "weights", "model", "precision", "events", "hits after the cut", "seed, stream", "provenance")
    yield from _table(head, (_origin(each) for each in (*report.samples, *report.references)), n_text=1)
    for public in report.public:
        yield f'<p class="note">{escape(public.reference.name)} and published generators: {escape(public.source)}</p>\n'


def _origin(digits: DigitReport) -> tuple[str, ...]:
    counts = (f"{digits.events:,}", f"{digits.digits:,}")
    if not digits.jobs:
        return (
            digits.name,
            "unknown",
            "unknown",
            "",
            *counts,
            "unknown",
            "unknown; events without digits are not counted",
        )
    how = digits.jobs[0]
    return (
        digits.name,
        how.nature if how.nature == "checkpoint" else f"{how.nature} (not a trained checkpoint of the experiment)",
        how.model,
        how.precision or "",
        *counts,
        "; ".join(dict.fromkeys(f"{job.seed}, {job.random_stream}" for job in digits.jobs)),
        how.provenance,
    )


def _scores(report: Report) -> Iterable[str]:
    yield "<h2>All scores</h2>\n"
    head = (
        "", "against", "kind", "charge: W1 (ADU)", "KS", "Jensen-Shannon", "separation", "pulls, rms",
        "occupancy: W1 (pp)", "KS", "Jensen-Shannon", "separation", "pulls, rms",
        "total occupancy", "occupancy by sensor, rms", "charge by sensor, rms",
    )  # fmt: skip
    rows = [
        (
            each.name,
            each.against,
            each.role,
            *_histogram_cells(each.scores.charge),
            *_histogram_cells(each.scores.occupancy),
            f"{each.scores.total_occupancy_percent:+.2f} %",
            f"{each.scores.sensor_occupancy_percent:.2f} %",
            f"{each.scores.sensor_charge_adu:.2f} ADU",
        )
        for each in report.comparisons
    ]
    yield from _table(head, rows)
    yield from _cluster_scores(report)


def _cluster_scores(report: Report) -> Iterable[str]:
    head = (
        "", "against", "kind", "cluster size: mean", "median", "W1 (hits)", "KS",
        "cluster charge: mean", "median", "W1 (ADU)", "KS",
    )  # fmt: skip
    rows = [
        (
            each.name,
            each.against,
            each.role,
            f"{each.clusters.mean_size_percent:+.2f} %",
            f"{each.clusters.median_size_percent:+.2f} %",
            *_histogram_cells(each.clusters.sizes)[:2],
            f"{each.clusters.mean_charge_percent:+.2f} %",
            f"{each.clusters.median_charge_percent:+.2f} %",
            *_histogram_cells(each.clusters.charges)[:2],
        )
        for each in report.comparisons
        if each.clusters is not None
    ]
    if rows:
        yield from _table(head, rows)


def _histogram_cells(scores: HistogramScores | None) -> tuple[str, ...]:
    if scores is None:
        return ("-",) * 5
    return (
        f"{scores.w1:.4f}",
        f"{scores.ks:.4f}",
        f"{scores.jensen_shannon:.4f}",
        f"{scores.separation:.5f}",
        f"{scores.pull_rms:.2f}",
    )


def _layers(report: Report) -> Iterable[str]:
    marginals = [each.marginals for each in (*report.samples, *report.references)]
    for public in report.public:
        marginals += [public.reference, *public.published]
    yield "<h2>Layers</h2>\n"
    head = ("", "layer 1: occupancy", "mean charge", "layer 2: occupancy", "mean charge", "mean charge of a hit")
    rows = []
    for each in marginals:
        cells = [each.name]
        for layer in (1, 2):
            occupancy, charge = each.layer_means(layer)
            cells += [f"{100 * occupancy:.3f} %", f"{charge:.2f} ADU"]
        rows.append((*cells, f"{each.mean_hit_charge:.2f} ADU"))
    yield from _table(head, rows)


def _seams(report: Report) -> Iterable[str]:
    yield "<h2>Seams and borders</h2>\n"
    head = ("", "axis", "period", "largest deviation", "at phase", "boundary against rest", "periods", "")
    rows = [
        (
            digits.name,
            seam.axis,
            str(seam.period),
            f"{seam.deviation_percent:+.2f} ± {seam.deviation_error_percent:.2f} %",
            str(seam.phase),
            f"{seam.boundary_excess_percent:+.2f} ± {seam.boundary_error_percent:.2f} %",
            str(seam.boundaries),
            seam.verdict,
        )
        for digits in (*report.samples, *report.references)
        for seam in digits.seams
    ]
    yield from _table(head, rows)
    yield from _borders(report)


def _borders(report: Report) -> Iterable[str]:
    head = ("", "axis", "outermost cells", "low side / interior", "high side / interior")
    rows = [
        (digits.name, border.axis, str(border.width), f"{border.low:.3f}", f"{border.high:.3f}")
        for digits in (*report.samples, *report.references)
        for border in digits.borders
    ]
    yield from _table(head, rows)


def _repeats(report: Report) -> Iterable[str]:
    yield "<h2>Repeated patterns</h2>\n"
    head = (
        "", "images with hits", "repeated", "images compared", "tiles compared", "equal tiles",
        "equal but for charges", "busiest pixel", "expected", "spread of pixels",
    )  # fmt: skip
    rows = [
        (
            each.name,
            f"{each.repeats.images:,}",
            f"{each.repeats.repeated_images:,}",
            f"{each.repeats.compared_images:,}",
            f"{each.repeats.compared_tiles:,}",
            f"{each.repeats.equal_tiles:,}",
            f"{each.repeats.equal_tile_cells:,}",
            f"{each.repeats.busiest_pixel:,} images",
            f"{each.expected_busiest:.1f} images",
            f"{each.spread.excess_percent:.1f} %",
        )
        for each in (*report.samples, *report.references)
    ]
    yield from _table(head, rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], n_text: int = 0) -> Iterable[str]:
    """Write a table; the last columns may be text that wraps."""
    yield '<div class="wide"><table><thead><tr>'
    yield "".join(f"<th>{escape(each)}</th>" for each in head)
    yield "</tr></thead><tbody>\n"
    for first, *others in rows:
        n_figures = len(others) - n_text
        cells = [f"<td>{escape(each)}</td>" for each in others[:n_figures]]
        cells += [f'<td class="text">{escape(each)}</td>' for each in others[n_figures:]]
        yield f"<tr><th>{escape(first)}</th>{''.join(cells)}</tr>\n"
    yield "</tbody></table></div>\n"
