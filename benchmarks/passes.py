"""``passes``: what each pass of the graph compiler gained, one by one."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.environment import check_installed, describe_environment
from benchmarks.events import PEER_BATCH_SIZE, session_run
from benchmarks.report import Report, Table, figures, missing, spread
from benchmarks.timing import Case, Measurement, Run, interleaved
from pxdbg_runtime.model.graph_file import append_card, read_graph_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.plan import Plan
    from pxdbg_runtime.model.graph_file import GraphFile

__all__ = ["gain_table", "measure"]

_COLUMNS: Final = ("model", "pass")
_PRODUCTS: Final = "multiply-accumulates"
_REMARK: Final = (
    f"The images of one event on ONNX Runtime, batches of {PEER_BATCH_SIZE}, one thread, with the graph as it is after "
    "each pass."
)


def measure(plan: Plan) -> Report:
    """Measure the graphs after each pass, one model after the other, all graphs of a model interleaved."""
    environment = describe_environment()
    measurements: tuple[Measurement, ...] = ()
    tables: tuple[Table, ...] = ()
    for family in plan.families:
        with tempfile.TemporaryDirectory() as folder:
            cases, products = _cases(plan, family, Path(folder))
            seconds = interleaved(cases, plan.rounds, plan.log)
        measurements += (*seconds, *products)
        tables += (gain_table(family, seconds, products),)
    return Report(
        command="passes",
        environment=environment,
        remarks=(*plan.workspace.remarks(plan.families), _REMARK),
        columns=_COLUMNS,
        measurements=measurements,
        tables=tables,
    )


def gain_table(title: str, seconds: Sequence[Measurement], products: Sequence[Measurement]) -> Table:
    """Make the table of passes: products of an image, seconds of an event, and how many times faster than before.

    Parameters
    ----------
    title : str
    seconds, products : sequence of Measurement
        One a pass each, in the order of the passes.
    """
    rows = []
    before: Measurement | None = None
    for timed, counted in zip(seconds, products, strict=True):
        gain = "" if before is None or not timed.samples else f"{before.median / timed.median:.2f}"
        median = figures(timed.median) if timed.samples else missing(timed)
        rows.append((timed.labels[-1], figures(counted.median / 1e9), median, spread(timed.samples), gain))
        before = timed if timed.samples else before
    columns = ("pass", "10^9 products an image", "s/event", "min to max", "times faster")
    return Table(title=title, columns=columns, rows=tuple(rows))


def _cases(plan: Plan, family: str, folder: Path) -> tuple[tuple[Case, ...], tuple[Measurement, ...]]:
    """Write the graph after each pass, make its case and count its products."""
    check_installed("onnx")
    import onnx

    from export.graph import count_multiply_accumulates, run_passes

    plain = plan.workspace.graph(family, rewrite=False)
    model = onnx.load(plain.path)
    del model.metadata_props[:]  # the card and the digest of the plain file
    cases, products = [], []
    for number, stage in enumerate(run_passes(model, "cpu")):
        path = folder / f"{family}-{number}.onnx"
        path.write_bytes(append_card(stage.model.SerializeToString(), plain.card))
        labels = (family, stage.name)
        cases.append(Case(rows=(labels,), prepare=functools.partial(_prepared, read_graph_file(path))))
        n_products = float(count_multiply_accumulates(stage.model))
        products.append(Measurement(labels=labels, unit=_PRODUCTS, samples=(n_products,)))
    return tuple(cases), tuple(products)


def _prepared(graph: GraphFile) -> Run:
    from pxdbg_runtime.inference.session import ImageSession

    def run() -> tuple[float, ...]:
        # A session for each round: kept, each would hold on to its memory.
        return session_run(ImageSession(graph, provider="cpu"), graph.card)()

    return run
