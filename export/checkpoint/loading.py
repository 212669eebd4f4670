"""Load a checkpoint file into the model of its family."""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING, Final

import torch

from export.checkpoint.archives import read_archive
from export.checkpoint.state_dicts import RECORDS, TOP, Layout, find_state_dict
from export.errors import CheckpointError
from export.families import FAMILIES, load_family
from export.families.generator_module import GeneratorModule

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from export.checkpoint.norms import Weight

__all__ = ["load_checkpoint", "load_with_path"]

_VARIANCES: Final = ("running_var", "stored_var")
_SINGLE_NUMBERS: Final[set[tuple[int, ...]]] = {(), (1,)}
"""A single number may be stored in either shape."""
_FLOATS: Final = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def load_checkpoint(
    path: Path, family: str, *, state_key: str | None = None, log: Callable[[str], None] = lambda _: None
) -> GeneratorModule:
    """Load a checkpoint into the model of its family, ready for inference.

    Parameters
    ----------
    path : Path
        A file of ``torch.save`` (zip or legacy) or of safetensors. The weights may be anywhere in it.
    family : str
        A name in `export.families`.
    state_key : str, optional
        Path of the state dict in the checkpoint, such as ``g_ema`` or ``ema.shadow``, if several fit.
    log : callable, optional
        Called with a line about the path of the weights, unless it is the top, and one about folded norms.

    Returns
    -------
    GeneratorModule
        In inference mode, float32, with weights loaded strictly.

    Raises
    ------
    CheckpointError
        If the file cannot be read, or does not contain exactly one valid state dict of this family.
    """
    return load_with_path(path, family, state_key=state_key, log=log)[0]


def load_with_path(
    path: Path, family: str, *, state_key: str | None = None, log: Callable[[str], None] = lambda _: None
) -> tuple[GeneratorModule, str]:
    """Load a checkpoint as `load_checkpoint` does, and return the path of its state dict too, `TOP` for the file's."""
    archive = read_archive(path)
    layouts = _list_layouts(family)
    others = (layout for name in FAMILIES if name != family for layout in _list_layouts(name))
    found = find_state_dict(path, archive, layouts, others, state_key=state_key)
    ready = {key: _check_weight(path, key, found.weights[key], shape) for key, shape in found.layout.shapes.items()}
    model = load_family(family).list_variants()[layouts.index(found.layout)].module_class()
    if found.path != TOP:
        log(f"took the state dict at {found.path}")
    n_folded = sum(weight.is_normed for weight in found.weights.values())
    if n_folded:
        log(f"folded spectral or weight norm into {n_folded} weights")
    model.load_state_dict(model.state_dict() | ready, strict=True)  # records of training stay as they are
    _check_folded(path, model)
    return model.eval(), found.path


def _list_layouts(family: str) -> list[Layout]:
    """List the layouts of a family's variants."""
    classes = [variant.module_class for variant in load_family(family).list_variants()]
    return [_build_layout(family, each) for each in classes]  # type: ignore[arg-type]  # classes can be hashed


@functools.cache
def _build_layout(family: str, module_class: type[GeneratorModule]) -> Layout:
    """Build the layout of a variant, once in a process: a large model takes a tenth of a second."""
    with torch.device("meta"):  # without values
        state = module_class().state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items() if not key.endswith(RECORDS)}
    return Layout(family=family, shapes=shapes)


def _check_weight(path: Path, key: str, weight: Weight, shape: tuple[int, ...]) -> Tensor:
    """Fold the norms of a weight, check its shape, type and values, and return it as float32."""
    found = tuple(weight.tensor.shape)
    if found != shape and {found, shape} != _SINGLE_NUMBERS:
        raise CheckpointError(path, f"holds {key} of shape {found}: expected {shape}.")
    for part in weight.parts:
        _check_type(path, key, part)
    try:
        value = weight.fold().detach()
    except ValueError as error:
        raise CheckpointError(path, f"holds {key} with {error}.") from None
    plain = value.to(torch.float32).reshape(shape).contiguous()
    _check_finite(path, key, plain, value, is_folded=weight.is_normed)
    if key.endswith(_VARIANCES) and (plain < 0).any():
        raise CheckpointError(path, f"holds a negative running variance, {plain.min().item()}, in {key}.")
    return plain


def _check_folded(path: Path, model: GeneratorModule) -> None:
    """Check that the weights stay finite when the model folds them: a norm by which it divides may be zero."""
    if type(model).fold is GeneratorModule.fold:  # which changes nothing
        return
    folded = copy.deepcopy(model).fold()
    for key, value in (*folded.named_parameters(), *folded.named_buffers()):
        _check_finite(path, key, value, value, is_folded=True)


def _check_finite(path: Path, key: str, plain: Tensor, stored: Tensor, *, is_folded: bool) -> None:
    """Check that a weight is finite in float32; the message names the value that is stored."""
    bad = ~torch.isfinite(plain)
    if bad.any():
        first = stored.reshape(plain.shape)[bad].flatten()[0].item()
        folded = " once its norm is folded" if is_folded else ""
        raise CheckpointError(path, f"holds {first} in {key}{folded}: every value must be finite in float32.")


def _check_type(path: Path, key: str, part: Tensor) -> None:
    if part.dtype not in _FLOATS or part.layout != torch.strided:
        kind = str(part.dtype).removeprefix("torch.")
        layout = "" if part.layout == torch.strided else f" ({part.layout})"
        message = f"holds {key} as {kind}{layout}: expected dense float32, float16, bfloat16 or float64."
        raise CheckpointError(path, message)
    if part.is_meta:
        raise CheckpointError(path, f"holds {key} without its values (a meta tensor).")
