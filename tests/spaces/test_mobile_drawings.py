"""Drawings of chains: each block once and in order, in the terminal and in the picture."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lightning_nas import cli
from lightning_nas.reports import draw_text, save_drawing
from lightning_nas.spaces import ChainSpace, get_space

everywhere = pytest.mark.parametrize("name", ["proxyless_mobile", "fbnet", "shufflenet"])


def of(name: str) -> ChainSpace:
    space = get_space(name)
    assert isinstance(space, ChainSpace)
    return space


@everywhere
@pytest.mark.parametrize("seed", range(3))
def test_the_text_lists_the_blocks_in_order(name: str, seed: int) -> None:
    space = of(name)
    genotype = space.sample(random.Random(seed))
    lines = draw_text(space, genotype).splitlines()
    found = [re.fullmatch(r"(\w*) *[┬├└] (\w+) *= (\w+)\((\w+)\)", line) for line in lines]
    assert all(found)
    assert tuple(match[3] for match in found if match) == space.names(genotype)
    titles = [match[1] for match in found if match and match[1]]
    assert titles == [f"stage{number}" for number in range(1, len(space.stages) + 1)]
    for before, match in zip([None, *found], found, strict=False):
        assert match is not None
        assert match[4] == ("input" if match[1] or before is None else before[2])


@everywhere
def test_the_picture_has_every_label(name: str, tmp_path: Path) -> None:
    space = of(name)
    genotype = space.sample(random.Random(0))
    svg, png = save_drawing(space, genotype, tmp_path / "chain")
    root = ElementTree.parse(svg).getroot()  # noqa: S314
    texts = Counter("".join(part.itertext()).strip() for part in root.iter("{http://www.w3.org/2000/svg}text"))
    wanted = Counter(label for label in space.names(genotype) if label != "skip")  # which the legend says once more
    assert {label: texts[label] for label in wanted} == dict(wanted)
    assert texts["input"] == texts["output"] == len(space.stages)
    assert png.stat().st_size > 1000


@everywhere
def test_the_command_shows_a_chain(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    space = of(name)
    text = space.format(space.sample(random.Random(0)))
    cli.main(["show", text, "--channels=4", "--out=chain"])
    out = capsys.readouterr().out
    assert text in out
    assert re.search(r"parameters [\d,]+   MACs [\d,]+", out)
    assert Path("chain.svg").is_file()
    with pytest.raises(SystemExit):
        cli.main(["show", text, "--image_size=48"])
    assert "multiples of 32" in capsys.readouterr().err
