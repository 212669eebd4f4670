"""The weights of a state dict: shapes, types and values that inference can use, or one sentence says why not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from export.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from export.checkpoint.norms import Weight

__all__ = ["check_weight"]

_FLOATS: Final = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def check_weight(path: Path, key: str, weight: Weight, shape: tuple[int, ...]) -> Tensor:
    """Fold a weight's norms and return it as float32.

    Raises
    ------
    CheckpointError
        If its shape or type is another one, its parts do not fit each other, or a value is not finite in float32.
    """
    found = tuple(weight.tensor.shape)
    if found != shape:
        raise CheckpointError(path, f"holds {key} of shape {found}: expected {shape}.")
    for part in weight.parts:
        _check_type(path, key, part)
    try:
        value = weight.fold().detach()
    except ValueError as error:
        raise CheckpointError(path, f"holds {key} with {error}.") from None
    plain = value.to(torch.float32).contiguous()
    bad = ~torch.isfinite(plain)
    if bad.any():
        first = value[bad].flatten()[0].item()
        folded = " once its norm is folded" if weight.is_normed else ""
        raise CheckpointError(path, f"holds {first} in {key}{folded}: every value must be finite in float32.")
    if key.endswith("running_var") and (plain < 0).any():
        raise CheckpointError(path, f"holds a negative running variance, {plain.min().item()}, in {key}.")
    return plain


def _check_type(path: Path, key: str, part: Tensor) -> None:
    if part.dtype not in _FLOATS or part.layout != torch.strided:
        kind = str(part.dtype).removeprefix("torch.")
        layout = "" if part.layout == torch.strided else f" ({part.layout})"
        message = f"holds {key} as {kind}{layout}: expected dense float32, float16, bfloat16 or float64."
        raise CheckpointError(path, message)
    if part.is_meta:
        raise CheckpointError(path, f"holds {key} without its values (a meta tensor).")
