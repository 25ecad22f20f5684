"""Genotypes of ENAS as text and as pictures: every operation and every wire once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import pytest

from lightning_nas.reports import draw_text, save_drawing
from lightning_nas.spaces import ENAS_MACRO_OPS, ENAS_MICRO_OPS, ENASMacroSpace, ENASMicroSpace

PUBLISHED = "0 2 0 0 0 4 0 1 0 4 1 1 1 0 0 1 0 2 1 1 1 0 1 0 0 3 0 2 1 1 3 1 1 0 0 4 0 3 1 1"


def test_text_of_the_published_cells() -> None:
    space = ENASMicroSpace()
    assert draw_text(space, space.parse(PUBLISHED)).splitlines() == [
        "normal ┬ 2      = avg_pool_3x3(c_k-2) + sep_conv_3x3(c_k-2)",
        "       ├ 3      = skip_connect(c_k-2) + sep_conv_5x5(c_k-2)",
        "       ├ 4      = skip_connect(c_k-2) + sep_conv_5x5(c_k-1)",
        "       ├ 5      = sep_conv_3x3(c_k-1) + sep_conv_5x5(c_k-2)",
        "       ├ 6      = avg_pool_3x3(c_k-2) + sep_conv_5x5(c_k-1)",
        "       └ output = concat(2, 3, 4, 5, 6)",
        "reduce ┬ 2      = sep_conv_3x3(c_k-1) + sep_conv_3x3(c_k-1)",
        "       ├ 3      = max_pool_3x3(c_k-2) + avg_pool_3x3(c_k-2)",
        "       ├ 4      = sep_conv_5x5(c_k-1) + sep_conv_5x5(3)",
        "       ├ 5      = sep_conv_3x3(c_k-1) + skip_connect(c_k-2)",
        "       ├ 6      = max_pool_3x3(c_k-2) + sep_conv_5x5(c_k-1)",
        "       └ output = concat(2, 4, 5, 6)",
    ]


def test_text_of_layers() -> None:
    space = ENASMacroSpace(4)
    assert draw_text(space, space.parse("0  3 1  2 0 1  5 1 0 1")).splitlines() == [
        "network ┬ 0      = conv_3x3(input)",
        "        ├ 1      = sep_conv_5x5(0) + concat(0)",
        "        ├ 2      = conv_5x5(1) + concat(1)",
        "        └ output = max_pool_3x3(2) + concat(0, 2)",
    ]


@pytest.mark.parametrize("seed", range(2))
def test_pictures_have_every_operation_as_often_as_the_genotype(seed: int, tmp_path: Path) -> None:
    micro, macro = ENASMicroSpace(), ENASMacroSpace()
    one, other = micro.sample(Random(seed)), macro.sample(Random(seed))
    sides = [side for kind in micro.kinds for block in micro.cell(one, kind) for side in block]
    wanted = (
        (micro, one, Counter(ENAS_MICRO_OPS[op] for _, op in sides)),
        (macro, other, Counter(ENAS_MACRO_OPS[op] for op, _ in macro.chain(other))),
    )
    for space, genotype, ops in wanted:
        svg, _ = save_drawing(space, genotype, tmp_path / "cell")
        texts = ElementTree.parse(svg).getroot().iter("{http://www.w3.org/2000/svg}text")  # noqa: S314
        found = Counter("".join(text.itertext()).strip() for text in texts)
        assert {op: found[op] for op in ops} == dict(ops)
