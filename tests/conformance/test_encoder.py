"""What every encoder promises. A new one is covered by a line in `ENCODERS`."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable

import pytest
import torch

from lightning_nas.arch import Genotype
from lightning_nas.query.encoders import AdjacencyEncoder, Encoded, Encoder, GraphEncoder, Graphs, PathEncoder, select
from lightning_nas.query.encoders.arch2vec import Arch2Vec
from lightning_nas.query.encoders.score import ScoreEncoder
from lightning_nas.query.encoders.tokens import TokenEncoder
from lightning_nas.query.encoders.weisfeiler_lehman import WLEncoder


def decisions(genotype: Genotype) -> float:
    return float(sum(sum(kept) for kept in genotype.picks.values()))


ENCODERS: dict[str, Callable[[str], Encoder]] = {
    "one-hot": lambda space: AdjacencyEncoder(space),
    "ordinal": lambda space: AdjacencyEncoder(space, "ordinal"),
    "continuous": lambda space: AdjacencyEncoder(space, "continuous", canonical=True),
    "path": lambda space: PathEncoder(space, 40),
    "graph": lambda space: GraphEncoder(space),
    "pruned graph": lambda space: GraphEncoder(space, prune=True),
    "tokens": lambda space: TokenEncoder(space),
    "arch2vec": lambda space: Arch2Vec(space, number=20, passes=1, hidden=8),
    "score": lambda space: ScoreEncoder(space, decisions),
    "weisfeiler-lehman": lambda space: WLEncoder(space, number=50),
    "weisfeiler-lehman both ways": lambda space: WLEncoder(space, 1, "both", prune=False, number=20),
}
SPACES = ("nasbench201", "nasbench101", "nasbench1shot1_1", "darts", "small_sep", "enas_micro", "proxyless_mobile")

each = pytest.mark.parametrize("space", SPACES)
every = pytest.mark.parametrize("name", ENCODERS)


def tensors(encoded: Encoded) -> list[torch.Tensor]:
    return [encoded.adjacency, encoded.labels] if isinstance(encoded, Graphs) else [encoded]


def same(a: Encoded, b: Encoded) -> bool:
    if isinstance(a, Graphs) and isinstance(b, Graphs):
        wide = max(a.labels.shape[1], b.labels.shape[1])
        a, b = a.padded(wide), b.padded(wide)
    return all(map(torch.equal, tensors(a), tensors(b)))


@each
@every
def test_each_genotype_has_its_rows_whatever_was_encoded_with_it(name: str, space: str) -> None:
    encoder, fresh = ENCODERS[name](space), ENCODERS[name](space)
    rng = random.Random(0)
    genotypes = [encoder.space.sample(rng) for _ in range(6)]
    encoded = encoder([*genotypes, genotypes[0]])
    assert len(encoded) == 7
    assert same(select(encoded, slice(0, 1)), select(encoded, slice(6, 7)))
    again = fresh(genotypes[::-1])
    for k in range(6):
        assert same(select(encoded, slice(k, k + 1)), select(again, slice(5 - k, 6 - k)))
    assert all(bool(torch.isfinite(part.float()).all()) for part in tensors(encoded))


@every
def test_what_differs_is_told_apart(name: str) -> None:
    encoder = ENCODERS[name]("nasbench201")
    texts = (
        "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|",
        "|none~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|",
    )
    encoded = encoder([encoder.space.parse(text) for text in texts])
    assert not same(select(encoded, slice(0, 1)), select(encoded, slice(1, 2)))


@every
def test_it_leaves_torch_alone_and_pickles(name: str) -> None:
    encoder = ENCODERS[name]("nasbench201")
    genotypes = [encoder.space.sample(random.Random(k)) for k in range(3)]
    before = torch.random.get_rng_state()
    encoded = encoder(genotypes)
    assert torch.equal(before, torch.random.get_rng_state())
    assert same(pickle.loads(pickle.dumps(encoder))(genotypes), encoded)


@each
@every
def test_it_makes_what_it_says(name: str, space: str) -> None:
    encoder = ENCODERS[name](space)
    encoded = encoder([encoder.space.sample(random.Random(0))])
    if isinstance(encoded, Graphs):
        assert encoder.makes == "graphs"
    else:
        assert encoder.makes == ("features" if encoded.is_floating_point() else "tokens")


@every
def test_nothing_cannot_be_encoded(name: str) -> None:
    with pytest.raises(ValueError, match="at least one"):
        ENCODERS[name]("nasbench201")([])
