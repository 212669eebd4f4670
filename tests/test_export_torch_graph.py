"""The written graph: inputs and outputs, its card, and no trace of this machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import export.torch_graph
from export.charge import find_charge_thresholds
from export.errors import GraphError
from export.families.resnet import FAMILY
from export.graph import list_passes
from export.graph.compiler import SHARED_TERMS
from export.torch_graph import IR_VERSION, OPSET, export_to_onnx
from pxdbg_runtime import SENSORS, __version__
from pxdbg_runtime.model.graph_file import read_graph_file
from tests.checkpoints import FAMILY_NAMES, FlatNet, export_first

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

    from tests.checkpoints import Export

CHECKOUT: Final = Path(__file__).resolve().parent.parent
DYNAMIC: Final = None

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=FAMILY_NAMES)
def example(request: pytest.FixtureRequest) -> Export:
    return export_first(str(request.param))


@pytest.fixture(scope="module")
def model(example: Export) -> ModelProto:
    return onnx.load(example.graph.path)


def type_and_shape(value: ValueInfoProto) -> tuple[int, tuple[int | None, ...]]:
    tensor = value.type.tensor_type
    axes = tuple(axis.dim_value if axis.HasField("dim_value") else DYNAMIC for axis in tensor.shape.dim)
    return tensor.elem_type, axes


def test_written_file_is_valid_onnx(example: Export) -> None:
    onnx.checker.check_model(example.graph.path, full_check=True)


def test_inputs_outputs_and_opset(model: ModelProto) -> None:
    # Sums are fused into an operator of ONNX Runtime's own domain, where there are any.
    domains = {node.domain for node in model.graph.node}
    assert {opset.domain: opset.version for opset in model.opset_import}[""] == 18
    assert domains <= {opset.domain for opset in model.opset_import} <= {"", "com.microsoft"}
    assert OPSET == 18
    assert [value.name for value in model.graph.input] == ["latent"]
    assert [value.name for value in model.graph.output] == ["images"]
    assert type_and_shape(model.graph.input[0]) == (onnx.TensorProto.FLOAT, (DYNAMIC, 96))
    assert type_and_shape(model.graph.output[0]) == (onnx.TensorProto.FLOAT, (DYNAMIC, 250, 768))


def test_weights_lie_in_the_file(example: Export, model: ModelProto) -> None:
    assert all(weight.data_location == onnx.TensorProto.DEFAULT for weight in model.graph.initializer)
    assert all(
        weight.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.INT64) for weight in model.graph.initializer
    )
    assert [path.name for path in example.graph.path.parent.iterdir()] == [example.graph.path.name]


def test_nothing_of_this_machine_is_inside(example: Export, model: ModelProto) -> None:
    content = example.graph.path.read_bytes()
    for place in (str(CHECKOUT), str(Path.home()) + "/", tempfile.gettempdir() + "/", torch.__path__[0]):
        assert place.encode() not in content, place
    # Weights are left out here: somewhere in so many bytes any three of them stand side by side.
    without_weights = onnx.ModelProto()
    without_weights.CopyFrom(model)
    for weight in without_weights.graph.initializer:
        weight.ClearField("raw_data")
    text = without_weights.SerializeToString()
    for trace in (b".py", b"Traceback", b'File "', b"stack_trace", b"site-packages", b"pkg.torch"):
        assert trace not in text, trace
    assert [entry.key for entry in model.metadata_props] == ["pxdbg.card", "pxdbg.sha256"]


@pytest.mark.parametrize("n_images", [1, 2, 5])
def test_graph_gives_the_images_of_its_model_for_any_batch(example: Export, n_images: int) -> None:
    latent = torch.randn(n_images, 96, generator=torch.Generator().manual_seed(n_images))
    session = onnxruntime.InferenceSession(example.graph.path, providers=["CPUExecutionProvider"])
    (images,) = session.run(["images"], {"latent": latent.numpy()})
    with torch.inference_mode():
        expected = example.model(latent).numpy()
    assert images.shape == (n_images, 250, 768)
    assert np.abs(images - expected).max() <= 1e-5


def test_card_says_what_was_exported(example: Export) -> None:
    card = example.graph.card
    assert card.name == example.checkpoint.stem
    assert card.family == example.family
    assert card.nature == "demonstration"
    assert card.provenance == "Random weights."
    assert (card.precision, card.opset, card.latent_size, card.output) == ("float32", 18, 96, "images")
    assert [(draw.name, draw.shape) for draw in card.draws] == [("latent", (40, 96))]
    assert [(each.name, each.role, each.draw) for each in card.inputs] == [("latent", "latent", "latent")]
    assert card.sensors == tuple(sensor.vxd_id for sensor in SENSORS)
    assert (card.cut, card.min_charge) == (None, 1)
    assert (card.output_kind, card.target, card.weight_bits, card.fidelity) == ("values", "cpu", None, None)
    assert card.passes == tuple(each.name for each in list_passes("cpu") if each.name in card.passes)
    # The ResNet's last block has too few channels for shared terms.
    phases = (SHARED_TERMS,) if card.family == "convnet" else (SHARED_TERMS, "phase convolutions")
    assert card.passes[card.passes.index("last layer in blocks") + 1 :] == phases
    assert card.checkpoint_sha256 == hashlib.sha256(example.checkpoint.read_bytes()).hexdigest()


def test_card_holds_the_thresholds_bit_for_bit(example: Export) -> None:
    assert np.array_equal(np.array(example.graph.card.thresholds), find_charge_thresholds().astype(np.float64))


def test_card_names_what_made_the_graph(example: Export) -> None:
    made_with = {made.package: made.version for made in example.graph.card.made_with}
    packages = ("torch", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "numpy")
    assert made_with == {"pxdbg-runtime": __version__} | {name: importlib.metadata.version(name) for name in packages}


def test_card_holds_the_parity_that_was_told(example: Export) -> None:
    parity = example.graph.card.parity
    assert parity.images == 4
    assert 0 < parity.max_abs_difference <= 1e-5
    assert 0 < parity.max_float64_difference <= max(2 * parity.pytorch_float64_difference, 5e-6)
    assert 0.9995 <= parity.equal_charges <= 1
    told = "\n".join(example.told)
    assert f"largest difference {parity.max_abs_difference:.2e}" in told
    assert f"equal charges of hits {100 * parity.equal_charges:.3f} %" in told


def test_what_was_returned_is_what_lies_on_disk(example: Export) -> None:
    content = example.graph.path.read_bytes()
    assert example.graph.path.name == f"{example.checkpoint.stem}-float32.onnx"
    assert example.graph.size == len(content)
    assert example.graph.sha256 == hashlib.sha256(content).hexdigest()
    assert read_graph_file(example.graph.path) == example.graph


def test_an_invalid_graph_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(graph: ModelProto) -> None:
        graph.graph.node[0].op_type = "NoSuchOperator"

    monkeypatch.setattr(export.torch_graph, "_remove_traces", spoil)
    with pytest.raises(GraphError, match=r"The exported graph is not valid ONNX: .*NoSuchOperator"):
        export_to_onnx(FlatNet().eval(), FAMILY)


def test_a_newer_ir_version_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def make_newer(graph: ModelProto) -> None:
        graph.ir_version = IR_VERSION + 1

    monkeypatch.setattr(export.torch_graph, "_remove_traces", make_newer)
    assert export_to_onnx(FlatNet().eval(), FAMILY).ir_version == IR_VERSION == 10


def test_exporting_is_silent(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    export_to_onnx(FlatNet().eval(), FAMILY)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []
