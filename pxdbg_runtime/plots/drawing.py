"""What all pictures need: axes without matplotlib's global state, styles of mplhep, and files that are complete."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np

from pxdbg_runtime.checks import check_path
from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.formats.atomic_write import atomic_write
from pxdbg_runtime.optional_imports import require
from pxdbg_runtime.sensors import MAX_CHARGE_ADU, READOUT_THRESHOLD_ADU

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, LogNorm
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from pxdbg_runtime.checks import StrPath

__all__ = [
    "COLOUR_OF_LAYER",
    "DPI",
    "StyleName",
    "apply_style",
    "choose_charge_colours",
    "choose_charge_ticks",
    "create_axes",
    "find_picture_format",
    "save_figure",
]

StyleName = Literal["ATLAS", "CMS", "ROOT"]
"""Styles of mplhep; it has none of Belle II."""
DPI: Final = 110
COLOUR_OF_LAYER: Final = {1: "#d55e00", 2: "#0072b2"}
_CHARGE_TICKS: Final = (1, 2, 5, 7, *(digit * 10**power for power in range(1, 9) for digit in (1, 2, 5)))
"""Charges in ADU that are written beside their colours; 7 is the read-out threshold."""
_FONT_SIZE: Final = 10.0
"""Of matplotlib's own style, in points; the sizes of figures are those for it."""
_N_COLOURS: Final = 256
_FIRST_COLOUR: Final = 0.15
"""The share of the colours that is left out, because single cells of them can hardly be seen on white."""
_NO_CURSIVE: Final = {"mathtext.cal": "sans"}
"""No picture has cursive letters, and matplotlib warns where no such font is installed."""
_EXCLUDED_FORMATS: Final = {"pgf", "raw", "rgba"}
"""Formats of matplotlib that need LaTeX, or are bare pixel values."""


@contextlib.contextmanager
def apply_style(style: StyleName | None) -> Iterator[None]:
    """Apply a style of mplhep to what is drawn in the block; None keeps matplotlib's settings.

    Raises
    ------
    MissingPackageError
        If matplotlib is not installed, or mplhep for a style.
    ArgumentValueError
        If there is no such style.
    """
    require("matplotlib", extra="plot", purpose="A picture")
    if style is None:
        yield
        return
    if style not in get_args(StyleName):
        message = f"style must be one of {', '.join(get_args(StyleName))}, but is {style!r}."
        raise ArgumentValueError("style", message)
    styles = require("mplhep", extra="plot", purpose="A style of mplhep").style
    import matplotlib.style

    with matplotlib.style.context([getattr(styles, style), _NO_CURSIVE]):
        yield


def create_axes(width_inches: float, height_inches: float, *, dpi: float = DPI) -> Axes:
    """Create axes in a figure of their own; it grows with the letters of the style, but has equally many dots."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as NewFigure

    scale = float(mpl.rcParams["font.size"]) / _FONT_SIZE
    figure = NewFigure(figsize=(scale * width_inches, scale * height_inches), dpi=dpi / scale, layout="constrained")
    return figure.subplots()


def choose_charge_colours(charges: NDArray[np.integer[Any] | np.floating[Any]]) -> tuple[LogNorm, Colormap]:
    """Choose a logarithmic scale for charges in ADU, and its colours: the larger the charge, the darker.

    The scale begins at the read-out threshold, or at the smallest charge if that is less, but not below 1 ADU, whose
    colour a charge of 0 has too. It ends at 255 ADU, or at the largest charge if that is more, as a sum over events can
    be.
    """
    import matplotlib as mpl
    from matplotlib.colors import ListedColormap, LogNorm

    colours = mpl.colormaps["viridis_r"](np.linspace(_FIRST_COLOUR, 1, _N_COLOURS))
    return LogNorm(*_find_charge_range(charges), clip=True), ListedColormap(colours)


def choose_charge_ticks(charges: NDArray[np.integer[Any] | np.floating[Any]]) -> list[int]:
    """Choose the charges that are written beside `choose_charge_colours`: those off the scale take matplotlib time."""
    first, last = _find_charge_range(charges)
    return [charge for charge in _CHARGE_TICKS if first <= charge <= last]


def _find_charge_range(charges: NDArray[np.integer[Any] | np.floating[Any]]) -> tuple[float, float]:
    first, last = charges.min(initial=READOUT_THRESHOLD_ADU), charges.max(initial=MAX_CHARGE_ADU)
    return max(1.0, float(first)), float(last)


def find_picture_format(path: Path) -> str:
    """Find the picture format that the suffix of a path names.

    Raises
    ------
    MissingPackageError
        If matplotlib is not installed.
    ArgumentValueError
        If matplotlib does not know the format.
    """
    require("matplotlib", extra="plot", purpose="A picture")
    from matplotlib.backend_bases import FigureCanvasBase

    formats = FigureCanvasBase.get_supported_filetypes().keys() - _EXCLUDED_FORMATS
    file_format = path.suffix.removeprefix(".").lower()
    if file_format not in formats:
        message = f"{path} must end in a picture format: expected one of .{', .'.join(sorted(formats))}."
        raise ArgumentValueError("output", message)
    return file_format


def save_figure(figure: Figure, path: StrPath, *, style: StyleName | None = None) -> None:
    """Save a figure in the format of the suffix, as a whole or not at all.

    Parameters
    ----------
    figure : Figure
        With its own dots per inch.
    path : str or path
        Ends in .png, .pdf, .svg or another format of matplotlib.
    style : str or None
        That with which it was drawn: some settings count when it is saved.

    Raises
    ------
    MissingPackageError, ArgumentValueError
        As `apply_style` and `find_picture_format`.
    OutputError
        If the file cannot be written.
    """
    path = check_path("path", path)
    file_format = find_picture_format(path)
    # In memory first: an error of matplotlib's fonts or caches is not an error of the file.
    picture = io.BytesIO()
    with apply_style(style):
        figure.savefig(picture, format=file_format, dpi=figure.dpi)
    with atomic_write(path) as partial:
        partial.write_bytes(picture.getvalue())
