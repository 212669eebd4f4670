"""From a PyTorch model to an ONNX graph: PyTorch's own exporter, and nothing of this machine left inside."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING, Final

import onnx
import torch

from export.errors import GraphError
from export.families import LATENT_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from export.families import GeneratorModule

__all__ = ["INPUT_NAME", "OPSET", "OUTPUT_NAME", "to_onnx"]

OPSET: Final = 18
"""What the exporter writes without converting, and ONNX Runtime reads from 1.14 on."""
INPUT_NAME: Final = "latent"
OUTPUT_NAME: Final = "images"


def to_onnx(model: GeneratorModule) -> onnx.ModelProto:
    """Export a model with a dynamic batch.

    Parameters
    ----------
    model : GeneratorModule
        In inference mode.

    Returns
    -------
    onnx.ModelProto
        Input ``latent`` float32 (n, 96), output ``images`` float32 (n, 250, 768); checked by onnx.

    Raises
    ------
    GraphError
        If onnx finds fault with the graph.
    """
    example = (torch.zeros(2, LATENT_SIZE),)  # two rows: the exporter would take one for a constant
    with _quiet():
        program = torch.onnx.export(
            model,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_shapes=({0: torch.export.Dim("n")},),
            external_data=False,
            verbose=False,
        )
    if program is None:
        message = "PyTorch's exporter gave no graph."
        raise GraphError(message)
    graph = program.model_proto
    _anonymise(graph)
    try:
        onnx.checker.check_model(graph, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        message = f"The exported graph is not valid ONNX: {error}"
        raise GraphError(message) from error
    return graph


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks on packages that are not needed, such as torchvision, to itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _anonymise(graph: onnx.ModelProto) -> None:
    """Remove what the exporter notes of the source it read: stack traces with the paths of this machine."""
    graph.doc_string = ""
    del graph.metadata_props[:]
    main = graph.graph
    main.name = "generator"
    for annotated in (main, *main.node, *main.input, *main.output, *main.value_info, *main.initializer):
        annotated.doc_string = ""
        del annotated.metadata_props[:]
