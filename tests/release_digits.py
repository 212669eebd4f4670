"""``python -m tests.release_digits``: compare the built-in graphs' digits of two releases of ONNX Runtime.

`make runtime-matrix` runs it with the installed release, then with older ones.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime
from typer.testing import CliRunner

from pxdbg_runtime import Digits, Generator
from pxdbg_runtime.command_line import app
from pxdbg_runtime.inference.cpu import detect_cpu
from pxdbg_runtime.model.builtin_models import find_artifacts_folder, read_manifest
from pxdbg_runtime.model.graph_file import CARD_KEY, DIGEST_KEY, append_card, read_graph_file
from tests.old_fused_sums import fuse_sums

SEED: Final = 7
MIN_SAME_SHARE: Final = 0.9999
LAST_WRONG_RELEASE: Final = (1, 26)
"""The last release that computes sums fused into convolutions wrongly on CPUs with AVX2 or AVX-512."""


def release() -> tuple[int, int]:
    """Return the first two numbers of ONNX Runtime's version."""
    major, minor = onnxruntime.__version__.split(".")[:2]
    return int(major), int(minor)


def compare(name: str, precision: str, found: Digits, expected: Digits) -> bool:
    """Print the number of identical digits; return whether it is enough."""
    tables = [digits.to_structured() for digits in (found, expected)]
    cells = [table[["event", "sensor_id", "u_cell", "v_cell"]] for table in tables]
    _, first, second = np.intersect1d(cells[0], cells[1], assume_unique=True, return_indices=True)
    difference = np.abs(tables[0]["charge"][first].astype(int) - tables[1]["charge"][second].astype(int))
    n_same, n_either = int((difference == 0).sum()), len(tables[0]) + len(tables[1]) - len(first)
    lone = [np.delete(table["charge"], rows) for table, rows in zip(tables, (first, second), strict=True)]
    # A digit that only one release has is one ADU below the read-out threshold in the other.
    worst = max([int(difference.max(initial=0)), *(int(each.max(initial=0)) - 6 for each in lone)])
    is_good = n_same == n_either if precision == "int8" else n_same >= MIN_SAME_SHARE * n_either and worst <= 1
    print(f"{name} {precision}: {n_same:,} of {n_either:,} digits the same, none off by more than {worst} ADU")  # noqa: T201
    return is_good


def compare_builtin(output: Path, reference: Path | None, n_events: int) -> bool:
    """Generate events of each built-in graph, save them, and compare them with those of a reference."""
    output.mkdir(parents=True, exist_ok=True)
    is_good = True
    for listed in read_manifest():
        generator = Generator(listed.name, precision=listed.precision, provider="cpu", seed=SEED, nintra=2)
        digits = Digits.concatenate(generator.stream(range(n_events)))
        file = f"{listed.name}-{listed.precision}.npy"
        np.save(output / file, digits.to_structured())
        if reference is not None:
            table = np.load(reference / file)
            expected = Digits(**{name: np.ascontiguousarray(table[name]) for name in table.dtype.names})
            is_good &= compare(listed.name, listed.precision, digits, expected)
    return is_good


def check_commands() -> bool:
    """Run ``pxdbg check`` on the built-in graphs, which must pass, and on a graph that old releases compute wrongly."""
    passed = CliRunner().invoke(app, ["check"])
    print(passed.output)  # noqa: T201
    is_wrong = release() <= LAST_WRONG_RELEASE and "avx2" in detect_cpu().features
    path = find_artifacts_folder() / "resnet-float32.onnx"
    model = onnx.load(path)
    for entry in list(model.metadata_props):
        if entry.key in (CARD_KEY, DIGEST_KEY):
            model.metadata_props.remove(entry)
    with tempfile.TemporaryDirectory() as folder:
        fused = Path(folder) / "fused-sums.onnx"
        fused.write_bytes(append_card(fuse_sums(model).SerializeToString(), read_graph_file(path).card))
        found = CliRunner().invoke(app, ["check", str(fused)])
    print(found.output)  # noqa: T201
    message = f"onnxruntime {onnxruntime.__version__} computes the float32 graph {fused} wrongly on this machine"
    is_noticed = (found.exit_code, message in found.output) == ((1, True) if is_wrong else (0, False))
    if not is_noticed:
        print(f"the graph with fused sums should {'fail' if is_wrong else 'pass'} here")  # noqa: T201
    return passed.exit_code == 0 and is_noticed


def main() -> None:
    """Read the arguments; the exit code is 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for this release's digits")
    parser.add_argument("--reference", type=Path, help="folder of another release's digits to compare with")
    parser.add_argument("--events", type=int, default=5)
    arguments = parser.parse_args()
    print(f"ONNX Runtime {onnxruntime.__version__}")  # noqa: T201
    is_good = compare_builtin(arguments.output, arguments.reference, arguments.events)
    is_good &= check_commands()
    sys.exit(not is_good)


if __name__ == "__main__":
    main()
