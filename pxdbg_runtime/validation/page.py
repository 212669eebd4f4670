"""The page of a validation: one HTML file with its pictures, which needs no network and no other file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from pxdbg_runtime.validation import classifier, correlations, features, marginals, neighbours, repeats, seams
from pxdbg_runtime.validation.figures import draw_pictures
from pxdbg_runtime.validation.summary_table import build_columns, build_rows
from pxdbg_runtime.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pxdbg_runtime.validation.report import Report
    from pxdbg_runtime.validation.sample import Sample
    from pxdbg_runtime.validation.scores import HistogramScores
    from pxdbg_runtime.validation.sensor_scores import SensorScores

__all__ = ["render_page"]


def render_page(report: Report, samples: Sequence[Sample], references: Sequence[Sample]) -> str:
    """Render a report as HTML.

    Parameters
    ----------
    report : Report
        Of the same samples and references.
    samples, references : sequence of Sample
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "list_scores": _list_scores,
        "list_sensor_scores": _list_sensor_scores,
        "set_breaks": _set_breaks,
    }
    published = [each for file in report.public for each in (file.reference, *file.published)]
    return environment.get_template("page.html.jinja").render(
        report=report,
        columns=build_columns(report),
        rows=build_rows(report),
        pictures=draw_pictures(report, samples, references),
        all_marginals=[each.marginals for each in report.digits] + published,
        unknown="unknown; events without digits are not counted.",
        classifier=classifier,
        correlations=correlations,
        features=features,
        marginals=marginals,
        neighbours=neighbours,
        repeats=repeats,
        seams=seams,
        version=__version__,
    )


def _list_scores(scores: HistogramScores | None) -> list[str]:
    if scores is None:
        return ["-"] * 5
    return [
        f"{scores.w1:.4f}",
        f"{scores.ks:.4f}",
        f"{scores.jensen_shannon:.4f}",
        f"{scores.separation:.5f}",
        f"{scores.pull_rms:.2f}",
    ]


def _list_sensor_scores(scores: SensorScores | None) -> list[str]:
    if scores is None:
        return ["-"] * 3
    return [f"{scores.mean_percent:.2f} %", f"{scores.largest_percent:+.2f} %", scores.largest_sensor]


def _set_breaks(value: object) -> Markup:
    """Allow a line break after each underscore, and none before a percent sign."""
    return escape(value).replace(" %", "\N{NO-BREAK SPACE}%").replace("_", Markup("_<wbr/>"))
