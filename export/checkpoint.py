"""Checkpoints: a file becomes the state dict of one of the models, or one sentence says why not."""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from export.errors import CheckpointError
from export.models import FAMILIES, GeneratorModule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["WRAPPERS", "StateDict", "load_checkpoint", "read_state_dict"]

StateDict = dict[str, Tensor]
WRAPPERS: Final = ("state_dict", "model", "ema")
"""Keys under which training programs put the state dict."""
_PARALLEL_PREFIX: Final = "module."
_COUNTER: Final = "num_batches_tracked"
"""Counts training steps and has no part in the output, so it may be absent."""
_ZIP_MAGIC: Final = b"PK\x03\x04"
_PICKLE_MAGIC: Final = b"\x80"
_N_NAMED: Final = 4
_FLOATS: Final = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class _Shapes:
    """What a family's state dict must hold."""

    of_weights: Mapping[str, tuple[int, ...]]
    counters: frozenset[str]


def load_checkpoint(path: Path, family: str, *, wrapper: str | None = None) -> GeneratorModule:
    """Read a checkpoint into its model, ready for inference.

    Parameters
    ----------
    path : Path
        ``.pt``, ``.pth`` (zip or legacy) or ``.safetensors``.
    family : str
        ``convnet`` or ``resnet``.
    wrapper : str, optional
        Which of several wrapped state dicts to take; see `WRAPPERS`.

    Returns
    -------
    GeneratorModule
        In inference mode, float32, with weights loaded strictly.

    Raises
    ------
    CheckpointError
        If the file cannot be read or is not a sound checkpoint of this model.
    """
    model = FAMILIES[family]()
    state = _without_prefix(read_state_dict(path, wrapper=wrapper))
    expected = _shapes(model)
    _check_keys(path, state, family, expected)
    ready = {key: _checked(path, key, state[key], shape) for key, shape in expected.of_weights.items()}
    ready |= {key: torch.tensor(0) for key in expected.counters}
    model.load_state_dict(ready, strict=True)
    return model.eval()


def read_state_dict(path: Path, *, wrapper: str | None = None) -> StateDict:
    """Read the tensors of a checkpoint file as they are, unwrapped.

    Raises
    ------
    CheckpointError
        If the file cannot be read, carries code, or holds no state dict.
    """
    content = _read(path)
    if not isinstance(content, dict):
        raise CheckpointError(path, f"holds a {type(content).__name__}: expected a state dict.")
    state = _unwrapped(path, content, wrapper)
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            message = (
                f"holds {type(value).__name__} under {key!r}: expected a state dict of tensors, bare or under "
                f"one of {', '.join(WRAPPERS)}."
            )
            raise CheckpointError(path, message)
    return {str(key): value for key, value in state.items() if isinstance(value, Tensor)}


def _read(path: Path) -> object:
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise CheckpointError(path, f"cannot be read: {error.strerror or error}.") from None
    is_safetensors = path.suffix == ".safetensors"
    if not (is_safetensors or start.startswith((_ZIP_MAGIC, _PICKLE_MAGIC))):
        raise CheckpointError(path, "is no checkpoint: expected a file written by torch.save or safetensors.")
    try:
        return load_file(path) if is_safetensors else _load_pickle(path)
    except pickle.UnpicklingError as error:
        raise CheckpointError(path, _unpickling_message(str(error))) from None
    except _DAMAGE as error:
        message = f"is truncated or damaged: {_first_sentence(error)}"
        raise CheckpointError(path, message) from None


def _load_pickle(path: Path) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on how the file was pickled; what it holds is checked anyway
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    return content


# What a damaged file raises depends on the byte that is wrong: PyTorch's reader and the unpickler answer with
# nearly any built-in exception, and the file is at fault in all of them.
_DAMAGE: Final = (
    SafetensorError,
    MemoryError,
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    OverflowError,
    ImportError,
    struct.error,
    zipfile.BadZipFile,
)


def _unpickling_message(text: str) -> str:
    found = re.search(r"(?:Unsupported global: )?GLOBAL (\w[\w.]*\.\w+)", text)
    if found:
        return (
            f"carries code ({found[1]}), which is never run, or is truncated: save the state dict alone, "
            "torch.save(model.state_dict(), path)."
        )
    if "Unsupported operand" in text or "Unsupported class" in text or "find class" in text:
        return (
            f"carries more than tensors ({_short(text)}): save the state dict alone, "
            "torch.save(model.state_dict(), path)."
        )
    return f"is truncated or damaged: {_short(text)}"


