"""``peers``: one event on one thread, ours beside the original, other runtimes, and the arithmetic floor."""

from __future__ import annotations

import importlib
import operator
import tomllib
from collections.abc import Callable, Generator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Final

from benchmarks.arithmetic_rates import INT8_GAIN, RATES, prepare_rate
from benchmarks.benchmark import Benchmark, Plan
from benchmarks.environment import check_installed, use_one_core
from benchmarks.events import (
    EVENT,
    PEER_BATCH_SIZE,
    draw_event,
    split_sensors,
    time_generator,
    time_graph,
    time_images,
)
from benchmarks.graphs import Workspace
from benchmarks.report import Bound, Claim, combine_rounds
from benchmarks.timing import Case, Measurement, Run, build_cases, find_measurement, time_run
from pxdbg_runtime.model.card import ModelCard, build_feed
from pxdbg_runtime.model.graph_file import GraphFile
from pxdbg_runtime.sensors import N_SENSORS

_BATCHES: Final = f"batches of {PEER_BATCH_SIZE}"
_ORIGINAL: Final = "the original: PyTorch eager, 40 images at once"
_PLAIN: Final = f"plain export, ONNX Runtime, {_BATCHES}"
_PLAIN_ALONE: Final = "plain export, ONNX Runtime, batches of 1"
_PLAIN_OPENVINO: Final = f"plain export, OpenVINO, {_BATCHES}"
_OPENVINO_INT8: Final = f"plain export, OpenVINO's own int8, {_BATCHES}"
_REWRITTEN_OPENVINO_INT8: Final = f"rewritten float32 graph, OpenVINO's own int8, {_BATCHES}"
_FLOAT32: Final = "ours, float32"
_INT8: Final = "ours, int8"
_FLOOR: Final = "float32 floor of the rewritten graph"
_INT8_FLOOR: Final = "int8 floor: a quarter of the float32 floor without shared terms"
_OPENVINO_OPTIONS: Final = {
    "INFERENCE_NUM_THREADS": "1",
    "NUM_STREAMS": "1",
    # On processors with bfloat16 the plugin would use it by default.
    "INFERENCE_PRECISION_HINT": "f32",
}

RATIOS: Final[tuple[tuple[str, str, str, Bound], ...]] = (
    ("float32, against the plain export on ONNX Runtime", _PLAIN, _FLOAT32, "at least"),
    ("float32, against the plain export on OpenVINO", _PLAIN_OPENVINO, _FLOAT32, "at least"),
    ("float32, against the original", _ORIGINAL, _FLOAT32, "at least"),
    ("int8, against the plain export on ONNX Runtime", _PLAIN, _INT8, "at least"),
    ("int8, against the original", _ORIGINAL, _INT8, "at least"),
    ("int8, against OpenVINO's own int8 of the plain export", _OPENVINO_INT8, _INT8, "at least"),
    ("int8, against OpenVINO's own int8 of the rewritten graph", _REWRITTEN_OPENVINO_INT8, _INT8, "at least"),
    ("float32, over the float32 floor of the rewritten graph", _FLOAT32, _FLOOR, "at most"),
    ("int8, over a quarter of the float32 floor", _INT8, _INT8_FLOOR, "at most"),
    ("float32, against the plain export on ONNX Runtime, batches of 1", _PLAIN_ALONE, _FLOAT32, "at least"),
    ("int8, against the plain export on ONNX Runtime, batches of 1", _PLAIN_ALONE, _INT8, "at least"),
)
"""Name of a ratio, rows of its numerator and denominator, and bound; speed_targets.toml holds the targets."""


@cache
def read_speed_targets() -> dict[str, dict[str, float]]:
    """Read the targets by family and name of the ratio."""
    return tomllib.loads(Path(__file__).with_name("speed_targets.toml").read_text(encoding="utf-8"))


def compare_ratios(family: str, measurements: Sequence[Measurement]) -> tuple[Claim, ...]:
    """Compare the ratios of a family with its targets; a ratio without a target is no claim."""
    targets = read_speed_targets().get(family, {})
    return tuple(
        Claim(
            model=family,
            what=what,
            bound=bound,
            target=targets[what],
            samples=combine_rounds(
                operator.truediv,
                find_measurement(measurements, family, numerator),
                find_measurement(measurements, family, denominator),
            ),
        )
        for what, numerator, denominator, bound in RATIOS
        if what in targets
    )


