"""``peers``: one event on one thread, ours beside the original and other runtimes, and beside the floor of the work."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.claims import Claim, ratio
from benchmarks.environment import check_installed, describe_environment, one_core
from benchmarks.events import EVENT, PEER_BATCH_SIZE, SEED, session_run
from benchmarks.graphs import CPU_PRECISIONS
from benchmarks.openvino_peer import openvino_run
from benchmarks.report import Report, claim_table, measurement_table
from benchmarks.timing import Case, Measurement, Run, chosen, interleaved, timed
from pxdbg_runtime import Generator
from pxdbg_runtime.sensors import N_SENSORS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.claims import Bound
    from benchmarks.graphs import Workspace
    from benchmarks.plan import Plan
    from pxdbg_runtime.model.card import Precision
    from pxdbg_runtime.model.graph_file import GraphFile

__all__ = ["TARGETS", "RatioTarget", "claims_of", "measure"]

_COLUMNS: Final = ("model", "what")
_ORIGINAL: Final = "the original: PyTorch eager, 40 images at once"
_EAGER: Final = f"PyTorch eager, batches of {PEER_BATCH_SIZE}"
_COMPILED: Final = f"torch.compile, batches of {PEER_BATCH_SIZE}"
_PLAIN: Final = f"plain export, ONNX Runtime, batches of {PEER_BATCH_SIZE}"
_PLAIN_OPENVINO: Final = f"plain export, OpenVINO, batches of {PEER_BATCH_SIZE}"
_REWRITTEN_OPENVINO: Final = f"rewritten float32 graph, OpenVINO, batches of {PEER_BATCH_SIZE}"
_FLOOR: Final = "float32 floor of the rewritten graph"
_REMARKS: Final = (
    "One event, 40 images, one thread, the process bound to one core where the system allows it.",
    "Ours and the original go from the seed to the digits.",
    "The other peers compute the images alone, of the same latents.",
    "The floor: multiply-accumulates of the rewritten graph, at the rate of a large float32 matrix product.",
)


def _ours(precision: Precision) -> str:
    return f"ours, {precision}"


@dataclass(frozen=True, kw_only=True)
class RatioTarget:
    """A ratio of two rows that is to be reached.

    Attributes
    ----------
    what : str
    numerator, denominator : str
        Rows of the table.
    bound : {"at least", "at most"}
    resnet, convnet : float
    """

    what: str
    numerator: str
    denominator: str
    bound: Bound
    resnet: float
    convnet: float

    def value(self, family: str) -> float:
        """Give the target of a family."""
        return {"resnet": self.resnet, "convnet": self.convnet}[family]


TARGETS: Final = (
    RatioTarget(
        what="float32, against the plain export on ONNX Runtime",
        numerator=_PLAIN,
        denominator=_ours("float32"),
        bound="at least",
        resnet=1.45,
        convnet=2.6,
    ),
    RatioTarget(
        what="float32, against the plain export on OpenVINO",
        numerator=_PLAIN_OPENVINO,
        denominator=_ours("float32"),
        bound="at least",
        resnet=1.3,
        convnet=2.3,
    ),
    RatioTarget(
        what="float32, against the original",
        numerator=_ORIGINAL,
        denominator=_ours("float32"),
        bound="at least",
        resnet=4.5,
        convnet=4.5,
    ),
    RatioTarget(
        what="int8, against the plain export on ONNX Runtime",
        numerator=_PLAIN,
        denominator=_ours("int8"),
        bound="at least",
        resnet=3.8,
        convnet=9.5,
    ),
    RatioTarget(
        what="int8, against the original",
        numerator=_ORIGINAL,
        denominator=_ours("int8"),
        bound="at least",
        resnet=12,
        convnet=15,
    ),
    RatioTarget(
        what="float32, over the float32 floor of the rewritten graph",
        numerator=_ours("float32"),
        denominator=_FLOOR,
        bound="at most",
        resnet=1.6,
        convnet=1.3,
    ),
)


def measure(plan: Plan) -> Report:
    """Measure every way to an event, one model after the other, all ways of a model interleaved."""
    environment = describe_environment()
    measurements: tuple[Measurement, ...] = ()
    for family in plan.families:
        _make_graphs(plan.workspace, family)
    with one_core():
        for family in plan.families:
            measurements += interleaved(_cases(plan.workspace, family), plan.rounds, plan.log)
    claims = tuple(claim for family in plan.families for claim in claims_of(family, measurements))
    return Report(
        command="peers",
        environment=environment,
        remarks=(*plan.workspace.remarks(plan.families), *_REMARKS),
        columns=_COLUMNS,
        measurements=measurements,
        claims=claims,
        tables=(
            measurement_table("Seconds an event, one thread", _COLUMNS, measurements),
            claim_table("Ratios, round by round", claims),
        ),
    )


def claims_of(family: str, measurements: Sequence[Measurement]) -> tuple[Claim, ...]:
    """Compare the measurements of a family with its targets.

    Parameters
    ----------
    family : {"resnet", "convnet"}
    measurements : sequence of Measurement
        With a row for everything that the targets name.
    """
    return tuple(
        Claim(
            model=family,
            what=target.what,
            bound=target.bound,
            target=target.value(family),
            samples=ratio(
                chosen(measurements, family, target.numerator),
                chosen(measurements, family, target.denominator),
            ),
        )
        for target in TARGETS
    )


def _make_graphs(workspace: Workspace, family: str) -> None:
    """Make what is to be measured beforehand, with all cores."""
    workspace.graph(family, rewrite=False)
    for precision in CPU_PRECISIONS:
        workspace.graph(family, precision)


def _cases(workspace: Workspace, family: str) -> tuple[Case, ...]:
    def plain() -> GraphFile:
        return workspace.graph(family, rewrite=False)

    def rewritten() -> GraphFile:
        return workspace.graph(family)

    preparations: dict[str, Callable[[], Run]] = {
        _ORIGINAL: lambda: _original(workspace, family),
        _EAGER: lambda: _in_pytorch(workspace, family, is_compiled=False),
        _COMPILED: lambda: _in_pytorch(workspace, family, is_compiled=True),
        _PLAIN: lambda: _in_onnxruntime(plain()),
        _PLAIN_OPENVINO: lambda: openvino_run(plain()),
        _REWRITTEN_OPENVINO: lambda: openvino_run(rewritten()),
    }
    ours = tuple(
        Case(rows=((family, _ours(precision)),), prepare=_ours_prepared(workspace, family, precision))
        for precision in CPU_PRECISIONS
    )
    peers = tuple(Case(rows=((family, what),), prepare=prepare) for what, prepare in preparations.items())
    return (*peers, *ours, Case(rows=((family, _FLOOR),), prepare=lambda: _floor(rewritten())))


def _ours_prepared(workspace: Workspace, family: str, precision: Precision) -> Callable[[], Run]:
    def prepare() -> Run:
        graph = workspace.graph(family, precision)
        generator = Generator(graph.path, provider="cpu", seed=SEED)
        return timed(lambda: generator.generate(EVENT))

    return prepare


def _original(workspace: Workspace, family: str) -> Run:
    check_installed("torch")
    from benchmarks.pytorch_peers import original_event
    from export.checkpoint import load_checkpoint

    model = load_checkpoint(workspace.checkpoint(family), family)
    # A whole event takes fresh pages for gigabytes every time, so a few images warm up all that stays warm.
    return timed(lambda: original_event(model), warm_up=lambda: original_event(model, PEER_BATCH_SIZE))


def _in_pytorch(workspace: Workspace, family: str, *, is_compiled: bool) -> Run:
    check_installed("torch")
    from benchmarks.pytorch_peers import compiled_model, model_run
    from export.checkpoint import load_checkpoint

    make = compiled_model if is_compiled else load_checkpoint
    model = make(workspace.checkpoint(family), family)
    return model_run(model, workspace.graph(family, rewrite=False).card)


def _in_onnxruntime(graph: GraphFile) -> Run:
    from pxdbg_runtime.inference.session import ImageSession

    return session_run(ImageSession(graph, provider="cpu"), graph.card)


def _floor(graph: GraphFile) -> Run:
    check_installed("torch")
    import onnx

    from benchmarks.pytorch_peers import matrix_product_rate
    from export.graph import count_multiply_accumulates

    n_products = N_SENSORS * count_multiply_accumulates(onnx.load(graph.path))
    matrix_product_rate(time.perf_counter)
    return lambda: (n_products / matrix_product_rate(time.perf_counter),)
