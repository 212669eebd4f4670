"""Tiny graphs with their cards: they run in milliseconds, and NumPy computes their images exactly.

Only additions, products and minima of single elements occur in them, so that no order of summation can make
ONNX Runtime differ from the plain versions beside them.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from msgspec import structs
from onnx import TensorProto, helper, numpy_helper

from pxdbg_runtime.model.builtin_models import BuiltinGraph
from pxdbg_runtime.model.card import Draw, Fidelity, GraphInput, ModelCard, PackageVersion, Parity
from pxdbg_runtime.model.graph_file import GraphFile, append_card, read_graph_file
from pxdbg_runtime.sensors import N_SENSORS, N_U_CELLS, N_V_CELLS, SENSORS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = [
    "EVENT_WIDE_CARD",
    "FIDELITY",
    "LATENT_CARD",
    "THRESHOLDS",
    "append_text_card",
    "build_model",
    "build_parity",
    "compute_plain_charges",
    "describe_graph",
    "event_wide_images",
    "event_wide_model",
    "latent_images",
    "latent_model",
    "write_graph",
]

OPSET: Final = 17
IR_VERSION: Final = 8

THRESHOLDS: Final = tuple(float(each) for each in (2 * np.log(np.arange(2, 257)) / np.log(256) - 1).astype(np.float32))
"""Where 256**(t/2 + 1/2) - 1 reaches 1 to 255, rounded: close to a real card's, and good enough for any test."""


def build_parity(difference: float, pytorch: float = 0.0) -> Parity:
    """Make what an export measures of a graph that differs by so much, and PyTorch's own float32 by so much."""
    return Parity(
        images=8,
        max_abs_difference=difference,
        max_float64_difference=difference,
        pytorch_float64_difference=pytorch,
        equal_charges=1.0,
    )


LATENT_CARD: Final = ModelCard(
    name="tiny",
    family="planes",
    nature="checkpoint",
    provenance="Made for a test.",
    latent_size=2,
    draws=(Draw(name="latent", shape=(N_SENSORS, 2)),),
    inputs=(GraphInput(name="z", role="latent", draw="latent"),),
    output="images",
    output_kind="values",
    sensors=tuple(sensor.vxd_id for sensor in SENSORS),
    precision="float32",
    target="cpu",
    weight_bits=None,
    passes=("fold batch norms",),
    opset=OPSET,
    thresholds=THRESHOLDS,
    cut=None,
    min_charge=1,
    checkpoint_sha256="0123456789abcdef" * 4,
    made_with=(
        PackageVersion(package="onnx", version=onnx.__version__),
        PackageVersion(package="numpy", version=np.__version__),
    ),
    parity=build_parity(1.5e-6),
    fidelity=None,
    known_answers=None,
)

EVENT_WIDE_CARD: Final = structs.replace(
    LATENT_CARD,
    name="tiny-event",
    family="tilted planes",
    draws=(*LATENT_CARD.draws, Draw(name="mood", shape=(N_SENSORS, 3))),
    inputs=(
        GraphInput(name="number", role="sensor", draw=None),
        *LATENT_CARD.inputs,
        GraphInput(name="e", role="event_latent", draw="mood"),
    ),
    output="pictures",
    cut=-0.26,
    min_charge=7,
    checkpoint_sha256="fedcba9876543210" * 4,
)

FIDELITY: Final = Fidelity(images=800, charge_w1_adu=0.125, occupancy_ratio=0.9921875, identical_digits=0.75)
"""What the card of any precision but float32 holds; within the bounds."""

_EDGE: Final = 0.98
"""Images rise from here to their edges, so that events have about as many hits as real ones, of charges up to 255."""
_U_PROFILE: Final = np.interp(np.linspace(0, 1, N_U_CELLS), [_EDGE, 1], [0, 1]).astype(np.float32)[:, np.newaxis]
_V_PROFILE: Final = np.interp(np.linspace(-1, 1, N_V_CELLS), [-1, -_EDGE, _EDGE, 1], [-1, 0, 0, 1]).astype(np.float32)[
    np.newaxis
]
_ONE: Final = np.float32(1)
_PER_SENSOR: Final = np.float32(0.01)
_PER_MOOD: Final = np.float32(0.0625)


def compute_plain_charges(images: NDArray[np.float32], min_charge: int, cut: float | None = None) -> NDArray[np.uint8]:
    """Compute charges with `THRESHOLDS` in plain NumPy: 0 below the smallest charge and at or below the cut."""
    table = np.array(THRESHOLDS, dtype=np.float32)
    charges = np.searchsorted(table, images.ravel(), side="right").reshape(images.shape)
    is_above_cut = True if cut is None else images > np.float32(cut)
    return np.where((charges >= min_charge) & is_above_cut, charges, 0).astype(np.uint8)


