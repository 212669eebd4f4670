"""How the digits of a file were generated: what its metadata say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from msgspec import Meta

from pxdbg_runtime.checks import MAX_EVENT, MAX_SEED, MIN_SEED
from pxdbg_runtime.errors import ArgumentValueError, JsonFieldError
from pxdbg_runtime.formats.digest import StoredRecord
from pxdbg_runtime.inference.latents import RandomStreamName
from pxdbg_runtime.json_records import Sha256, Text
from pxdbg_runtime.model.card import Nature, Precision
from pxdbg_runtime.sensors import MAX_CHARGE_ADU, N_SENSORS, SENSORS, describe_sensors, select_sensors
from pxdbg_runtime.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pxdbg_runtime.generator import Generator
    from pxdbg_runtime.sensors import Sensor, SensorLike

__all__ = ["MAX_FILE_EVENTS", "DigitNature", "Provenance", "describe_generation", "has_random_weights", "list_sensors"]

MAX_FILE_EVENTS: Final = 1_000_000
"""Most events of one file, a terabyte of digits: whoever reads a file counts each of its events."""

DigitNature = Literal[Nature, "simulation"]
"""Nature of the weights that generated the digits, or a simulation."""


class Provenance(StoredRecord, frozen=True):
    """How the digits of a file were generated.

    Attributes
    ----------
    model : str
        Name on the model card, or of the simulation.
    nature, provenance : str
        Nature and origin of the weights, from the card; "simulation" if no generator was used.
    precision : {"float32", "float16", "int8"} or None
        None if no graph was used.
    graph_sha256 : str or None
    seed : int
    random_stream : {"philox", "torch"}
    first_event, events : int
        The events are first_event, first_event + 1, …; some may be without digits. A file holds at most a million.
    min_charge : int
        Zero-suppression threshold in ADU.
    provider : str
        Execution provider of ONNX Runtime, or what computed a simulation.
    version : str
        Of pxdbg-runtime.
    sensors : tuple of str or None
        Names of the sensors that were generated, ordered by index; None if all were, as in files of older releases.
    """

    model: Text
    nature: DigitNature
    provenance: Text
    precision: Precision | None
    graph_sha256: Sha256 | None
    seed: Annotated[int, Meta(ge=MIN_SEED, le=MAX_SEED)]
    random_stream: RandomStreamName
    first_event: Annotated[int, Meta(ge=0, le=MAX_EVENT)]
    events: Annotated[int, Meta(ge=1, le=MAX_FILE_EVENTS)]
    min_charge: Annotated[int, Meta(ge=1, le=MAX_CHARGE_ADU)]
    provider: Text
    version: Text
    sensors: Annotated[tuple[Text, ...], Meta(min_length=1, max_length=N_SENSORS - 1)] | None = None

    def __str__(self) -> str:
        """Describe it in one line: model, provider, seed, stream, and the sensors if they are not all."""
        model = self.model if self.precision is None else f"{self.model} {self.precision}"
        sensors = "" if self.sensors is None else f", {describe_sensors(self.generated_sensors)}"
        return f"{model} on {self.provider}, seed {self.seed}, stream {self.random_stream}{sensors}"

    @property
    def generated_sensors(self) -> tuple[Sensor, ...]:
        """The sensors that were generated, ordered by index: another sensor has no digits, but is not empty."""
        return select_sensors(self.sensors)

    @property
    def last_event(self) -> int:
        """Number of the last event."""
        return self.first_event + self.events - 1

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote; raises `JsonFieldError` if a field is missing or invalid."""
        found = super().from_json(text)
        found.check()
        return found

    def check(self) -> None:
        """Check what the types of the fields do not say; raises `JsonFieldError`."""
        if self.last_event > MAX_EVENT:
            message = f"events must end at {MAX_EVENT}, but {self.events} events from {self.first_event} go beyond."
            raise JsonFieldError("events", message)
        if self.sensors is not None:
            self._check_sensors(self.sensors)

    def _check_sensors(self, names: tuple[str, ...]) -> None:
        try:
            is_valid = names == tuple(map(str, self.generated_sensors))
        except ArgumentValueError:
            is_valid = False
        if not is_valid:
            found = str(list(names))[:200]
            message = f"sensors must be null or names of different sensors, ordered by index, but is {found}."
            raise JsonFieldError("sensors", message)


def has_random_weights(jobs: Iterable[Provenance]) -> bool:
    """Return whether digits come from a demonstration's weights: no comparison with a simulation means anything."""
    return any(job.nature == "demonstration" for job in jobs)


def list_sensors(jobs: Sequence[Provenance]) -> tuple[Sensor, ...]:
    """List the sensors of a sample, whose jobs all generated the same; all sensors if no job is known."""
    return jobs[0].generated_sensors if jobs else SENSORS


def describe_generation(generator: Generator, events: range, sensors: Iterable[SensorLike] | None = None) -> Provenance:
    """Describe how a generator generates consecutive events, or some sensors of them.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If there is no event, if the events are not consecutive, or if there is no such sensor.
    """
    if not events or events.step != 1:
        message = f"events must be consecutive and at least one, such as range(0, 10), but is {events}."
        raise ArgumentValueError("events", message)
    card = generator.card
    chosen = select_sensors(sensors)
    return Provenance(
        model=card.name,
        nature=card.nature,
        provenance=card.provenance,
        precision=card.precision,
        graph_sha256=generator.graph_sha256,
        seed=generator.seed,
        random_stream=generator.random_stream,
        first_event=events.start,
        events=len(events),
        min_charge=generator.min_charge,
        provider=generator.provider,
        version=__version__,
        sensors=None if chosen == SENSORS else tuple(map(str, chosen)),
    )
