"""What every relaxation promises. A new one is covered by a line in `toys.RELAXATIONS`."""

from __future__ import annotations

import copy
import io
import pickle
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from toys import RELAXATIONS, Pairs, quiet_trainer

from lightning_nas.arch import Decision, Decisions, Sample, Support
from lightning_nas.hypergradients import FirstOrder, ScoreFunction
from lightning_nas.methods import AdamTheta, DifferentiableSearch
from lightning_nas.relaxations import (
    Controller,
    Relaxation,
)
from lightning_nas.spaces import get_space
from lightning_nas.supernet import build_supernet

RAGGED: Decisions = {
    "ops": (Decision("a", ("skip", "conv", "pool")), Decision("b", ("skip", "conv")), Decision("c", ("skip",))),
    "inputs": (Decision("d", ("0", "1", "2"), keep=2), Decision("e", ("0", "1"), keep=2)),
}
DECISIONS = {"ragged": RAGGED, "darts": get_space("darts").decisions}

every = pytest.mark.parametrize("make", RELAXATIONS.values(), ids=RELAXATIONS)
everywhere = pytest.mark.parametrize("decisions", DECISIONS.values(), ids=DECISIONS)
narrowings = pytest.mark.parametrize("narrowing", ["open", "some closed", "resolved"])


