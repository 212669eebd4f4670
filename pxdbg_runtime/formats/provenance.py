"""How the digits of a file were generated: what its metadata say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Final, Literal

from msgspec import Meta, structs

from pxdbg_runtime.checks import MAX_EVENT, MAX_SEED, MIN_SEED
from pxdbg_runtime.errors import JsonFieldError
from pxdbg_runtime.formats.digest import SCHEMA, SchemaField
from pxdbg_runtime.inference.latents import RandomStreamName
from pxdbg_runtime.json_records import Record, Sha256, decode_record
from pxdbg_runtime.model.card import Nature, Precision
from pxdbg_runtime.version import __version__

if TYPE_CHECKING:
    from pxdbg_runtime.generator import Generator

__all__ = ["MAX_FILE_EVENTS", "DigitNature", "Provenance", "describe_generation"]

MAX_FILE_EVENTS: Final = 1_000_000
"""Most events of one file, a terabyte of digits: whoever reads a file counts each of its events."""

DigitNature = Literal[Nature, "simulation"]
"""Nature of the weights that generated the digits, or a simulation."""
_Text = Annotated[str, Meta(min_length=1)]


class Provenance(Record, frozen=True, forbid_unknown_fields=False):
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
    """

    model: _Text
    nature: DigitNature
    provenance: _Text
    precision: Precision | None
    graph_sha256: Sha256 | None
    seed: Annotated[int, Meta(ge=MIN_SEED, le=MAX_SEED)]
    random_stream: RandomStreamName
    first_event: Annotated[int, Meta(ge=0, le=MAX_EVENT)]
    events: Annotated[int, Meta(ge=1, le=MAX_FILE_EVENTS)]
    min_charge: Annotated[int, Meta(ge=1, le=255)]
    provider: _Text
    version: _Text

    def __str__(self) -> str:
        """Describe it in one line: model, provider, seed and stream."""
        model = self.model if self.precision is None else f"{self.model} {self.precision}"
        return f"{model} on {self.provider}, seed {self.seed}, stream {self.random_stream}"

    @property
    def last_event(self) -> int:
        """Number of the last event."""
        return self.first_event + self.events - 1

    def to_json(self) -> str:
        """Write it as JSON."""
        return json.dumps({"schema": SCHEMA, **structs.asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> Provenance:
        """Read what `to_json` wrote; raises `JsonFieldError` if a field is missing or invalid."""
        decode_record(text, SchemaField)
        found = decode_record(text, cls)
        if found.last_event > MAX_EVENT:
            message = f"events must end at {MAX_EVENT}, but {found.events} events from {found.first_event} go beyond."
            raise JsonFieldError("events", message)
        for name in ("model", "provenance", "provider", "version"):
            if not _is_unicode(getattr(found, name)):
                raise JsonFieldError(name, f"{name} must be valid Unicode, but holds half of a surrogate pair.")
        return found


def _is_unicode(text: str) -> bool:
    r"""Tell whether a text can be written in UTF-8: JSON can spell half of a surrogate pair, such as ``\ud800``."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def describe_generation(generator: Generator, events: range) -> Provenance:
    """Describe how a generator generates consecutive events."""
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
