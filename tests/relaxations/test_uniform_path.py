"""Uniform paths: frequencies, inputs, and the rejection of nodes that get nothing."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, product

import pytest
import torch
from scipy import stats

from lightning_nas.relaxations import UniformPath
from lightning_nas.relaxations.uniform import given_something
from lightning_nas.spaces import get_space


def test_operations_are_uniform_and_independent() -> None:
    space = get_space("nasbench201")
    relaxation = UniformPath(space.decisions, space.relaxed)
    drawn = [relaxation().open("cell") or () for _ in range(3000)]
    pairs = Counter((path[0][0], path[5][0]) for path in drawn)
    assert len(pairs) == 25
    assert stats.chisquare(list(pairs.values())).pvalue > 1e-3


def test_two_inputs_are_drawn_uniformly() -> None:
    space = get_space("darts")
    relaxation = UniformPath(space.decisions, space.relaxed, inputs=True)
    drawn = [relaxation() for _ in range(1000)]
    last = Counter((sample.open("reduce/inputs") or ())[3] for sample in drawn)
    assert set(last) == set(combinations(range(5), 2))
    assert stats.chisquare(list(last.values())).pvalue > 1e-3
    assert all((sample.open("normal/inputs") or ())[0] == (0, 1) for sample in drawn)
    assert relaxation.mean()["normal/inputs"][3].tolist() == pytest.approx([0.4] * 5)
    assert not UniformPath(space.decisions, space.relaxed)().weights.keys() & {"normal/inputs"}


def test_closed_choices_are_never_drawn() -> None:
    space = get_space("nasbench201")
    relaxation = UniformPath(space.decisions, space.relaxed)
    relaxation.support.drop("cell", 2, 0)
    relaxation.support.drop("cell", 2, 4)
    drawn = Counter((relaxation().open("cell") or ())[2] for _ in range(1000))
    assert set(drawn) == {(1,), (2,), (3,)}
    assert stats.chisquare(list(drawn.values())).pvalue > 1e-3


def test_no_node_gets_nothing_but_none() -> None:
    space = get_space("nasbench201")
    relaxation = UniformPath(space.decisions, space.relaxed, reject=True)
    for sample in (relaxation() for _ in range(300)):
        ops = [k for (k,) in sample.open("cell") or ()]
        assert all(any(ops[row] for row in rows) for rows in ((0,), (1, 2), (3, 4, 5)))
    plain = UniformPath(space.decisions, space.relaxed)
    assert any((plain().open("cell") or ())[0] == (0,) for _ in range(50))


def test_no_node_gets_nothing_on_the_inputs_it_takes() -> None:
    space = get_space("darts")
    relaxation = UniformPath(space.decisions, space.relaxed, inputs=True, reject=True)
    for kind in space.kinds:
        for row in range(14):
            relaxation.support.set_row(kind, row, [0, 4])  # none in half of the draws
    for sample in (relaxation() for _ in range(100)):
        ops, inputs = sample.open("normal") or (), sample.open("normal/inputs") or ()
        for node, taken in enumerate(inputs):
            assert any(ops[(0, 2, 5, 9)[node] + i] != (0,) for i in taken)


def test_the_chances_after_rejection_are_those_of_the_enumeration() -> None:
    none = {0: 0.5, 1: 0.2, 2: 0.0, 3: 1.0}
    kept, others = dict.fromkeys(none, 0.0), dict.fromkeys(none, 0.0)
    subsets = list(combinations(none, 2))
    for subset in subsets:
        cases = []
        for is_none in product((True, False), repeat=4):
            chance = 1.0
            for edge, nothing in zip(none, is_none, strict=True):
                chance *= none[edge] if nothing else 1 - none[edge]
            if not all(is_none[edge] for edge in subset):
                cases.append((is_none, chance))
        total = sum(chance for _, chance in cases)
        for is_none, chance in cases:
            for edge in none:
                (kept if is_none[edge] else others)[edge] += chance / total / len(subsets)
    for edge, (of_none, of_others) in given_something(none, 2).items():
        assert none[edge] * of_none == pytest.approx(kept[edge])
        assert (1 - none[edge]) * of_others == pytest.approx(others[edge])


@pytest.mark.parametrize(("name", "inputs"), [("nasbench201", False), ("darts", True)])
def test_the_mean_is_the_average_after_rejection(name: str, inputs: bool) -> None:
    space = get_space(name)
    relaxation = UniformPath(space.decisions, space.relaxed, inputs=inputs, reject=True)
    for group in space.relaxed:
        for row in range(len(space.decisions[group])):
            relaxation.support.set_row(group, row, [0, 3] if row % 2 else [0, 1, 3])
    draws = 800
    samples = [relaxation().weights for _ in range(draws)]
    for group, rows in relaxation.mean().items():
        average = torch.stack([sample[group] for sample in samples]).mean(0)
        torch.testing.assert_close(average, rows, rtol=0, atol=4 * 0.5 / draws**0.5)


def test_a_node_without_any_other_choice_is_left_alone() -> None:
    space = get_space("nasbench201")
    relaxation = UniformPath(space.decisions, space.relaxed, reject=True)
    relaxation.support.fix("cell", 0, 0)
    assert all((relaxation().open("cell") or ())[0] == (0,) for _ in range(5))
    torch.testing.assert_close(relaxation.mean()["cell"][0], torch.tensor([1.0, 0, 0, 0, 0]))