def narrow(support: Support, narrowing: str) -> None:
    """Close about half of the choices, or all but those that each decision keeps."""
    rng = random.Random(1)
    for group, row, decision in list(support.rows()):
        is_open = support.open(group)[row]
        least = decision.keep
        keep = {"open": len(is_open), "some closed": max(least, (len(is_open) + 1) // 2), "resolved": least}[narrowing]
        support.set_row(group, row, sorted(rng.sample(is_open, keep)))


def spread(relaxation: Relaxation) -> Relaxation:
    """Parameters that are far from uniform."""
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for theta in relaxation.arch_parameters():
            theta.copy_(torch.randn(theta.shape, generator=draw))
    relaxation.project_()
    return relaxation


def equal(one: Sample, other: Sample) -> bool:
    same = all(torch.equal(one.weights[group], other.weights[group]) for group in one.weights)
    return same and one.weights.keys() == other.weights.keys() and one.active == other.active


def sums(relaxation: Relaxation, group: str) -> Tensor:
    """What the rows of a group sum to."""
    rows = relaxation.support.decisions[group]
    return torch.tensor([float(row.keep) if relaxation.discrete else 1.0 for row in rows])


@narrowings
@everywhere
@every
def test_samples_lie_on_the_simplex_over_the_support(
    make: Callable[..., Relaxation], decisions: Decisions, narrowing: str
) -> None:
    relaxation = spread(make(decisions))
    narrow(relaxation.support, narrowing)
    for sample in (draw() for draw in (relaxation, relaxation.weight_sample) for _ in range(3)):
        assert set(sample.weights) == set(decisions)
        for group, rows in sample.weights.items():
            mask = relaxation.support.mask(group)
            assert rows.shape == mask.shape
            assert bool((rows >= 0).all())
            assert bool((rows[~mask] == 0).all())
            if relaxation.discrete:
                assert bool(((rows == 0) | (rows == 1)).all())
            if relaxation.simplex:
                torch.testing.assert_close(rows.sum(-1), sums(relaxation, group))


@narrowings
@everywhere
@every
def test_what_has_weight_is_active_and_open(
    make: Callable[..., Relaxation], decisions: Decisions, narrowing: str
) -> None:
    relaxation = spread(make(decisions))
    narrow(relaxation.support, narrowing)
    for sample in (draw() for draw in (relaxation, relaxation.weight_sample) for _ in range(3)):
        for group, rows in decisions.items():
            active = sample.open(group) or tuple(tuple(range(len(row.choices))) for row in rows)
            assert all(tuple(sorted(row)) == row for row in active)
            for row, (is_active, is_open) in enumerate(zip(active, relaxation.support.open(group), strict=True)):
                weighty = set(sample.weights[group][row].nonzero().flatten().tolist())
                assert weighty <= set(is_active) <= set(is_open)


@narrowings
@everywhere
@every
def test_gradients_are_finite_and_none_goes_to_closed_choices(
    make: Callable[..., Relaxation], decisions: Decisions, narrowing: str
) -> None:
    relaxation = spread(make(decisions))
    narrow(relaxation.support, narrowing)
    sample = relaxation()
    if not relaxation.theta:
        assert not any(weight.requires_grad for weight in sample.weights.values())
        return
    value = sum((weight * torch.rand(weight.shape)).sum() for weight in sample.weights.values())
    assert isinstance(value, Tensor)
    value.backward()
    for group, theta in relaxation.theta.items():
        mask = relaxation.support.mask(group)
        assert theta.grad is not None
        assert bool(theta.grad.isfinite().all())
        assert bool((theta.grad[~mask] == 0).all())
        keep = torch.tensor([decision.keep for decision in decisions[group]])
        assert bool((theta.grad[mask.sum(-1) > keep] != 0).any(-1).all())


@narrowings
@everywhere
@every
def test_the_mean_is_on_the_simplex_and_draws_nothing(
    make: Callable[..., Relaxation], decisions: Decisions, narrowing: str
) -> None:
    relaxation = spread(make(decisions))
    narrow(relaxation.support, narrowing)
    before = relaxation.generator.get_state()
    mean = relaxation.mean()
    assert torch.equal(relaxation.generator.get_state(), before)
    for group, rows in mean.items():
        assert not rows.requires_grad
        assert bool((rows[~relaxation.support.mask(group)] == 0).all())
        assert bool((rows >= 0).all())
        if relaxation.simplex or relaxation.discrete:
            torch.testing.assert_close(rows.sum(-1), sums(relaxation, group))
    sample = relaxation.mean_sample()
    assert all(torch.equal(sample.weights[group], rows) for group, rows in mean.items())
    assert sample.active == relaxation.support.active()


@every
def test_the_mean_is_the_average_of_many_draws_if_it_says_so(make: Callable[..., Relaxation]) -> None:
    relaxation = spread(make(RAGGED))
    relaxation.support.drop("ops", 0, 1)
    draws = 2000 if relaxation.stochastic and relaxation.exact_mean else 1 if relaxation.exact_mean else 0
    samples = [relaxation.weight_sample().weights for _ in range(draws)]
    for group, rows in relaxation.mean().items() if samples else ():
        average = torch.stack([sample[group] for sample in samples]).mean(0)
        torch.testing.assert_close(average, rows, rtol=0, atol=4 * 0.5 / draws**0.5 if draws > 1 else 1e-6)


@everywhere
@every
def test_the_mean_can_be_differentiated(make: Callable[..., Relaxation], decisions: Decisions) -> None:
    relaxation = spread(make(decisions))
    narrow(relaxation.support, "some closed")
    if not relaxation.arch_parameters():
        return
    expected = relaxation.expected()
    for group, rows in relaxation.mean().items():
        assert torch.equal(expected[group], rows)
    sum((rows * torch.rand(rows.shape)).sum() for rows in expected.values()).backward()  # type: ignore[union-attr]
    grads = [p.grad for p in relaxation.arch_parameters()]
    assert all(grad is None or bool(grad.isfinite().all()) for grad in grads)
    assert any(grad is not None and bool((grad != 0).any()) for grad in grads)
    for group, theta in relaxation.theta.items():
        assert theta.grad is not None
        assert bool((theta.grad[~relaxation.support.mask(group)] == 0).all())


@every
def test_a_weight_sample_has_no_graph(make: Callable[..., Relaxation]) -> None:
    sample = make(RAGGED).weight_sample()
    assert not any(rows.requires_grad for rows in sample.weights.values())
    assert sample.log_prob is None or not sample.log_prob.requires_grad


@everywhere
@every
def test_two_draws_differ_if_it_says_so(make: Callable[..., Relaxation], decisions: Decisions) -> None:
    relaxation = make(decisions)
    draws = [relaxation() for _ in range(8)]
    assert any(not equal(draws[0], draw) for draw in draws[1:]) == relaxation.stochastic


@every
def test_a_seed_decides_the_start_and_the_draws(make: Callable[..., Relaxation]) -> None:
    one, same, other = (make(RAGGED, seed=seed) for seed in (1, 1, 2))
    assert all(equal(one(), same()) for _ in range(8))
    assert all(map(torch.equal, one.arch_parameters(), same.arch_parameters()))
    if one.stochastic:
        assert any(not equal(one(), other()) for _ in range(8))


@every
def test_draws_leave_the_global_generator_alone(make: Callable[..., Relaxation]) -> None:
    before = torch.get_rng_state()
    relaxation = make(RAGGED)
    relaxation()
    relaxation.weight_sample()
    relaxation.mean()
    assert torch.equal(torch.get_rng_state(), before)


@everywhere
@every
def test_a_state_restores_theta_support_and_the_next_draws(
    make: Callable[..., Relaxation], decisions: Decisions
) -> None:
    relaxation, again = spread(make(decisions)), make(decisions, seed=9)
    narrow(relaxation.support, "some closed")
    relaxation()
    file = io.BytesIO()
    torch.save(relaxation.state_dict(), file)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert again.support.active() == relaxation.support.active()
    for _ in range(4):
        assert equal(relaxation(), again())
        assert equal(relaxation.weight_sample(), again.weight_sample())
    assert all(torch.equal(rows, again.mean()[group]) for group, rows in relaxation.mean().items())


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))], ids=["deepcopy", "pickle"]
)
@every
def test_a_copy_draws_the_same_on_its_own(make: Callable[..., Relaxation], duplicate: Callable[[Any], Any]) -> None:
    relaxation = spread(make(RAGGED))
    relaxation()
    copied = duplicate(relaxation)
    ahead = [copied() for _ in range(4)]  # must not move the original
    assert all(equal(relaxation(), draw) for draw in ahead)
    copied.support.drop("ops", 0, 0)
    assert relaxation.support.open("ops")[0] == (0, 1, 2)