def _unwrapped(path: Path, content: Mapping[object, object], wrapper: str | None) -> Mapping[object, object]:
    wrapped = {key: content[key] for key in WRAPPERS if isinstance(content.get(key), dict)}
    if wrapper is not None and wrapper not in wrapped:
        found = ", ".join(wrapped) or "none"
        raise CheckpointError(path, f"holds no state dict under {wrapper!r} (found: {found}).")
    if not wrapped:
        return content
    if wrapper is None and len(wrapped) > 1:
        message = f"holds several state dicts, {' and '.join(wrapped)}: choose with --weights."
        raise CheckpointError(path, message)
    chosen = wrapped[wrapper or next(iter(wrapped))]
    return chosen if isinstance(chosen, dict) else {}


def _without_prefix(state: StateDict) -> StateDict:
    while state and all(key.startswith(_PARALLEL_PREFIX) for key in state):
        state = {key.removeprefix(_PARALLEL_PREFIX): value for key, value in state.items()}
    return state


def _shapes(model: GeneratorModule) -> _Shapes:
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    counters = frozenset(key for key in shapes if key.endswith(_COUNTER))
    weights = {key: shape for key, shape in shapes.items() if key not in counters}
    return _Shapes(of_weights=weights, counters=counters)


def _check_keys(path: Path, state: StateDict, family: str, expected: _Shapes) -> None:
    known = expected.of_weights.keys()
    missing = known - state.keys()
    unexpected = state.keys() - known - expected.counters
    if not missing and not unexpected:
        return
    for other in FAMILIES.keys() - {family}:
        shapes = _shapes(FAMILIES[other]())
        if shapes.of_weights.keys() <= state.keys() <= shapes.of_weights.keys() | shapes.counters:
            message = f"is that of a {other}, not of a {family}: pass --model {other}."
            raise CheckpointError(path, message)
    parts = []
    if missing:
        parts.append(f"lacks {_named(missing)}")
    if unexpected:
        parts.append(f"holds {_named(unexpected)}, which {'are' if len(unexpected) > 1 else 'is'} not known")
    raise CheckpointError(path, f"is not that of a {family}: it {' and '.join(parts)}.")


def _checked(path: Path, key: str, value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a weight as float32, or say what is wrong with it."""
    if tuple(value.shape) != shape:
        message = f"holds {key} of shape {tuple(value.shape)}: expected {shape}."
        raise CheckpointError(path, message)
    if value.dtype not in _FLOATS or value.layout != torch.strided:
        kind = str(value.dtype).removeprefix("torch.")
        layout = "" if value.layout == torch.strided else f" ({value.layout})"
        message = f"holds {key} as {kind}{layout}: expected dense float32, float16, bfloat16 or float64."
        raise CheckpointError(path, message)
    if value.is_meta:
        raise CheckpointError(path, f"holds {key} without its values (a meta tensor).")
    weight = value.detach().to(torch.float32).contiguous()
    bad = ~torch.isfinite(weight)
    if bad.any():
        first = value[bad].flatten()[0].item()
        message = f"holds {first} in {key}: every value must be finite in float32."
        raise CheckpointError(path, message)
    if key.endswith("running_var") and (weight < 0).any():
        message = f"holds a negative running variance, {weight.min().item()}, in {key}."
        raise CheckpointError(path, message)
    return weight


def _named(keys: Iterable[str]) -> str:
    listed = sorted(keys)
    named = ", ".join(listed[:_N_NAMED])
    rest = len(listed) - _N_NAMED
    return f"{named} and {rest} more" if rest > 0 else named


def _first_sentence(error: BaseException) -> str:
    text = str(error).split("\n")[0].split(". ")[0].strip().rstrip(".")
    return f"{text or type(error).__name__}."


def _short(text: str) -> str:
    """Cut PyTorch's advice away from the unpickler's own complaint."""
    line = text.rsplit("WeightsUnpickler error:", maxsplit=1)[-1].strip().split("\n")[0]
    return line.split(". ")[0].strip().rstrip(".") + "."
