"""``pxdbg campaign``: generate many events in partitions, on one machine, on Dask or on a batch system."""

from __future__ import annotations

import importlib.util
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pxdbg_runtime.campaigns.dask_maker import DEFAULT_RETRIES, DaskMaker
from pxdbg_runtime.campaigns.folder import format_command, open_campaign
from pxdbg_runtime.campaigns.machine import name_host
from pxdbg_runtime.campaigns.making import describe_wrong_image, make_part, open_generator, record_failure
from pxdbg_runtime.campaigns.plan import DEFAULT_EVENTS_PER_PART, split_events
from pxdbg_runtime.campaigns.planning import check_format, check_new_campaign, check_random_stream, write_plan
from pxdbg_runtime.campaigns.running import LocalMaker, find_work, run_parts
from pxdbg_runtime.command_line.campaign_reports import Folder, merge, status, verify
from pxdbg_runtime.command_line.console import (
    BUSY,
    FAILURE,
    format_event_count,
    report_failures,
    stderr,
    stdout,
)
from pxdbg_runtime.command_line.digit_output import ExperimentNumber, PartFormat, RunNumber
from pxdbg_runtime.command_line.generator_options import (
    BatchSize,
    FirstEvent,
    LayerNumber,
    Model,
    NInter,
    NIntra,
    OptionalMinCharge,
    OptionalSeed,
    Precision,
    Provider,
    ProviderOptions,
    RandomStream,
    SensorNames,
    build_event_range,
    choose_sensors,
    parse_provider_options,
)
from pxdbg_runtime.command_line.progress import show_progress, track
from pxdbg_runtime.command_line.signals import describe_stop
from pxdbg_runtime.errors import ArgumentValueError, KnownAnswerError, MachineMismatchError, PxdbgError, one_line
from pxdbg_runtime.formats.provenance import MAX_FILE_EVENTS
from pxdbg_runtime.formats.run_numbers import choose_run_numbers
from pxdbg_runtime.generator import Generator
from pxdbg_runtime.inference.providers import CPU
from pxdbg_runtime.limits.heap import return_freed_memory
from pxdbg_runtime.limits.threads import count_job_cpus
from pxdbg_runtime.model.builtin_models import DEFAULT_MODEL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pxdbg_runtime.campaigns.folder import Campaign
    from pxdbg_runtime.campaigns.making import PartOutcome
    from pxdbg_runtime.campaigns.running import PartMaker

__all__ = ["campaign"]

