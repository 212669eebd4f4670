"""``pxdbg generate``: generate events and write their digits to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pxdbg_runtime.command_line.console import format_event_count, report_failures, stdout
from pxdbg_runtime.command_line.digit_output import ExperimentNumber, FormatName, Overwrite, RunNumber, check_output
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
    Verify,
    build_event_range,
    choose_sensors,
    parse_provider_options,
    print_origin,
)
from pxdbg_runtime.command_line.progress import track
from pxdbg_runtime.formats import SUFFIX_LIST, FileMetadata, describe_generation, open_writer
from pxdbg_runtime.formats.provenance import MAX_FILE_EVENTS
from pxdbg_runtime.formats.run_numbers import choose_run_numbers
from pxdbg_runtime.generator import Generator
from pxdbg_runtime.inference.providers import CPU
from pxdbg_runtime.limits.heap import return_freed_memory
from pxdbg_runtime.model.builtin_models import DEFAULT_MODEL, is_path

__all__ = ["generate"]


def generate(
    output: Annotated[Path, typer.Option(help=f"File to write, {SUFFIX_LIST}.")],
    overwrite: Overwrite = False,
    format_name: FormatName = None,
    model: Model = DEFAULT_MODEL,
    events: Annotated[int, typer.Option(min=1, max=MAX_FILE_EVENTS, help="Number of events.")] = 1,
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
    verify: Verify = True,
) -> None:
    """Generate events and write their digits to a file.

    The file has event, sensor_id (VxdID), u_cell, v_cell and charge (ADU) of each
    digit, ordered by event, sensor, u and v. It also records how the digits were
    generated. It appears when it is complete.
    """
    with report_failures():
        numbers = build_event_range(first_event, events)
        run_numbers = choose_run_numbers(format_name, experiment, run)
        chosen = choose_sensors(sensors, layer)
        check_output(output, format_name, overwrite=overwrite, inputs=[Path(model)] if is_path(model) else [])
        generator = Generator(
            model,
            precision=precision,
            provider=provider,
            provider_options=parse_provider_options(provider_option),
            seed=seed,
            random_stream=random_stream,
            nintra=nintra,
            ninter=ninter,
            batch_size=batch_size,
            min_charge=min_charge,
            verify=verify,
        )
        if generator.provider == CPU:
            return_freed_memory()
        provenance = describe_generation(generator, numbers, chosen)
        print_origin(generator, model, provenance)
        metadata = FileMetadata(jobs=(provenance,), run_numbers=run_numbers)
        n_digits = 0
        with open_writer(output, metadata, format_name=format_name) as writer:
            for digits in track(generator.stream(numbers, chosen), total=len(numbers), description="events"):
                writer.write(digits)
                n_digits += len(digits)
        stdout.print(f"wrote {output}: {format_event_count(len(numbers))}, {n_digits:,} digits", soft_wrap=True)
