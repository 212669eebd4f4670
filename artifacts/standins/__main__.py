"""``python -m artifacts.standins``: simulate background, and make generators that stand in for the collaboration's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from artifacts.standins.simulated_events import how_simulated, simulated_events
from export.family_option import FamilyOption
from export.packages import require_packages
from pxdbg_runtime.command_line.console import report_failures, stderr, stdout
from pxdbg_runtime.command_line.generate import check_output, event_numbers
from pxdbg_runtime.command_line.program import Program
from pxdbg_runtime.command_line.progress import track
from pxdbg_runtime.formats import open_writer
from pxdbg_runtime.formats.atomic_write import atomic_write, check_target
from pxdbg_runtime.inference.latents import MAX_EVENT, MAX_SEED, MIN_SEED
from pxdbg_runtime.limits.threads import count_job_cpus

app = Program(
    name="python -m artifacts.standins",
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Simulate background that is tuned to public marginals of the PXD, and make stand-ins of the generators on it.",
)


@app.command(epilog="Example: python -m artifacts.standins simulate --events 500 --seed 1 --output simulation.parquet")
def simulate(
    output: Annotated[Path, typer.Option(help="File to write: .parquet or .npz.")],
    events: Annotated[int, typer.Option(min=1, max=MAX_EVENT, help="Number of events.")] = 1,
    first_event: Annotated[int, typer.Option(min=0, max=MAX_EVENT, help="Number of the first event.")] = 0,
    seed: Annotated[int, typer.Option(min=MIN_SEED, max=MAX_SEED, help="Seed, any signed 64-bit integer.")] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, show_default="this job's CPUs", help="Sensors at a time.")
    ] = None,
) -> None:
    """Simulate events and write their digits, as pxdbg generate does.

    Charge spectrum and occupancies are those of the public Geant4 marginals; the clusters are a caricature.
    """
    with report_failures():
        numbers = event_numbers(first_event, events)
        check_output(output)
        n_digits = 0
        with open_writer(output, how_simulated(numbers, seed)) as writer:
            made = simulated_events(numbers, seed, n_threads=threads or count_job_cpus().count)
            for digits in track(made, total=len(numbers), description="events"):
                writer.write(digits)
                n_digits += len(digits)
        stdout.print(f"wrote {output}: {len(numbers):,} events, {n_digits:,} digits", markup=False, soft_wrap=True)


@app.command(epilog="Example: python -m artifacts.standins train --family resnet --output resnet-standin.safetensors")
def train(
    family: FamilyOption,
    output: Annotated[Path, typer.Option(help="Stand-in to write, .safetensors.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the weights.")] = 2026,
    images: Annotated[int, typer.Option(min=40, help="Images that the late part is fitted on.")] = 320,
) -> None:
    """Make a stand-in: a seeded early part, measured, and a late part that is laid and fitted to the simulation."""
    with report_failures():
        check_target(output)
        require_packages("python -m artifacts.standins train")
        from artifacts.standins.standin_file import write_standin
        from artifacts.standins.training import train_standin

        standin = train_standin(family, seed, images, log=lambda text: stderr.print(text, markup=False))
        write_standin(standin, output)
        stdout.print(f"wrote {output}", markup=False, soft_wrap=True)


@app.command(
    epilog="Example: python -m artifacts.standins rebuild artifacts/standins/resnet.safetensors --output resnet.safetensors"
)
def rebuild(
    standin: Annotated[Path, typer.Argument(help="Stand-in, as train wrote it.")],
    output: Annotated[Path, typer.Option(help="Checkpoint to write, .safetensors.")],
) -> None:
    """Make a stand-in's whole checkpoint, the same bit for bit on every machine."""
    with report_failures():
        check_target(output)
        require_packages("python -m artifacts.standins rebuild")
        from safetensors.torch import save

        from artifacts.standins.standin_file import checkpoint, read_standin

        state = checkpoint(read_standin(standin))
        with atomic_write(output) as partial:
            partial.write_bytes(save(state))
        stdout.print(f"wrote {output}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    app()
