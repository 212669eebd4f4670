"""``pxdbg campaign status``, ``verify`` and ``merge``: look at a campaign, check it, and use its files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.table import Table

from pxdbg_runtime.campaigns.folder import PartState, open_campaign
from pxdbg_runtime.campaigns.making import open_generator
from pxdbg_runtime.campaigns.status import read_status
from pxdbg_runtime.campaigns.verifying import (
    choose_sample,
    compare_sample,
    find_graph_finding,
    find_stranger_findings,
    verify_part,
)
from pxdbg_runtime.command_line.console import FAILURE, format_event_count, report_failures, stderr, stdout
from pxdbg_runtime.command_line.convert import copy_events
from pxdbg_runtime.command_line.digit_output import FormatName, Overwrite, check_output
from pxdbg_runtime.command_line.progress import format_duration, track
from pxdbg_runtime.errors import ArgumentValueError, CampaignError
from pxdbg_runtime.formats import FORMATS, SUFFIX_LIST
from pxdbg_runtime.formats.atomic_write import check_target
from pxdbg_runtime.formats.provenance import MAX_FILE_EVENTS

if TYPE_CHECKING:
    from pxdbg_runtime.campaigns.status import CampaignStatus

__all__ = ["Folder", "merge", "status", "verify"]

_SHOWN_PROBLEMS = 10
_KEPT_STATES: Final[frozenset[PartState]] = frozenset({"complete", "foreign"})
"""States of partitions that ``pxdbg campaign run`` does not make again, whatever their files hold."""
Folder = Annotated[Path, typer.Argument(help="Folder of the campaign.")]


def status(
    folder: Folder,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with rates, failures and the picture of an event too.")
    ] = None,
) -> None:
    """Show how much is complete, how fast it was, and what failed.

    Sizes of files are compared, not their hashes: see pxdbg campaign verify.
    """
    with report_failures():
        if html is not None:
            if html.suffix not in {".html", ".htm"}:
                raise ArgumentValueError("html", f"--html must end in .html, but is {html}.")
            check_target(html)
        found = read_status(open_campaign(folder))
        stdout.print(_build_table(found))
        _print_hosts(found)
        _print_problems(found)
        if html is not None:
            from pxdbg_runtime.campaigns.status_page import write_page

            write_page(found, html)
            stdout.print(f"wrote {html}", soft_wrap=True)


def verify(
    folder: Folder,
    sample: Annotated[
        int, typer.Option(min=0, help="Events to generate again and compare, of different partitions.")
    ] = 3,
    allow_mixed_hardware: Annotated[
        bool, typer.Option("--allow-mixed-hardware", help="Generate the sample also where a few digits may differ.")
    ] = False,
) -> None:
    """Check hashes, event counts and origin of all partitions, and generate some events again.

    Each truncated, changed, missing or foreign file is named. The exit code is 0
    if the campaign is complete and nothing is wrong.
    """
    with report_failures():
        opened = open_campaign(folder)
        graph = find_graph_finding(opened)
        findings = [*([graph] if graph else []), *find_stranger_findings(opened)]
        sound = []
        wrong_states: set[PartState] = set()
        for part in track(range(opened.plan.n_parts), total=opened.plan.n_parts, description="partitions"):
            found, finding = verify_part(opened, part)
            if finding is None:
                sound.append(part)
            else:
                findings.append(finding)
                wrong_states.add(found.state)
        for finding in findings:  # first: whether this machine can generate events is another question
            stdout.print(finding, soft_wrap=True)
        chosen = choose_sample(opened, sound, 0 if graph else sample)
        if chosen:
            generator = open_generator(opened, allow_mixed_hardware=allow_mixed_hardware)
            compared = compare_sample(opened, generator, chosen, allow_mixed_hardware=allow_mixed_hardware)
            for each in track(compared, total=len(chosen), description="events"):
                if each.finding:
                    stdout.print(each.finding, soft_wrap=True)
                if each.is_wrong:
                    findings.append(each.finding)
                    sound.remove(each.part)
                    wrong_states.add("complete")
        stdout.print(
            f"{len(sound):,} of {opened.plan.n_parts:,} partitions are as planned; "
            f"{format_event_count(len(chosen))} generated again",
            soft_wrap=True,
        )
        if wrong_states - _KEPT_STATES:
            advice = f"Missing, unfinished and damaged partitions are made by {opened.run_command}"
            stdout.print(advice, soft_wrap=True)
        if wrong_states & _KEPT_STATES:
            advice = (
                "Files with other digits than planned are kept: move each away with its record (.json), and then make "
                f"the partition with {opened.run_command}"
            )
            stdout.print(advice, soft_wrap=True)
        if findings:
            raise typer.Exit(FAILURE)


def merge(
    folder: Folder,
    output: Annotated[Path | None, typer.Option(help=f"File to write all events to, {SUFFIX_LIST}.")] = None,
    list_files: Annotated[
        bool, typer.Option("--list", help="Print the paths of the files, which are read as one sample, and write none.")
    ] = False,
    overwrite: Overwrite = False,
    format_name: FormatName = None,
) -> None:
    """Write all events of a complete campaign to one file, or list its files.

    The file is the one that a single job would have written, in the format of the
    plan if its suffix allows. The hashes are compared before.
    """
    with report_failures():
        if (output is None) != list_files:
            raise ArgumentValueError("output", "Expected either --output FILE or --list.")
        if list_files and (overwrite or format_name is not None):
            message = "--list writes no file: leave --format and --overwrite out."
            raise ArgumentValueError("list", message)
        opened = open_campaign(folder)
        if format_name == "overlay" and opened.plan.run_numbers is None:
            message = (
                f"The plan in {folder} names no experiment, which an overlay file records: merge into another format, "
                "and then use pxdbg convert --format overlay --experiment N."
            )
            raise ArgumentValueError("format", message)
        paths = [opened.digits_path(part) for part in range(opened.plan.n_parts)]
        if output is not None:
            if format_name is None and output.suffix in FORMATS[opened.plan.format].suffixes:
                format_name = opened.plan.format
            check_output(output, format_name, overwrite=overwrite, inputs=paths)
            if opened.plan.n_events > MAX_FILE_EVENTS:
                message = (
                    f"A digit file holds at most {MAX_FILE_EVENTS:,} events, but the campaign has "
                    f"{opened.plan.n_events:,}: print its files with --list, which are read as one sample."
                )
                raise ArgumentValueError("output", message)
        total = opened.plan.n_parts
        statuses = opened.examine_all(compare_hash=True)
        for found in track(statuses, total=total, description="partitions checked", shows_rate=False):
            if found.state != "complete":
                path = opened.digits_path(found.part)
                reason = found.reason or f"{path} is {found.state}."
                advice = "Move it away, then make it" if found.state == "foreign" else "Make it first"
                raise CampaignError(path, f"{reason} {advice}: {opened.run_command}.")
        if output is None:
            for path in paths:
                stdout.print(str(path), soft_wrap=True)
        else:
            run_numbers = opened.plan.run_numbers if format_name == "overlay" else None
            copy_events(paths, output, format_name, run_numbers, overwrite=overwrite, joins_jobs=True)


def _build_table(found: CampaignStatus) -> Table:
    plan = found.campaign.plan
    table = Table(show_header=False)
    counts = found.counts
    rest = ", ".join(f"{count:,} {state}" for state, count in sorted(counts.items()) if state != "complete")
    table.add_row("model", f"{plan.model} {plan.precision} on {plan.provider}, seed {plan.seed}")
    table.add_row("partitions", f"{counts['complete']:,} of {plan.n_parts:,} complete{f'; {rest}' if rest else ''}")
    table.add_row("events", f"{found.events:,} of {plan.n_events:,}")
    table.add_row("digits", f"{found.digits:,}, {found.size_bytes / 1e6:,.1f} MB")
    table.add_row("being made", ", ".join(map(str, found.in_progress)) or "none")
    table.add_row("failed", f"{len(found.failed):,}")
    left_s = found.worker_seconds_left
    table.add_row("time left with one worker", "unknown" if left_s is None else format_duration(left_s))
    return table


def _print_hosts(found: CampaignStatus) -> None:
    hosts = found.list_hosts()
    if hosts:
        table = Table("machine", "device", "partitions", "events", "events/s of a worker")
        for each in hosts:
            table.add_row(each.host, each.device, f"{each.parts:,}", f"{each.events:,}", f"{each.events_per_s:.2f}")
        stdout.print(table)


def _print_problems(found: CampaignStatus) -> None:
    sentences = [each.reason for each in found.problems]
    sentences.extend(
        f"Partition {each.part} failed on {each.host} at {each.failed}: {each.reason}" for each in found.failures
    )
    for sentence in sentences[:_SHOWN_PROBLEMS]:
        stdout.print(sentence, soft_wrap=True)
    if len(sentences) > _SHOWN_PROBLEMS:
        stderr.print(f"and {len(sentences) - _SHOWN_PROBLEMS:,} more; the page of --html has all.", soft_wrap=True)
