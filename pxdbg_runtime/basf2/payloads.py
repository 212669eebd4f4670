"""Names of the payloads that hold generators in the conditions database, and their paths in a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["checkpoint_payload_name", "graph_payload_name", "payload_path"]


def checkpoint_payload_name(family: str) -> str:
    """Name the payload that holds the checkpoint of a family.

    Examples
    --------
    >>> checkpoint_payload_name("resnet")
    'PXDBackgroundGenerator_resnet'
    """
    return f"PXDBackgroundGenerator_{family}"


def graph_payload_name(family: str) -> str:
    """Name the payload that holds the graph of a family, which the basf2 module reads.

    Examples
    --------
    >>> graph_payload_name("resnet")
    'PXDBackgroundGenerator_resnet_onnx'
    """
    return f"{checkpoint_payload_name(family)}_onnx"


def payload_path(folder: Path, name: str, revision: int, md5: str) -> Path:
    """Build the path of a payload in a cache, in the layout of basf2.

    Examples
    --------
    >>> from pathlib import Path
    >>> payload_path(Path("cache"), "PXDBackgroundGenerator_resnet", 3, "c0ffee" + 26 * "0").as_posix()
    'cache/c0/PXDBackgroundGenerator_resnet_r3.root'
    """
    return folder / md5[:2] / f"{name}_r{revision}.root"
