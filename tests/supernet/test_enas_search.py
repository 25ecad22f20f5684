"""Searches in the spaces of ENAS: a mixture, and one path at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from toys import Pairs, UniformPath, quiet_trainer

from lightning_nas.arch import Sample
from lightning_nas.methods import DifferentiableSearch
from lightning_nas.relaxations import Softmax
from lightning_nas.spaces import ENASMacroSpace, ENASMicroSpace, Space
from lightning_nas.supernet import evaluate_samples

SPACES: dict[str, tuple[str | Space, int | None]] = {
    "micro": ("enas_micro", 3),
    "macro": ("enas_macro", None),
    "small micro": (ENASMicroSpace(2), 1),
    "small macro": (ENASMacroSpace(3), None),
}
everywhere = pytest.mark.parametrize("name", SPACES)


def search_in(name: str, relaxation: Any) -> DifferentiableSearch:
    space, cells = SPACES[name]
    torch.manual_seed(0)
    hypergradient = {} if relaxation is Softmax else {"hypergradient": None}
    return DifferentiableSearch(space, relaxation, channels=4, cells=cells, **hypergradient)


@everywhere
@pytest.mark.parametrize("side", [16, 32])
def test_two_batches_of_a_mixture(name: str, side: int) -> None:
    search = search_in(name, Softmax)
    before = {group: theta.detach().clone() for group, theta in search.relaxation.theta.items()}
    weights = [p.detach().clone() for p in search.supernet.parameters()]
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(search, Pairs(2, shape=(3, side, side)))
    assert trainer.global_step == 2
    moved = [not torch.equal(old, new) for old, new in zip(weights, search.supernet.parameters(), strict=True)]
    assert all(moved)
    for group, theta in search.relaxation.theta.items():
        if SPACES[name][1] == 1 and group.startswith("reduce"):  # a single cell
            continue
        mask = search.relaxation.support.mask(group) & (search.relaxation.support.mask(group).sum(1, keepdim=True) > 1)
        assert bool((theta != before[group])[mask].any())
    assert search.space.parse(search.space.format(search.genotype())) == search.genotype()


@everywhere
def test_two_batches_of_single_paths(name: str) -> None:
    search = search_in(name, UniformPath)
    weights = {path: p.detach().clone() for path, p in search.supernet.named_parameters()}
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(search, Pairs(2, shape=(3, 16, 16)))
    assert trainer.global_step == 2
    moved = [path for path, p in search.supernet.named_parameters() if not torch.equal(p, weights[path])]
    assert 0 < len(moved) < len(weights)  # weight decay too spares what was not on a path
    assert search.space.check(search.genotype())


@everywhere
def test_many_samples_are_evaluated_as_one_by_one(name: str) -> None:
    search = search_in(name, UniformPath)
    path = search.relaxation
    samples: list[Sample] = [path() for _ in range(3)] + [Softmax(search.space.decisions, init_std=1.0)()]
    x = torch.randn(4, 3, 16, 16)
    logits = evaluate_samples(search.supernet, x, samples)  # type: ignore[arg-type]
    for one, sample in zip(logits, samples, strict=True):
        torch.testing.assert_close(one, search.supernet(x, sample))
    assert not torch.allclose(logits[0], logits[3])
