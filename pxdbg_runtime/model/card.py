"""The model card: what a graph is, what it takes and draws, and how its values become charges.

The card travels inside the graph file as JSON (see `pxdbg_runtime.model.graph_file`), so that one file describes
itself. The runtime goes by the card alone: nothing elsewhere knows of a family of generators.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np

from pxdbg_runtime.errors import CardError, JsonFieldError
from pxdbg_runtime.json_fields import Fields, NumberRange
from pxdbg_runtime.model.known_answers import KnownAnswers, read_known_answers
from pxdbg_runtime.sensors import N_SENSORS, SENSORS

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "FULL_WEIGHT_BITS",
    "MAX_CHARGE_W1_ADU",
    "MAX_OCCUPANCY_DIFFERENCE",
    "N_THRESHOLDS",
    "SCHEMA",
    "Draw",
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
]

SCHEMA: Final = 3
"""Version of the card's layout that this release writes and reads."""
N_THRESHOLDS: Final = 255
"""Charges 1 to 255 ADU have a threshold each."""

FULL_WEIGHT_BITS: Final = 8
"""Weights of an int8 graph with these many bits are right only on a CPU that adds products in 32 bits."""

InputRole = Literal["latent", "sensor", "event_latent"]
Precision = Literal["float32", "float16", "int8"]
Nature = Literal["checkpoint", "stand-in", "demonstration"]
Target = Literal["cpu", "cuda"]
OutputKind = Literal["values", "charges"]
MAX_CHARGE_W1_ADU: Final = 0.3
MAX_OCCUPANCY_DIFFERENCE: Final = 0.01
"""Within these two bounds a graph of another precision is as good as its float32 graph: as physics, not digit by digit."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One draw of standard normal values that every event makes.

    Attributes
    ----------
    name : str
        What the graph's inputs call it.
    shape : tuple of int
        (40, values of a sensor).
    """

    name: str
    shape: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class GraphInput:
    """One input of the graph.

    Attributes
    ----------
    name : str
        Its name in the graph.
    role : {"latent", "sensor", "event_latent"}
        ``latent``: float32 (n, values), the draw's rows of the n sensors of a batch. ``sensor``: int64 (n,), the
        indices of those sensors. ``event_latent``: float32 (40, values), the whole draw, whatever the batch.
    draw : str or None
        The draw that feeds it; None for ``sensor``.
    """

    name: str
    role: InputRole
    draw: str | None


