"""The profile of a graph: times and products of its layers, and the floor beside them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from threadpoolctl import threadpool_info, threadpool_limits
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.arithmetic_rates import RATES, prepare_rate
from benchmarks.graphs import Workspace
from benchmarks.layer_profile import Cost, build_tables, find_filters, profile_event, read_costs
from export.graph.compact_weights import store_compactly
from pxdbg_runtime.model.graph_file import GraphFile
from tests.graphs import LATENT_CARD

if TYPE_CHECKING:
    from pathlib import Path

N_CHANNELS: Final = 32
IMAGE: Final = (8, 24)


def convolution_model(n_filters: int = 16) -> onnx.ModelProto:
    """Make a graph of a linear layer, a convolution, and a Relu."""
    rng = np.random.default_rng(1)
    size = N_CHANNELS * IMAGE[0] * IMAGE[1]
    constants = {
        "linear": rng.normal(size=(2, size)).astype(np.float32),
        "shape": np.array([-1, N_CHANNELS, *IMAGE]),
        "filters": rng.integers(-9, 9, (n_filters, N_CHANNELS, 3, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["z", "linear"], ["flat"], name="first"),
        helper.make_node("Reshape", ["flat", "shape"], ["small"], name="view"),
        helper.make_node("Conv", ["small", "filters"], ["large"], name="second", pads=[1] * 4),
        helper.make_node("Relu", ["large"], ["image"], name="last"),
    ]
    graph = helper.make_graph(
        nodes,
        "convolution",
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", n_filters, *IMAGE])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def node_event(operator: str, name: str, start: int, duration: int, **shapes: Any) -> dict[str, Any]:  # noqa: ANN401
    arguments = {"op_name": operator, "input_type_shape": [], "output_type_shape": [], **shapes}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": start, "dur": duration, "args": arguments}


def call_event(start: int, duration: int) -> dict[str, Any]:
    return {"cat": "Session", "name": "model_run", "ts": start, "dur": duration, "args": {}}


def test_costs_leave_out_the_first_call_and_count_the_body_of_a_loop_once() -> None:
    events = [
        call_event(0, 900),
        node_event("Relu", "relu", 10, 800),
        call_event(1000, 100),
        node_event("Scan", "scan", 1010, 70),
        node_event("Relu", "relu", 1020, 20),
        node_event("Relu", "relu", 1050, 30),
        node_event("Tanh", "tanh", 1085, 5),
    ]
    costs = read_costs(events, {})
    assert {layer: round(cost.seconds * 1e6, 6) for layer, cost in costs.items()} == {
        ("Scan", "scan"): 20,
        ("Relu", "relu"): 50,
        ("Tanh", "tanh"): 5,
        ("", "outside the nodes"): 25,
    }


def test_products_come_from_the_shapes_of_the_profile_and_of_packed_filters() -> None:
    shapes: dict[str, Any] = {
        "input_type_shape": [{"uint8": [2, 8, 24, 4]}, {"float": []}],
        "output_type_shape": [{"uint8": [2, 8, 24, 5]}],
    }
    events = [call_event(0, 1), call_event(10, 9), node_event("QLinearConv", "packed", 11, 3, **shapes)]
    costs = read_costs(events, {"packed": (5, 4, 3, 3)})
    assert costs["QLinearConv", "packed"].products == 2 * 8 * 24 * 5 * 4 * 9
    with pytest.raises(RuntimeError, match="the filters of the convolution packed are not known"):
        read_costs(events, {})


def test_filters_are_found_by_node_and_output_even_if_they_are_stored_as_indices() -> None:
    model = convolution_model(n_filters=1024)
    compact = store_compactly(model)
    assert any(node.op_type == "Gather" for node in compact.graph.node)
    expected = dict.fromkeys(("second", "large"), (1024, N_CHANNELS, 3, 3))
    assert find_filters(model) == find_filters(compact) == expected


def test_a_session_is_profiled_layer_by_layer(tmp_path: Path) -> None:
    model = convolution_model()
    content = model.SerializeToString()
    graph = GraphFile(path=tmp_path / "graph.onnx", card=LATENT_CARD, sha256="", content=content)
    costs = profile_event(graph, find_filters(model), 4)
    products = {operator: cost.products for (operator, _), cost in costs.items() if cost.products}
    n_pixels = IMAGE[0] * IMAGE[1]
    assert products.pop("Conv") == 40 * 16 * n_pixels * N_CHANNELS * 9
    assert list(products.values()) == [40 * N_CHANNELS * n_pixels * 2]
    assert all(cost.seconds >= 0 for cost in costs.values())
    assert sum(cost.seconds for cost in costs.values()) > 0


def test_tables_begin_with_the_largest_loss() -> None:
    costs = {
        ("Conv", "near the floor"): Cost(seconds=1.0, products=9e10),
        ("Conv", "far from it"): Cost(seconds=0.5, products=1e10),
        ("Relu", "without products"): Cost(seconds=0.2, products=0),
    }
    operators, layers = build_tables("a graph", costs, {"slow": 5e10, "fast": 1e11}, n_layers=2)
    assert operators.title == "a graph, by operator (floor: 100 x 10^9 products/s, fast)"
    assert operators.rows == (
        ("Conv", "100", "1,500", "1,000", "1.50", "500"),
        ("Relu", "", "200", "", "", "200"),
        ("the event", "100", "1,700", "1,000", "1.70", "700"),
    )
    assert [row[0] for row in layers.rows] == ["far from it (Conv)", "without products (Relu)"]


@pytest.mark.parametrize("name", [RATES["float32"][0], RATES["int8"][0]])
def test_the_rate_of_blas_is_that_of_one_thread(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []

    def count_threads(*_arguments: object, **_options: object) -> None:
        counts.append({each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"})

    monkeypatch.setattr(np, "matmul", count_threads)
    with threadpool_limits(2):
        prepare_rate(name)()
        count_threads()
    *during, after = counts
    assert during == [{1}] * 11
    assert after == {2}


@pytest.mark.parametrize("name", [*RATES["float32"], *RATES["int8"]])
def test_every_rate_is_that_of_a_machine(name: str) -> None:
    (rate,) = prepare_rate(name)()
    assert 0.1 < rate < 1e5


def test_one_precision_is_profiled_and_written(
    latent_graph: GraphFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Workspace, "find_graph", lambda *_arguments, **_options: latent_graph)
    arguments = ["profile", "--family", "resnet", "--precision", "int8", "--quick", "--json", str(tmp_path / "a.json")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    assert "resnet, int8, by operator" in result.stdout
    assert "resnet, float32" not in result.stdout
    measurements = json.loads((tmp_path / "a.json").read_text())["measurements"]
    assert {each["labels"]["precision"] for each in measurements} == {"int8"}
    rates = {each["labels"]["layer"] for each in measurements if each["unit"] == "10^9 products/s"}
    assert rates == set(RATES["int8"])
    assert sum(each["median"] for each in measurements if each["unit"] == "s") > 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("profile", "--precision", "int4"), "--precision must be float32 or int8, but is 'int4'"),
        (("peers", "--precision", "int8"), "--precision is for profile alone, not for peers."),
    ],
)
def test_a_precision_that_is_not_measured_is_refused(arguments: tuple[str, ...], expected: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert expected in " ".join(result.stderr.split())
