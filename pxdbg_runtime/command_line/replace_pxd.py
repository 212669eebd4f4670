"""``pxdbg replace-pxd``: replace the PXD digits of a complete overlay file of basf2."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pxdbg_runtime.command_line.console import format_event_count, report_failures, stdout
from pxdbg_runtime.command_line.digit_output import Overwrite, check_new_file
from pxdbg_runtime.command_line.generator_options import (
    BatchSize,
    FirstEvent,
    Model,
    NInter,
    NIntra,
    OptionalMinCharge,
    OptionalSeed,
    Precision,
    Provider,
    ProviderOptions,
    RandomStream,
    Verify,
    build_event_range,
    parse_provider_options,
    print_origin,
)
from pxdbg_runtime.command_line.progress import track
from pxdbg_runtime.formats import FileMetadata, describe_generation
from pxdbg_runtime.formats.overlay_replacement import check_replacement, count_events, open_replacement
from pxdbg_runtime.generator import Generator
from pxdbg_runtime.inference.providers import CPU
from pxdbg_runtime.limits.heap import return_freed_memory
from pxdbg_runtime.model.builtin_models import DEFAULT_MODEL, is_path

__all__ = ["replace_pxd"]


def replace_pxd(
    overlay: Annotated[Path, typer.Argument(metavar="OVERLAY.root", help="Complete overlay file of basf2.")],
    output: Annotated[Path, typer.Option(help="File to write, .root; not the one that is read.")],
    overwrite: Overwrite = False,
    model: Model = DEFAULT_MODEL,
    first_event: FirstEvent = 0,
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
    """Replace the PXD digits of a complete overlay file by generated ones.

    All else in the file is copied as it is: the other detectors, the numbers of
    the events, further trees. The k-th entry, from 0 on, gets the digits of the
    event with the number FIRST_EVENT + k, whatever its own number. The new file
    appears when it is complete.
    """
    with report_failures():
        check_replacement(output)
        inputs = [overlay, Path(model)] if is_path(model) else [overlay]
        check_new_file(output, overwrite=overwrite, inputs=inputs)
        numbers = build_event_range(first_event, count_events(overlay))
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
        provenance = describe_generation(generator, numbers)
        print_origin(generator, model, provenance)
        n_digits = 0
        with open_replacement(overlay, output, FileMetadata(jobs=(provenance,))) as writer:
            for digits in track(generator.stream(numbers), total=len(numbers), description="events"):
                writer.write(digits)
                n_digits += len(digits)
        stdout.print(f"wrote {output}: {format_event_count(len(numbers))}, {n_digits:,} digits", soft_wrap=True)
