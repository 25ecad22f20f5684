"""Genotypes as strings of tokens, and back."""

from __future__ import annotations

import random
from itertools import product

import pytest
import torch

from lightning_nas.query.encoders.tokens import ABSENT, TokenEncoder
from lightning_nas.spaces import SPACES, get_space
from lightning_nas.spaces.metaqnn import MetaQNNSpace
from lightning_nas.spaces.nasnet import NASNetSpace
from lightning_nas.spaces.restricted import RestrictedSpace

SIZES = {
    "nasbench201": (6, 6),  # five operations
    "nasbench101": (27, 7),  # as in SemiNAS
    "enas_micro": (40, 12),  # two cells of five blocks, as in NAO
    "darts": (32, 14),  # 2 cells, 4 nodes, 2 pairs; five possible inputs, eight operations
    "nasbench1shot1_1": (10, 9),  # four operations, two pairs of inputs, the output's two
}


@pytest.mark.parametrize(("space", "length", "words"), [(name, *size) for name, size in SIZES.items()])
def test_length_and_vocabulary(space: str, length: int, words: int) -> None:
    encoder = TokenEncoder(space)
    assert (encoder.length, len(encoder.vocabulary)) == (length, words)
    assert encoder.vocabulary[0] == ABSENT
    assert len(set(encoder.vocabulary)) == words
    tokens = encoder([encoder.space.sample(random.Random(0))])
    assert tokens.shape == (1, length)
    assert not tokens.is_floating_point()


def test_every_string_of_nasbench201_and_no_other() -> None:
    encoder = TokenEncoder("nasbench201")
    space = encoder.space
    genotypes = [
        space.from_rows({"cell": dict(enumerate(choices))})  # type: ignore[attr-defined]
        for choices in product(range(5), repeat=6)
    ]
    tokens = encoder.encode(genotypes)
    assert len(set(map(tuple, tokens.tolist()))) == 15_625
    assert [encoder.decode(string) for string in tokens.tolist()] == genotypes
    assert encoder.decode([0, 1, 1, 1, 1, 1]) is None


@pytest.mark.parametrize(
    "space", [*SPACES, NASNetSpace(), MetaQNNSpace()], ids=lambda space: getattr(space, "name", space)
)
def test_round_trip(space: str) -> None:
    encoder, rng = TokenEncoder(space), random.Random(0)
    genotypes = [encoder.space.sample(rng) for _ in range(8)]
    for genotype, string in zip(genotypes, encoder(genotypes), strict=True):
        assert encoder.decode(string) == genotype
        assert bool(encoder.allowed[torch.arange(encoder.length), string].all())


def test_the_form_of_nasbench101() -> None:
    encoder = TokenEncoder("nasbench101")
    ops = '["input", "maxpool3x3", "conv1x1-bn-relu", "output"]'
    genotype = encoder.space.parse('{"matrix": ["0101", "0010", "0001", "0000"], "ops": ' + ops + "}")
    words = [encoder.vocabulary[token] for token in encoder([genotype])[0].tolist()]
    loose = "conv3x3-bn-relu"  # on the three vertices that are not connected
    cell = ["1", "maxpool3x3", "0", "1", "conv1x1-bn-relu"]
    assert words == [*cell, *"000", loose, *"0000", loose, *"00000", loose, *"101000", "output"]


def test_the_form_of_darts() -> None:
    encoder = TokenEncoder("darts")
    rest = ", ('skip_connect', 0), ('skip_connect', 1)" * 2
    cell = "[('sep_conv_3x3', 0), ('skip_connect', 1), ('max_pool_3x3', 2), ('sep_conv_5x5', 0)" + rest + "]"
    genotype = encoder.space.parse(f"Genotype(normal={cell}, reduce={cell})")
    tokens = encoder([genotype])[0].tolist()
    words = [encoder.vocabulary[token] for token in tokens]
    assert words[:8] == ["0", "sep_conv_3x3", "1", "skip_connect", "0", "sep_conv_5x5", "2", "max_pool_3x3"]
    assert words[16:] == words[:16]
    assert encoder.decode([*tokens[:4], *tokens[6:8], *tokens[4:6], *tokens[8:]]) == genotype
    assert encoder.decode([*tokens[:6], tokens[4], *tokens[7:]]) is None  # one input twice
    assert encoder.decode([*tokens[:6], tokens[5], *tokens[7:]]) is None  # an operation for an input
    assert not encoder.allowed[1, encoder.vocabulary.index("none")]


def test_what_is_no_architecture_is_none_and_what_is_no_string_is_an_error() -> None:
    encoder = TokenEncoder("nasbench101")
    no_way = [1] * 27
    for slot, allowed in enumerate(encoder.allowed):
        no_way[slot] = int(allowed.nonzero()[0])
    assert encoder.decode(no_way) is None
    with pytest.raises(ValueError, match="27 tokens from 0 to 6"):
        encoder.decode([1, 2])
    with pytest.raises(ValueError, match="27 tokens from 0 to 6"):
        encoder.decode([7] * 27)


def test_a_part_of_a_space_reads_its_members_alone() -> None:
    base = get_space("nasbench101")
    some = [base.sample(random.Random(k)) for k in range(30)]
    encoder = TokenEncoder(RestrictedSpace(base, some[:20]))
    strings = encoder(some)
    assert torch.equal(strings, TokenEncoder(base)(some))
    assert [encoder.decode(string) for string in strings] == [*some[:20], *[None] * 10]


def test_decisions_that_do_not_apply_are_padding() -> None:
    encoder, rng = TokenEncoder(MetaQNNSpace(4, 32)), random.Random(0)
    drawn = [encoder.space.sample(rng) for _ in range(50)]
    layers = [len(genotype.picks) for genotype in drawn]
    assert {2, 4} <= set(layers)
    assert (encoder(drawn) > 0).tolist() == [[place < count for place in range(4)] for count in layers]
