"""The table of the passes over a graph, which an export prints if it is asked to."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from onnx import TensorProto, helper

from export.graph import list_passes
from export.precisions import print_pass_costs
from tests.tiny_models import TinyConvNet, TinyResNet, tiny_of

if TYPE_CHECKING:
    from pathlib import Path

    from pxdbg_runtime.model.card import Target


@pytest.mark.parametrize("target", ["cpu", "cuda"])
@pytest.mark.parametrize("family", ["convnet", "resnet"])
def test_every_pass_is_explained(family: str, target: Target) -> None:
    tiny = tiny_of(TinyConvNet, 1) if family == "convnet" else tiny_of(TinyResNet, 2)
    lines: list[str] = []
    print_pass_costs(tiny.plain, list_passes(target), lines.append)
    assert lines[0].split("  ")[0] == "pass"
    assert [line[:30].rstrip() for line in lines[1:]] == ["plain", *(each.name for each in list_passes(target))]
    rows = [
        re.fullmatch(r".{30} +(-|\d+) +([\d,]+) M( \([+-]\d+\.\d%\))? +([\d,]+) MB +\d+\.\d MB", line)
        for line in lines[1:]
    ]
    assert all(rows)
    before: str | None = None
    for row in rows:
        assert row is not None
        # A change is lines where there is one; where no place has changed there is none.
        assert row[3] is None or (row[1] != "-" and before is not None)
        assert row[1] != "-" or before in (None, row[2])
        before = row[2]


def test_a_pass_of_unknown_cost_is_explained_too() -> None:
    shape = helper.make_tensor_value_info("shape", TensorProto.INT64, ["axes"])
    image, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("image", "out"))
    nodes = [helper.make_node("Expand", ["image", "shape"], ["wide"]), helper.make_node("Relu", ["wide"], ["out"])]
    plain = helper.make_model(helper.make_graph(nodes, "g", [image, shape], [out]))
    lines: list[str] = []
    print_pass_costs(plain, list_passes("cpu")[:1], lines.append)
    assert [" ".join(line.split()) for line in lines[1:]] == [
        f"{name} - unknown, since the shape of wide is unknown" for name in ("plain", "merge conditional norms")
    ]


@pytest.mark.parametrize("explain", [False, True])
def test_passes_are_explained_only_if_that_is_wanted(tmp_path: Path, explain: bool) -> None:
    lines: list[str] = []
    tiny_of(TinyConvNet, 1).export(tmp_path, explain=explain, log=lines.append)
    named = [each.name for each in list_passes("cpu") if any(line.startswith(each.name) for line in lines)]
    assert named == ([each.name for each in list_passes("cpu")] if explain else [])
