"""``pxdbg validate``: compare samples of digits with references, and write a page."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table
from rich.text import Text

from pxdbg_runtime.command_line.console import report_failures, stderr, stdout
from pxdbg_runtime.command_line.inputs import check_not_an_input
from pxdbg_runtime.command_line.progress import show_progress
from pxdbg_runtime.command_line.safe_text import make_line, make_safe
from pxdbg_runtime.digits import Digits
from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.formats import SUFFIX_LIST, SUFFIXES, DigitReader, merge_files, open_events
from pxdbg_runtime.formats.atomic_write import atomic_write, check_target
from pxdbg_runtime.json_records import parse_json
from pxdbg_runtime.limits.address_space import require_address_space_for_validation
from pxdbg_runtime.model.card import describe_weights
from pxdbg_runtime.optional_imports import is_installed, require
from pxdbg_runtime.regular_file import open_regular
from pxdbg_runtime.sensors import MAX_CHARGE_ADU, READOUT_THRESHOLD_ADU
from pxdbg_runtime.validation.marginals import Marginals, PublicMarginals, read_marginals

if TYPE_CHECKING:
    from pxdbg_runtime.validation.report import Report
    from pxdbg_runtime.validation.sample import Sample

__all__ = ["validate"]

_WITHOUT_SCIKIT_LEARN = (
    "scikit-learn is not installed, so the report has no classifier test and no comparison of neighbours: "
    "pip install 'pxdbg-runtime[validate]'."
)
_MAX_JSON_BYTES: Final = 64 << 20
"""A report of some samples has 100 kB."""
_MARK_STYLES = {"": "", "pass": "green", "fail": "bold red", "undecided": "yellow"}


def validate(
    digits: Annotated[list[Path], typer.Argument(help=f"Samples to validate, {SUFFIX_LIST}, one or more.")],
    report: Annotated[Path, typer.Option(help="Page to write, .html; the numbers are written beside it, to .json.")],
    reference: Annotated[
        list[Path] | None,
        typer.Option(help=f"Digits ({SUFFIX_LIST}) or published marginals (.json) to compare with; may be repeated."),
    ] = None,
    min_charge: Annotated[
        int, typer.Option(min=1, max=MAX_CHARGE_ADU, help="Cut in ADU: drop hits below it first.")
    ] = READOUT_THRESHOLD_ADU,
    merge: Annotated[bool, typer.Option("--merge", help="Validate all files of digits as one sample.")] = False,
) -> None:
    """Compare samples of digits with references, and each with itself.

    The page shows the charge spectrum, occupancies, clusters, seams, correlations and repeated patterns, with the
    scores of published generators beside them, and how well a classifier tells the images of a sample from those of a
    reference of digits. It needs no network and no other file.
    """
    with report_failures():
        listed = reference or []
        json_path = report.with_suffix(".json")
        _check_report(report)
        compares_images = any(path.suffix != ".json" for path in listed) and is_installed("sklearn")
        require_address_space_for_validation(compares_images=compares_images)
        for output in (report, json_path):
            check_not_an_input("report", output, [*digits, *listed])
        _check_replaceable(json_path)
        for module in ("numba", "scipy.special", "matplotlib", "jinja2"):
            require(module, extra="validate", purpose="A validation")
        if compares_images:
            require("sklearn", extra="validate", purpose="A classifier test")
        elif any(path.suffix != ".json" for path in listed):
            stderr.print(_WITHOUT_SCIKIT_LEARN, soft_wrap=True)
        # They load numba, which would delay the start of every command.
        from pxdbg_runtime.validation.page import render_page
        from pxdbg_runtime.validation.report import build_report

        _check_paths(digits, listed)
        public = _read_public([path for path in listed if path.suffix == ".json"])
        if public and min_charge != READOUT_THRESHOLD_ADU:
            message = (
                f"--min-charge is {min_charge}, but published marginals are cut at {READOUT_THRESHOLD_ADU} ADU: "
                "omit --min-charge, or omit them."
            )
            raise ArgumentValueError("min_charge", message)
        references = [path for path in listed if path.suffix != ".json"]
        taken = {each.reference.name for each in public}
        counted = _count_samples(_open_sources(digits, references, taken, merge=merge), min_charge)
        n_samples = len(counted) - len(references)
        samples, simulations = counted[:n_samples], counted[n_samples:]
        result = build_report(samples, simulations, public)
        page = render_page(result, samples, simulations)
        # The page appears last: where it is new, so is its JSON.
        with atomic_write(report) as partial_page, atomic_write(json_path) as partial_json:
            partial_json.write_text(result.to_json(), encoding="utf-8")
            # Names of files need not be UTF-8.
            partial_page.write_text(page, encoding="utf-8", errors="backslashreplace")
        _print_summary(result)
        stdout.print(f"wrote {report} and {json_path}", soft_wrap=True)


def _check_report(report: Path) -> None:
    """Check before the work that its result can be written."""
    if report.suffix != ".html":
        raise ArgumentValueError("report", f"--report must end in .html, but is {report}.")
    check_target(report, free_bytes=100_000)
    check_target(report.with_suffix(".json"), free_bytes=100_000)


def _check_replaceable(path: Path) -> None:
    """Refuse to replace a file, which the command does not name, unless it is the JSON of a report, of any release."""
    try:
        with open_regular(path) as file:
            content = parse_json(file.read(_MAX_JSON_BYTES).decode())
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict) or not {"schema", "samples", "comparisons"} <= content.keys():
        message = (
            f"--report would replace {path}, which is not the JSON of a report: name another page, or move that "
            "file away."
        )
        raise ArgumentValueError("report", message)


def _check_paths(digits: list[Path], references: list[Path]) -> None:
    for argument, paths in (("digits", digits), ("reference", references)):
        for path in paths:
            if paths.count(path) > 1:
                raise ArgumentValueError(argument, f"{path} is given twice.")
    for path in references:
        if path.suffix not in (".json", *SUFFIXES):
            raise ArgumentValueError("reference", f"--reference must end in .json, {SUFFIX_LIST}, but is {path}.")


def _read_public(paths: list[Path]) -> tuple[PublicMarginals, ...]:
    """Read files of published marginals; of several, the names of their samples end in the name of the file."""
    files = [read_marginals(path) for path in paths]
    if len(files) < 2:
        return tuple(files)
    return tuple(_add_to_names(file, f" ({name})") for file, name in zip(files, _choose_names(paths, []), strict=True))


def _add_to_names(file: PublicMarginals, ending: str) -> PublicMarginals:
    def rename(marginals: Marginals) -> Marginals:
        return replace(marginals, name=marginals.name + ending)

    return replace(file, reference=rename(file.reference), published=tuple(map(rename, file.published)))


def _open_sources(
    digits: list[Path], references: list[Path], taken: Collection[str], *, merge: bool
) -> list[tuple[DigitReader, str]]:
    """Open and name the samples, then the references; names of published references are taken."""
    if merge and len(digits) > 1:
        merged = (merge_files(digits), f"{digits[0].stem} and {len(digits) - 1} more")
        return [merged, *_open_sources([], references, taken, merge=False)]
    names = _choose_names(digits, references, taken)
    return [(open_events(path), name) for path, name in zip([*digits, *references], names, strict=True)]


def _count_samples(sources: list[tuple[DigitReader, str]], min_charge: int) -> tuple[Sample, ...]:
    from pxdbg_runtime.validation.sample import count_events

    n_events = sum(reader.n_events for reader, _name in sources)
    with show_progress(total=n_events, description="events") as progress:
        return tuple(
            count_events(_report_progress(reader.read_events(), progress.advance), reader, name, min_charge)
            for reader, name in sources
        )


def _report_progress(
    events: Iterable[tuple[int, Digits]], advance: Callable[[int], None]
) -> Iterator[tuple[int, Digits]]:
    for numbered in events:
        yield numbered
        advance(1)


def _choose_names(samples: list[Path], references: list[Path], taken: Collection[str] = ()) -> list[str]:
    """Name files by their stems, or by their paths and roles if a stem comes twice or is taken."""
    paths = [*samples, *references]
    stems = [path.stem for path in paths]
    if len({*stems, *taken}) == len(stems) + len(taken):
        return stems
    roles = [""] * len(samples) + [" (reference)"] * len(references)
    return [f"{path}{role if paths.count(path) > 1 else ''}" for path, role in zip(paths, roles, strict=True)]


def _print_summary(report: Report) -> None:
    from pxdbg_runtime.validation.summary_table import build_columns, build_rows

    against = "" if report.primary is None else f"against {report.primary}, "
    title = f"{against}hits of {report.min_charge} ADU or more"
    rows = [row for row in build_rows(report) if row.short_label]
    # Narrow, so that all columns fit into 80 characters; folded, so that nothing is cut on fewer.
    table = Table(
        Column(overflow="fold"),
        *(Column(row.short_label.replace(" ", "\n"), max_width=9, overflow="fold") for row in rows),
        title=title,
        title_justify="left",
        box=SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    for number, column in enumerate(build_columns(report)):
        cells = [row.cells[number] for row in rows]
        styled = [Text(cell.text, style=_MARK_STYLES[cell.mark]) for cell in cells]
        table.add_row(Text.assemble(make_safe(column.name), ", ", (column.kind, "dim")), *styled)
    stdout.print(table)
    for comparison in report.comparisons:
        found = comparison.classification
        if comparison.role == "sample" and found is not None:
            text = (
                f"{comparison.name}: a classifier tells its images from those of {comparison.against} with an AUC of "
                f"{found.roc.auc:.3f} ± {found.roc.error:.3f} (0.5: not at all, 1: always); alone, "
                f"{found.best_alone.name} tells most ({found.best_alone.auc_alone:.3f})."
            )
            stdout.print(make_safe(text), soft_wrap=True)
    for each in report.digits:
        job = each.jobs[0] if each.jobs else None
        origin = "provenance unknown" if job is None else describe_weights(job.nature, job.provenance)
        stderr.print(make_line(f"{each.name} ({origin})"), soft_wrap=True)
