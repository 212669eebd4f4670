"""``pxdbg validate``: compare samples of digits with references, on an HTML page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table
from rich.text import Text

from pxdbg_runtime.command_line.console import report_failures, stderr, stdout
from pxdbg_runtime.command_line.inputs import check_not_an_input
from pxdbg_runtime.command_line.progress import show_progress
from pxdbg_runtime.command_line.safe_text import make_safe
from pxdbg_runtime.digits import Digits
from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.formats import SUFFIXES, DigitReader, merge_files, open_events
from pxdbg_runtime.formats.atomic_write import atomic_write, check_target
from pxdbg_runtime.limits.address_space import check_room_for_validation
from pxdbg_runtime.optional_imports import require
from pxdbg_runtime.sensors import MAX_CHARGE_ADU
from pxdbg_runtime.validation.marginals import PUBLIC_MIN_CHARGE, read_marginals

if TYPE_CHECKING:
    from pxdbg_runtime.validation.report import Report
    from pxdbg_runtime.validation.sample import Sample

__all__ = ["validate"]

_MARK_STYLES = {"": "", "pass": "green", "fail": "bold red", "undecided": "yellow"}


def validate(
    digits: Annotated[list[Path], typer.Argument(help="Digit files to judge: .parquet or .npz, one or more.")],
    report: Annotated[Path, typer.Option(help="Page to write, .html; its figures are written beside it, to .json.")],
    reference: Annotated[
        list[Path] | None,
        typer.Option(
            help="Published marginals (.json) or digit file (.parquet, .npz) to compare with; may be repeated."
        ),
    ] = None,
    min_charge: Annotated[
        int, typer.Option(min=1, max=MAX_CHARGE_ADU, help="Smallest charge in ADU; digits below it are dropped.")
    ] = PUBLIC_MIN_CHARGE,
    merge: Annotated[bool, typer.Option("--merge", help="Judge all digit files as one sample.")] = False,
) -> None:
    """Compare samples of digits with references, and each sample with itself.

    The page shows the charge spectrum, occupancies, clusters, seams,
    correlations and repeated patterns, with the scores of the published
    generators beside them. It needs no network and no other file.
    """
    with report_failures():
        listed = reference or []
        beside = report.with_suffix(".json")
        _check_report(report)
        check_room_for_validation()
        for output in (report, beside):
            check_not_an_input("report", output, [*digits, *listed])
        for module in ("numba", "scipy.stats", "matplotlib", "hist", "mplhep"):
            require(module, extra="validate", purpose="A validation")
        # Here, because they import numba, which would delay the start of every other command.
        from pxdbg_runtime.validation.page import render_page
        from pxdbg_runtime.validation.report import validate as compare_samples

        public = tuple(read_marginals(path) for path in listed if path.suffix == ".json")
        if public and min_charge != PUBLIC_MIN_CHARGE:
            message = (
                f"--min-charge is {min_charge}, but published marginals are cut at {PUBLIC_MIN_CHARGE} ADU: "
                "leave it out, or leave them out."
            )
            raise ArgumentValueError("min_charge", message)
        references = [path for path in listed if path.suffix != ".json"]
        _check_paths(digits, references)
        readers, names = _open_readers(digits, references, merge=merge)
        counted = _count_samples(readers, names, min_charge)
        n_samples = len(readers) - len(references)
        samples, reference_samples = counted[:n_samples], counted[n_samples:]
        result = compare_samples(samples, reference_samples, public)
        page = render_page(result, samples, reference_samples)
        # Both or none.
        with atomic_write(beside) as partial_json, atomic_write(report) as partial_page:
            partial_json.write_text(result.to_json(), encoding="utf-8")
            # Names of files may be invalid UTF-8.
            partial_page.write_text(page, encoding="utf-8", errors="backslashreplace")
        _print_summary(result)
        stdout.print(f"wrote {report} and {beside}", markup=False, soft_wrap=True)


def _check_report(report: Path) -> None:
    """Check before the work that both files can be written."""
    if report.suffix != ".html":
        message = f"--report must end in .html, but is {report}."
        raise ArgumentValueError("report", message)
    check_target(report, room_bytes=100_000)
    check_target(report.with_suffix(".json"), room_bytes=100_000)


def _check_paths(digits: list[Path], references: list[Path]) -> None:
    for argument, paths in (("digits", digits), ("reference", references)):
        for path in paths:
            if paths.count(path) > 1:
                message = f"{path} is given twice."
                raise ArgumentValueError(argument, message)
    for path in references:
        if path.suffix not in SUFFIXES:
            message = f"--reference must end in .json, {' or '.join(SUFFIXES)}, but is {path}."
            raise ArgumentValueError("reference", message)


def _open_readers(digits: list[Path], references: list[Path], *, merge: bool) -> tuple[list[DigitReader], list[str]]:
    """Open samples and references, and name them."""
    reference_readers: list[DigitReader] = [open_events(path) for path in references]
    if merge and len(digits) > 1:
        merged = f"{digits[0].stem} and {len(digits) - 1} more"
        return [merge_files(digits), *reference_readers], [merged, *_choose_names([], references)]
    return [*map(open_events, digits), *reference_readers], _choose_names(digits, references)


def _count_samples(readers: list[DigitReader], names: list[str], min_charge: int) -> tuple[Sample, ...]:
    from pxdbg_runtime.validation.sample import count_events

    counted = []
    n_events = sum(reader.n_events for reader in readers)
    with show_progress(total=n_events, description="events") as advance:
        for reader, name in zip(readers, names, strict=True):
            counted.append(count_events(_count_progress(advance, reader.read_events()), reader, name, min_charge))
    return tuple(counted)


def _count_progress(advance: Callable[[], None], events: Iterable[tuple[int, Digits]]) -> Iterator[tuple[int, Digits]]:
    for event in events:
        yield event
        advance()


def _choose_names(samples: list[Path], references: list[Path]) -> list[str]:
    """Name digits by their files: with the folder, or the role, where two names would be equal."""
    paths = [*samples, *references]
    stems = [path.stem for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    roles = [""] * len(samples) + [" (reference)"] * len(references)
    return [f"{path}{role if paths.count(path) > 1 else ''}" for path, role in zip(paths, roles, strict=True)]


def _print_summary(report: Report) -> None:
    from pxdbg_runtime.validation.summary_table import summary_columns, summary_rows

    against = "" if report.primary is None else f"against {report.primary}, "
    title = f"{against}hits of {report.min_charge} ADU or more"
    rows = [row for row in summary_rows(report) if row.short_label]
    table = Table(
        Column(overflow="fold", min_width=18), *(row.short_label for row in rows), title=title, title_justify="left"
    )
    for number, column in enumerate(summary_columns(report)):
        cells = [row.cells[number] for row in rows]
        styled = [Text(cell.text, style=_MARK_STYLES[cell.mark]) for cell in cells]
        table.add_row(Text.assemble(make_safe(column.name), ", ", (column.kind, "dim")), *styled)
    stdout.print(table)
    for each in (*report.samples, *report.references):
        provenance = f"{each.jobs[0].nature}, {each.jobs[0].provenance}" if each.jobs else "provenance unknown"
        stderr.print(f"{each.name}: {provenance}", markup=False, soft_wrap=True)