def latent_images(latent: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the images of `latent_model`: a profile along u and one along v, times a latent value each, are added."""
    planes = _planes(latent) - _ONE
    clipped: NDArray[np.float32] = np.clip(planes, -_ONE, _ONE)
    return clipped


def event_wide_images(latent: NDArray[np.float32], mood: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute all forty images of `event_wide_model`: each is moved by its index, its mood, and the best mood."""
    index = np.arange(N_SENSORS).astype(np.float32) * _PER_SENSOR
    own = mood[:, 0] * _PER_MOOD
    best = mood[:, 2].max() * _PER_MOOD
    level = ((index + own) + best).reshape(N_SENSORS, 1, 1)
    clipped: NDArray[np.float32] = np.clip(_planes(latent) - _ONE + level, -_ONE, _ONE)
    return clipped


def _planes(latent: NDArray[np.float32]) -> NDArray[np.float32]:
    along_u = latent[:, 0].reshape(-1, 1, 1) * _U_PROFILE
    along_v = latent[:, 1].reshape(-1, 1, 1) * _V_PROFILE
    planes: NDArray[np.float32] = along_u + along_v
    return planes


def latent_model() -> onnx.ModelProto:
    """Make a graph that takes latents alone."""
    nodes = [
        *_plane_nodes(),
        helper.make_node("Clip", ["sloping", "minus_one", "one"], ["images"]),
    ]
    return build_model(nodes, {"z": ("n", 2)}, "images")


def event_wide_model() -> onnx.ModelProto:
    """Make a graph that takes latents, sensor indices, and values of the whole event."""
    nodes = [
        *_plane_nodes(),
        helper.make_node("Cast", ["number"], ["float_number"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float_number", "per_sensor"], ["index"]),
        helper.make_node("Mul", ["e", "per_mood"], ["scaled"]),
        helper.make_node("Gather", ["scaled", "column_0"], ["own_of_all"], axis=1),
        helper.make_node("Gather", ["own_of_all", "number"], ["own"], axis=0),
        helper.make_node("Gather", ["scaled", "column_2"], ["best_of_all"], axis=1),
        helper.make_node("ReduceMax", ["best_of_all"], ["best"], axes=[0], keepdims=0),
        helper.make_node("Add", ["index", "own"], ["with_own"]),
        helper.make_node("Add", ["with_own", "best"], ["flat_level"]),
        helper.make_node("Reshape", ["flat_level", "cube"], ["level"]),
        helper.make_node("Add", ["sloping", "level"], ["lifted"]),
        helper.make_node("Clip", ["lifted", "minus_one", "one"], ["pictures"]),
    ]
    return build_model(nodes, {"e": (N_SENSORS, 3), "z": ("n", 2), "number": ("n",)}, "pictures")


def _plane_nodes() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Gather", ["z", "column_0"], ["flat_u"], axis=1),
        helper.make_node("Gather", ["z", "column_1"], ["flat_v"], axis=1),
        helper.make_node("Reshape", ["flat_u", "cube"], ["size_u"]),
        helper.make_node("Reshape", ["flat_v", "cube"], ["size_v"]),
        helper.make_node("Mul", ["size_u", "u_profile"], ["along_u"]),
        helper.make_node("Mul", ["size_v", "v_profile"], ["along_v"]),
        helper.make_node("Add", ["along_u", "along_v"], ["planes"]),
        helper.make_node("Sub", ["planes", "one"], ["sloping"]),
    ]


def build_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int | str, ...]],
    output: str,
    *,
    output_shape: tuple[int | str, ...] = ("n", N_U_CELLS, N_V_CELLS),
    output_type: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """Make a model of nodes, which may use the constants of this module; ``number`` is an integer input."""
    used = {name for node in nodes for name in node.input}
    values = {
        "u_profile": _U_PROFILE,
        "v_profile": _V_PROFILE,
        "one": _ONE,
        "minus_one": -_ONE,
        "per_sensor": _PER_SENSOR,
        "per_mood": _PER_MOOD,
        "column_0": np.int64(0),
        "column_1": np.int64(1),
        "column_2": np.int64(2),
        "cube": np.array([-1, 1, 1], dtype=np.int64),
    }
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64 if name == "number" else TensorProto.FLOAT, shape)
            for name, shape in inputs.items()
        ],
        [helper.make_tensor_value_info(output, output_type, output_shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items() if name in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def write_graph(path: Path, model: onnx.ModelProto, card: ModelCard) -> GraphFile:
    """Write a graph file and read it again."""
    path.write_bytes(append_card(model.SerializeToString(), card))
    return read_graph_file(path)


def append_text_card(text: str, model: bytes | None = None) -> bytes:
    """Append any text in the place of a card."""
    card: Any = SimpleNamespace(to_json=lambda: text)
    return append_card(latent_model().SerializeToString() if model is None else model, card)


def describe_graph(graph: GraphFile) -> BuiltinGraph:
    """Build the manifest's entry for a graph file."""
    card, file = graph.card, graph.path.name
    return BuiltinGraph(
        name=card.name, precision=card.precision, target=card.target, file=file, size=graph.size, sha256=graph.sha256
    )
