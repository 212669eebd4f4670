"""``pxdbg generate``: events into a file."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pxdbg_runtime.checks import MAX_EVENT, MAX_SEED, MIN_SEED
from pxdbg_runtime.command_line.console import report_failures, stderr, stdout
from pxdbg_runtime.command_line.inputs import check_not_an_input
from pxdbg_runtime.command_line.progress import track
from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.formats import check_suffix, describe_generation, open_writer
from pxdbg_runtime.formats.atomic_write import check_target
from pxdbg_runtime.formats.provenance import MAX_FILE_EVENTS
from pxdbg_runtime.generator import Generator
from pxdbg_runtime.model.builtin_models import is_path
from pxdbg_runtime.sensors import N_SENSORS

__all__ = ["check_output", "event_numbers", "generate"]


class PrecisionOption(StrEnum):
    """Precisions that can be asked for."""

    AUTO = "auto"
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"


class StreamOption(StrEnum):
    """Random streams that can be asked for."""

    PHILOX = "philox"
    TORCH = "torch"


def generate(
    output: Annotated[Path, typer.Option(help="File to write: .parquet or .npz.")],
    model: Annotated[str, typer.Option(help="Name of a shipped model, or path of a graph (.onnx).")] = "resnet",
    events: Annotated[int, typer.Option(min=1, max=MAX_FILE_EVENTS, help="Number of events.")] = 1,
    first_event: Annotated[int, typer.Option(min=0, max=MAX_EVENT, help="Number of the first event.")] = 0,
    seed: Annotated[
        int | None,
        typer.Option(
            min=MIN_SEED, max=MAX_SEED, show_default="drawn and printed", help="Seed, any signed 64-bit integer."
        ),
    ] = None,
    precision: Annotated[
        PrecisionOption, typer.Option(help="Which of a shipped model's graphs.")
    ] = PrecisionOption.AUTO,
    provider: Annotated[
        str, typer.Option(help="Execution provider: auto, cpu, cuda, or another by its name (see pxdbg providers).")
    ] = "auto",
    provider_option: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE for the execution provider; may be repeated.")
    ] = None,
    random_stream: Annotated[
        StreamOption,
        typer.Option(help="philox: each event on its own. torch: the original's sequence, event after event."),
    ] = StreamOption.PHILOX,
    nintra: Annotated[int, typer.Option(min=1, help="Threads within an operator.")] = 1,
    ninter: Annotated[int, typer.Option(min=1, help="Operators at a time.")] = 1,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=N_SENSORS,
            show_default="1 or 2 on a CPU, else 40",
            help="Images per call; on CUDA in float32 it changes a few digits, on a CPU none.",
        ),
    ] = None,
    min_charge: Annotated[
        int | None,
        typer.Option(min=1, max=255, show_default="the model's own", help="Zero-suppression threshold in ADU."),
    ] = None,
    verify: Annotated[
        bool, typer.Option(help="Check a known image of the graph first, unless that passed on this machine before.")
    ] = True,
) -> None:
    """Generate events and write their digits to a file.

    The file is a flat table with the columns event, sensor_id (VxdID), u_cell, v_cell and charge (ADU), ordered by
    event, sensor, u and v; it says how it was made. It appears when it is whole.
    """
    with report_failures():
        numbers = event_numbers(first_event, events)
        check_output(output)
        if is_path(model):
            check_not_an_input("output", output, [Path(model)])
        generator = Generator(
            model,
            precision=precision.value,
            provider=provider,
            provider_options=_parsed(provider_option or []),
            seed=seed,
            random_stream=random_stream.value,
            nintra=nintra,
            ninter=ninter,
            batch_size=batch_size,
            min_charge=min_charge,
            verify=verify,
        )
        how = describe_generation(generator, numbers)
        stderr.print(str(how), soft_wrap=True)
        n_digits = 0
        with open_writer(output, how) as writer:
            for digits in track(generator.stream(numbers), total=len(numbers), description="events"):
                writer.write(digits)
                n_digits += len(digits)
        stdout.print(f"wrote {output}: {_counted(len(numbers))}, {n_digits:,} digits", soft_wrap=True)


def _counted(n_events: int) -> str:
    return "1 event" if n_events == 1 else f"{n_events:,} events"


def event_numbers(first_event: int, events: int) -> range:
    """Make the range of the numbers of events, all of which exist."""
    if first_event + events - 1 > MAX_EVENT:
        message = f"--first-event {first_event} and --events {events} go beyond the last event number, {MAX_EVENT}."
        raise ArgumentValueError("events", message)
    return range(first_event, first_event + events)


def check_output(output: Path) -> None:
    """Find out before the work whether its result will have a place."""
    check_suffix(output)
    check_target(output)


def _parsed(options: list[str]) -> dict[str, str]:
    parsed = {}
    for option in options:
        key, separator, value = option.partition("=")
        if not separator or not key:
            message = f"--provider-option must be KEY=VALUE, but is {option!r}."
            raise ArgumentValueError("provider_option", message)
        parsed[key] = value
    return parsed
