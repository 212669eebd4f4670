"""Draw all pictures of the package from eight generated events, small enough for a web page.

    python examples/gallery.py docs/gallery

Needs pxdbg-runtime[cpu,plot].
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from pxdbg_runtime import Digits, Generator
from pxdbg_runtime.plots.drawing import save_figure
from pxdbg_runtime.plots.event_display import draw_event
from pxdbg_runtime.plots.figures import draw_charges, draw_cluster_sizes, draw_occupancies, draw_sensor

_COLOURS = 256
"""Of the pictures, which saves half of the bytes."""


def draw_gallery(events: list[Digits], folder: Path, title: str) -> list[Path]:
    """Draw all pictures of some events into a folder, and list them; the title is that of the sample."""
    first = events[0]
    display = draw_event(first, title=f"{title}, the first event")
    display.set_dpi(90)
    figures = {
        "event": display,
        "sensor": draw_sensor(first, "1.1.1", weigh_by_charge=True, title=f"{title}, one event of sensor 1.1.1").figure,
        "hits": draw_sensor(events, "1.1.1", title=f"{title}, sensor 1.1.1").figure,
        "charge": draw_charges(events, title=title).figure,
        "occupancy": draw_occupancies(events, title=title).figure,
        "clusters": draw_cluster_sizes(events, title=title).figure,
    }
    paths = []
    for name, figure in figures.items():
        path = folder / f"{name}.png"
        save_figure(figure, path)
        paths.append(path)
    styled = draw_charges(events, title=title, style="CMS")
    paths.append(folder / "charge-cms.png")
    save_figure(styled.figure, paths[-1], style="CMS")
    for path in paths:
        Image.open(path).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    return paths


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    generator = Generator("ieagan", seed=7)
    sample = list(generator.stream(range(8)))
    for written in draw_gallery(sample, target, f"stand-in {generator.card.name}, {len(sample)} events"):
        print(f"{written}: {written.stat().st_size / 1000:.0f} kB")  # noqa: T201  # an example is a program
