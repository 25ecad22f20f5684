"""Selections against the rules as the papers state them."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from toys import one_line

from lightning_nas.arch import Genotype, Support
from lightning_nas.relaxations import Relaxation, Sigmoid, Softmax
from lightning_nas.selection import Magnitude, SkipRestriction, Threshold, fix_support
from lightning_nas.spaces import DARTS_OPS, DARTSSpace, NASBench201Space, get_space

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


# --- a threshold


def sigmoid(space: DARTSSpace, seed: int) -> Relaxation:
    return Sigmoid(space.decisions, space.relaxed, init_std=1.2, seed=seed)


@pytest.mark.parametrize("seed", range(5))
def test_below_the_threshold_an_edge_takes_none(seed: int) -> None:
    space = DARTSSpace()
    relaxation = sigmoid(space, seed)
    relaxation.support.drop("normal", 0, 0)  # this edge has no `none`
    weights = {kind: rows.numpy() for kind, rows in relaxation.mean().items()}
    best, found = (rule.pick(space, relaxation).picks for rule in (Magnitude(), Threshold(0.85)))
    assert {name: kept for name, kept in best.items() if "inputs" in name} == {
        name: kept for name, kept in found.items() if "inputs" in name
    }
    below = 0
    for kind in ("normal", "reduce"):
        for row, decision in enumerate(space.decisions[kind]):
            if decision.name in best:
                weak = weights[kind][row, 1:].max() < 0.85 and decision.name != "normal/2<-0"
                assert found[decision.name] == ((0,) if weak else best[decision.name])
                below += weak
    assert 0 < below < 16


def test_without_none_the_best_two_stay() -> None:
    space = get_space("darts_no_none")
    relaxation = Sigmoid(space.decisions, space.relaxed)  # every weight is one half
    assert Threshold(0.85).pick(space, relaxation) == Magnitude().pick(space, relaxation)


@pytest.mark.parametrize("threshold", [-0.1, 1.1])
def test_a_threshold_is_a_weight(threshold: float) -> None:
    with pytest.raises(ValueError) as error:
        Threshold(threshold)
    one_line(error.value, str(threshold), "0 and 1")


# --- a limited number of skips

SKIP = DARTS_OPS.index("skip_connect")


def restricted_by_hand(alpha: np.ndarray, max_skips: int) -> list[tuple[str, int]]:
    """The normal cell by the published loop, on probabilities in NumPy."""
    p = np.exp(alpha) / np.exp(alpha).sum(-1, keepdims=True)
    p[:, 0] = 0
    while True:
        cell, weakest = [], []
        for node, first in FIRST_ROW.items():
            strength = p[first : first + node].max(1)
            for source in sorted(np.argsort(-strength, kind="stable")[:2].tolist()):
                op = int(p[first + source].argmax())
                cell.append((DARTS_OPS[op], source))
                if op == SKIP:
                    weakest.append((p[first + source, SKIP], first + source))
        if len(weakest) <= max_skips:
            return cell
        p[min(weakest)[1], SKIP] = 0


@pytest.mark.parametrize("max_skips", [0, 1, 2, 4])
@pytest.mark.parametrize("seed", range(5))
def test_the_weakest_skips_give_way_one_by_one(seed: int, max_skips: int) -> None:
    space, relaxation = darts(seed)
    with torch.no_grad():
        relaxation.theta["normal"][:, SKIP] += 2.0
        relaxation.theta["reduce"][:, SKIP] += 5.0
    theta = {kind: value.detach().numpy().astype(np.float64) for kind, value in relaxation.theta.items()}
    free = Magnitude().pick(space, relaxation)
    found = SkipRestriction(max_skips).pick(space, relaxation)
    text = space.format(found)
    assert f"normal={restricted_by_hand(theta['normal'], max_skips)}" in text
    assert text.split("reduce=")[1] == space.format(free).split("reduce=")[1]  # the reduction cell is left alone
    assert text.split("reduce=")[0].count("skip_connect") <= max_skips < space.format(free).count("skip_connect")


def test_few_skips_are_left_alone() -> None:
    space, relaxation = darts(0)
    assert SkipRestriction(8).pick(space, relaxation) == Magnitude().pick(space, relaxation)


def test_a_skip_stays_where_nothing_else_is_open() -> None:
    space = NASBench201Space()
    relaxation = Softmax(space.decisions, space.relaxed)
    for row in range(6):
        relaxation.support.fix("cell", row, 1)
    assert SkipRestriction(0).pick(space, relaxation) == Magnitude().pick(space, relaxation)


def test_the_number_of_skips_is_not_negative() -> None:
    with pytest.raises(ValueError, match="max_skips=-1"):
        SkipRestriction(-1)


# --- a support fixed to a genotype


@pytest.mark.parametrize("relax_inputs", [False, True], ids=["edges", "edges and inputs"])
@pytest.mark.parametrize("name", ["darts", "nasbench201", "nasbench1shot1_1", "small_sep", "enas_micro", "fbnet"])
def test_a_fixed_support_gives_its_genotype_whatever_the_weights(name: str, relax_inputs: bool) -> None:
    space = get_space(name)
    for seed in range(3):
        groups = None if relax_inputs else space.relaxed
        relaxation = Softmax(space.decisions, groups, init_std=3.0, seed=seed)
        genotype = space.sample(random.Random(seed))
        fix_support(relaxation.support, space, genotype)
        assert relaxation.support.resolved
        for rule in (Magnitude(), Magnitude(exclude=()), SkipRestriction(8)):
            assert rule.pick(space, relaxation) == genotype
        fix_support(relaxation.support, space, genotype)  # again, it changes nothing
        assert Magnitude().pick(space, relaxation) == genotype


def test_an_excluded_operation_can_be_fixed() -> None:
    space, relaxation = darts(0)
    genotype = space.from_rows({kind: dict.fromkeys((0, 1, 3, 4, 5, 7, 9, 12), 0) for kind in space.kinds})
    fix_support(relaxation.support, space, genotype)
    assert Magnitude(exclude=()).pick(space, relaxation) == genotype


def test_a_narrowed_support_is_fixed_within_what_is_open() -> None:
    space = DARTSSpace()
    support, genotype = Support(space.decisions), space.sample(random.Random(0))
    dropped = next(row for row, d in enumerate(space.decisions["normal"]) if d.name not in genotype.picks)
    support.set_row("normal", dropped, (0, 5))
    fix_support(support, space, genotype)
    assert support.open("normal")[dropped] == (5,)


def test_a_closed_choice_cannot_be_fixed() -> None:
    space = DARTSSpace()
    support, genotype = Support(space.decisions), space.sample(random.Random(0))
    row = next(row for row, d in enumerate(space.decisions["normal"]) if d.name in genotype.picks)
    name = space.decisions["normal"][row].name
    support.drop("normal", row, genotype.picks[name][0])
    with pytest.raises(ValueError) as error:
        fix_support(support, space, genotype)
    one_line(error.value, name, DARTS_OPS[genotype.picks[name][0]], "not open")
    assert not support.resolved
    with pytest.raises(ValueError, match="given to space"):
        fix_support(support, space, Genotype("other", {}))
