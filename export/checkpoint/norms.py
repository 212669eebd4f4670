"""Fold spectral and weight norm: compute the plain weight from the parts that a state dict stores.

The formulas are those of PyTorch in inference mode, without a power iteration:

- spectral norm, W = W_orig / s with s = uᵀ M v, where M is W_orig as a matrix whose rows are its output channels;
- weight norm, W = g v / ‖v‖, where the norm runs over each axis along which g has one value.

Both exist as hooks (`torch.nn.utils.spectral_norm`, `torch.nn.utils.weight_norm`) and as parametrizations
(`torch.nn.utils.parametrizations`), which may be stacked: a spectral norm of a weight-normed weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

__all__ = ["Key", "Weight", "gather_weights"]

Key = tuple[str, ...]
"""Path of a tensor in a checkpoint: all keys on the way to it, split at their dots."""
_PARAMETRIZATIONS: Final = "parametrizations"
_MIN_COSINE: Final = 0.7
"""Smallest |cosine| of u and M v that selects axis 1.

It is 1 right after a power iteration, and less for averaged weights.
"""


@dataclass(frozen=True, kw_only=True)
class Weight:
    """A tensor of a state dict, and the further tensors of its norms.

    Attributes
    ----------
    tensor : Tensor
        The weight, or the tensor of the same shape to which the norms are applied.
    magnitude : Tensor or None
        g of the weight norm.
    directions : tuple of (Tensor, Tensor)
        u and v of each spectral norm, in the order in which they are applied.
    sources : tuple of Key
        Paths of all its tensors in the checkpoint.
    """

    tensor: Tensor
    magnitude: Tensor | None = None
    directions: tuple[tuple[Tensor, Tensor], ...] = ()
    sources: tuple[Key, ...]

    @property
    def is_normed(self) -> bool:
        """Whether it has a norm."""
        return self.magnitude is not None or bool(self.directions)

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """All its tensors."""
        magnitude = () if self.magnitude is None else (self.magnitude,)
        return (self.tensor, *magnitude, *(part for pair in self.directions for part in pair))

    def fold(self) -> Tensor:
        """Compute the plain weight; norms are folded in float64.

        Raises
        ------
        ValueError
            If the shapes of its tensors do not fit each other.
        """
        weight = self.tensor
        if self.is_normed:
            weight = weight.double()
        if self.magnitude is not None:
            weight = _apply_weight_norm(weight, self.magnitude.double())
        for u, v in self.directions:
            weight = _apply_spectral_norm(weight, u.double(), v.double())
        return weight


def gather_weights(tensors: Mapping[Key, Tensor]) -> dict[Key, Weight]:
    """Combine the tensors of each norm under the key of their weight; other tensors are weights as they are."""
    weights = {weight_key: weight for weight_key, weight in _find_normed_weights(tensors) if weight_key not in tensors}
    joined = {source for weight in weights.values() for source in weight.sources}
    plain = {key: Weight(tensor=tensor, sources=(key,)) for key, tensor in tensors.items() if key not in joined}
    return plain | weights


def _find_normed_weights(tensors: Mapping[Key, Tensor]) -> Iterator[tuple[Key, Weight]]:
    parametrized: dict[Key, dict[Key, Tensor]] = {}
    for key in tensors:
        if key[-1].endswith("_orig"):
            yield from _find_hook_spectral_norm(tensors, (*key[:-1], key[-1].removesuffix("_orig")))
        elif key[-1].endswith("_g"):
            yield from _find_hook_weight_norm(tensors, (*key[:-1], key[-1].removesuffix("_g")))
        elif _PARAMETRIZATIONS in key[:-2]:
            at = key.index(_PARAMETRIZATIONS)
            parametrized.setdefault((*key[:at], key[at + 1]), {})[key[at + 2 :]] = tensors[key]
    for weight_key, parts in parametrized.items():
        yield from _find_parametrization(weight_key, parts)


def _find_hook_spectral_norm(tensors: Mapping[Key, Tensor], weight_key: Key) -> Iterator[tuple[Key, Weight]]:
    *module, name = weight_key
    orig, u, v = ((*module, f"{name}_{part}") for part in ("orig", "u", "v"))
    if u in tensors and v in tensors:
        yield weight_key, Weight(tensor=tensors[orig], directions=((tensors[u], tensors[v]),), sources=(orig, u, v))


def _find_hook_weight_norm(tensors: Mapping[Key, Tensor], weight_key: Key) -> Iterator[tuple[Key, Weight]]:
    *module, name = weight_key
    g, v = ((*module, f"{name}_{part}") for part in ("g", "v"))
    if v in tensors:
        yield weight_key, Weight(tensor=tensors[v], magnitude=tensors[g], sources=(g, v))


def _find_parametrization(weight_key: Key, parts: Mapping[Key, Tensor]) -> Iterator[tuple[Key, Weight]]:
    """Yield the weight, unless it has a tensor that belongs to neither norm."""
    orders = sorted(int(key[0]) for key in parts if len(key) == 2 and key[1] == "_u" and key[0].isdecimal())
    names: list[Key] = [(str(order), part) for order in orders for part in ("_u", "_v")]
    if ("original0",) in parts:
        names += [("original0",), ("original1",)]
        tensor, magnitude = parts.get(("original1",)), parts[("original0",)]
    else:
        names += [("original",)]
        tensor, magnitude = parts.get(("original",)), None
    first = 0 if magnitude is None else 1
    are_norms_alone = orders == list(range(first, first + len(orders))) and parts.keys() == set(names)
    if tensor is None or not are_norms_alone or not (orders or magnitude is not None):
        return
    yield (
        weight_key,
        Weight(
            tensor=tensor,
            magnitude=magnitude,
            directions=tuple((parts[str(order), "_u"], parts[str(order), "_v"]) for order in orders),
            sources=tuple((*weight_key[:-1], _PARAMETRIZATIONS, weight_key[-1], *part) for part in parts),
        ),
    )


def _apply_spectral_norm(weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Divide by the norm of M, whose rows are along the first axis that fits the vectors.

    If axes 0 and 1 both fit, a power iteration tells them apart: it sets u to M v / ‖M v‖. Without one, as in a module
    that never ran, axis 0 is taken, PyTorch's default.
    """
    products = {}
    for dim in range(weight.ndim):  # 0, except for a transposed convolution or at the user's request
        matrix = weight.movedim(dim, 0).flatten(1) if weight.ndim > 1 else weight[:, None]
        if (u.shape, v.shape) == (matrix.shape[:1], matrix.shape[1:]):
            products[dim] = torch.mv(matrix, v)
    if not products:
        shapes = f"u {tuple(u.shape)}, v {tuple(v.shape)}"
        message = f"a spectral norm whose vectors, {shapes}, do not fit a weight of shape {tuple(weight.shape)}"
        raise ValueError(message)
    chosen = min(products)
    if {0, 1} <= products.keys():
        cosines = [float(torch.cosine_similarity(u, products[dim], dim=0).abs()) for dim in (0, 1)]
        chosen = 1 if cosines[1] > max(cosines[0], _MIN_COSINE) else 0
    return weight / torch.dot(u, products[chosen])


def _apply_weight_norm(direction: Tensor, magnitude: Tensor) -> Tensor:
    is_scalar = magnitude.ndim == 0
    if not is_scalar and (
        magnitude.ndim != direction.ndim
        or any(size not in {1, full} for size, full in zip(magnitude.shape, direction.shape, strict=True))
    ):
        shapes = f"g {tuple(magnitude.shape)}, v {tuple(direction.shape)}"
        message = f"a weight norm whose parts do not fit each other: {shapes}"
        raise ValueError(message)
    axes = tuple(axis for axis in range(direction.ndim) if is_scalar or magnitude.shape[axis] == 1)
    return direction * (magnitude / direction.square().sum(axes, keepdim=not is_scalar).sqrt())
