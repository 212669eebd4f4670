"""The plan of a campaign: the parameters of the generator, what fixes the digits, and the partitions."""

from __future__ import annotations

import json
from typing import Annotated, Final, Literal

import msgspec

from pxdbg_runtime.campaigns.machine import Machine
from pxdbg_runtime.checks import MAX_EVENT, MAX_SEED, MIN_SEED
from pxdbg_runtime.errors import ArgumentTypeError, ArgumentValueError, JsonFieldError
from pxdbg_runtime.formats import FORMATS
from pxdbg_runtime.formats.provenance import MAX_FILE_EVENTS
from pxdbg_runtime.formats.run_numbers import MAX_EXPERIMENT, MAX_RUN, RunNumbers
from pxdbg_runtime.json_records import Record, Sha256, Text, decode_record
from pxdbg_runtime.model.card import Precision
from pxdbg_runtime.sensors import MAX_CHARGE_ADU, N_SENSORS, Sensor, select_sensors

__all__ = ["DEFAULT_EVENTS_PER_PART", "MAX_PARTS", "CampaignPlan", "Partition", "split_events"]

DEFAULT_EVENTS_PER_PART: Final = 1000
"""Some minutes to half an hour on one CPU, and some hundred megabytes."""
MAX_PARTS: Final = 100_000
"""More files than that in one folder are slow on most shared disks."""
MAX_THREADS: Final = 4096


class Partition(Record, frozen=True, kw_only=True):
    """The consecutive events of one file."""

    first_event: Annotated[int, msgspec.Meta(ge=0, le=MAX_EVENT)]
    events: Annotated[int, msgspec.Meta(ge=1, le=MAX_FILE_EVENTS)]

    @property
    def numbers(self) -> range:
        """The event numbers."""
        return range(self.first_event, self.first_event + self.events)


