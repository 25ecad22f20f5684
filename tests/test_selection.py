"""Magnitude selection against the rule as the papers state it."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from lightning_nas.arch import Genotype
from lightning_nas.relaxations import Relaxation, Softmax
from lightning_nas.selection import Magnitude
from lightning_nas.spaces import DARTS_OPS, DARTSSpace, NASBench201Space

FIRST_ROW = {2: 0, 3: 2, 4: 5, 5: 9}  # of the edges into each node


def darts(seed: int, relax_inputs: bool = False) -> tuple[DARTSSpace, Relaxation]:
    space = DARTSSpace()
    return space, Softmax(space.decisions, None if relax_inputs else space.relaxed, init_std=1.0, seed=seed)


def by_hand(alphas: dict[str, np.ndarray], betas: dict[str, np.ndarray] | None = None) -> str:
    """Rank edges by the softmax weight of their best operation but `none` (times their own), keep two a node."""
    cells = {}
    for kind, alpha in alphas.items():
        weights = np.exp(alpha) / np.exp(alpha).sum(-1, keepdims=True)
        pairs = []
        for node, first in FIRST_ROW.items():
            strength = {source: weights[first + source, 1:].max() for source in range(node)}
            if betas is not None:
                beta = np.exp(betas[kind][node - 2, :node])
                strength = {source: value * beta[source] / beta.sum() for source, value in strength.items()}
            best = sorted(sorted(strength, key=lambda source: -strength[source])[:2])
            pairs += [(DARTS_OPS[1 + int(weights[first + source, 1:].argmax())], source) for source in best]
        cells[kind] = pairs
    return f"Genotype(normal={cells['normal']}, reduce={cells['reduce']})"


@pytest.mark.parametrize("relax_inputs", [False, True], ids=["edges", "edges and inputs"])
@pytest.mark.parametrize("seed", range(10))
def test_darts_keeps_two_inputs_a_node_and_never_none(seed: int, relax_inputs: bool) -> None:
    space, relaxation = darts(seed, relax_inputs)
    theta = {group: value.detach().numpy().astype(np.float64) for group, value in relaxation.theta.items()}
    alphas = {kind: theta[kind] for kind in ("normal", "reduce")}
    betas = {kind: theta[f"{kind}/inputs"] for kind in alphas} if relax_inputs else None
    assert Magnitude().pick(space, relaxation) == space.parse(by_hand(alphas, betas))


def test_a_large_none_takes_its_share_but_is_not_chosen() -> None:
    """On a strong `none` the edge is weak, for its softmax is shared; `none` itself is no candidate."""
    space, relaxation = darts(0)
    with torch.no_grad():
        relaxation.theta["normal"].zero_()
        relaxation.theta["normal"][9:12, 0] = 5.0  # the edges 5<-0, 5<-1, 5<-2
    picks = Magnitude().pick(space, relaxation).picks
    assert picks["normal/inputs/5"] == (3, 4)
    assert all(0 not in kept for name, kept in picks.items() if "<-" in name)


def test_what_is_excluded_can_be_said() -> None:
    space = NASBench201Space()
    relaxation = Softmax(space.decisions, space.relaxed)
    with torch.no_grad():
        relaxation.theta["cell"][:] = torch.tensor([3.0, 2.0, 1.0, 0.0, -1.0])
    for exclude, best in ((None, 0), ((), 0), (("none",), 1), (("none", "skip_connect"), 2)):
        assert set(Magnitude(exclude).pick(space, relaxation).picks.values()) == {(best,)}


@pytest.mark.parametrize("seed", range(5))
def test_a_support_narrowed_to_one_architecture_decides_whatever_the_parameters(seed: int) -> None:
    space, relaxation = darts(seed)
    genotype = space.sample(random.Random(seed))
    for group, row, decision in list(relaxation.support.rows()):
        relaxation.support.set_row(group, row, genotype.picks.get(decision.name, (1,)))
    assert Magnitude().pick(space, relaxation) == genotype


def test_closed_inputs_are_not_kept_though_they_carry_no_parameters() -> None:
    space, relaxation = darts(1)
    free = Magnitude().pick(space, relaxation).picks["normal/inputs/5"]
    others = tuple(source for source in range(5) if source not in free)[:2]
    relaxation.support.fix("normal/inputs", 3, *others)
    picks = Magnitude().pick(space, relaxation).picks
    assert picks["normal/inputs/5"] == others
    assert picks["reduce/inputs/5"] == Magnitude().pick(space, darts(1)[1]).picks["reduce/inputs/5"]


def test_ties_go_to_the_first() -> None:
    space = DARTSSpace()
    relaxation = Softmax(space.decisions, space.relaxed, init_std=0.0)
    want = "max_pool_3x3"
    pairs = [(want, source) for _ in range(4) for source in (0, 1)]
    genotype: Genotype = space.parse(f"Genotype(normal={pairs}, reduce={pairs})")
    assert Magnitude().pick(space, relaxation) == genotype
