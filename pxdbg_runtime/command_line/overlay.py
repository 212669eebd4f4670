"""``pxdbg overlay``: add background to the digits of a signal."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from pxdbg_runtime.command_line.console import format_event_count, report_failures, stderr, stdout
from pxdbg_runtime.command_line.digit_output import Overwrite, check_new_file
from pxdbg_runtime.command_line.progress import track
from pxdbg_runtime.digits import COLUMN_DTYPES, Digits
from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.formats import SUFFIX_LIST, EventReader, open_events
from pxdbg_runtime.formats.overlaid import OverlayRecord, check_overlaid_path, open_overlaid_writer
from pxdbg_runtime.formats.provenance import list_sensors
from pxdbg_runtime.overlaying import MAX_SUM_ADU, overlay_event
from pxdbg_runtime.sensors import describe_sensors

__all__ = ["overlay"]


def overlay(
    signal: Annotated[Path, typer.Argument(help=f"Digits of the signal, {SUFFIX_LIST}.")],
    background: Annotated[Path, typer.Argument(help=f"Digits of the background, {SUFFIX_LIST}.")],
    output: Annotated[Path, typer.Option(help="File to write, .parquet.")],
    overwrite: Overwrite = False,
    saturate: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_SUM_ADU,
            show_default="none",
            help="Largest charge in ADU; 255 gives a file for show, plot, validate.",
        ),
    ] = None,
    reuse: Annotated[
        bool, typer.Option("--reuse", help="Take background events in turn, whatever their numbers, and again if few.")
    ] = False,
) -> None:
    """Add background to the digits of a signal, by the rule of basf2.

    The charge of a background digit is added to the signal digit of the same
    pixel, or is a digit of its own. Sums do not stop at 255 ADU. The output
    has the events of the signal; each takes the background of its number. The
    background must have all sensors of the signal.
    """
    with report_failures():
        check_overlaid_path(output)
        check_new_file(output, overwrite=overwrite, inputs=[signal, background])
        signals, backgrounds = open_events(signal), open_events(background)
        _check_sensors(signals, backgrounds)
        n_unused = 0 if reuse else _match_events(signals, backgrounds)
        record = OverlayRecord(
            signal=signals,
            background=backgrounds,
            n_events=signals.n_events,
            saturate=saturate,
            reuses_background=reuse,
        )
        in_turn = _repeat_events(backgrounds) if reuse else _select_events(backgrounds, signals)
        n_digits = largest = 0
        with open_overlaid_writer(output, record) as write:
            numbered = zip(signals.read_events(), in_turn, strict=False)
            for (event, digits), added in track(numbered, total=signals.n_events, description="events"):
                overlaid = overlay_event(digits, _renumber(added, event), saturate=saturate)
                write(overlaid)
                n_digits += len(overlaid)
                largest = max(largest, int(overlaid.charge.max(initial=0)))
            # To the end of the background, where its rows are compared with its digest.
            n_left = max(0, backgrounds.n_events - signals.n_events)
            for _digits in itertools.islice(in_turn, n_left + 1):
                pass
        if n_unused:
            message = f"not used, for lack of a signal: {format_event_count(n_unused)} of {background}"
            stderr.print(message, soft_wrap=True)
        events = format_event_count(signals.n_events)
        stdout.print(f"wrote {output}: {events}, {n_digits:,} digits, up to {largest} ADU", soft_wrap=True)


def _check_sensors(signal: EventReader, background: EventReader) -> None:
    """Check that the background has all sensors of the signal: one that was not generated is not an empty one."""
    wanted, found = list_sensors(signal.jobs), list_sensors(background.jobs)
    if not set(wanted) <= set(found):
        message = (
            f"{background.path} holds {describe_sensors(found)} alone, but {signal.path} has "
            f"{describe_sensors(wanted)}: generate the background with the --sensors or --layer of the signal, or "
            "without, for all sensors."
        )
        raise ArgumentValueError("background", message)


def _match_events(signal: EventReader, background: EventReader) -> int:
    """Check that each signal event has a background event of its number; return how many of these have no signal."""
    without = np.setdiff1d(signal.event_numbers, background.event_numbers, assume_unique=True)
    if len(without):
        message = (
            f"{signal.path} has event {without[0]}, and {background.path} has not ({len(without):,} such events): "
            "generate the background with the --first-event and --events of the signal, or take its events in turn "
            "with --reuse."
        )
        raise ArgumentValueError("background", message)
    return background.n_events - signal.n_events


def _select_events(background: EventReader, signal: EventReader) -> Iterator[Digits]:
    """Yield the background of each event of the signal."""
    chosen = set(signal.event_numbers.tolist())
    for number, digits in background.read_events():
        if number in chosen:
            yield digits


def _repeat_events(background: EventReader) -> Iterator[Digits]:
    """Yield the background events in turn, for ever; the file is read again each time."""
    while True:
        yield from background


def _renumber(digits: Digits, event: int) -> Digits:
    columns = {name: getattr(digits, name) for name in COLUMN_DTYPES}
    return Digits(**{**columns, "event": np.full(len(digits), event, dtype=np.int64)})
