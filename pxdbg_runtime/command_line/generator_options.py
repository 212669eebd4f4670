"""The options of commands that generate events: which generator runs, where, and with which random numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pxdbg_runtime.checks import MAX_EVENT
from pxdbg_runtime.command_line.completion import complete_model
from pxdbg_runtime.command_line.console import stderr
from pxdbg_runtime.command_line.safe_text import make_line
from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.generator import PrecisionChoice
from pxdbg_runtime.inference.latents import RandomStreamName
from pxdbg_runtime.model.builtin_models import is_path
from pxdbg_runtime.sensors import LADDERS_OF_LAYER, MAX_CHARGE_ADU, N_SENSORS, Sensor, select_layer, select_sensors

if TYPE_CHECKING:
    from pxdbg_runtime.formats import Provenance
    from pxdbg_runtime.generator import Generator

__all__ = [
    "BatchSize",
    "FirstEvent",
    "LayerNumber",
    "Model",
    "NInter",
    "NIntra",
    "OptionalMinCharge",
    "OptionalSeed",
    "Precision",
    "Provider",
    "ProviderOptions",
    "RandomStream",
    "SensorNames",
    "Verify",
    "build_event_range",
    "choose_sensors",
    "parse_provider_options",
    "print_origin",
]

Model = Annotated[
    str,
    typer.Option(help="Name of a built-in model, or path of a graph (.onnx).", autocompletion=complete_model),
]
# Limits of 64 bits would widen the help text; they are checked where the numbers are used.
FirstEvent = Annotated[int, typer.Option(min=0, help="Number of the first event.")]
SensorNames = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        show_default="all",
        help="Sensors to generate, such as 1.1.1,2.12.2 (layer.ladder.sensor); "
        "their digits are those of the whole event. Not together with --layer.",
    ),
]
LayerNumber = Annotated[
    int | None,
    typer.Option(min=min(LADDERS_OF_LAYER), max=max(LADDERS_OF_LAYER), show_default="both", help="Layer to generate."),
]
OptionalSeed = Annotated[
    int | None,
    typer.Option(show_default="random, printed", help="Seed: any signed 64-bit integer."),
]
Precision = Annotated[
    PrecisionChoice,
    typer.Option(
        help="Precision of the built-in model's graph: auto takes int8 on a CPU, else float32. "
        "None has float16: export such a graph, and pass its path as the model."
    ),
]
Provider = Annotated[
    str, typer.Option(help="Execution provider: auto, cpu, cuda, or the name of another (see pxdbg providers).")
]
ProviderOptions = Annotated[
    list[str] | None, typer.Option(help="KEY=VALUE option of the execution provider; may be repeated.")
]
RandomStream = Annotated[
    RandomStreamName,
    typer.Option(
        help="philox: the latents of an event depend on seed and event number alone. "
        "torch: PyTorch's sequence, event after event."
    ),
]
NIntra = Annotated[int, typer.Option(min=1, help="Threads within one operator.")]
NInter = Annotated[int, typer.Option(min=1, help="Operators that run at the same time.")]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=N_SENSORS,
        show_default="1 or 2 on a CPU, else 40",
        help="Images per call; on CUDA in float32 it changes a few digits, on a CPU none.",
    ),
]
OptionalMinCharge = Annotated[
    int | None,
    typer.Option(
        min=1, max=MAX_CHARGE_ADU, show_default="that of the model", help="Zero-suppression threshold in ADU."
    ),
]
Verify = Annotated[
    bool, typer.Option(help="First compare one image with its reference, unless that passed on this machine before.")
]


def print_origin(generator: Generator, model: str, provenance: Provenance) -> None:
    """Print how the digits are generated, and that a graph which is not built in comes from the user."""
    stderr.print(make_line(str(provenance)), soft_wrap=True)
    if is_path(model):
        line = f"{model} is a graph of your own, run by ONNX Runtime: SHA-256 {generator.graph_sha256}"
        stderr.print(make_line(line), soft_wrap=True)


def build_event_range(first_event: int, events: int) -> range:
    """Build the range of event numbers; raises `ArgumentValueError` if it ends after the last number."""
    if first_event + events - 1 > MAX_EVENT:
        message = f"--first-event {first_event} and {events} events go beyond the last event number, {MAX_EVENT}."
        raise ArgumentValueError("events", message)
    return range(first_event, first_event + events)


def choose_sensors(sensors: str | None, layer: int | None) -> tuple[Sensor, ...]:
    """Choose the sensors of ``--sensors`` or ``--layer``; raises `ArgumentValueError` if both are given."""
    if sensors is not None and layer is not None:
        message = f"--sensors and --layer both choose sensors: expected one of them, but got {sensors} and {layer}."
        raise ArgumentValueError("layer", message)
    if layer is not None:
        return select_layer(layer)
    return select_sensors(None if sensors is None else [name.strip() for name in sensors.split(",")])


def parse_provider_options(options: list[str] | None) -> dict[str, str]:
    """Parse the values of ``--provider-option``; raises `ArgumentValueError` unless each is KEY=VALUE."""
    parsed = {}
    for option in options or []:
        key, separator, value = option.partition("=")
        if not separator or not key:
            raise ArgumentValueError("provider_option", f"--provider-option must be KEY=VALUE, but is {option!r}.")
        parsed[key] = value
    return parsed
