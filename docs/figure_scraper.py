"""Find the figures that a page of the gallery has drawn: those of this package do not belong to pyplot."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["scrape_figures"]

_SHOWN: Final[weakref.WeakSet[Figure]] = weakref.WeakSet()


def scrape_figures(block: tuple[str, str, int], block_vars: Mapping[str, Any], gallery_conf: Mapping[str, Any]) -> str:
    """Save each figure of the page's variables that no earlier block had, and return the text that shows it."""
    del block  # sphinx-gallery passes it
    paths = []
    for value in list(block_vars["example_globals"].values()):
        figure = value.get_figure(root=True) if isinstance(value, Axes) else value
        if isinstance(figure, Figure) and figure not in _SHOWN:
            _SHOWN.add(figure)
            path = next(block_vars["image_path_iterator"])
            figure.savefig(path, dpi=figure.dpi)
            paths.append(path)
    return str(figure_rst(paths, gallery_conf["src_dir"]))
