"""``pxdbg plot``: draw one event of a digit file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pxdbg_runtime.command_line.console import report_failures, stdout
from pxdbg_runtime.command_line.inputs import check_not_an_input
from pxdbg_runtime.command_line.safe_text import make_line
from pxdbg_runtime.digits import Digits
from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.formats import SUFFIX_LIST, EventReader, open_events
from pxdbg_runtime.formats.atomic_write import check_target
from pxdbg_runtime.plots.event_display import save_event
from pxdbg_runtime.sensors import N_SENSORS, SENSORS

__all__ = ["plot"]


def plot(
    file: Annotated[Path, typer.Argument(help=f"Digit file, {SUFFIX_LIST}.")],
    output: Annotated[Path, typer.Option(help="Picture to write: .png, .pdf or .svg.")],
    event: Annotated[
        int | None, typer.Option(min=0, show_default="the first of the file", help="Number of the event to draw.")
    ] = None,
) -> None:
    """Draw one event: both layers unrolled, hits coloured by charge, and the charge spectrum."""
    with report_failures():
        check_target(output, room_bytes=100_000)
        check_not_an_input("output", output, [file])
        reader = open_events(file)
        first, last = int(reader.event_numbers[0]), int(reader.event_numbers[-1])
        chosen = first if event is None else event
        if chosen not in reader.event_numbers:
            message = f"--event must be one of those in {file}, {first} to {last}, but is {chosen}."
            raise ArgumentValueError("event", message)
        # All blocks are read, so that the rows are compared with the digest.
        digits = Digits.concatenate([block.of_event(chosen) for block in reader.read_blocks()])
        sensors = reader.jobs[0].generated_sensors if reader.jobs else SENSORS
        save_event(digits, output, title=_format_title(reader, chosen), sensors=sensors)
        stdout.print(f"wrote {output}", markup=False, soft_wrap=True)


def _format_title(reader: EventReader, event: int) -> str:
    if not reader.jobs:
        return f"PXD background, event {event}: provenance unknown"
    provenance = next(job for job in reader.jobs if job.first_event <= event <= job.last_event)
    some = "" if provenance.sensors is None else f", {len(provenance.sensors)} of {N_SENSORS} sensors"
    remark = "" if provenance.nature == "checkpoint" else f"  ({provenance.nature}, no real physics)"
    return f"PXD background, event {event}: {make_line(provenance.model)}, seed {provenance.seed}{some}{remark}"
