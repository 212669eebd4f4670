"""``python -m artifacts.standins``: simulate background, and rebuild the checkpoints of the stand-ins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from artifacts.standins.simulated_events import describe_simulation, simulate_events
from export.packages import require_packages
from pxdbg_runtime.checks import MAX_EVENT, MAX_SEED, MIN_SEED
from pxdbg_runtime.command_line.console import report_failures, stdout
from pxdbg_runtime.command_line.digit_output import Overwrite, check_new_file, check_output
from pxdbg_runtime.command_line.generator_options import build_event_range
from pxdbg_runtime.command_line.program import Program
from pxdbg_runtime.command_line.progress import track
from pxdbg_runtime.formats import SUFFIX_LIST, open_writer
from pxdbg_runtime.formats.atomic_write import atomic_write
from pxdbg_runtime.limits.threads import count_job_cpus

app = Program(
    "python -m artifacts.standins",
    summary="Simulate background tuned to public marginals of the PXD, and rebuild the checkpoints of the stand-ins.",
)


@app.command(epilog="Example: python -m artifacts.standins simulate --events 500 --seed 1 --output simulation.parquet")
def simulate(
    output: Annotated[Path, typer.Option(help=f"File to write, {SUFFIX_LIST}.")],
    overwrite: Overwrite = False,
    events: Annotated[int, typer.Option(min=1, max=MAX_EVENT, help="Number of events.")] = 1,
    first_event: Annotated[int, typer.Option(min=0, max=MAX_EVENT, help="Number of the first event.")] = 0,
    seed: Annotated[int, typer.Option(min=MIN_SEED, max=MAX_SEED, help="Seed, any signed 64-bit integer.")] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, show_default="this job's CPUs", help="Sensors to simulate at the same time.")
    ] = None,
) -> None:
    """Simulate events and write their digits, as pxdbg generate does.

    Charge spectrum and occupancies are those of the public Geant4 marginals; the clusters are a crude model.
    """
    with report_failures():
        numbers = build_event_range(first_event, events)
        check_output(output, overwrite=overwrite)
        n_digits = 0
        with open_writer(output, describe_simulation(numbers, seed)) as writer:
            simulated = simulate_events(numbers, seed, n_threads=threads or count_job_cpus().count)
            for digits in track(simulated, total=len(numbers), description="events"):
                writer.write(digits)
                n_digits += len(digits)
        stdout.print(f"wrote {output}: {len(numbers):,} events, {n_digits:,} digits", markup=False, soft_wrap=True)


@app.command(
    epilog="Example: python -m artifacts.standins rebuild artifacts/standins/resnet.safetensors --output x.safetensors"
)
def rebuild(
    standin: Annotated[Path, typer.Argument(help="Stand-in file, such as artifacts/standins/resnet.safetensors.")],
    output: Annotated[Path, typer.Option(help="Checkpoint to write, .safetensors.")],
    overwrite: Overwrite = False,
    unmarked: Annotated[
        bool, typer.Option("--unmarked", help="Leave out the mark: the very file that the built-in graphs are made of.")
    ] = False,
) -> None:
    """Rebuild the checkpoint of a stand-in, the same bit for bit on every machine.

    The file is marked, so that the export calls its graphs a stand-in.
    """
    with report_failures():
        check_new_file(output, overwrite=overwrite, inputs=[standin])
        require_packages("python -m artifacts.standins rebuild")
        from safetensors.torch import save

        from artifacts.standins.rebuild import rebuild_checkpoint
        from export.checkpoint.nature_mark import build_mark

        state = rebuild_checkpoint(standin)
        with atomic_write(output) as partial:
            partial.write_bytes(save(state, metadata=None if unmarked else build_mark("stand-in")))
        stdout.print(f"wrote {output}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    app()
