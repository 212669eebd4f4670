"""From a PyTorch model to an ONNX graph, by PyTorch's own exporter."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import torch

from export.errors import GraphError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from export.families import Family
    from export.families.generator_module import GeneratorModule

__all__ = ["IR_VERSION", "OPSET", "OUTPUT_NAME", "export_to_onnx"]

OPSET: Final = 18
"""PyTorch's exporter writes it without a conversion, and ONNX Runtime reads it from 1.14 on."""
IR_VERSION: Final = 10
"""ONNX Runtime reads it from 1.18 on."""
OUTPUT_NAME: Final = "images"
_EXAMPLE_SENSORS: Final = range(2)
"""The exporter would take a batch of one for a constant."""


def export_to_onnx(model: GeneratorModule, family: Family) -> onnx.ModelProto:
    """Export a model with a dynamic batch.

    Parameters
    ----------
    model : GeneratorModule
        In inference mode.
    family : Family
        It declares the inputs.

    Returns
    -------
    onnx.ModelProto
        Inputs as the family declares them, output ``images`` float32 (n, 250, 768); checked by onnx.

    Raises
    ------
    GraphError
        If onnx finds the graph invalid.
    """
    zeros = {each.name: np.zeros(each.shape, np.float32) for each in family.draws}
    example = tuple(torch.from_numpy(each) for each in family.build_feed(zeros, _EXAMPLE_SENSORS).values())
    batch = torch.export.Dim("n")
    with _silence_exporter():
        program = torch.onnx.export(
            model,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=[each.name for each in family.inputs],
            output_names=[OUTPUT_NAME],
            # One entry: all inputs are one variadic argument of the module.
            dynamic_shapes=(tuple(None if each.role == "event_latent" else {0: batch} for each in family.inputs),),
            external_data=False,
            verbose=False,
        )
    if program is None:
        message = "PyTorch's exporter returned no graph."
        raise GraphError(message)
    graph = program.model_proto
    _remove_traces(graph)
    graph.ir_version = min(graph.ir_version, IR_VERSION)
    try:
        onnx.checker.check_model(graph, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        message = f"The exported graph is not valid ONNX: {error}"
        raise GraphError(message) from error
    return graph


@contextlib.contextmanager
def _silence_exporter() -> Iterator[None]:
    """Suppress the exporter's remarks on packages that are not needed, such as torchvision."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _remove_traces(graph: onnx.ModelProto) -> None:
    """Remove the exporter's stack traces, which hold paths of this machine."""
    graph.doc_string = ""
    del graph.metadata_props[:]
    main = graph.graph
    main.name = "generator"
    for annotated in (main, *main.node, *main.input, *main.output, *main.value_info, *main.initializer):
        annotated.doc_string = ""
        del annotated.metadata_props[:]
