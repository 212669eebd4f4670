"""``profile``: the time of an event by operator and by layer, beside the arithmetic floor of each layer."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.arithmetic_rates import RATES, prepare_rate
from benchmarks.benchmark import Benchmark, Plan
from benchmarks.environment import check_installed, use_one_core
from benchmarks.events import draw_event, split_sensors
from benchmarks.report import Table, format_figures
from benchmarks.timing import SECONDS, Case, Measurement, Run, prepare_constants
from pxdbg_runtime.generator import DEFAULT_BATCH_SIZE
from pxdbg_runtime.model.card import build_feed
from pxdbg_runtime.model.graph_file import GraphFile
from pxdbg_runtime.sensors import N_SENSORS

if TYPE_CHECKING:
    from onnx import ModelProto

PRODUCTS: Final = "multiply-accumulates"
RATE: Final = "10^9 products/s"
_COLUMNS: Final = ("model", "precision", "operator", "layer")
_RATE_ROW: Final = "arithmetic rate"
_QUICK_IMAGES: Final = 4
_SHOWN_LAYERS: Final = 20
_LOOPS: Final = frozenset({"Scan", "Loop", "If"})
"""Operators whose time includes that of their body's nodes."""
_FILTERS: Final = {"Conv": 1, "FusedConv": 1, "QLinearConv": 3}
"""Convolutions, and the index of the input that holds their filters."""
_MATRIX_PRODUCTS: Final = frozenset(
    {"Gemm", "FusedGemm", "MatMul", "FusedMatMul", "MatMulInteger", "MatMulIntegerToFloat", "QLinearMatMul", "QGemm"}
)
_OUTSIDE: Final = ("", "outside the nodes")
"""What a call of ONNX Runtime takes beside its nodes."""

Layer = tuple[str, str]
"""Operator and name."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Seconds and multiply-accumulates of a layer, for an event."""

    seconds: float
    products: float


def read_costs(events: Iterable[Mapping[str, Any]], filters: Mapping[str, Sequence[int]]) -> dict[Layer, Cost]:
    """Add up the seconds and products of each layer, without the first call, which warms up.

    Parameters
    ----------
    events : iterable of mapping
        As in the JSON file of ONNX Runtime's profile; the times are in microseconds.
    filters : mapping of str to sequence of int
        Shapes of the filters of convolutions, see `find_filters`.
    """
    found = list(events)
    calls = [each for each in found if each["name"] == "model_run"][1:]
    start = min(each["ts"] for each in calls)
    nodes = [
        each
        for each in found
        if each.get("cat") == "Node" and each["name"].endswith("_kernel_time") and each["ts"] >= start
    ]
    simple = [each for each in nodes if each["args"]["op_name"] not in _LOOPS]
    costs: dict[Layer, Cost] = {}
    for each in nodes:
        operator, name = each["args"]["op_name"], each["name"].removesuffix("_kernel_time")
        duration = each["dur"]
        if operator in _LOOPS:
            end = each["ts"] + duration
            duration = max(0, duration - sum(inner["dur"] for inner in simple if each["ts"] <= inner["ts"] < end))
        before = costs.get((operator, name), Cost(seconds=0, products=0))
        costs[operator, name] = Cost(
            seconds=before.seconds + duration / 1e6,
            products=before.products + _count_products(operator, name, each["args"], filters),
        )
    in_nodes = sum(cost.seconds for cost in costs.values())
    whole = sum(each["dur"] for each in calls) / 1e6
    return {**costs, _OUTSIDE: Cost(seconds=max(0.0, whole - in_nodes), products=0)}