def _list_cases(plan: Plan) -> Generator[tuple[Case, ...], None, None]:
    workspace = plan.workspace
    groups = []
    for family in plan.families:
        plain = workspace.find_graph(family, rewrite=False)
        ours, int8 = workspace.find_graph(family), workspace.find_graph(family, "int8")
        preparations: dict[str, Callable[[], Run]] = {
            _ORIGINAL: partial(_prepare_original, workspace, family),
            f"PyTorch eager, {_BATCHES}": partial(_prepare_pytorch, workspace, family),
            f"torch.compile, {_BATCHES}": partial(_prepare_pytorch, workspace, family, is_compiled=True),
            _PLAIN: partial(time_graph, plain),
            _PLAIN_ALONE: partial(time_graph, plain, 1),
            _PLAIN_OPENVINO: partial(_prepare_openvino, plain),
            f"rewritten float32 graph, OpenVINO, {_BATCHES}": partial(_prepare_openvino, ours),
            _OPENVINO_INT8: partial(_prepare_openvino, plain, is_int8=True),
            _REWRITTEN_OPENVINO_INT8: partial(_prepare_openvino, ours, is_int8=True),
            _FLOAT32: partial(time_generator, ours),
            _INT8: partial(time_generator, int8),
        }
        floors = Case(rows=((family, _FLOOR), (family, _INT8_FLOOR)), prepare=partial(_prepare_floors, plain, ours))
        groups.append((*build_cases((family,), preparations), floors))
    with use_one_core():  # after the export, which uses all cores
        yield from groups


def _prepare_original(workspace: Workspace, family: str) -> Run:
    check_installed("torch")
    from benchmarks.pytorch_peers import generate_original_event
    from export.checkpoint import load_checkpoint

    model = load_checkpoint(workspace.find_checkpoint(family), family)
    # Each whole event allocates gigabytes of new pages, so a few images warm up all that stays warm.
    return time_run(
        lambda: generate_original_event(model, family),
        warm_up=lambda: generate_original_event(model, family, PEER_BATCH_SIZE),
    )


def _prepare_pytorch(workspace: Workspace, family: str, *, is_compiled: bool = False) -> Run:
    check_installed("torch")
    import torch

    from benchmarks.pytorch_peers import time_model
    from export.checkpoint import load_checkpoint

    model = load_checkpoint(workspace.find_checkpoint(family), family)
    card = workspace.find_graph(family, rewrite=False).card
    return time_model(torch.compile(model) if is_compiled else model, card)  # it compiles at the first call


def _prepare_openvino(graph: GraphFile, *, is_int8: bool = False) -> Run:
    check_installed("openvino")
    core = importlib.import_module("openvino").Core()
    model = core.read_model(str(graph.path))
    draws = draw_event(graph.card)
    first = build_feed(graph.card.inputs, draws, range(PEER_BATCH_SIZE))
    model.reshape({name: list(values.shape) for name, values in first.items()})
    if is_int8:
        model = _quantize_for_openvino(model, graph.card)
    request = core.compile_model(model, "CPU", _OPENVINO_OPTIONS).create_infer_request()
    return time_images(lambda sensors: request.infer(build_feed(graph.card.inputs, draws, sensors)))


def _quantize_for_openvino(model: object, card: ModelCard) -> object:
    """Let OpenVINO's own tool choose 8-bit integers, from the images of another event."""
    check_installed("nncf")
    nncf, passes = importlib.import_module("nncf"), importlib.import_module("openvino.passes")
    manager = passes.Manager()
    manager.register_pass(passes.ConstantFolding())  # nncf finds no weights that are computed
    manager.run_passes(model)
    draws = draw_event(card, EVENT + 1)
    feeds = [build_feed(card.inputs, draws, sensors) for sensors in split_sensors(PEER_BATCH_SIZE)]
    return nncf.quantize(model, nncf.Dataset(feeds), subset_size=len(feeds))


def _prepare_floors(plain: GraphFile, ours: GraphFile) -> Run:
    import onnx

    from export.graph import apply_passes, count_multiply_accumulates, list_passes
    from export.graph.compiler import SHARED_TERMS

    # int8 graphs have no shared terms.
    apart = [each for each in list_passes("cpu") if each.name != SHARED_TERMS]
    graphs = onnx.load(ours.path), apply_passes(onnx.load(plain.path), apart)[0]
    n_products, n_int8_products = (N_SENSORS * count_multiply_accumulates(each) for each in graphs)
    if not n_products:
        message = "the graph has no multiply-accumulates"
        raise RuntimeError(message)
    rates = [prepare_rate(name) for name in RATES["float32"]]

    def run() -> tuple[float, ...]:
        per_second = 1e9 * max(rate()[0] for rate in rates)
        return n_products / per_second, n_int8_products / (INT8_GAIN * per_second)

    return run


def _find_claims(plan: Plan, measurements: Sequence[Measurement]) -> tuple[Claim, ...]:
    return tuple(claim for family in plan.families for claim in compare_ratios(family, measurements))


BENCHMARK: Final = Benchmark(
    name="peers",
    help="Ours on one thread, beside the original, other runtimes and the floor.",
    columns=("model", "what"),
    remarks=(
        "One event, 40 images, one thread, the process bound to one core where the system allows it.",
        "The original takes up to 5 GB of memory.",
        "Ours and the original go from the seed to the digits.",
        "The other peers compute the images only, from the same latents.",
        "The floor: multiply-accumulates of the rewritten graph, at the largest rate of BLAS or ONNX Runtime.",
        "Int8 graphs have no shared terms of phases, so their floor counts the products without them.",
    ),
    cases=_list_cases,
    title="Seconds an event, one thread",
    claim_title="Ratios, round by round",
    find_claims=_find_claims,
)
