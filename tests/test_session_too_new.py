"""Graphs that are newer than the installed ONNX Runtime: the message says so, with the releases."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import onnxruntime
import pytest
from msgspec import structs

from pxdbg_runtime.errors import InferenceError
from pxdbg_runtime.inference.providers import CPU
from pxdbg_runtime.inference.session import ImageSession
from pxdbg_runtime.model.card import PackageVersion
from tests.graphs import LATENT_CARD, latent_model, write_graph

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("ir_version", "opset", "domain", "found"),
    [
        (99, 17, "", r"Unsupported model IR version: 99, max supported IR version: \d+"),
        (8, 400, "", "Opset 400 is under development"),
        (8, 99, "com.microsoft", "Opset 99 is under development"),
    ],
)
def test_a_graph_that_is_newer_than_onnx_runtime_says_to_upgrade(
    ir_version: int, opset: int, domain: str, found: str, tmp_path: Path
) -> None:
    model = latent_model()
    model.ir_version = ir_version
    if domain:
        model.opset_import.add(domain=domain)
    model.opset_import[-1].version = opset
    made_with = (
        PackageVersion(package="onnx", version="99.0"),
        PackageVersion(package="onnxruntime", version="99.9.1"),
    )
    card = structs.replace(LATENT_CARD, made_with=made_with)
    release = re.escape(onnxruntime.__version__)
    message = (
        rf"created no session for .*new\.onnx on {CPU}: it needs a newer ONNX Runtime than the installed "
        rf"{release} \({found}\): "
        r"it was exported with 99\.9\.1; upgrade: pip install -U onnxruntime\.$"
    )
    with pytest.raises(InferenceError, match=message):
        ImageSession(write_graph(tmp_path / "new.onnx", model, card), provider="cpu")
    with pytest.raises(InferenceError, match=rf"\({found}\): upgrade: pip install -U onnxruntime\.$"):
        ImageSession(write_graph(tmp_path / "unknown.onnx", model, LATENT_CARD), provider="cpu")


@pytest.mark.parametrize(
    ("exported_with", "message"),
    [
        (
            "99.0.0",
            r"than the installed .* \(No Op registered for NoSuchOperator\): it was exported with 99\.0\.0; upgrade",
        ),
        ("1.21.0", r"created no session for .*: \[ONNXRuntimeError\].*No Op registered for NoSuchOperator"),
    ],
)
def test_an_operator_that_is_not_known_is_newer_if_the_graph_is(
    exported_with: str, message: str, tmp_path: Path
) -> None:
    model = latent_model()
    model.graph.node[0].op_type = "NoSuchOperator"
    card = structs.replace(LATENT_CARD, made_with=(PackageVersion(package="onnxruntime", version=exported_with),))
    with pytest.raises(InferenceError, match=message):
        ImageSession(write_graph(tmp_path / "new.onnx", model, card), provider="cpu")
