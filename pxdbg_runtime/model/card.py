"""The model card: the inputs, draws and output of a graph, and how its values become charges.

The graph file contains the card as JSON (see `pxdbg_runtime.model.graph_file`), so that a file describes itself. The
runtime reads all that it needs from the card: no module of it names a family of generators.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
import numpy as np

from pxdbg_runtime.errors import CardError, JsonFieldError
from pxdbg_runtime.json_records import (
    FiniteNumber,
    Fraction,
    NonNegativeNumber,
    PositiveInteger,
    Record,
    Sha256,
    Text,
    convert_record,
    parse_json,
)
from pxdbg_runtime.model.known_answers import KnownAnswers, OutputKind
from pxdbg_runtime.sensors import MAX_CHARGE_ADU, N_SENSORS, SENSORS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = [
    "FULL_WEIGHT_BITS",
    "MAX_CHARGE_W1_ADU",
    "MAX_OCCUPANCY_DIFFERENCE",
    "N_THRESHOLDS",
    "SCHEMA",
    "Draw",
    "Feed",
    "Fidelity",
    "GraphInput",
    "InputRole",
    "ModelCard",
    "Nature",
    "OutputKind",
    "PackageVersion",
    "Parity",
    "Precision",
    "Target",
    "build_feed",
    "describe_weights",
]

SCHEMA: Final = 3
"""Version of the card's schema that this release writes and reads."""
N_THRESHOLDS: Final = MAX_CHARGE_ADU
"""Each charge from 1 to 255 ADU has a threshold."""

_MIN_WEIGHT_BITS: Final = 7
FULL_WEIGHT_BITS: Final = 8
"""With this many bits, weights of an int8 graph give correct sums only on a CPU that adds products in 32 bits."""

Feed = dict[str, "NDArray[np.float32] | NDArray[np.int64]"]
"""The inputs of a graph by name, for one batch of images."""
InputRole = Literal["latent", "sensor", "event_latent"]
Precision = Literal["float32", "float16", "int8"]
Nature = Literal["checkpoint", "stand-in", "demonstration"]
Target = Literal["cpu", "cuda"]
MAX_CHARGE_W1_ADU: Final = 0.3
MAX_OCCUPANCY_DIFFERENCE: Final = 0.01
"""Within these two bounds a graph of another precision has the physics of its float32 graph, if not the digits."""


class Draw(Record, frozen=True, kw_only=True):
    """One draw of standard normal values, made for every event.

    Attributes
    ----------
    name : str
        The name by which the graph's inputs refer to it.
    shape : tuple of int
        (40, values of a sensor).
    """

    name: Text
    shape: tuple[Annotated[int, msgspec.Meta(ge=N_SENSORS, le=N_SENSORS)], PositiveInteger]


class GraphInput(Record, frozen=True, kw_only=True):
    """One input of the graph.

    Attributes
    ----------
    name : str
        Its name in the graph.
    role : {"latent", "sensor", "event_latent"}
        ``latent``: float32 (n, values), the rows of the draw for the n sensors of a batch. ``sensor``: int64 (n,), the
        indices of these sensors. ``event_latent``: float32 (40, values), the whole draw for every batch.
    draw : str or None
        The draw that feeds it; None for ``sensor``.
    """

    name: Text
    role: InputRole
    draw: Text | None


def build_feed(inputs: Iterable[GraphInput], draws: Mapping[str, NDArray[np.float32]], sensors: Sequence[int]) -> Feed:
    """Build the inputs of a graph for some sensors of one event.

    Parameters
    ----------
    inputs : iterable of GraphInput
    draws : mapping of str to ndarray of float32, shape (40, values)
        The event's draws by name.
    sensors : sequence of int
        Indices of the sensors.

    Returns
    -------
    dict of str to ndarray
        By the input's name, as its role says.
    """
    feed: Feed = {}
    indices = np.array(sensors, dtype=np.int64)
    for each in inputs:
        if each.draw is None:
            feed[each.name] = indices
        else:
            values = draws[each.draw]
            feed[each.name] = values if each.role == "event_latent" else values[indices]
    return feed


class PackageVersion(Record, frozen=True, kw_only=True):
    """A package that the export used, and its version."""

    package: Text
    version: Text