class CampaignPlan(Record, frozen=True, kw_only=True):
    """What a campaign generates; all that fixes the digits is part of it.

    Attributes
    ----------
    schema : int
        1.
    model : str
        Name on the model card.
    graph : str
        Name of the graph file beside the plan.
    graph_sha256 : str
    precision : {"float32", "float16", "int8"}
    provider : str
        ONNX Runtime's name of the execution provider.
    provider_options : dict of str to str
        The options that were given for it.
    batch_size : int
        Images per call.
    nintra, ninter : int
        Threads within an operator, and operators at a time, of each worker.
    min_charge : int
        Zero-suppression threshold in ADU.
    sensors : tuple of str or None
        Names of the generated sensors, ordered by index; None for all.
    seed : int
    random_stream : {"philox"}
        Partitions of ``torch`` would depend on all earlier events.
    format : str
        Name of one of `FORMATS`.
    experiment, run : int or None
        For a format that records them.
    machine : Machine
        Versions and device of the plan.
    partitions : tuple of Partition
        Consecutive.

    Raises
    ------
    JsonFieldError
        If the partitions are not consecutive, or another field is invalid.
    """

    schema: Literal[1] = 1
    model: Text
    graph: Text
    graph_sha256: Sha256
    precision: Precision
    provider: Text
    provider_options: dict[str, str]
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=N_SENSORS)]
    nintra: Annotated[int, msgspec.Meta(ge=1, le=MAX_THREADS)]
    ninter: Annotated[int, msgspec.Meta(ge=1, le=MAX_THREADS)]
    min_charge: Annotated[int, msgspec.Meta(ge=1, le=MAX_CHARGE_ADU)]
    sensors: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1, max_length=N_SENSORS - 1)] | None
    seed: Annotated[int, msgspec.Meta(ge=MIN_SEED, le=MAX_SEED)]
    random_stream: Literal["philox"]
    format: Text
    experiment: Annotated[int, msgspec.Meta(ge=0, le=MAX_EXPERIMENT)] | None
    run: Annotated[int, msgspec.Meta(ge=0, le=MAX_RUN)] | None
    machine: Machine
    partitions: Annotated[tuple[Partition, ...], msgspec.Meta(min_length=1, max_length=MAX_PARTS)]

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise JsonFieldError("format", f"format must be one of {', '.join(FORMATS)}, but is {self.format!r}.")
        if self.graph in {".", ".."} or "/" in self.graph or "\\" in self.graph or "\0" in self.graph:
            raise JsonFieldError("graph", f"graph must be the name of a file beside the plan, but is {self.graph!r}.")
        if self.sensors is not None and self.sensors != tuple(map(str, self._select_sensors())):
            message = f"sensors must be null or names of different sensors, ordered by index, but is {self.sensors}."
            raise JsonFieldError("sensors", message)
        expected = self.partitions[0].first_event
        for number, partition in enumerate(self.partitions):
            if partition.first_event != expected:
                message = (
                    f"partitions[{number}].first_event must be {expected}, which follows on the partition before, but "
                    f"is {partition.first_event}."
                )
                raise JsonFieldError("partitions", message)
            expected += partition.events
        if expected - 1 > MAX_EVENT:
            raise JsonFieldError("partitions", f"partitions must end at event {MAX_EVENT}, but end at {expected - 1}.")
        self._check_run_numbers()

    @property
    def generated_sensors(self) -> tuple[Sensor, ...]:
        """The sensors that are generated, ordered by index."""
        return select_sensors(self.sensors)

    @property
    def run_numbers(self) -> RunNumbers | None:
        """Experiment and run of overlay files; None for other formats."""
        return None if self.experiment is None else RunNumbers(experiment=self.experiment, run=self.run or 0)

    @property
    def n_parts(self) -> int:
        """Number of partitions."""
        return len(self.partitions)

    @property
    def n_events(self) -> int:
        """Number of events of all partitions."""
        return self.last_event - self.partitions[0].first_event + 1

    @property
    def last_event(self) -> int:
        """Number of the last event."""
        return self.partitions[-1].numbers[-1]

    @property
    def suffix(self) -> str:
        """Suffix of the partition files."""
        return FORMATS[self.format].suffixes[0]

    def to_json(self) -> str:
        """Write it as JSON."""
        return json.dumps(msgspec.to_builtins(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> CampaignPlan:
        """Read what `to_json` wrote; raises `JsonFieldError` if a field is missing or invalid."""
        return decode_record(text, cls)

    def _select_sensors(self) -> tuple[Sensor, ...]:
        try:
            return self.generated_sensors
        except ArgumentValueError:
            return ()

    def _check_run_numbers(self) -> None:
        try:
            has_numbers = self.run_numbers is not None
        except (ArgumentTypeError, ArgumentValueError) as error:
            raise JsonFieldError("run", f"run is not valid: {error}") from None
        if has_numbers != (self.format == "overlay"):
            message = f"experiment must be a number for the format overlay and null else, but is {self.experiment}."
            raise JsonFieldError("experiment", message)


def split_events(events: range, events_per_part: int) -> tuple[Partition, ...]:
    """Split consecutive events into partitions.

    Parameters
    ----------
    events : range
        With step 1, not empty.
    events_per_part : int
        Events of each partition; the last one may have fewer.

    Raises
    ------
    ArgumentValueError
        If there would be more than `MAX_PARTS`.
    """
    n_events = events.stop - events.start  # more than len() counts, if all events are asked for
    n_parts = -(-n_events // events_per_part)
    if n_events > MAX_PARTS * MAX_FILE_EVENTS:
        message = (
            f"A campaign has at most {MAX_PARTS:,} files of {MAX_FILE_EVENTS:,} events, but {n_events:,} events were "
            "asked for: plan several campaigns with --first-event."
        )
        raise ArgumentValueError("events", message)
    if n_parts > MAX_PARTS:
        enough = -(-n_events // MAX_PARTS)
        message = (
            f"{n_events:,} events in partitions of {events_per_part:,} make {n_parts:,} files, expected at most "
            f"{MAX_PARTS:,}: take --events-per-part {enough} or more."
        )
        raise ArgumentValueError("events_per_part", message)
    return tuple(
        Partition(first_event=part[0], events=len(part))
        for part in (events[start : start + events_per_part] for start in range(0, n_events, events_per_part))
    )