@every
def test_a_draw_can_be_repeated_with_a_graph_of_its_own(make: Callable[..., Relaxation]) -> None:
    relaxation = spread(make(RAGGED))
    begun = relaxation.generator.get_state()
    first, after = relaxation(), relaxation.generator.get_state()
    for _ in range(2):
        again = relaxation.redraw(begun)
        assert equal(first, again)
        assert torch.equal(relaxation.generator.get_state(), after)
        if relaxation.theta:
            (again.weights["ops"] ** 2).sum().backward()  # would fail on a graph that has been used


@everywhere
@every
def test_a_projection_done_twice_is_done_once(make: Callable[..., Relaxation], decisions: Decisions) -> None:
    relaxation = spread(make(decisions))
    relaxation()
    with torch.no_grad():
        for parameter in relaxation.arch_parameters():
            parameter.add_(0.3)  # a step
    relaxation.project_()
    before = [parameter.detach().clone() for parameter in relaxation.arch_parameters()]
    relaxation.project_()
    assert all(map(torch.equal, before, relaxation.arch_parameters()))


@pytest.mark.parametrize("name", ["darts", "nasbench201"])
@every
def test_a_weight_step_leaves_weights_out_if_it_says_so(make: Callable[..., Relaxation], name: str) -> None:
    space = get_space(name)
    relaxation = make(space.decisions, space.relaxed)
    supernet = build_supernet(space, channels=4, cells=1 if name == "nasbench201" else 2)
    x, y = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    without = []
    for _ in range(3):
        supernet.zero_grad()
        nn.functional.cross_entropy(supernet(x, relaxation.weight_sample()), y).backward()
        without.append(any(p.grad is None for p in supernet.parameters()))
    assert any(without) == relaxation.needs_unused_parameters
    assert all(parameter.grad is None for parameter in relaxation.arch_parameters())


def search(make: Callable[..., Relaxation], name: str = "nasbench201", **settings: Any) -> DifferentiableSearch:
    torch.manual_seed(0)
    cells = 1 if name == "nasbench201" else 3  # a normal cell and two reduction cells
    gradient = ScoreFunction(samples=2) if isinstance(make, partial) and make.func is Controller else FirstOrder()
    settings = {"channels": 4, "cells": cells, "theta": AdamTheta(lr=0.1), "hypergradient": gradient} | settings
    return DifferentiableSearch(name, relaxation=make, **settings)


@pytest.mark.parametrize("relax_inputs", [False, True], ids=["edges", "edges and inputs"])
@pytest.mark.parametrize("name", ["darts", "nasbench201"])
@every
def test_a_search_trains_and_validates_with_it(make: Callable[..., Relaxation], name: str, relax_inputs: bool) -> None:
    module = search(make, name, relax_inputs=relax_inputs)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(module, Pairs(2))
    assert trainer.global_step == 2
    assert {"train/loss", "val/acc", "val/loss"} <= set(trainer.callback_metrics)
    assert all(bool(p.isfinite().all()) for p in module.parameters())
    moved = {name for name, p in module.named_parameters() if not torch.equal(p, before[name])}
    assert {f"relaxation.theta.{group}" for group in module.relaxation.theta} <= moved
    assert bool(module.arch_parameters()) == any(name.startswith("relaxation.") for name in moved)
    assert "supernet.classifier.weight" in moved
    module.space.check(module.genotype())


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")  # the resumed fit saves nothing itself
@every
def test_a_resumed_search_continues_its_draws(make: Callable[..., Relaxation], tmp_path: Any) -> None:
    saved = ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=-1, filename="{step}")
    whole = search(make)
    quiet_trainer(max_epochs=2, enable_checkpointing=True, callbacks=[saved], limit_val_batches=0).fit(whole, Pairs(3))
    resumed = search(make, seed=4)  # another start, which the checkpoint replaces
    quiet_trainer(max_epochs=2, limit_val_batches=0).fit(resumed, Pairs(3), ckpt_path=tmp_path / "step=3.ckpt")
    for (name, one), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
