"""``pxdbg generate``: generate events and write their digits to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pxdbg_runtime.checks import MAX_EVENT, MAX_SEED, MIN_SEED
from pxdbg_runtime.command_line.console import format_event_count, report_failures, stderr, stdout
from pxdbg_runtime.command_line.digit_output import FormatName, check_output
from pxdbg_runtime.command_line.progress import track
from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.formats import SUFFIX_LIST, describe_generation, open_writer
from pxdbg_runtime.formats.provenance import MAX_FILE_EVENTS
from pxdbg_runtime.generator import Generator, PrecisionChoice
from pxdbg_runtime.inference.latents import RandomStreamName
from pxdbg_runtime.model.builtin_models import DEFAULT_MODEL, is_path
from pxdbg_runtime.sensors import LADDERS_OF_LAYER, MAX_CHARGE_ADU, N_SENSORS, Sensor, select_layer, select_sensors

__all__ = ["build_event_range", "generate"]


def generate(
    output: Annotated[Path, typer.Option(help=f"File to write, {SUFFIX_LIST}.")],
    format_name: FormatName = None,
    model: Annotated[str, typer.Option(help="Name of a built-in model, or path of a graph (.onnx).")] = DEFAULT_MODEL,
    events: Annotated[int, typer.Option(min=1, max=MAX_FILE_EVENTS, help="Number of events.")] = 1,
    first_event: Annotated[int, typer.Option(min=0, max=MAX_EVENT, help="Number of the first event.")] = 0,
    sensors: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            show_default="all",
            help="Sensors to generate, such as 1.1.1,2.12.2 (layer.ladder.sensor); "
            "their digits are those of the whole event. Not together with --layer.",
        ),
    ] = None,
    layer: Annotated[
        int | None,
        typer.Option(
            min=min(LADDERS_OF_LAYER), max=max(LADDERS_OF_LAYER), show_default="both", help="Layer to generate."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=MIN_SEED, max=MAX_SEED, show_default="random, printed", help="Seed: any signed 64-bit integer."
        ),
    ] = None,
    precision: Annotated[PrecisionChoice, typer.Option(help="Precision of the built-in model's graph.")] = "auto",
    provider: Annotated[
        str, typer.Option(help="Execution provider: auto, cpu, cuda, or the name of another (see pxdbg providers).")
    ] = "auto",
    provider_option: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE option of the execution provider; may be repeated.")
    ] = None,
    random_stream: Annotated[
        RandomStreamName,
        typer.Option(
            help="philox: the latents of an event depend on seed and event number alone. "
            "torch: PyTorch's sequence, event after event."
        ),
    ] = "philox",
    nintra: Annotated[int, typer.Option(min=1, help="Threads within one operator.")] = 1,
    ninter: Annotated[int, typer.Option(min=1, help="Operators that run at the same time.")] = 1,
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
        typer.Option(
            min=1, max=MAX_CHARGE_ADU, show_default="that of the model", help="Zero-suppression threshold in ADU."
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(help="First compare one image with its reference, unless that passed on this machine before."),
    ] = True,
) -> None:
    """Generate events and write their digits to a file.

    The file has event, sensor_id (VxdID), u_cell, v_cell and charge (ADU) of each
    digit, ordered by event, sensor, u and v. It also records how the digits were
    generated. It appears when it is complete.
    """
    with report_failures():
        numbers = build_event_range(first_event, events)
        chosen = _choose_sensors(sensors, layer)
        check_output(output, format_name, inputs=[Path(model)] if is_path(model) else [])
        generator = Generator(
            model,
            precision=precision,
            provider=provider,
            provider_options=_parse_provider_options(provider_option or []),
            seed=seed,
            random_stream=random_stream,
            nintra=nintra,
            ninter=ninter,
            batch_size=batch_size,
            min_charge=min_charge,
            verify=verify,
        )
        provenance = describe_generation(generator, numbers, chosen)
        stderr.print(str(provenance), soft_wrap=True)
        n_digits = 0
        with open_writer(output, provenance, format_name=format_name) as writer:
            for digits in track(generator.stream(numbers, chosen), total=len(numbers), description="events"):
                writer.write(digits)
                n_digits += len(digits)
        stdout.print(f"wrote {output}: {format_event_count(len(numbers))}, {n_digits:,} digits", soft_wrap=True)


def build_event_range(first_event: int, events: int) -> range:
    """Build the range of event numbers; raises `ArgumentValueError` if it ends after the last number."""
    if first_event + events - 1 > MAX_EVENT:
        message = f"--first-event {first_event} and --events {events} go beyond the last event number, {MAX_EVENT}."
        raise ArgumentValueError("events", message)
    return range(first_event, first_event + events)


def _choose_sensors(sensors: str | None, layer: int | None) -> tuple[Sensor, ...]:
    if sensors is not None and layer is not None:
        message = f"--sensors and --layer both choose sensors: expected one of them, but got {sensors} and {layer}."
        raise ArgumentValueError("layer", message)
    if layer is not None:
        return select_layer(layer)
    return select_sensors(None if sensors is None else [name.strip() for name in sensors.split(",")])


def _parse_provider_options(options: list[str]) -> dict[str, str]:
    parsed = {}
    for option in options:
        key, separator, value = option.partition("=")
        if not separator or not key:
            raise ArgumentValueError("provider_option", f"--provider-option must be KEY=VALUE, but is {option!r}.")
        parsed[key] = value
    return parsed