@dataclass(frozen=True, kw_only=True)
class PackageVersion:
    """A package that took part in making the graph, and its version."""

    package: str
    version: str


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far ONNX Runtime's images were from PyTorch's, measured at export on the same latents each time.

    Attributes
    ----------
    images : int
        Number of images compared.
    max_abs_difference : float
        Largest difference of a tanh value from PyTorch's in float32.
    max_float64_difference : float
        Largest difference of a tanh value from PyTorch's in float64.
    pytorch_float64_difference : float
        Largest difference between PyTorch's own float32 images, batch norms folded or not, and its float64 images.
    equal_charges : float
        Share of equal charges among the pixels that are a hit in either, 0 to 1.
    """

    images: int
    max_abs_difference: float
    max_float64_difference: float
    pytorch_float64_difference: float
    equal_charges: float


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """How far the digits of a graph of another precision were from float32's on the same latents, measured at export.

    Attributes
    ----------
    images : int
        Number of images compared.
    charge_w1_adu : float
        Wasserstein distance of the two charge spectra, ADU.
    occupancy_ratio : float
        Number of hits over float32's.
    identical_digits : float
        Share of the pixels with a hit in either whose charges are equal, 0 to 1.
    """

    images: int
    charge_w1_adu: float
    occupancy_ratio: float
    identical_digits: float

    @property
    def is_within_bounds(self) -> bool:
        """Whether the graph is as good as float32, as physics."""
        difference = round(abs(self.occupancy_ratio - 1.0), 12)  # 1.01 - 1 is not 0.01 in binary
        return self.charge_w1_adu < MAX_CHARGE_W1_ADU and difference <= MAX_OCCUPANCY_DIFFERENCE


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a graph is.

    Attributes
    ----------
    name : str
        What users call the model.
    family : str
        Architecture, ``convnet`` or ``resnet`` so far.
    nature : {"checkpoint", "stand-in", "demonstration"}
        Whether the weights are a given checkpoint's, a trained stand-in's, or without physics.
    provenance : str
        Where the weights come from, in words.
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
        The execution provider that the graph's form was chosen for.
    weight_bits : int or None
        Of the weights of an int8 graph: 7 are exact on every CPU, 8 on those with VNNI alone.
    passes : tuple of str
        What the graph compiler did to the plain export, in order.
    opset : int
        ONNX opset of the graph.
    thresholds : tuple of float
        For charge 1 to 255 ADU, the smallest float32 output with at least this charge.
    cut : float or None
        Outputs not greater than this are empty, whatever their charge.
    min_charge : int
        Smallest charge in ADU that counts as a hit.
    checkpoint_sha256 : str
        Of the checkpoint file.
    made_with : tuple of PackageVersion
    parity : Parity
    fidelity : Fidelity or None
        None for float32.
    known_answers : KnownAnswers or None
        Reference outputs that the runtime checks itself against; None if the graph has none.
    """

    name: str
    family: str
    nature: Nature
    provenance: str
    latent_size: int
    draws: tuple[Draw, ...]
    inputs: tuple[GraphInput, ...]
    output: str
    output_kind: OutputKind
    sensors: tuple[int, ...]
    precision: Precision
    target: Target
    weight_bits: int | None
    passes: tuple[str, ...]
    opset: int
    thresholds: tuple[float, ...]
    cut: float | None
    min_charge: int
    checkpoint_sha256: str
    made_with: tuple[PackageVersion, ...]
    parity: Parity
    fidelity: Fidelity | None
    known_answers: KnownAnswers | None

    def __post_init__(self) -> None:
        _check_thresholds(self.thresholds)
        _check_inputs(self.draws, self.inputs, self.latent_size)
        expected = tuple(sensor.vxd_id for sensor in SENSORS)
        if (self.weight_bits is None) == (self.precision == "int8"):
            message = "weight_bits must be a number for int8 and null for any other precision."
            raise CardError("weight_bits", message)
        if (self.fidelity is None) != (self.precision == "float32"):
            message = "fidelity must be null for float32 and given for any other precision."
            raise CardError("fidelity", message)
        if self.sensors != expected:
            message = f"sensors must be the {N_SENSORS} VxdIDs of the PXD in the order of pxdbg_runtime.SENSORS."
            raise CardError("sensors", message)

    def charge_table(self) -> NDArray[np.float32]:
        """Make the thresholds that the kernels compare with.

        Returns
        -------
        ndarray of float32, shape (255,)
            Ascending. The charge of an output t is the number of elements that are not greater than t. The
            cut is already in it: no element lies below the smallest float32 above the cut.
        """
        table = np.array(self.thresholds, dtype=np.float32)
        if self.cut is None:
            return table
        return np.maximum(table, np.nextafter(np.float32(self.cut), np.float32(np.inf)))

    def to_json(self) -> str:
        """Write the card as JSON."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        """Read and validate a card.

        Raises
        ------
        CardError
            If it is not JSON, of another schema, or a field is missing, unknown or invalid.
        """
        try:
            return _card(Fields.parse(text))
        except JsonFieldError as error:
            raise CardError(error.field, str(error)) from None


def _card(fields: Fields) -> ModelCard:
    schema = fields.integer("schema", NumberRange(1))
    if schema != SCHEMA:
        message = f"it has schema {schema}, but this release of pxdbg-runtime reads schema {SCHEMA}: " + (
            "upgrade pxdbg-runtime." if schema > SCHEMA else "export the checkpoint again."
        )
        raise CardError("schema", message)
    parity = fields.nested("parity")
    made = ModelCard(
        name=fields.text("name"),
        family=fields.text("family"),
        nature=fields.one_of("nature", get_args(Nature)),
        provenance=fields.text("provenance"),
        latent_size=fields.integer("latent_size", NumberRange(1)),
        draws=tuple(_draw(draw) for draw in fields.list_of_nested("draws")),
        inputs=tuple(_graph_input(each) for each in fields.list_of_nested("inputs")),
        output=fields.text("output"),
        output_kind=fields.one_of("output_kind", get_args(OutputKind)),
        sensors=fields.integers("sensors"),
        precision=fields.one_of("precision", get_args(Precision)),
        target=fields.one_of("target", get_args(Target)),
        weight_bits=fields.integer_or_none("weight_bits", NumberRange(2, 8)),
        passes=fields.texts("passes"),
        opset=fields.integer("opset", NumberRange(1)),
        thresholds=fields.numbers("thresholds"),
        cut=fields.number_or_none("cut", NumberRange(-1, 1)),
        min_charge=fields.integer("min_charge", NumberRange(1, N_THRESHOLDS)),
        checkpoint_sha256=fields.sha256("checkpoint_sha256"),
        made_with=tuple(_made_with(each) for each in fields.list_of_nested("made_with")),
        parity=Parity(
            images=parity.integer("images", NumberRange(1)),
            max_abs_difference=parity.number("max_abs_difference", NumberRange(0)),
            max_float64_difference=parity.number("max_float64_difference", NumberRange(0)),
            pytorch_float64_difference=parity.number("pytorch_float64_difference", NumberRange(0)),
            equal_charges=parity.number("equal_charges", NumberRange(0, 1)),
        ),
        fidelity=_fidelity(fields.nested_or_none("fidelity")),
        known_answers=read_known_answers(fields.nested_or_none("known_answers")),
    )
    parity.nothing_else()
    fields.nothing_else()
    return made


def _fidelity(fields: Fields | None) -> Fidelity | None:
    if fields is None:
        return None
    made = Fidelity(
        images=fields.integer("images", NumberRange(1)),
        charge_w1_adu=fields.number("charge_w1_adu", NumberRange(0)),
        occupancy_ratio=fields.number("occupancy_ratio", NumberRange(0)),
        identical_digits=fields.number("identical_digits", NumberRange(0, 1)),
    )
    fields.nothing_else()
    return made


def _draw(fields: Fields) -> Draw:
    shape = fields.integers("shape")
    if len(shape) != 2 or shape[0] != N_SENSORS or shape[1] < 1:
        message = f"{fields.path('shape')} must be [{N_SENSORS}, values of a sensor], but is {list(shape)}."
        raise CardError(fields.path("shape"), message)
    made = Draw(name=fields.text("name"), shape=(shape[0], shape[1]))
    fields.nothing_else()
    return made


def _graph_input(fields: Fields) -> GraphInput:
    made = GraphInput(
        name=fields.text("name"),
        role=fields.one_of("role", get_args(InputRole)),
        draw=fields.text_or_none("draw"),
    )
    fields.nothing_else()
    return made


def _made_with(fields: Fields) -> PackageVersion:
    made = PackageVersion(package=fields.text("package"), version=fields.text("version"))
    fields.nothing_else()
    return made


def _check_thresholds(thresholds: tuple[float, ...]) -> None:
    if len(thresholds) != N_THRESHOLDS:
        message = f"thresholds must be {N_THRESHOLDS} numbers, but are {len(thresholds)}."
        raise CardError("thresholds", message)
    given = np.array(thresholds, dtype=np.float64)
    with np.errstate(over="ignore"):
        exact = given.astype(np.float32)
    if not np.array_equal(exact.astype(np.float64), given):
        message = "thresholds must be float32 values, but rounding to float32 changes some."
        raise CardError("thresholds", message)
    if not np.all(np.diff(exact) > 0) or not (exact[0] > -1 and exact[-1] <= 1):
        message = "thresholds must ascend strictly within (-1, 1]."
        raise CardError("thresholds", message)


def _check_inputs(draws: tuple[Draw, ...], inputs: tuple[GraphInput, ...], latent_size: int) -> None:
    shapes = {draw.name: draw.shape for draw in draws}
    if len(shapes) != len(draws):
        message = "draws must have different names."
        raise CardError("draws", message)
    if len({each.name for each in inputs}) != len(inputs):
        message = "inputs must have different names."
        raise CardError("inputs", message)
    for each in inputs:
        if (each.role == "sensor") != (each.draw is None) or (each.draw is not None and each.draw not in shapes):
            message = f"input {each.name!r} with role {each.role!r} names the draw {each.draw!r}, but expected " + (
                "none." if each.role == "sensor" else f"one of {sorted(shapes)}."
            )
            raise CardError("inputs", message)
    latents = [each for each in inputs if each.role == "latent"]
    if len(latents) != 1 or shapes[latents[0].draw or ""][1] != latent_size:
        message = f"inputs must hold one latent, fed by a draw of {latent_size} values a sensor."
        raise CardError("inputs", message)