class Parity(Record, frozen=True, kw_only=True):
    """Differences between ONNX Runtime's and PyTorch's images, measured at export on the same latents.

    Attributes
    ----------
    images : int
        Number of images compared.
    max_abs_difference : float
        Largest difference of a tanh value from PyTorch's in float32.
    max_float64_difference : float
        Largest difference of a tanh value from PyTorch's in float64.
    pytorch_float64_difference : float
        Largest difference between PyTorch's own float32 images and its float64 images. It is the larger of two: with
        the model as it is, and with each batch norm folded that follows a convolution in a sequence of layers.
    equal_charges : float
        Share of equal charges among the pixels that are a hit in either, 0 to 1.
    """

    images: PositiveInteger
    max_abs_difference: NonNegativeNumber
    max_float64_difference: NonNegativeNumber
    pytorch_float64_difference: NonNegativeNumber
    equal_charges: Fraction


class Fidelity(Record, frozen=True, kw_only=True):
    """Differences between the digits of a graph and of its float32 graph on the same latents, measured at export.

    Attributes
    ----------
    images : int
        Number of images compared.
    charge_w1_adu : float
        Wasserstein distance of the two charge spectra, ADU; 256 if one of them has no hit.
    occupancy_ratio : float
        Number of hits over float32's; 1 more than the number where float32 has none.
    identical_digits : float
        Share of the pixels with a hit in either whose charges are equal, 0 to 1; 0 without hits.
    """

    images: PositiveInteger
    charge_w1_adu: NonNegativeNumber
    occupancy_ratio: NonNegativeNumber
    identical_digits: Fraction

    @property
    def is_within_bounds(self) -> bool:
        """Whether the physics of the graph is as good as that of float32."""
        difference = round(abs(self.occupancy_ratio - 1.0), 12)  # 1.01 - 1 is not 0.01 in binary
        return self.charge_w1_adu < MAX_CHARGE_W1_ADU and difference <= MAX_OCCUPANCY_DIFFERENCE