def find_filters(model: ModelProto) -> dict[str, tuple[int, ...]]:
    """Find the shapes of the filters of all convolutions, by the names of the nodes and of their outputs."""
    graphs = [model.graph]
    for graph in graphs:
        graphs += [each.g for node in graph.node for each in node.attribute if each.HasField("g")]
    nodes = [node for graph in graphs for node in graph.node]
    shapes = {each.name: tuple(each.dims) for graph in graphs for each in graph.initializer}
    for node in nodes:
        # Weights of few values are restored from a table: Gather(table, Cast(indices)).
        if node.op_type in ("Cast", "Gather") and node.input[-1] in shapes:
            shapes[node.output[0]] = shapes[node.input[-1]]
    return {
        name: shapes[node.input[_FILTERS[node.op_type]]]
        for node in nodes
        if node.op_type in _FILTERS and node.input[_FILTERS[node.op_type]] in shapes
        for name in (node.name, node.output[0])
    }


def build_tables(
    title: str, costs: Mapping[Layer, Cost], rates: Mapping[str, float], n_layers: int = _SHOWN_LAYERS
) -> tuple[Table, ...]:
    """Build the tables by operator and by layer, the largest losses first.

    Parameters
    ----------
    title : str
    costs : mapping of layer to Cost
        Of an event.
    rates : mapping of str to float
        Products a second that this machine reached, by what reached them; the floor takes the largest.
    n_layers : int
        Rows of the table by layer.
    """
    best = max(rates, key=rates.__getitem__)
    operators: dict[Layer, Cost] = {}
    for (operator, name), cost in costs.items():
        key = (operator or name, "")
        before = operators.get(key, Cost(seconds=0, products=0))
        operators[key] = Cost(seconds=before.seconds + cost.seconds, products=before.products + cost.products)
    whole = Cost(
        seconds=sum(cost.seconds for cost in costs.values()), products=sum(cost.products for cost in costs.values())
    )
    columns = ("10^9 products", "ms an event", "floor, ms", "over the floor", "lost, ms")
    format_row = partial(_format_row, rate=rates[best])
    lost = partial(_find_loss, rate=rates[best])
    by_operator = sorted(operators.items(), key=lambda item: -lost(item[1]))
    by_layer = sorted(costs.items(), key=lambda item: -lost(item[1]))[:n_layers]
    floor = f"floor: {format_figures(rates[best] / 1e9)} x 10^9 products/s, {best}"
    return (
        Table(
            title=f"{title}, by operator ({floor})",
            columns=("operator", *columns),
            rows=(
                *((operator, *format_row(cost)) for (operator, _), cost in by_operator),
                ("the event", *format_row(whole)),
            ),
        ),
        Table(
            title=f"{title}, the {len(by_layer)} layers that lose most",
            columns=("layer", *columns),
            rows=tuple(
                (f"{name} ({operator})" if operator else name, *format_row(cost)) for (operator, name), cost in by_layer
            ),
        ),
    )


def _count_products(
    operator: str, name: str, arguments: Mapping[str, Any], filters: Mapping[str, Sequence[int]]
) -> float:
    """Count the multiply-accumulates of a run of a node from the shapes in the profile."""
    if operator not in _FILTERS and operator not in _MATRIX_PRODUCTS:
        return 0
    (output,) = arguments["output_type_shape"][0].values()
    n_outputs = _multiply(output)
    if operator in _MATRIX_PRODUCTS:
        (left,) = arguments["input_type_shape"][0].values()
        return n_outputs * float(left[-1])
    # Filters that ONNX Runtime packed are not among the inputs; a convolution whose filters are keeps no name.
    (second,) = arguments["input_type_shape"][1].values()
    shape = second if len(second) > 2 else filters.get(name)
    if shape is None:
        message = f"the filters of the convolution {name} are not known"
        raise RuntimeError(message)
    return n_outputs * _multiply(shape[1:])


def _multiply(numbers: Iterable[int]) -> float:
    product = 1.0
    for number in numbers:
        product *= number
    return product


def _find_loss(cost: Cost, *, rate: float) -> float:
    return cost.seconds - cost.products / rate


def _format_row(cost: Cost, *, rate: float) -> tuple[str, ...]:
    floor = cost.products / rate
    return (
        format_figures(cost.products / 1e9) if cost.products else "",
        format_figures(cost.seconds * 1e3),
        format_figures(floor * 1e3) if cost.products else "",
        f"{cost.seconds / floor:.2f}" if cost.products else "",
        format_figures((cost.seconds - floor) * 1e3),
    )


