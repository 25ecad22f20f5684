"""Cells as text and pictures: everything kept is drawn once, legibly and reproducibly."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.text import Text
from PIL import Image

from lightning_nas.arch import Genotype
from lightning_nas.reports import draw_figure, draw_text, save_drawing
from lightning_nas.spaces import (
    GENOTYPES,
    ONE_SHOT1_OPS,
    SPACES,
    ChainSpace,
    DARTSSpace,
    ENASMacroSpace,
    ENASMicroSpace,
    NASBench1Shot1Space,
    NASBench101Space,
    Space,
    get_space,
    load_genotype,
)

ALL_NONE = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
SAME = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
# drawn in test_mobile_drawings.py, test_enas_drawings.py and test_nasbench101.py
OTHERS = (ChainSpace, ENASMacroSpace, ENASMicroSpace, NASBench101Space)
ALL = {name: get_space(name) for name in SPACES if not isinstance(get_space(name), OTHERS)}
LEGEND = {"conv": "convolution", "pool": "pooling", "skip": "skip", "none": "none", "noise": "other"}
ONE_SHOT1 = [name for name, space in ALL.items() if isinstance(space, NASBench1Shot1Space)]
any_space = pytest.mark.parametrize("name", list(ALL))
some = settings(max_examples=40, deadline=None, database=None)
published = pytest.mark.parametrize("text", [*GENOTYPES, ALL_NONE, SAME])


def kept_edges(space: Space, genotype: Genotype) -> Counter[tuple[str, str, str, str]]:
    """``(kind, target, label, source)`` of each edge, read off the decisions and not off the graph.

    An operation on a node is that of each edge into it; an edge into the output that adds has no label.
    """
    if isinstance(space, NASBench1Shot1Space):
        nodes = {block: ("input", *map(str, range(1, block))) for block in range(1, space.blocks + 1)}
        taken = {block: genotype.picks.get(f"inputs/{block}", tuple(range(block))) for block in nodes}
        ops = {block: ONE_SHOT1_OPS[genotype.picks[f"ops/{block}"][0]] for block in nodes}
        into = Counter(("cell", str(b), ops[b], nodes[b][source]) for b in nodes for source in taken[b])
        return into + Counter([("cell", "output", "", "input")] * (0 in genotype.picks["output"]))
    shown = {0: "c_k-2", 1: "c_k-1"} if isinstance(space, DARTSSpace) else {0: "input", 3: "output"}
    edges: Counter[tuple[str, str, str, str]] = Counter()
    for rows in space.decisions.values():
        for d in rows:
            match = re.fullmatch(r"(\w+)/(\d+)<-(\d+)", d.name)
            if match and d.name in genotype.picks:
                target, source = (shown.get(int(node), node) for node in match.groups()[1:])
                edges[match[1], target, d.choices[genotype.picks[d.name][0]], source] += 1
    return edges


def read_text(text: str) -> tuple[Counter[tuple[str, str, str, str]], Counter[tuple[str, str, str]]]:
    """The edges and the concatenations that a drawing shows; ``op(a + b)`` is an edge with `op` from each."""
    edges: Counter[tuple[str, str, str, str]] = Counter()
    concats: Counter[tuple[str, str, str]] = Counter()
    kind = ""
    for line in text.splitlines():
        match = re.fullmatch(r"(\w*) *[┬├└] ([\w-]+) *= (.+)", line)
        assert match, line
        kind = match[1] or kind
        for term in re.split(r" \+ (?![^(]*\))", match[3]):
            part = re.fullmatch(r"(?:([\w-]+)\()?([\w\-+, ]+)(\)?)", term)
            assert part, term
            assert bool(part[1]) == bool(part[3]), term
            if part[1] == "concat":
                concats[kind, match[2], part[2]] += 1
                continue
            for source in part[2].split(" + "):
                assert re.fullmatch(r"[\w-]+", source), term
                edges[kind, match[2], part[1] or "", source] += 1
    return edges, concats


def kept_concats(space: Space, genotype: Genotype) -> Counter[tuple[str, str, str]]:
    if isinstance(space, NASBench1Shot1Space):
        joined = [str(block) for block in genotype.picks["output"] if block]
        return Counter([("cell", "output", ", ".join(joined))])
    if not isinstance(space, DARTSSpace):
        return Counter()
    return Counter((kind, "output", ", ".join(inner_nodes(space))) for kind in space.kinds)


def inner_nodes(space: DARTSSpace) -> list[str]:
    return [str(2 + index) for index in range(space.topology.nodes)]


def check_text(space: Space, genotype: Genotype) -> None:
    edges, concats = read_text(draw_text(space, genotype))
    assert edges == kept_edges(space, genotype)
    assert set(edges.values()) == {1}
    assert concats == kept_concats(space, genotype)


# --- text


@any_space
@some
@given(seed=st.integers(0, 2**32))
def test_text_has_every_kept_edge_once(name: str, seed: int) -> None:
    space = ALL[name]
    check_text(space, space.sample(Random(seed)))


@published
def test_text_of_published_cells(text: str) -> None:
    check_text(*load_genotype(text))


def test_text_of_operations_on_nodes() -> None:
    cell = (
        '{"space": "nasbench1shot1_2", "ops": ["maxpool3x3", "conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3"],'
        ' "parents": [[0], [1], [0, 2], [1, 3], [0, 2, 4]]}'
    )
    assert draw_text(*load_genotype(cell)).splitlines() == [
        "cell ┬ 1      = maxpool3x3(input)",
        "     ├ 2      = conv3x3-bn-relu(1)",
        "     ├ 3      = conv1x1-bn-relu(input + 2)",
        "     ├ 4      = maxpool3x3(1 + 3)",
        "     └ output = input + concat(2, 4)",
    ]


def test_text_columns_line_up() -> None:
    lines = draw_text(*load_genotype("darts_v2")).splitlines()
    assert len(lines) == 10
    assert len({line.index("=") for line in lines if line[:6].strip() != "reduce"}) == 1
    assert [line[7] for line in lines] == [*"┬├├├└"] * 2
    assert [line.split(" ")[0] for line in lines if "┬" in line] == ["normal", "reduce"]
    assert not any("{" in line or "}" in line for line in lines)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_text_suits_a_terminal_without_box_characters(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = draw_text(*load_genotype("darts_v2"))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    text = draw_text(*load_genotype("darts_v2"))
    print(text)  # does not raise
    assert text == re.sub("[┬├└]", "|", wanted)


# --- pictures


def svg_texts(path: Path) -> Counter[str]:
    """Each text of the picture; pieces of mathematical text are joined."""
    root = ElementTree.parse(path).getroot()  # noqa: S314
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return Counter("".join(element.itertext()).strip() for element in root.iter("{http://www.w3.org/2000/svg}text"))


def check_svg(space: Space, genotype: Genotype, path: Path) -> None:
    texts = svg_texts(path)
    if isinstance(space, NASBench1Shot1Space):
        ops = [ONE_SHOT1_OPS[genotype.picks[f"ops/{block}"][0]] for block in range(1, space.blocks + 1)]
        expected = Counter(f"{block}: {op}" for block, op in enumerate(ops, start=1))
    else:
        expected = Counter(label for (_, _, label, _), n in kept_edges(space, genotype).items() for _ in range(n))
    families = {part for label in expected for part in LEGEND if part in label}
    everything = expected + Counter(LEGEND[part] for part in families)
    if isinstance(space, DARTSSpace):
        titles, times = [f"{kind} cell" for kind in space.kinds], len(space.kinds)
        everything += Counter(["concatenation", *titles] + [*inner_nodes(space), "output"] * times)
        inputs = sum(n for text, n in texts.items() if re.sub(r"[\s−-]", "", text) in ("ck2", "ck1", "k2c", "k1c"))  # noqa: RUF001
        assert inputs == 2 * times
    elif isinstance(space, NASBench1Shot1Space):
        everything += Counter(["cell", "input", "output", "sum", "concatenation"])
        assert texts == everything
    else:
        everything += Counter(["cell", "input", "1", "2", "output"])
    assert texts["sum"] == isinstance(space, NASBench1Shot1Space)
    assert {text: texts[text] for text in everything} == dict(everything)


@any_space
@pytest.mark.parametrize("seed", range(2))
def test_svg_has_every_label_as_often_as_the_cell(name: str, seed: int, tmp_path: Path) -> None:
    space = ALL[name]
    genotype = space.sample(Random(seed))
    svg, _ = save_drawing(space, genotype, tmp_path / "cell")
    check_svg(space, genotype, svg)


@published
def test_svg_of_published_cells(text: str, tmp_path: Path) -> None:
    space, genotype = load_genotype(text)
    svg, png = save_drawing(space, genotype, tmp_path / "a.b")
    assert (svg.name, png.name) == ("a.b.svg", "a.b.png")
    check_svg(space, genotype, svg)


@pytest.mark.parametrize("text", ["darts_v2", SAME])
def test_png_is_the_figure_and_not_blank(text: str, tmp_path: Path) -> None:
    space, genotype = load_genotype(text)
    _, path = save_drawing(space, genotype, tmp_path / "cell")
    width, height = draw_figure(space, genotype).get_size_inches()
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.size == pytest.approx((200 * width, 200 * height), abs=2)
        assert 300 < min(picture.size) <= max(picture.size) < 3000
        pixels = np.asarray(picture.convert("RGB"))
    ink = (pixels != 255).any(axis=-1)
    assert 0.01 < ink.mean() < 0.5
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    assert not ink[[0, -1]].any()  # nothing is cut at the border
    assert not ink[:, [0, -1]].any()


@pytest.mark.parametrize("text", ["darts_v2", ALL_NONE])
def test_two_drawings_are_the_same_bytes(text: str, tmp_path: Path) -> None:
    first = [path.read_bytes() for path in save_drawing(*load_genotype(text), tmp_path / "first")]
    save_drawing(*load_genotype("gdas_v1"), tmp_path / "between")
    second = [path.read_bytes() for path in save_drawing(*load_genotype(text), tmp_path / "second")]
    assert first == second


def test_another_process_draws_the_same_bytes(tmp_path: Path) -> None:
    svg, _ = save_drawing(*load_genotype("darts_v2"), tmp_path / "here")
    program = (
        "from pathlib import Path; from lightning_nas.reports import save_drawing;"
        "from lightning_nas.spaces import load_genotype;"
        "save_drawing(*load_genotype('darts_v2'), Path('there'))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, env=os.environ | {"PYTHONHASHSEED": "77"})
    assert (tmp_path / "there.svg").read_bytes() == svg.read_bytes()


def boxes(figure: Figure) -> list[tuple[str, float, float, float, float]]:
    """Text and corners, in pixels of the figure, of each node, label and title."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    texts = [child for axes in figure.axes for child in axes.get_children() if isinstance(child, Text)]
    return [(t.get_text(), *t.get_window_extent(renderer).extents) for t in texts if t.get_text()]