class ModelCard(Record, frozen=True, kw_only=True):
    """Description of a graph; the runtime reads all that it needs from it.

    Attributes
    ----------
    name : str
        Name of the model for users.
    family : str
        Architecture, such as ``resnet``.
    nature : {"checkpoint", "stand-in", "demonstration"}
        Whether the weights come from a given checkpoint, are a fitted stand-in, or have no physics.
    provenance : str
        Origin of the weights, in words.
    latent_size : int
        Latent values of an image.
    draws : tuple of Draw
        The random draws of an event, in order.
    inputs : tuple of GraphInput
    output : str
        Name of the graph's output, (n, 250, 768).
    output_kind : {"values", "charges"}
        Whether the output is float32, tanh values in [-1, 1], or uint8, charges in ADU.
    sensors : tuple of int
        VxdIDs along the event axis.
    precision : {"float32", "float16", "int8"}
    target : {"cpu", "cuda"}
        The execution provider that the graph was compiled for.
    weight_bits : int or None
        Of the weights of an int8 graph: 7 are exact on every x86 CPU with AVX2, 8 only with VNNI.
    passes : tuple of str
        Passes of the graph compiler, in order.
    opset : int
        ONNX opset of the graph.
    thresholds : tuple of float
        For each charge from 1 to 255 ADU, the smallest float32 output with at least this charge.
    cut : float or None
        Outputs up to this value are not hits, whatever their charge.
    min_charge : int
        Smallest charge in ADU that counts as a hit.
    checkpoint_sha256 : str
        Of the checkpoint file.
    made_with : tuple of PackageVersion
    parity : Parity
    fidelity : Fidelity or None
        None for float32.
    known_answers : KnownAnswers or None
        Reference outputs for the check on the user's machine; None if the graph has none.

    Raises
    ------
    CardError
        If fields contradict each other.
    """

    schema: Annotated[int, msgspec.Meta(ge=SCHEMA, le=SCHEMA)] = SCHEMA
    name: Text
    family: Text
    nature: Nature
    provenance: Text
    latent_size: PositiveInteger
    draws: Annotated[tuple[Draw, ...], msgspec.Meta(min_length=1)]
    inputs: Annotated[tuple[GraphInput, ...], msgspec.Meta(min_length=1)]
    output: Text
    output_kind: OutputKind
    sensors: tuple[int, ...]
    precision: Precision
    target: Target
    weight_bits: Annotated[int, msgspec.Meta(ge=_MIN_WEIGHT_BITS, le=FULL_WEIGHT_BITS)] | None
    passes: tuple[Text, ...]
    opset: PositiveInteger
    thresholds: tuple[FiniteNumber, ...]
    cut: Annotated[float, msgspec.Meta(ge=-1, le=1)] | None
    min_charge: Annotated[int, msgspec.Meta(ge=1, le=N_THRESHOLDS)]
    checkpoint_sha256: Sha256
    made_with: Annotated[tuple[PackageVersion, ...], msgspec.Meta(min_length=1)]
    parity: Parity
    fidelity: Fidelity | None
    known_answers: KnownAnswers | None

    def __post_init__(self) -> None:
        _check_thresholds(self.thresholds)
        _check_inputs(self.draws, self.inputs, self.latent_size)
        expected = tuple(sensor.vxd_id for sensor in SENSORS)
        if (self.weight_bits is None) == (self.precision == "int8"):
            raise CardError("weight_bits", "weight_bits must be a number for int8 and null for any other precision.")
        if (self.fidelity is None) != (self.precision == "float32"):
            raise CardError("fidelity", "fidelity must be null for float32 and given for any other precision.")
        if self.sensors != expected:
            message = f"sensors must be the {N_SENSORS} VxdIDs of the PXD in the order of pxdbg_runtime.SENSORS."
            raise CardError("sensors", message)

    def compute_charge_table(self) -> NDArray[np.float32]:
        """Compute the thresholds for the kernels.

        Returns
        -------
        ndarray of float32, shape (255,)
            Ascending. The charge of an output t is the number of elements up to t. The table includes the cut, which
            is rounded to float32 first, as PyTorch compares: no element lies below the float32 after it.
        """
        table = np.array(self.thresholds, dtype=np.float32)
        if self.cut is None:
            return table
        return np.maximum(table, np.nextafter(np.float32(self.cut), np.float32(np.inf)))

    def to_json(self) -> str:
        """Encode the card as JSON."""
        return json.dumps(msgspec.to_builtins(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        """Decode and validate a card.

        Raises
        ------
        CardError
            If it is not JSON, of another schema, or a field is missing, unknown or invalid.
        """
        try:
            values = parse_json(text)
            schema = convert_record(values, _SchemaHeader).schema
            if schema == SCHEMA:
                return convert_record(values, cls)
        except JsonFieldError as error:
            if isinstance(error.__cause__, CardError):
                raise error.__cause__ from None
            raise CardError(error.field, str(error)) from None
        message = f"it has schema {schema}, but this release of pxdbg-runtime reads schema {SCHEMA}: " + (
            "upgrade pxdbg-runtime." if schema > SCHEMA else "export the checkpoint again."
        )
        raise CardError("schema", message)


class _SchemaHeader(msgspec.Struct):
    """The field that cards of every schema have."""

    schema: PositiveInteger


def _check_thresholds(thresholds: tuple[float, ...]) -> None:
    if len(thresholds) != N_THRESHOLDS:
        raise CardError("thresholds", f"thresholds must be {N_THRESHOLDS} numbers, but are {len(thresholds)}.")
    given = np.array(thresholds, dtype=np.float64)
    with np.errstate(over="ignore"):
        exact = given.astype(np.float32)
    if not np.array_equal(exact.astype(np.float64), given):
        raise CardError("thresholds", "thresholds must be float32 values, but rounding to float32 changes some.")
    if not np.all(np.diff(exact) > 0) or not (exact[0] > -1 and exact[-1] <= 1):
        raise CardError("thresholds", "thresholds must ascend strictly within (-1, 1].")


def _check_inputs(draws: tuple[Draw, ...], inputs: tuple[GraphInput, ...], latent_size: int) -> None:
    shapes = {draw.name: draw.shape for draw in draws}
    if len(shapes) != len(draws):
        raise CardError("draws", "draws must have different names.")
    if len({each.name for each in inputs}) != len(inputs):
        raise CardError("inputs", "inputs must have different names.")
    for each in inputs:
        if (each.role == "sensor") != (each.draw is None) or (each.draw is not None and each.draw not in shapes):
            message = f"input {each.name!r} with role {each.role!r} names the draw {each.draw!r}, but expected " + (
                "none." if each.role == "sensor" else f"one of {sorted(shapes)}."
            )
            raise CardError("inputs", message)
    latents = [each for each in inputs if each.role == "latent"]
    if len(latents) != 1 or shapes[latents[0].draw or ""][1] != latent_size:
        raise CardError("inputs", f"inputs must hold one latent, fed by a draw of {latent_size} values a sensor.")


def describe_weights(nature: str, provenance: str) -> str:
    """Describe weights by their nature and their provenance, which may begin with the nature.

    Examples
    --------
    >>> describe_weights("demonstration", "random weights of seed 3")
    'demonstration: random weights of seed 3'
    >>> describe_weights("stand-in", "A stand-in, not the collaboration's weights")
    "stand-in, not the collaboration's weights"
    """
    repeated = f"a {nature}, "
    if provenance.lower().startswith(repeated):
        return f"{nature}, {provenance[len(repeated) :]}"
    return f"{nature}: {provenance}"
