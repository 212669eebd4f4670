"""From a checkpoint file to a model with its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from export.checkpoint.archives import read_archive
from export.checkpoint.state_dicts import COUNTERS, TOP, Layout, find_state_dict
from export.checkpoint.weights import check_weight
from export.families import FAMILIES, load_family

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from export.families.generator_module import GeneratorModule

__all__ = ["load_checkpoint"]


def load_checkpoint(
    path: Path, family: str, *, state_key: str | None = None, log: Callable[[str], None] = lambda _: None
) -> GeneratorModule:
    """Read a checkpoint into its model, ready for inference.

    Parameters
    ----------
    path : Path
        A file of ``torch.save`` (zip or legacy) or of safetensors. The weights may lie anywhere in it.
    family : str
        ``convnet`` or ``resnet``.
    state_key : str, optional
        Which of several state dicts to take: its path in the checkpoint, such as ``g_ema`` or ``ema.shadow``.
    log : callable, optional
        Called with a line where the weights lie and what was folded into them, unless they lie plainly at the top.

    Returns
    -------
    GeneratorModule
        In inference mode, float32, with weights loaded strictly.

    Raises
    ------
    CheckpointError
        If the file cannot be read or holds no sound state dict of this model, or several.
    """
    model = load_family(family).module_class()
    archive = read_archive(path)
    layout = _layout(model, family)
    others = (_layout(_outline(name), name) for name in FAMILIES if name != family)
    found = find_state_dict(path, archive, layout, others, state_key=state_key)
    ready = {key: check_weight(path, key, found.weights[key], shape) for key, shape in layout.shapes.items()}
    if found.path != TOP:
        log(f"took the state dict at {found.path}")
    n_folded = sum(weight.is_normed for weight in found.weights.values())
    if n_folded:
        log(f"folded spectral or weight norm into {n_folded} weights")
    ready |= {key: torch.tensor(0) for key in model.state_dict().keys() - ready.keys()}  # training counters
    model.load_state_dict(ready, strict=True)
    return model.eval()


def _outline(family: str) -> GeneratorModule:
    """Make a model without values, which takes no time."""
    with torch.device("meta"):
        return load_family(family).module_class()


def _layout(model: GeneratorModule, family: str) -> Layout:
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items() if not key.endswith(COUNTERS)}
    return Layout(family=family, shapes=shapes)
