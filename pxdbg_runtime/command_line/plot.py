"""``pxdbg plot``: draw one event of a digit file, or the whole sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, cast

import typer

from pxdbg_runtime.command_line.console import format_event_count, report_failures, stdout
from pxdbg_runtime.command_line.inputs import check_not_an_input
from pxdbg_runtime.command_line.progress import track
from pxdbg_runtime.command_line.safe_text import make_line
from pxdbg_runtime.digits import Digits
from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.formats import SUFFIX_LIST, EventReader, open_events
from pxdbg_runtime.formats.atomic_write import check_target
from pxdbg_runtime.formats.provenance import has_random_weights, list_sensors
from pxdbg_runtime.optional_imports import require
from pxdbg_runtime.plots.drawing import StyleName, find_picture_format, save_figure
from pxdbg_runtime.plots.event_display import save_event
from pxdbg_runtime.sensors import N_SENSORS, READOUT_THRESHOLD_ADU, SENSORS, Sensor, describe_sensors, sensor_of
from pxdbg_runtime.validation.marginals import read_marginals

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot"]

Kind = Literal["event", "sensor", "charge", "occupancy", "clusters"]
_KINDS_OF_OPTION: Final[dict[str, tuple[Kind, ...]]] = {
    "event": ("event", "sensor"),
    "sensor": ("sensor",),
    "reference": ("occupancy",),
    "style": ("sensor", "charge", "occupancy", "clusters"),
}


def plot(
    file: Annotated[Path, typer.Argument(help=f"Digit file, {SUFFIX_LIST}.")],
    output: Annotated[Path, typer.Option(help="Picture to write: .png, .pdf or .svg.")],
    kind: Annotated[
        Kind,
        typer.Option(
            help="event: both layers of one event. sensor: hits of one sensor, of all events or of --event. "
            "Of all events: charge spectrum, occupancy of each sensor, sizes of clusters."
        ),
    ] = "event",
    event: Annotated[
        int | None,
        typer.Option(
            min=0, show_default="the first of the file; all for a sensor", help="Number of the event to draw."
        ),
    ] = None,
    sensor: Annotated[
        str | None, typer.Option(show_default=False, help="Sensor of --kind sensor, such as 1.1.1.")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            show_default="means of the layers",
            help="Published marginals (.json) beside occupancies; "
            f"hits below {READOUT_THRESHOLD_ADU} ADU are left out.",
        ),
    ] = None,
    style: Annotated[
        StyleName | None, typer.Option(show_default=False, help="Style of mplhep, for all kinds but event.")
    ] = None,
) -> None:
    """Draw one event, or figures of a whole sample.

    An event: both layers unrolled, hits coloured by charge, and the charge
    spectrum. A sample: charges, occupancies, clusters. Means of Geant4, of hits of
    7 ADU or more, are drawn beside them, but not beside the digits of random
    weights or of a larger threshold.
    """
    with report_failures():
        _check_options(kind, {"event": event, "sensor": sensor, "reference": reference, "style": style})
        check_target(output, free_bytes=100_000)
        check_not_an_input("output", output, [file] if reference is None else [file, reference])
        find_picture_format(output)
        reader = open_events(file)
        if kind == "event":
            _plot_event(reader, event, output)
        else:
            axes = _draw_sample(reader, kind, event, sensor, reference, style)
            save_figure(cast("Figure", axes.figure), output, style=style)
        stdout.print(f"wrote {output}", soft_wrap=True)


def _check_options(kind: Kind, options: dict[str, object]) -> None:
    for name, value in options.items():
        if value is not None and kind not in _KINDS_OF_OPTION[name]:
            kinds = " or ".join(_KINDS_OF_OPTION[name])
            raise ArgumentValueError(name, f"--{name} goes with --kind {kinds}, but --kind is {kind}.")
    if kind == "sensor" and options["sensor"] is None:
        message = f"--kind sensor needs the sensor to draw: add --sensor {SENSORS[0]}, or another."
        raise ArgumentValueError("sensor", message)


def _plot_event(reader: EventReader, event: int | None, output: Path) -> None:
    chosen = int(reader.event_numbers[0]) if event is None else event
    digits = _read_event(reader, chosen)
    title, sensors = _format_title(reader, chosen), list_sensors(reader.jobs)
    save_event(digits, output, title=title, sensors=sensors, compare_geant4=_is_comparable(reader))


def _draw_sample(
    reader: EventReader,
    kind: Kind,
    event: int | None,
    sensor: str | None,
    reference: Path | None,
    style: StyleName | None,
) -> Axes:
    """Draw all events, read one by one, or one of them."""
    for module in ("matplotlib", "hist"):
        require(module, extra="plot", purpose="A picture of a sample")
    from pxdbg_runtime.plots import figures

    title = _format_title(reader, event)
    if kind == "sensor":
        chosen = _find_sensor(reader, sensor or "")
        events = _track_events(reader) if event is None else _read_event(reader, event)
        title += f", sensor {chosen}"
        return figures.draw_sensor(events, chosen, weigh_by_charge=event is not None, title=title, style=style)
    if kind == "clusters":
        return figures.draw_cluster_sizes(_track_events(reader), title=title, style=style)
    if kind == "charge":
        # The mean charge is that of all sensors.
        compare_geant4 = list_sensors(reader.jobs) == SENSORS and _is_comparable(reader)
        return figures.draw_charges(_track_events(reader), compare_geant4=compare_geant4, title=title, style=style)
    return _draw_occupancies(reader, reference, title, style)


def _draw_occupancies(reader: EventReader, reference: Path | None, title: str, style: StyleName | None) -> Axes:
    """Draw the occupancies of the sensors; beside Geant4's they have its cut."""
    from pxdbg_runtime.plots import figures

    published = None
    if reference is not None:
        _check_threshold(reader)
        published = read_marginals(reference).reference
    compare_geant4 = published is None and _is_comparable(reader)
    is_cut = published is not None or compare_geant4
    return figures.draw_occupancies(
        _track_events(reader),
        sensors=list_sensors(reader.jobs),
        min_charge=READOUT_THRESHOLD_ADU if is_cut else 1,
        reference=None if published is None else published.sensor_mean_occupancy,
        reference_name="" if published is None else f"published: {published.name}",
        compare_geant4=compare_geant4,
        title=f"{title}, {READOUT_THRESHOLD_ADU} ADU or more" if is_cut else title,
        style=style,
    )


