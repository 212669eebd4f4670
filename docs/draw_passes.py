"""Draw what each pass of the graph compiler does to the layers that it is for: a picture before and after, as SVG.

    python docs/draw_passes.py docs/passes

Needs a checkout with pxdbg-runtime[export] and the packages of the tests. The graphs are built here, the compiler's own
passes change them, and what came out is drawn.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import onnx_ir as ir

from export.graph.compiler import list_passes, run_passes
from tests.small_graphs import SmallGraph

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from export.graph.compiler import Stage

_BOX_WIDTH, _BOX_HEIGHT = 178, 38
_X_PITCH, _Y_PITCH = 188, 58
_BEND_PITCH: Final = 40
_MARGIN: Final = 8
_GAP: Final = 12
_HEADER: Final = 36
_MAX_WIDTH: Final = 400
"""Of both graphs side by side: a telephone shows that; wider ones are drawn one above the other."""
_STYLE: Final = (
    "<style>text{font:12px sans-serif;text-anchor:middle;fill:#111}.size{font-size:10.5px;fill:#444}"
    ".head{font-weight:bold}path{fill:none;stroke:#555;stroke-width:1.4}</style>"
)
_ARROW_HEAD: Final = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="3" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0L8 4L0 8z" style="fill:#555;stroke:none"/></marker></defs>'
)
_COLOURS: Final = {"same": "#ffffff", "before": "#ffd9b3", "after": "#c9e8c4", "input": "#e8eef7"}


def add_conv_and_norm(graph: SmallGraph) -> str:
    """Add a convolution, its batch norm and a rectifier."""
    return graph.node("Relu", graph.batch_norm(graph.conv(graph.input(32, 128, 384, name="image"), 32, 16), 16))


def add_linear_and_conv(graph: SmallGraph) -> str:
    """Add the ConvNet's linear layer and its first convolution."""
    linear = graph.reshape(graph.linear(graph.input(96, name="latents"), 96, 512 * 8 * 24), -1, 512, 8, 24)
    return graph.conv(linear, 512, 512, (5, 5))


def add_shortcut(graph: SmallGraph) -> str:
    """Add the shortcut of a residual block."""
    return graph.conv(graph.upsample(graph.input(32, 64, 192, name="image")), 32, 16, (1, 1))


def add_last_rows(graph: SmallGraph) -> str:
    """Add the last layer of a generator, whose outer rows are dropped."""
    return graph.slice(graph.node("Tanh", graph.conv(graph.input(16, 256, 768, name="image"), 16, 1)), 3, 253, 2)


def add_last_layer(graph: SmallGraph) -> str:
    """Add the last layer of a generator."""
    return graph.node("Tanh", graph.conv(graph.input(16, 256, 768, name="image"), 16, 1))


def add_upsampled_conv(graph: SmallGraph) -> str:
    """Add a convolution of a doubled image."""
    return graph.conv(graph.upsample(graph.input(32, 64, 192, name="image")), 32, 16)


def add_conditional_norm(graph: SmallGraph) -> str:
    """Add the normalisation of IEA-GAN, whose factor and offset are linear in a condition."""
    image, condition = graph.input(32, 64, 192, name="image"), graph.input(256, name="condition")
    return graph.node("Relu", graph.conditional_norm(graph.batch_norm(image, 32), condition, 256, 32))


