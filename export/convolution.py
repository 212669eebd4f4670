"""Convolves images in float64, several times faster than PyTorch does on a CPU.

PyTorch copies the image once for each weight of a filter, then multiplies matrices. Here each weight of the filters is
a product of matrices of its own, whose image is the same one, read from another pixel on: with its rows one after the
other, a shift of an image by rows and columns is a shift of all its pixels by one number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["FastConvolutions", "convolve"]

_IMAGE_AXES: Final = 4
_MIN_WIDTH: Final = 32
"""Of narrower images, too many of the products would be of pads: PyTorch is faster."""
_BLOCK: Final = 2048
"""Pixels whose sums stay in the cache of a core."""

Size = int | tuple[int, ...]


def convolve(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Compute what ``torch.conv2d`` does of the same arguments, up to rounding."""
    is_large = images.ndim == _IMAGE_AXES and images.shape[3] >= _MIN_WIDTH and weight.shape[2:] != (1, 1)
    if not is_large or groups != 1 or isinstance(padding, str):
        return torch.conv2d(images, weight, bias, stride, padding, dilation, groups)
    (step_y, step_x), (pad_y, pad_x), (tap_y, tap_x) = (_pair(each) for each in (stride, padding, dilation))
    n_out, _, height, width = weight.shape
    # Every step-th column starts a row of the same length.
    padded = functional.pad(images, (pad_x, pad_x + -(images.shape[3] + 2 * pad_x) % step_x, pad_y, pad_y))
    pitch = padded.shape[3] // step_x
    n_rows = (padded.shape[2] - tap_y * (height - 1) - 1) // step_y + 1
    n_columns = (images.shape[3] + 2 * pad_x - tap_x * (width - 1) - 1) // step_x + 1
    n_pixels = (n_rows - 1) * pitch + n_columns
    summed = images.new_zeros(len(images), n_out, n_rows * pitch)
    matrices = weight.permute(2, 3, 0, 1).contiguous()
    for image, sums in zip(padded, summed, strict=True):
        phases = [[image[:, y::step_y, x::step_x].flatten(1) for x in range(step_x)] for y in range(step_y)]
        taps = [
            (matrices[row, column], phases[y % step_y][x % step_x][:, y // step_y * pitch + x // step_x :])
            for row, y in enumerate(range(0, tap_y * height, tap_y))
            for column, x in enumerate(range(0, tap_x * width, tap_x))
        ]
        for start in range(0, n_pixels, _BLOCK):
            block = slice(start, min(start + _BLOCK, n_pixels))
            for matrix, pixels in taps:
                sums[:, block].addmm_(matrix, pixels[:, block])
    convolved = summed.view(len(images), n_out, n_rows, pitch)[..., :n_columns]
    return convolved.contiguous() if bias is None else convolved + bias[:, None, None]


class FastConvolutions(TorchFunctionMode):
    """Within this context ``torch.conv2d`` is `convolve`, for models in float64."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Call a function of PyTorch."""
        return (convolve if func is torch.conv2d else func)(*args, **(kwargs or {}))


def _pair(size: Size) -> tuple[int, int]:
    vertical, horizontal = (size, size) if isinstance(size, int) else size
    return vertical, horizontal
