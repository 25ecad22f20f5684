"""A cell as text for the terminal and as a picture, with no program of the system's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from matplotlib.path import Path as MplPath

from lightning_nas.arch import Genotype
from lightning_nas.reports.files import write_whole
from lightning_nas.spaces import CellGraph, Space

__all__ = ["draw_figure", "draw_text", "save_drawing"]

_COLOURS = {"conv": "#1f77b4", "pool": "#2ca02c", "skip": "#888888", "none": "#d62728", "": "#bbbbbb"}
_FAMILIES = {"conv": "convolution", "pool": "pooling", "skip": "skip", "none": "none", "": "concatenation"}


def draw_text(space: Space, genotype: Genotype) -> str:
    """The cells of a genotype for the terminal, a line per node.

    Example:
        >>> from lightning_nas.spaces import load_genotype
        >>> print(draw_text(*load_genotype("|nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|none~1|nor_conv_1x1~2|")))
        cell ┬ 1      = nor_conv_3x3(input)
             ├ 2      = skip_connect(input) + none(1)
             └ output = none(input) + none(1) + nor_conv_1x1(2)
    """
    blocks = []
    for kind, graph in space.graphs(genotype).items():
        into: dict[int, list[str]] = {}
        plain: dict[int, list[str]] = {}
        for source, target, label in graph.edges:
            name = _plain(graph.nodes[source])
            (into if label else plain).setdefault(target, []).append(f"{label}({name})" if label else name)
        lines = [(_plain(graph.nodes[target]), " + ".join(terms)) for target, terms in sorted(into.items())]
        lines += [(_plain(graph.nodes[target]), f"concat({', '.join(names)})") for target, names in plain.items()]
        width = max(len(name) for name, _ in lines)
        marks = [f"{kind} ┬"] + [" " * len(kind) + " ├"] * (len(lines) - 2) + [" " * len(kind) + " └"]
        blocks += [f"{mark} {name:<{width}} = {text}" for mark, (name, text) in zip(marks, lines, strict=False)]
    return "\n".join(blocks)


def _plain(label: str) -> str:
    """A node's label without the marks of mathematical text."""
    return label.replace("{", "").replace("}", "")


def draw_figure(space: Space, genotype: Genotype) -> Figure:
    """The cells of a genotype as a picture: nodes in a row, an arc for each operation, one cell below another.

    Arcs whose spans overlap run at different heights, so that no two labels and no node and label overlap.
    """
    graphs = space.graphs(genotype)
    lanes = {kind: _lanes(graph) for kind, graph in graphs.items()}
    heights = [max(map(abs, lanes[kind].values()), default=1) for kind in graphs]
    width = 1.45 * max(len(graph.nodes) for graph in graphs.values()) + 0.3
    figure = Figure(figsize=(width, sum(0.95 * height + 0.9 for height in heights) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(graphs), 1, squeeze=False, height_ratios=[h + 1 for h in heights])[:, 0]
    for axes, (kind, graph) in zip(panels, graphs.items(), strict=True):
        _draw_cell(axes, kind, graph, lanes[kind])
    families = {_family(label) for graph in graphs.values() for _, _, label in graph.edges}
    handles = [Line2D([], [], color=_COLOURS[f], lw=2, label=_FAMILIES[f]) for f in _COLOURS if f in families]
    figure.legend(handles=handles, loc="outside lower center", ncols=max(len(handles), 1), frameon=False)
    return figure


def save_drawing(space: Space, genotype: Genotype, stem: Path) -> list[Path]:
    """Write the picture of a genotype to ``stem.svg`` and ``stem.png``.

    Returns:
        The two paths.
    """
    figure = draw_figure(space, genotype)
    paths = []
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "lightning_nas"}):
        for ending, extra in ((".svg", {"metadata": {"Date": None}}), (".png", {"dpi": 150})):
            path = stem.with_name(stem.name + ending)
            paths.append(write_whole(path, lambda file, extra=extra: figure.savefig(file, **extra)))  # type: ignore[misc]
    return paths


def _family(label: str) -> str:
    return next((family for family in ("conv", "pool", "skip", "none") if family in label), "" if not label else "conv")


def _lanes(graph: CellGraph) -> dict[int, int]:
    """Index of each labelled edge -> its height: 1, -1, 2, ... so that edges over a common stretch differ."""
    order = sorted((t - s, s, index) for index, (s, t, label) in enumerate(graph.edges) if label)
    taken: dict[int, list[tuple[int, int]]] = {}
    lanes = {}
    for _, source, index in order:
        target = graph.edges[index][1]
        heights = (sign * height for height in range(1, len(order) + 1) for sign in (1, -1))
        lane = next(h for h in heights if all(target <= s or t <= source for s, t in taken.get(h, [])))
        taken.setdefault(lane, []).append((source, target))
        lanes[index] = lane
    return lanes


def _draw_cell(axes: Any, kind: str, graph: CellGraph, lanes: dict[int, int]) -> None:
    lowest = min([*lanes.values(), 0]) - 0.8
    for index, (source, target, label) in enumerate(graph.edges):
        _draw_edge(axes, source, target, label, lanes.get(index, lowest))
    for x, label in enumerate(graph.nodes):
        box = {"boxstyle": "round,pad=0.35", "facecolor": "#f4f1de", "edgecolor": "#444444"}
        text = f"${label}$" if "_" in label else label
        axes.text(x, 0, text, ha="center", va="center", fontsize=11, bbox=box, zorder=4)
    axes.set_title("cell" if kind == "cell" else f"{kind} cell", loc="left")
    axes.set_xlim(-0.5, len(graph.nodes) - 0.5)
    axes.set_ylim(lowest - 0.3, max([*lanes.values(), 0]) + 0.5)
    axes.axis("off")


def _draw_edge(axes: Any, source: int, target: int, label: str, lane: float) -> None:
    """An arc that leaves its source, runs at the height of its lane, and ends as an arrow above or below its target."""
    bend, end = 0.3, 0.24 if lane > 0 else -0.24
    left, right = source + 0.05, target - 0.05
    points = [(left, 0), (left, lane), (left + 0.05, lane), (left + bend, lane), (right - bend, lane)]
    points += [(right - 0.05, lane), (right, lane), (right, end)]
    codes = [MplPath.MOVETO, *[MplPath.CURVE4] * 3, MplPath.LINETO, *[MplPath.CURVE4] * 3]
    colour = _COLOURS[_family(label)]
    arrow = FancyArrowPatch(path=MplPath(points, codes), arrowstyle="-|>", mutation_scale=11, zorder=2, color=colour)
    arrow.set_linewidth(1.6 if label else 1.0)
    arrow.set_linestyle(":" if label == "none" else "-")
    axes.add_patch(arrow)
    if label:
        box = {"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none"}
        middle = (source + target) / 2
        axes.text(middle, lane, label, ha="center", va="center", fontsize=8.5, color=colour, bbox=box, zorder=3)
