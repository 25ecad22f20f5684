"""A cell as text for the terminal and as a picture, with no program of the system's."""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch, Patch, PathPatch, Polygon
from matplotlib.path import Path as MplPath
from matplotlib.textpath import TextPath

from lightning_nas.arch import Genotype
from lightning_nas.reports.files import write_whole
from lightning_nas.reports.layout import Box, CellLayout, Route, layout_cell
from lightning_nas.spaces import CellGraph, Space

__all__ = ["draw_figure", "draw_text", "save_drawing"]

_FONT = FontProperties(family="DejaVu Sans")
_OP_SIZE, _NODE_SIZE = 8.5, 10.0
_MARGIN, _TITLE, _LEGEND = 0.12, 0.32, 0.36
_COLOURS = {  # line, fill
    "conv": ("#2f6db3", "#e3eef9"),
    "pool": ("#c4662a", "#fbe9dc"),
    "skip": ("#3a8f5a", "#e2f3e7"),
    "none": ("#a0a0a0", "#f6f6f6"),
    "other": ("#7d55a8", "#efe7f7"),
    "sum": ("#333333", "#ffffff"),
    "concat": ("#8a8a8a", "#ffffff"),
}
_FAMILIES = {
    "conv": "convolution",
    "pool": "pooling",
    "skip": "skip",
    "none": "none",
    "other": "other",
    "sum": "sum",
    "concat": "concatenation",
}
_BOX_MARKS, _ASCII_MARKS = ("┬", "├", "└"), ("|", "|", "|")


def draw_text(space: Space, genotype: Genotype) -> str:
    """The cells of a genotype for the terminal, a line per node.

    A node labelled ``"1: conv"`` is an operation on the sum of what reaches it. Where the standard output
    cannot show box characters, plain bars stand in their place.

    Example:
        >>> from lightning_nas.spaces import load_genotype
        >>> print(draw_text(*load_genotype("|nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|none~1|nor_conv_1x1~2|")))
        cell ┬ 1      = nor_conv_3x3(input)
             ├ 2      = skip_connect(input) + none(1)
             └ output = none(input) + none(1) + nor_conv_1x1(2)
    """
    first, middle, last = _BOX_MARKS if _can_print("".join(_BOX_MARKS)) else _ASCII_MARKS
    blocks = []
    for kind, graph in space.graphs(genotype).items():
        lines = _lines(graph)
        width = max(len(name) for name, _ in lines)
        indent = " " * len(kind)
        marks = [f"{kind} {first}", *[f"{indent} {middle}"] * (len(lines) - 2), f"{indent} {last}"]
        blocks += [f"{mark} {name:<{width}} = {text}" for mark, (name, text) in zip(marks, lines, strict=False)]
    return "\n".join(blocks)


def _lines(graph: CellGraph) -> list[tuple[str, str]]:
    """Each node that something reaches, and what it computes."""
    lines = []
    for target in sorted({target for _, target, _ in graph.edges}):
        into = [(s, _split(graph.nodes[s])[0], label) for s, node, label in graph.edges if node == target]
        joined = [name for s, name, label in into if not label and not _adds(graph, s, target)]
        terms = [f"{label}({name})" if label else name for s, name, label in into if label or _adds(graph, s, target)]
        total = " + ".join([*terms, f"concat({', '.join(joined)})"] if joined else terms)
        name, op = _split(graph.nodes[target])
        lines.append((name, f"{op}({total})" if op else total))
    return lines


def _adds(graph: CellGraph, source: int, target: int) -> bool:
    """Whether a plain wire adds; if not, it concatenates.

    Wires add where nodes carry operations, except from those to one without: to the output.
    """
    ops = [_split(node)[1] for node in graph.nodes]
    return any(ops) and not (ops[source] and not ops[target])


def _split(node: str) -> tuple[str, str]:
    """Name and operation of a node, without the marks of mathematical text; the operation may be empty."""
    name, _, op = node.replace("{", "").replace("}", "").partition(": ")
    return name, op


def _can_print(text: str) -> bool:
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def draw_figure(space: Space, genotype: Genotype) -> Figure:
    """The cells of a genotype as a picture, left to right, one below another.

    Each operation is a box on the way of its edge, or stands in its node. No boxes overlap, and no edge passes through
    the box of another.
    """
    graphs = space.graphs(genotype)
    layouts = {kind: _layout(graph) for kind, graph in graphs.items()}
    families = {family for graph in graphs.values() for family in _families(graph)}
    legend = sum(_width(_FAMILIES[f], _OP_SIZE) + 0.45 for f in families)
    width = max([legend, *(layout.width for layout in layouts.values())]) + 2 * _MARGIN
    height = sum(layout.height + _TITLE + 2 * _MARGIN for layout in layouts.values()) + _LEGEND
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    top = 0.0
    for kind, graph in graphs.items():
        title = kind if kind.startswith(("cell", "stage")) else f"{kind} cell"
        axes.text(_MARGIN, top + 0.28, title, size=_NODE_SIZE, weight="bold", fontproperties=_FONT)
        top += _TITLE + _MARGIN
        _draw_cell(axes, graph, layouts[kind], top)
        top += layouts[kind].height + _MARGIN
    handles = [
        Patch(facecolor=fill, edgecolor=line, label=_FAMILIES[family])
        for family, (line, fill) in _COLOURS.items()
        if family in families
    ]
    legend_font = {"family": "DejaVu Sans", "size": _OP_SIZE}
    axes.legend(
        handles=handles,
        loc="lower center",
        ncols=max(len(handles), 1),
        frameon=False,
        prop=legend_font,
        handlelength=1.2,
        handletextpad=0.5,
        columnspacing=1.4,
        borderaxespad=0.4,
    )
    return figure


