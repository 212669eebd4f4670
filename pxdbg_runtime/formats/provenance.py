"""How the digits of a file were made: what its metadata say."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

from pxdbg_runtime.checks import MAX_EVENT, MAX_SEED, MIN_SEED
from pxdbg_runtime.errors import JsonFieldError
from pxdbg_runtime.inference.latents import RANDOM_STREAMS, RandomStreamName
from pxdbg_runtime.json_fields import Fields, NumberRange
from pxdbg_runtime.model.card import Nature, Precision
from pxdbg_runtime.version import __version__

if TYPE_CHECKING:
    from pxdbg_runtime.generator import Generator

__all__ = ["MAX_FILE_EVENTS", "DigitNature", "Provenance", "describe_generation"]

_SCHEMA: Final = 1
MAX_FILE_EVENTS: Final = 1_000_000
"""Most events that one file may tell of, a terabyte of digits: whoever reads it counts each of them."""

DigitNature = Literal[Nature, "simulation"]
"""What digits are worth: what the weights are that generated them, or that they were simulated."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How the digits of a file were made.

    Attributes
    ----------
    model : str
        Name on the model card, or of the simulation.
    nature, provenance : str
        What the weights are worth and where they come from, from the card; "simulation" if no generator made them.
    precision : {"float32", "float16", "int8"} or None
        None if no graph made them.
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
    """

    model: str
    nature: DigitNature
    provenance: str
    precision: Precision | None
    graph_sha256: str | None
    seed: int
    random_stream: RandomStreamName
    first_event: int
    events: int
    min_charge: int
    provider: str
    version: str

    def __str__(self) -> str:
        """Say what made them, on what, from which seed, in one line."""
        made_by = self.model if self.precision is None else f"{self.model} {self.precision}"
        return f"{made_by} on {self.provider}, seed {self.seed}, stream {self.random_stream}"

    @property
    def last_event(self) -> int:
        """Number of the last event."""
        return self.first_event + self.events - 1

    def to_json(self) -> str:
        """Write it as JSON."""
        return json.dumps({"schema": _SCHEMA, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> Provenance:
        """Read what `to_json` wrote.

        Raises
        ------
        JsonFieldError
            If a field is missing, or holds what it cannot hold.
        """
        fields = Fields.parse(text)
        fields.integer("schema", NumberRange(_SCHEMA, _SCHEMA))
        how = cls(
            model=fields.text("model"),
            nature=fields.one_of("nature", get_args(DigitNature)),
            provenance=fields.text("provenance"),
            precision=fields.one_of_or_none("precision", get_args(Precision)),
            graph_sha256=fields.sha256_or_none("graph_sha256"),
            seed=fields.integer("seed", NumberRange(MIN_SEED, MAX_SEED)),
            random_stream=fields.one_of("random_stream", RANDOM_STREAMS),
            first_event=fields.integer("first_event", NumberRange(0, MAX_EVENT)),
            events=fields.integer("events", NumberRange(1, MAX_FILE_EVENTS)),
            min_charge=fields.integer("min_charge", NumberRange(1, 255)),
            provider=fields.text("provider"),
            version=fields.text("version"),
        )
        if how.last_event > MAX_EVENT:
            message = f"events must end at {MAX_EVENT}, but {how.events} from {how.first_event} on go beyond."
            raise JsonFieldError("events", message)
        return how


def describe_generation(generator: Generator, events: range) -> Provenance:
    """Describe the digits that a generator makes of consecutive events."""
    card = generator.card
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
    )
