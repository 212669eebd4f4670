"""Plan a campaign: write its plan and a copy of its graph."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from pxdbg_runtime.campaigns.folder import (
    GRAPH_NAME,
    PLAN_NAME,
    Campaign,
    format_command,
    hash_file,
    list_part_files,
    open_campaign,
)
from pxdbg_runtime.campaigns.machine import describe_machine
from pxdbg_runtime.campaigns.part_lock import hold_lock
from pxdbg_runtime.campaigns.plan import CampaignPlan, split_events
from pxdbg_runtime.checks import check_path
from pxdbg_runtime.errors import ArgumentValueError, CampaignError
from pxdbg_runtime.formats import FORMATS, SUFFIXES, find_format
from pxdbg_runtime.formats.atomic_write import atomic_write
from pxdbg_runtime.formats.output_path import create_folder
from pxdbg_runtime.formats.overlay_writer import MAX_OVERLAY_EVENT
from pxdbg_runtime.model.graph_file import read_graph_file
from pxdbg_runtime.sensors import SENSORS, select_sensors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pxdbg_runtime.checks import StrPath
    from pxdbg_runtime.formats.run_numbers import RunNumbers
    from pxdbg_runtime.generator import Generator
    from pxdbg_runtime.sensors import SensorLike

__all__ = ["check_format", "check_new_campaign", "check_random_stream", "write_plan"]


def check_random_stream(random_stream: str) -> Literal["philox"]:
    """Return the stream of a campaign; raises `ArgumentValueError` unless its events are independent."""
    if random_stream != "philox":
        message = (
            f"A campaign needs events that do not depend on each other, but of the stream {random_stream} each depends "
            "on all before it: take --random-stream philox, or make one file with pxdbg generate."
        )
        raise ArgumentValueError("random_stream", message)
    return "philox"


def check_format(format_name: str, last_event: int) -> None:
    """Check before the work that files of a format can be written.

    Parameters
    ----------
    format_name : str
    last_event : int
        The largest event number.

    Raises
    ------
    ArgumentValueError
        If there is no such format, or its files do not hold the event number.
    MissingPackageError
        If the format needs a package that is not installed.
    """
    if format_name == "overlay" and last_event > MAX_OVERLAY_EVENT:
        message = (
            f"An overlay file holds event numbers up to {MAX_OVERLAY_EVENT}, as basf2 does, but the last event is "
            f"{last_event}: plan fewer events, or a smaller --first-event."
        )
        raise ArgumentValueError("events", message)
    suffixes = FORMATS[format_name].suffixes if format_name in FORMATS else SUFFIXES
    find_format(f"part{suffixes[0]}", format_name)


def check_new_campaign(folder: StrPath) -> None:
    """Check before the work that a folder has neither a plan nor partitions, which would be replaced.

    Raises
    ------
    CampaignError
        If it has one of them, or cannot be read.
    """
    folder = check_path("folder", folder)
    path = folder / PLAN_NAME
    if os.path.exists(path):  # noqa: PTH110  # Path raises for too long a name; creating the folder reports it
        command = format_command("run", folder)
        message = f"{folder} has a plan already: go on with it ({command}), or plan into another folder."
        raise CampaignError(path, message)
    if not os.path.isdir(folder):  # noqa: PTH112  # as above
        return
    try:
        found = list_part_files(folder)
    except OSError as error:
        raise CampaignError(folder, f"{folder} cannot be read: {error.strerror or error}.") from None
    if found:
        message = f"{found[0]} has the name of a partition: move such files away, or plan into another folder."
        raise CampaignError(found[0], message)


def write_plan(
    folder: StrPath,
    generator: Generator,
    events: range,
    *,
    events_per_part: int,
    format_name: str,
    provider_options: Mapping[str, str],
    nintra: int,
    ninter: int,
    sensors: Iterable[SensorLike] | None = None,
    run_numbers: RunNumbers | None = None,
) -> Campaign:
    """Write the plan of a campaign and a copy of the generator's graph.

    The copy keeps the campaign's graph from changing with a file elsewhere, or with another pxdbg-runtime.

    Parameters
    ----------
    folder : str or path
        Created if need be; it may not have a plan or partitions yet.
    generator : Generator
        As the workers of this campaign create theirs.
    events : range
        With step 1, not empty.
    events_per_part : int
    format_name : str
        Name of one of `FORMATS`.
    provider_options : mapping of str to str
    nintra, ninter : int
        As given to the generator.
    sensors : iterable of Sensor, str or int, optional
        All if None.
    run_numbers : RunNumbers or None
        For a format that records them.

    Raises
    ------
    ArgumentValueError, MissingPackageError
        If the events of the stream depend on each other, there are too many, or the format is not valid for them.
    CampaignError
        If the folder has a plan, partitions or another graph already.
    OutputError
        If a file cannot be written.
    """
    chosen = select_sensors(sensors)
    partitions = split_events(events, events_per_part)
    check_format(format_name, events[-1])
    plan = CampaignPlan(
        model=generator.card.name,
        graph=GRAPH_NAME,
        graph_sha256=generator.graph_sha256,
        precision=generator.card.precision,
        provider=generator.provider,
        provider_options=dict(provider_options),
        batch_size=generator.batch_size,
        nintra=nintra,
        ninter=ninter,
        min_charge=generator.min_charge,
        sensors=None if chosen == SENSORS else tuple(map(str, chosen)),
        seed=generator.seed,
        random_stream=check_random_stream(generator.random_stream),
        format=format_name,
        experiment=None if run_numbers is None else run_numbers.experiment,
        run=None if run_numbers is None else run_numbers.run,
        machine=describe_machine(generator.provider, provider_options),
        partitions=partitions,
    )
    folder = check_path("folder", folder)
    create_folder(folder)
    with hold_lock(folder / ".plan.lock") as is_locked:
        if not is_locked:
            message = f"Another process plans a campaign in {folder}: take another folder."
            raise CampaignError(folder / PLAN_NAME, message)
        check_new_campaign(folder)
        _copy_graph(generator, folder / GRAPH_NAME)
        with atomic_write(folder / PLAN_NAME) as partial:
            partial.write_text(plan.to_json(), encoding="utf-8")
    return open_campaign(folder)


def _copy_graph(generator: Generator, target: Path) -> None:
    graph = read_graph_file(generator.graph_path)
    if graph.sha256 != generator.graph_sha256:
        message = f"The graph {generator.graph_path} was changed while the campaign was planned: plan it again."
        raise CampaignError(generator.graph_path, message)
    if os.path.lexists(target) and not _has_sha256(target, graph.sha256):
        message = f"{target} is not the graph to plan with: move it away, or plan into another folder."
        raise CampaignError(target, message)
    with atomic_write(target) as partial:
        partial.write_bytes(graph.content)


def _has_sha256(path: Path, sha256: str) -> bool:
    try:
        return hash_file(path) == sha256
    except OSError:
        return False