def save_drawing(space: Space, genotype: Genotype, stem: Path) -> list[Path]:
    """Write the picture of a genotype to ``stem.svg`` and ``stem.png``.

    Returns:
        The two paths.
    """
    figure = draw_figure(space, genotype)
    paths = []
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "lightning_nas"}):
        for ending, extra in ((".svg", {"metadata": {"Date": None}}), (".png", {"dpi": 200})):
            path = stem.with_name(stem.name + ending)
            paths.append(write_whole(path, lambda file, extra=extra: figure.savefig(file, **extra)))  # type: ignore[misc]
    return paths


def _families(graph: CellGraph) -> set[str]:
    """What the legend has to explain: of operations on edges and on nodes, and of plain wires."""
    ops = [op for _, op in map(_split, graph.nodes) if op]
    return {*map(_family, ops), *(_edge_family(graph, *edge) for edge in graph.edges)}


def _edge_family(graph: CellGraph, source: int, target: int, label: str) -> str:
    return _family(label) if label else "sum" if _adds(graph, source, target) else "concat"


def _family(op: str) -> str:
    return next((family for family in ("conv", "pool", "skip", "none") if family in op.lower()), "other")


def _label(node: str) -> str:
    return f"${node}$" if "_{" in node else node


@lru_cache(maxsize=256)
def _width(text: str, size: float) -> float:
    """The width of a text in inches; in a viewer with other fonts it is hardly ever wider than in this one."""
    return float(TextPath((0, 0), text, size=size, prop=_FONT).get_extents().width) / 72


def _layout(graph: CellGraph) -> CellLayout:
    nodes = [max(_width(_label(node), _NODE_SIZE) + 0.18, 0.3) for node in graph.nodes]
    ops = [_width(label, _OP_SIZE) + 0.16 if label else 0.0 for _, _, label in graph.edges]
    return layout_cell(graph, nodes, ops)


def _draw_cell(axes: Any, graph: CellGraph, layout: CellLayout, top: float) -> None:
    for edge, route in zip(graph.edges, layout.routes, strict=True):
        _draw_route(axes, _edge_family(graph, *edge), route, top)
    for index, box in layout.ops.items():
        label = graph.edges[index][2]
        line, fill = _COLOURS[_family(label)]
        _draw_box(axes, label, box, top, facecolor=fill, edgecolor=line, size=_OP_SIZE)
    for node, box in zip(graph.nodes, layout.nodes, strict=True):
        op = _split(node)[1]
        line, fill = _COLOURS[_family(op)] if op else ("#333333", "#ffffff")
        _draw_box(axes, _label(node), box, top, facecolor=fill, edgecolor=line, size=_NODE_SIZE)


def _draw_box(axes: Any, text: str, box: Box, top: float, facecolor: str, edgecolor: str, size: float) -> None:
    corner, style = (box.x - box.width / 2 + _MARGIN, box.y - box.height / 2 + top), "round,pad=0,rounding_size=0.06"
    patch = FancyBboxPatch(corner, box.width, box.height, boxstyle=style, linewidth=1.0, zorder=3)
    patch.set(facecolor=facecolor, edgecolor=edgecolor)
    axes.add_patch(patch)
    axes.text(
        box.x + _MARGIN,
        box.y + top,
        text,
        ha="center",
        va="center",
        fontproperties=_FONT,
        size=size,
        color="#222222",
        zorder=4,
    )


def _draw_route(axes: Any, family: str, route: Route, top: float) -> None:
    """Straight through each layer, a curve that starts and ends level from one to the next, an arrow at the end."""
    path = _path(route, top)
    colour, width = _COLOURS[family][0], 1.0 if family in ("sum", "concat") else 1.3
    axes.add_patch(PathPatch(path, fill=False, edgecolor="white", linewidth=3.6, zorder=2))
    line = PathPatch(path, fill=False, edgecolor=colour, linewidth=width, zorder=2)
    line.set_linestyle(":" if family == "none" else "-")
    axes.add_patch(line)
    x, y = route.lines[-1][1][0] + _MARGIN, route.lines[-1][1][1] + top
    axes.add_patch(Polygon([(x, y), (x - 0.09, y - 0.04), (x - 0.09, y + 0.04)], facecolor=colour, zorder=2))


def _path(route: Route, top: float) -> MplPath:
    points, codes = [route.lines[0][0]], [MplPath.MOVETO]
    for (start, end), following in zip(route.lines, [*route.lines[1:], None], strict=True):
        if end[0] - start[0] > 1e-6:
            points.append(end)
            codes.append(MplPath.LINETO)
        if following is not None:
            middle = (end[0] + following[0][0]) / 2
            points += [(middle, end[1]), (middle, following[0][1]), following[0]]
            codes += [MplPath.CURVE4] * 3
    return MplPath([(x + _MARGIN, y + top) for x, y in points], codes)