campaign = typer.Typer(
    help="Generate many events in partitions: on one machine, on Dask, on a batch system.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

AllowMixed = Annotated[
    bool,
    typer.Option(
        "--allow-mixed-hardware",
        help="Also run where a few digits may differ from those of the plan's machine.",
    ),
]


@campaign.command(epilog="Example: pxdbg campaign plan --events 100000 --seed 7 --output bg")
def plan(
    events: Annotated[int, typer.Option(min=1, help="Number of events.")],
    output: Annotated[Path, typer.Option(help="Folder of the campaign; created if it does not exist.")],
    events_per_part: Annotated[
        int, typer.Option(min=1, max=MAX_FILE_EVENTS, help="Events of each partition, which is one file.")
    ] = DEFAULT_EVENTS_PER_PART,
    format_name: PartFormat = "parquet",
    model: Model = DEFAULT_MODEL,
    first_event: FirstEvent = 0,
    sensors: SensorNames = None,
    layer: LayerNumber = None,
    experiment: ExperimentNumber = None,
    run: RunNumber = None,
    seed: OptionalSeed = None,
    precision: Precision = "auto",
    provider: Provider = "auto",
    provider_option: ProviderOptions = None,
    random_stream: RandomStream = "philox",
    nintra: NIntra = 1,
    ninter: NInter = 1,
    batch_size: BatchSize = None,
    min_charge: OptionalMinCharge = None,
) -> None:
    """Write the plan of a campaign: parameters, partitions, and what fixes the digits.

    The graph is copied beside the plan, whether it is built in or a file, so that
    it cannot change while the campaign runs. Plan on a machine like those that will run.
    """
    with report_failures():
        numbers = build_event_range(first_event, events)
        split_events(numbers, events_per_part)
        check_format(format_name, numbers[-1])
        run_numbers = choose_run_numbers(format_name, experiment, run)
        chosen = choose_sensors(sensors, layer)
        check_random_stream(random_stream)
        check_new_campaign(output)
        options = parse_provider_options(provider_option)
        try:
            generator = Generator(
                model,
                precision=precision,
                provider=provider,
                provider_options=options,
                seed=seed,
                random_stream=random_stream,
                nintra=nintra,
                ninter=ninter,
                batch_size=batch_size,
                min_charge=min_charge,
            )
        except KnownAnswerError as error:
            advice = "plan on another machine, or with another --provider"
            raise describe_wrong_image(error, model, advice) from error
        planned = write_plan(
            output,
            generator,
            numbers,
            events_per_part=events_per_part,
            format_name=format_name,
            provider_options=options,
            nintra=nintra,
            ninter=ninter,
            sensors=chosen,
            run_numbers=run_numbers,
        )
        stdout.print(
            f"planned {format_event_count(len(numbers))} of {planned.plan.model} {planned.plan.precision} on "
            f"{planned.plan.provider}, seed {planned.plan.seed}, in {_format_parts(planned.plan.n_parts)}: "
            f"{planned.run_command}",
            soft_wrap=True,
        )


@campaign.command(epilog="Example: pxdbg campaign part 17 bg")
def part(
    number: Annotated[int, typer.Argument(min=0, metavar="K", help="Number of the partition, from 0.")],
    folder: Folder,
    allow_mixed_hardware: AllowMixed = False,
) -> None:
    """Make one partition, unless it is complete: the command for batch jobs.

    Exit codes: 0 it is complete now; 1 it failed; 2 wrong usage; 75 another
    process is making it: try again later; 78 this machine may compute other
    digits than the plan's: use another machine.
    """
    with report_failures():
        opened = open_campaign(folder)
        found = opened.examine(opened.check_part(number), compare_hash=True)
        path = opened.digits_path(number)
        if found.state == "complete":
            stdout.print(f"{path} is complete already", soft_wrap=True)
            return
        if found.state == "damaged":
            stderr.print(f"{found.reason} It is made again.", soft_wrap=True)
        n_events = opened.plan.partitions[number].events
        try:
            generator = open_generator(opened, allow_mixed_hardware=allow_mixed_hardware)
            if generator.provider == CPU:
                return_freed_memory()
            with show_progress(total=n_events, description="events") as progress:
                outcome = make_part(opened, number, lambda: generator, lambda: progress.advance(1))
        except MachineMismatchError:  # the partition has not failed: another machine makes it
            raise
        except PxdbgError as error:
            record_failure(opened, number, one_line(error), name_host())
            raise
        if outcome.state == "busy":
            stderr.print(f"{path} is being made by another process: look again later.", soft_wrap=True)
            raise typer.Exit(BUSY)
        if outcome.state == "complete":  # another process made it meanwhile
            stdout.print(f"{path} is complete already", soft_wrap=True)
            return
        stdout.print(f"wrote {path}: {format_event_count(n_events)}, {outcome.digits:,} digits", soft_wrap=True)


@campaign.command(epilog="Example: pxdbg campaign run bg --workers 8")
def run(
    folder: Folder,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            show_default="the CPUs of this job; 1 without Dask",
            help="Worker processes on this machine; 1 makes all partitions in this process, without Dask.",
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Run on this Dask scheduler, such as tcp://host:8786, and its workers."),
    ] = None,
    retries: Annotated[
        int,
        typer.Option(
            min=0,
            help="Further tries of a partition that failed, on another worker if there is one; none without Dask.",
        ),
    ] = DEFAULT_RETRIES,
    allow_mixed_hardware: AllowMixed = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Compare sizes of the files that are there, without reading them.")
    ] = False,
) -> None:
    """Make all partitions that are not complete.

    The same command goes on with a campaign that was stopped at any moment. Two
    of them may run at once: each partition is made by one. A run ends after five
    failures one after the other; partitions that failed before are tried last.
    """
    with report_failures():
        if workers is not None and scheduler is not None:
            message = "--workers starts processes here and --scheduler uses those of a cluster: leave one of them out."
            raise ArgumentValueError("scheduler", message)
        if scheduler is not None and not scheduler.strip():
            message = "--scheduler must be an address such as tcp://host:8786, but is empty: leave it out, or name one."
            raise ArgumentValueError("scheduler", message)
        opened = open_campaign(folder)
        total = opened.plan.n_parts
        describe_stop(lambda: _describe_progress(opened))
        parts, damaged = find_work(
            opened,
            compare_hash=not quick,
            # How fast files are looked at says nothing about how fast partitions are made.
            watch=lambda statuses: track(statuses, total=total, description="partitions checked", shows_rate=False),
        )
        for each in damaged:
            stderr.print(f"{each.reason} It is made again.", soft_wrap=True)
        if not parts:
            stdout.print(f"{folder} is complete: {_format_parts(total)}", soft_wrap=True)
            return
        if len(parts) < total:
            stderr.print(f"{total - len(parts):,} of {_format_parts(total)} are complete already.", soft_wrap=True)
        n_events = sum(opened.plan.partitions[each].events for each in parts)
        with _choose_maker(opened, len(parts), workers, scheduler, retries, allow_mixed_hardware) as maker:  # noqa: SIM117
            with show_progress(total=n_events, description="events") as progress:

                def report(outcome: PartOutcome) -> None:
                    if outcome.state == "complete":  # another process made it
                        progress.omit(opened.plan.partitions[outcome.part].events)
                    elif outcome.state == "failed":
                        stderr.print(f"partition {outcome.part} failed: {outcome.reason}", soft_wrap=True)

                failed = run_parts(opened, parts, maker, advance=progress.advance, report=report)
        if failed:
            stderr.print(
                f"{_format_parts(len(failed))} failed: see {format_command('status', folder)}, and go on with "
                f"{opened.run_command}",
                soft_wrap=True,
            )
            raise typer.Exit(FAILURE)
        stdout.print(f"{folder} is complete: {_format_parts(total)}", soft_wrap=True)


