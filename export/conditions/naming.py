"""Names of the payloads that hold generators, and their places in a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["checkpoint_payload_name", "graph_payload_name", "payload_path"]


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


def payload_path(folder: Path, name: str, revision: int, md5: str) -> Path:
    """Give the place of a payload in a cache.

    Examples
    --------
    >>> from pathlib import Path
    >>> payload_path(Path("cache"), "PXDBackgroundGenerator_resnet", 3, "c0ffee" + 26 * "0").as_posix()
    'cache/c0/PXDBackgroundGenerator_resnet_r3.root'
    """
    return folder / md5[:2] / f"{name}_r{revision}.root"