@pytest.mark.parametrize("text", ["darts_v2", "gdas_v1", "p_darts", ALL_NONE, SAME])
def test_no_two_labels_overlap(text: str) -> None:
    found = boxes(draw_figure(*load_genotype(text)))
    check_apart(found)


@any_space
@pytest.mark.parametrize("seed", range(3))
def test_no_two_labels_of_samples_overlap(name: str, seed: int) -> None:
    check_apart(boxes(draw_figure(ALL[name], ALL[name].sample(Random(seed)))))


def check_apart(found: list[tuple[str, float, float, float, float]]) -> None:
    for (a, ax0, ay0, ax1, ay1), (b, bx0, by0, bx1, by1) in combinations(found, 2):
        apart = ax1 <= bx0 or bx1 <= ax0 or ay1 <= by0 or by1 <= ay0
        assert apart, f"{a!r} and {b!r} overlap"


def colours(figure: Figure) -> tuple[dict[str, str], Counter[str]]:
    """The line colour of each word of the legend, and how many edges have each colour."""
    (axes,) = figure.axes
    legend = axes.get_legend()
    assert legend is not None
    words = [text.get_text() for text in legend.get_texts()]
    lines = [to_hex(patch.get_edgecolor()) for patch in legend.get_patches()]
    edges = Counter(to_hex(patch.get_edgecolor()) for patch in axes.patches if isinstance(patch, PathPatch))
    return dict(zip(words, lines, strict=True)), edges


@pytest.mark.parametrize("name", ONE_SHOT1)
@pytest.mark.parametrize("seed", range(6))
def test_wires_are_what_the_legend_calls_them(name: str, seed: int) -> None:
    genotype = ALL[name].sample(Random(seed))
    legend, edges = colours(draw_figure(ALL[name], genotype))
    joined = sum(source > 0 for source in genotype.picks["output"])
    assert edges[legend["sum"]] == sum(kept_edges(ALL[name], genotype).values())
    assert edges[legend["concatenation"]] == joined
    assert len({*legend.values()}) == len(legend)


def test_wires_of_cells_with_operations_on_edges_concatenate() -> None:
    legend, edges = colours(draw_figure(*load_genotype("darts_v2")))
    assert set(legend) == {"convolution", "pooling", "skip", "concatenation"}
    assert edges[legend["concatenation"]] == 8


def test_drawing_leaves_the_settings_of_matplotlib_alone(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    save_drawing(*load_genotype("darts_v2"), tmp_path / "cell")
    assert dict(mpl.rcParams) == before