def _read_event(reader: EventReader, event: int) -> Digits:
    first, last = int(reader.event_numbers[0]), int(reader.event_numbers[-1])
    if event not in reader.event_numbers:
        message = f"--event must be one of those in {reader.path}, {first} to {last}, but is {event}."
        raise ArgumentValueError("event", message)
    # All blocks are read, so that the rows are compared with the digest.
    return Digits.concatenate([block.of_event(event) for block in reader.read_blocks()])


def _track_events(reader: EventReader) -> Iterator[Digits]:
    events: Iterable[Digits] = reader
    return track(events, total=reader.n_events, description="events")


def _find_sensor(reader: EventReader, name: str) -> Sensor:
    chosen, sensors = sensor_of(name), list_sensors(reader.jobs)
    if chosen not in sensors:
        message = f"--sensor must be one of those in {reader.path}, {describe_sensors(sensors)}, but is {chosen}."
        raise ArgumentValueError("sensor", message)
    return chosen


def _is_comparable(reader: EventReader) -> bool:
    """Return whether Geant4's means can stand beside the digits of a file."""
    return not has_random_weights(reader.jobs) and _find_threshold(reader) <= READOUT_THRESHOLD_ADU


def _find_threshold(reader: EventReader) -> int:
    """Find the threshold of a file, ADU: the smallest charge, 1 without digits, if the file does not say."""
    if reader.jobs:
        return max(job.min_charge for job in reader.jobs)
    return min((int(block.charge.min()) for block in reader.read_blocks() if len(block)), default=1)


def _check_threshold(reader: EventReader) -> None:
    threshold = _find_threshold(reader)
    if threshold > READOUT_THRESHOLD_ADU:
        fact = "was made with a threshold of" if reader.jobs else "holds no charge below"
        message = (
            f"{reader.path} {fact} {threshold} ADU, but published marginals are cut at {READOUT_THRESHOLD_ADU} ADU: "
            f"leave out --reference, or generate it with --min-charge {READOUT_THRESHOLD_ADU}."
        )
        raise ArgumentValueError("reference", message)


def _format_title(reader: EventReader, event: int | None) -> str:
    """Describe one event, or all of a file."""
    what = "PXD background, " + (format_event_count(reader.n_events) if event is None else f"event {event}")
    if not reader.jobs:
        return f"{what}: provenance unknown"
    jobs = [job for job in reader.jobs if event is None or job.first_event <= event <= job.last_event]
    provenance = jobs[0] if jobs else reader.jobs[0]
    seeds = f"seed {provenance.seed}" if len(jobs) <= 1 else f"{len(jobs)} jobs"
    some = "" if provenance.sensors is None else f", {len(provenance.sensors)} of {N_SENSORS} sensors"
    remark = "" if provenance.nature in {"checkpoint", "simulation"} else f"  ({provenance.nature}, no real physics)"
    return f"{what}: {make_line(provenance.model)}, {seeds}{some}{remark}"
