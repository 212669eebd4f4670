"""``passes``: the gain of each pass of the graph compiler, one by one."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.benchmark import Benchmark, Plan
from benchmarks.environment import check_installed
from benchmarks.events import PEER_BATCH_SIZE, time_graph
from benchmarks.report import Table, describe_absence, format_figures, format_spread
from benchmarks.timing import SECONDS, Case, Measurement, Run, prepare_constants
from pxdbg_runtime.model.graph_file import GraphFile, append_card, read_graph_file

_PRODUCTS: Final = "multiply-accumulates"


def build_gain_table(family: str, measurements: Sequence[Measurement]) -> Table:
    """Build the table of a family: products of an image, seconds of an event, and the ratio to the pass before."""
    own = [each for each in measurements if each.labels[0] == family]
    products = {each.labels: each for each in own if each.unit == _PRODUCTS}
    rows = []
    before: Measurement | None = None
    for seconds in (each for each in own if each.unit == SECONDS):
        n_products = format_figures(products[seconds.labels].median / 1e9)
        name = seconds.labels[-1]
        if not seconds.samples:
            rows.append((name, n_products, describe_absence(seconds), "", ""))
            continue
        gain = "" if before is None else f"{before.median / seconds.median:.2f}"
        rows.append((name, n_products, format_figures(seconds.median), format_spread(seconds.samples), gain))
        before = seconds
    columns = ("pass", "10^9 products an image", "s/event", "min to max", "times faster")
    return Table(title=family, columns=columns, rows=tuple(rows))


def _list_cases(plan: Plan) -> Generator[tuple[Case, ...], None, None]:
    """Write the graph after each pass; yield the cases of its time and of its number of products."""
    check_installed("onnx")
    import onnx

    from export.graph import count_multiply_accumulates, list_passes, run_passes

    for family in plan.families:
        plain = plan.workspace.find_graph(family, rewrite=False)
        model = onnx.load(plain.path)
        del model.metadata_props[:]  # the card and the digest of the plain file
        times, products = [], []
        with tempfile.TemporaryDirectory() as folder:
            for number, stage in enumerate(run_passes(model, list_passes("cpu"))):
                path = Path(folder) / f"{family}-{number}.onnx"
                path.write_bytes(append_card(stage.model.SerializeToString(), plain.card))
                rows = ((family, stage.name),)
                n_products = float(count_multiply_accumulates(stage.model))
                times.append(Case(rows=rows, prepare=partial(_prepare, read_graph_file(path))))
                products.append(Case(rows=rows, prepare=partial(prepare_constants, n_products), unit=_PRODUCTS))
            yield (*times, *products)


def _prepare(graph: GraphFile) -> Run:
    def run() -> tuple[float, ...]:
        # A new session in each round: kept, the sessions of all passes would take too much memory.
        return time_graph(graph)()

    return run


def _build_tables(plan: Plan, measurements: Sequence[Measurement]) -> tuple[Table, ...]:
    return tuple(build_gain_table(family, measurements) for family in plan.families)


BENCHMARK: Final = Benchmark(
    name="passes",
    help="The gain of each pass of the graph compiler.",
    columns=("model", "pass"),
    remarks=(
        "The graph after each pass computes the images of one event.",
        f"ONNX Runtime, batches of {PEER_BATCH_SIZE}, one thread.",
    ),
    cases=_list_cases,
    build_tables=_build_tables,
)
