"""Names of the payloads that hold generators."""

from __future__ import annotations

__all__ = ["checkpoint_payload_name", "graph_payload_name"]


def checkpoint_payload_name(family: str) -> str:
    """Name the payload that holds the checkpoint of a model.

    Examples
    --------
    >>> checkpoint_payload_name("resnet")
    'PXDBackgroundGenerator_resnet'
    """
    return f"PXDBackgroundGenerator_{family}"


def graph_payload_name(family: str) -> str:
    """Name the payload that holds the graph of a model, the one that the basf2 module asks for.

    Examples
    --------
    >>> graph_payload_name("resnet")
    'PXDBackgroundGenerator_resnet_onnx'
    """
    return f"{checkpoint_payload_name(family)}_onnx"