FRAGMENTS: Final[dict[str, Callable[[SmallGraph], str]]] = {
    "merge conditional norms": add_conditional_norm,
    "fold batch norms": add_conv_and_norm,
    "compose linear layers": add_linear_and_conv,
    "move work before upsampling": add_shortcut,
    "crop early": add_last_rows,
    "last layer in blocks": add_last_layer,
    "phase convolutions": add_upsampled_conv,
}
"""The layers that each pass is drawn for."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """A node or an input of a graph, with the places of those whose values it takes; or a bend of a long arrow."""

    title: str
    size: str
    sources: tuple[int, ...]
    is_input: bool = False
    is_bend: bool = False


def run_pass(name: str) -> tuple[Stage, Stage]:
    """Run a pass on its fragment: the graph before and after."""
    graph = SmallGraph()
    model = graph.model(FRAGMENTS[name](graph))
    (chosen,) = (each for each in list_passes("cpu") if each.name == name)
    before, after = run_passes(model, (chosen,))
    return before, after


def describe_size(value: ir.Value) -> str:
    """Write the size of a value without its batch."""
    axes = [] if value.shape is None else [f"{axis:,}" for axis in value.shape if isinstance(axis, int)]
    return " x ".join(axes)


def describe_node(node: ir.Node) -> str:
    """Write the operator of a node, with what its cost depends on."""
    if node.op_type == "Conv" and node.inputs[1] is not None and node.inputs[1].shape is not None:
        n_out, n_in, height, width = (int(axis) for axis in node.inputs[1].shape)  # type: ignore[arg-type]
        strides = node.attributes.get_ints("strides", [1, 1]) or [1, 1]
        stride = f", stride {strides[0]}" if max(strides) > 1 else ""
        return f"Conv {height} x {width}, {n_in} to {n_out}{stride}"
    if node.op_type == "Slice":
        return "Slice rows 3 to 252"
    return {"Resize": "Resize: double", "Gemm": "Gemm: linear layer"}.get(node.op_type, node.op_type)


def list_boxes(stage: Stage) -> list[Box]:
    """List inputs and nodes of a graph; each names the boxes that it takes values of."""
    graph = ir.from_proto(stage.model).graph
    boxes = [Box(title=str(each.name), size=describe_size(each), sources=(), is_input=True) for each in graph.inputs]
    owner = {each: place for place, each in enumerate(graph.inputs)}
    for node in graph:
        sources = tuple(dict.fromkeys(owner[value] for value in node.inputs if value in owner))
        if node.op_type == "Unsqueeze":  # it costs nothing: what it takes is drawn for it
            owner[node.outputs[0]] = sources[0]
            continue
        owner.update(dict.fromkeys(node.outputs, len(boxes)))
        boxes.append(Box(title=describe_node(node), size=describe_size(node.outputs[0]), sources=sources))
    return boxes


def find_levels(boxes: Sequence[Box]) -> list[int]:
    """Find the level of each box, as near above the boxes that take its values as possible."""
    levels = [0] * len(boxes)
    for place in reversed(range(len(boxes))):
        users = [levels[user] for user, box in enumerate(boxes) if place in box.sources]
        levels[place] = min(users, default=0) - 1
    return [level - min(levels) for level in levels]


def bend_long_arrows(boxes: Sequence[Box]) -> list[Box]:
    """Add a bend wherever an arrow passes a level, so that no box is drawn over it."""
    levels = find_levels(boxes)
    bent: list[Box] = []
    places: list[int] = []
    for box, level in zip(boxes, levels, strict=True):
        sources = []
        for source in box.sources:
            before = places[source]
            for _ in range(levels[source] + 1, level):
                bent.append(Box(title="", size="", sources=(before,), is_bend=True))
                before = len(bent) - 1
            sources.append(before)
        places.append(len(bent))
        bent.append(replace(box, sources=tuple(sources)))
    return bent


def place_boxes(boxes: Sequence[Box], left: float, top: float) -> tuple[list[tuple[float, float]], float, float]:
    """Place boxes level by level, near those that take their values; return centres, width and height."""
    levels = find_levels(boxes)
    rows = [[place for place, level in enumerate(levels) if level == row] for row in range(max(levels) + 1)]
    pitches = [_BEND_PITCH if box.is_bend else _X_PITCH for box in boxes]
    width = max(sum(pitches[place] for place in members) for members in rows)
    centres = [(left + width / 2, 0.0)] * len(boxes)
    for row, members in reversed(list(enumerate(rows))):
        users = {place: [user for user, box in enumerate(boxes) if place in box.sources] for place in members}
        members.sort(key=lambda place: sum(centres[user][0] for user in users[place]) / max(1, len(users[place])))
        edge = left + (width - sum(pitches[place] for place in members)) / 2
        for place in members:
            centres[place] = (edge + pitches[place] / 2, top + _HEADER + row * _Y_PITCH + _BOX_HEIGHT / 2)
            edge += pitches[place]
    return centres, width, _HEADER + len(rows) * _Y_PITCH


def draw_graph(
    boxes: Sequence[Box], centres: Sequence[tuple[float, float]], common: Counter[tuple[str, str]], colour: str
) -> str:
    """Draw boxes at their centres, coloured unless they are common to both graphs, and arrows between them."""
    parts = []
    for (x, y), box in zip(centres, boxes, strict=True):
        end = y - _BOX_HEIGHT / 2 - (0 if box.is_bend else 5)
        # Straight beside the boxes of its level: it curves between levels alone.
        through, tip = (f"V{y + _BOX_HEIGHT / 2:g}", "") if box.is_bend else ("", ' marker-end="url(#tip)"')
        for source in box.sources:
            sx, start = centres[source][0], centres[source][1] + _BOX_HEIGHT / 2
            middle = (start + end) / 2
            curve = f"M{sx:g} {start:g}C{sx:g} {middle:g} {x:g} {middle:g} {x:g} {end:g}"
            parts.append(f'<path d="{curve}{through}"{tip}/>')
    left_over = Counter(common)
    for (x, y), box in zip(centres, boxes, strict=True):
        if box.is_bend:
            continue
        is_same = left_over[box.title, box.size] > 0
        left_over[box.title, box.size] -= 1
        fill = _COLOURS["input" if box.is_input else "same" if is_same else colour]
        corner = f'x="{x - _BOX_WIDTH / 2:g}" y="{y - _BOX_HEIGHT / 2:g}"'
        parts += [
            f'<rect {corner} width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="6" fill="{fill}" stroke="#555"/>',
            f'<text x="{x:g}" y="{y - 2:g}">{escape(box.title)}</text>',
            f'<text x="{x:g}" y="{y + 12:g}" class="size">{escape(box.size)}</text>',
        ]
    return "\n".join(parts)


def draw_pass(name: str) -> str:
    """Draw the fragment of a pass before and after it, as an SVG."""
    before, after = run_pass(name)
    if not after.n_changes:
        message = f"The pass {name!r} does not change its fragment."
        raise ValueError(message)
    boxes = [bend_long_arrows(list_boxes(stage)) for stage in (before, after)]
    counts = [Counter((box.title, box.size) for box in each) for each in boxes]
    common = counts[0] & counts[1]
    drawn = []
    left, top, right, bottom = float(_MARGIN), float(_MARGIN), 0.0, 0.0
    is_stacked = sum(place_boxes(each, 0, 0)[1] for each in boxes) > _MAX_WIDTH
    for stage, each, word in zip((before, after), boxes, ("before", "after"), strict=True):
        centres, width, height = place_boxes(each, left, top)
        x, right, bottom = left + width / 2, max(right, left + width), max(bottom, top + height)
        products, megabytes = stage.cost.multiply_accumulates / 1e6, stage.cost.bytes_moved / 1e6
        cost = f"{products:,.{1 if products >= 1 else 3}f} M products, {megabytes:,.1f} MB moved"
        drawn += [
            f'<text x="{x:g}" y="{top + 10:g}" class="head">{word}</text>',
            f'<text x="{x:g}" y="{top + 26:g}" class="size">{cost}</text>',
            draw_graph(each, centres, common, word),
        ]
        left, top = (left, bottom + _GAP) if is_stacked else (right + _GAP, top)
    width, height = right + _MARGIN, bottom
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}">',
            _STYLE,
            _ARROW_HEAD,
            f'<rect width="{width:g}" height="{height:g}" rx="8" fill="#fff"/>',
            *drawn,
            "</svg>\n",
        )
    )


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for each in FRAGMENTS:
        (target / f"{each.replace(' ', '-')}.svg").write_text(draw_pass(each), encoding="utf-8")