@contextmanager
def _choose_maker(
    opened: Campaign, n_parts: int, workers: int | None, scheduler: str | None, retries: int, allow_mixed: bool
) -> Iterator[PartMaker]:
    """Choose where partitions are made: here, in new processes, or on a running Dask cluster."""
    n_workers = min(_choose_workers(opened) if workers is None else workers, n_parts)
    if scheduler is None and n_workers == 1:
        if opened.plan.provider == CPU:
            return_freed_memory()
        yield LocalMaker(campaign=opened, allow_mixed_hardware=allow_mixed)
        return
    from pxdbg_runtime.campaigns.dask_cluster import connect, start_local_cluster

    where = f"the workers of {scheduler}" if scheduler else f"{n_workers} worker processes"
    stderr.print(f"{_format_parts(n_parts)} to make on {where}", soft_wrap=True)
    with connect(scheduler) if scheduler else start_local_cluster(opened, n_workers) as client:
        yield DaskMaker(
            campaign=opened,
            client=client,
            log=lambda sentence: stderr.print(sentence, soft_wrap=True),
            allow_mixed_hardware=allow_mixed,
            retries=retries,
            is_local=scheduler is None,
        )


def _choose_workers(opened: Campaign) -> int:
    if opened.plan.provider != CPU or importlib.util.find_spec("distributed") is None:
        return 1
    return max(count_job_cpus().count // (opened.plan.nintra * opened.plan.ninter), 1)


def _describe_progress(opened: Campaign) -> str:
    """Say what is complete, and how to go on, after a signal."""
    n_complete = sum(each.state == "complete" for each in opened.examine_all(compare_hash=False))
    total = opened.plan.n_parts
    return f"{n_complete:,} of {_format_parts(total)} are complete; go on with {opened.run_command}"


def _format_parts(n_parts: int) -> str:
    return "1 partition" if n_parts == 1 else f"{n_parts:,} partitions"


campaign.command(epilog="Example: pxdbg campaign status bg --html bg.html")(status)
campaign.command(epilog="Example: pxdbg campaign verify bg --sample 10")(verify)
campaign.command(epilog="Example: pxdbg campaign merge bg --output bg.parquet")(merge)