def profile_event(graph: GraphFile, filters: Mapping[str, Sequence[int]], n_images: int) -> dict[Layer, Cost]:
    """Profile images of the benchmarks' event in a new session, and scale their cost to the forty of an event."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # as our sessions
    options.enable_profiling = True
    draws = draw_event(graph.card)
    size = DEFAULT_BATCH_SIZE if graph.card.precision == "int8" else 1
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(graph.content, options, providers=["CPUExecutionProvider"])
        batches = [sensors for sensors in split_sensors(size) if sensors.stop <= n_images]
        for sensors in (batches[0], *batches):
            session.run(None, build_feed(graph.card.inputs, draws, sensors))
        content = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    scale = N_SENSORS / batches[-1].stop
    return {
        layer: Cost(seconds=cost.seconds * scale, products=cost.products * scale)
        for layer, cost in read_costs(content, filters).items()
    }


def _list_cases(plan: Plan) -> Generator[tuple[Case, ...], None, None]:
    check_installed("onnx")
    import onnx

    n_images = _QUICK_IMAGES if plan.quick else N_SENSORS
    for family in plan.families:
        for precision in plan.precisions:
            graph = plan.workspace.find_graph(family, precision)
            filters = find_filters(onnx.load(graph.path))
            with use_one_core():
                plan.log(f"{family}, {precision}: finding the layers")
                layers = profile_event(graph, filters, _QUICK_IMAGES)
                profile = partial(_prepare_profile, graph, filters, n_images, tuple(layers))
                labels = family, precision
                cases = [Case(rows=tuple((*labels, *layer) for layer in layers), prepare=profile)]
                products = {layer: cost.products for layer, cost in layers.items() if cost.products}
                rows = tuple((*labels, *layer) for layer in products)
                if rows:
                    values = partial(prepare_constants, *products.values())
                    cases.append(Case(rows=rows, prepare=values, unit=PRODUCTS))
                cases += (
                    Case(rows=((*labels, _RATE_ROW, name),), prepare=partial(prepare_rate, name), unit=RATE)
                    for name in RATES[precision]
                )
                yield tuple(cases)


def _prepare_profile(
    graph: GraphFile, filters: Mapping[str, Sequence[int]], n_images: int, layers: Sequence[Layer]
) -> Run:
    def run() -> tuple[float, ...]:
        costs = profile_event(graph, filters, n_images)
        return tuple(costs[layer].seconds for layer in layers)

    return run


def _build_report_tables(plan: Plan, measurements: Sequence[Measurement]) -> tuple[Table, ...]:
    tables: tuple[Table, ...] = ()
    for family in plan.families:
        for precision in plan.precisions:
            own = [each for each in measurements if each.labels[:2] == (family, precision) and each.samples]
            seconds = {each.labels[2:]: each.median for each in own if each.unit == SECONDS}
            products = {each.labels[2:]: each.median for each in own if each.unit == PRODUCTS}
            rates = {each.labels[3]: max(each.samples) * 1e9 for each in own if each.unit == RATE}
            if not seconds or not rates:
                continue
            costs = {
                (operator, name): Cost(seconds=seconds[operator, name], products=products.get((operator, name), 0))
                for operator, name in seconds
            }
            tables += build_tables(f"{family}, {precision}", costs, rates)
    return tables


BENCHMARK: Final = Benchmark(
    name="profile",
    help="The time of an event by operator and by layer, beside its arithmetic floor.",
    columns=_COLUMNS,
    remarks=(
        "One event in our batches, one thread on one core, by ONNX Runtime's profiler, which adds to short nodes.",
        "The floor: multiply-accumulates at the largest rate that a matrix product or a convolution reached here.",
    ),
    cases=_list_cases,
    build_tables=_build_report_tables,
    takes_precision=True,
)
