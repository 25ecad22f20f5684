"""Each step of a search against a plain loop, and what a step may not touch."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from toys import Pairs, quiet_trainer

from lightning_nas.arch import Sample
from lightning_nas.methods import DARTS, AdamTheta, SGDCosine

STEPS = 5


def tiny(**settings: Any) -> DARTS:
    torch.manual_seed(3)
    return DARTS(**{"space": "nasbench201", "channels": 4, "cells": 1, "in_channels": 1} | settings)


def pairs(count: int = STEPS) -> Pairs:
    return Pairs(count, shape=(1, 8, 8), batch_size=16)


def fit(search: DARTS, data: Pairs | None = None, **settings: Any) -> L.Trainer:
    trainer = quiet_trainer(**{"max_epochs": 1, "limit_val_batches": 0} | settings)
    trainer.fit(search, pairs() if data is None else data)
    return trainer


def copies(parameters: Any) -> list[Tensor]:
    return [p.detach().clone() for p in parameters]


def same_bits(left: Any, right: Any) -> bool:
    return all(torch.equal(p, q) for p, q in zip(left, right, strict=True))


class Trace(L.Callback):
    """The state after each batch, and what each optimiser stepped on."""

    def __init__(self) -> None:
        self.w: list[list[Tensor]] = []
        self.theta: list[Tensor] = []
        self.rates: list[float] = []
        self.order: list[str] = []
        self.norms: dict[str, list[float]] = {"w": [], "theta": []}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for name, optimizer in zip(("w", "theta"), trainer.optimizers, strict=False):
            optimizer.register_step_post_hook(lambda o, *_, name=name: self.note(name, o))  # clipped by now

    def note(self, name: str, optimizer: Optimizer) -> None:
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self.order.append(name)
        self.norms[name].append(float(torch.cat([g.flatten() for g in grads]).norm()))
        if name == "w":
            self.rates.append(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: object) -> None:
        self.w.append(copies(pl_module.supernet.parameters()))
        self.theta.append(pl_module.relaxation.theta["cell"].detach().clone())


class Plain:
    """First-order DARTS as the paper writes it, with nothing of the search but its initial values."""

    def __init__(self, search: DARTS, order: str, clip: float | None, theta_lr: float) -> None:
        self.net, self.theta = search.supernet, nn.Parameter(search.relaxation.theta["cell"].detach().clone())
        self.sgd = torch.optim.SGD(self.net.parameters(), 0.025, momentum=0.9, weight_decay=3e-4)
        self.adam = torch.optim.Adam([self.theta], theta_lr, (0.5, 0.999), weight_decay=1e-3)
        self.parts, self.clip = ("theta", "w") if order == "theta_first" else ("w", "theta"), clip
        self.norms: list[float] = []

    def batch(self, batch: dict[str, tuple[Tensor, Tensor]]) -> None:
        for part in self.parts:
            self.net.zero_grad(set_to_none=True)
            self.theta.grad = None
            x, y = batch[part]
            F.cross_entropy(self.net(x, Sample({"cell": torch.softmax(self.theta, dim=1)})), y).backward()
            if part == "theta":
                self.adam.step()
                continue
            grads = [p.grad for p in self.net.parameters() if p.grad is not None]
            norm = float(torch.cat([g.flatten() for g in grads]).norm())
            self.norms.append(norm)
            if self.clip is not None and norm > self.clip:
                for grad in grads:
                    grad.mul_(self.clip / norm)
            self.sgd.step()


# --- against the plain loop


@pytest.mark.parametrize("clip", [5.0, 0.5, None])
@pytest.mark.parametrize("order", ["theta_first", "w_first"])
def test_weights_and_architecture_follow_the_plain_loop_step_by_step(order: Any, clip: float | None) -> None:
    settings = {"order": order, "w": SGDCosine(lr_min=0.001, clip=clip), "theta": AdamTheta(lr=0.01)}
    search, trace, data = tiny(**settings), Trace(), pairs()
    plain = Plain(tiny(**settings), order, clip, theta_lr=0.01)
    trainer = fit(search, data, callbacks=[trace])
    assert len(trace.w) == STEPS
    for batch, w, theta in zip(data.pairs, trace.w, trace.theta, strict=True):
        plain.batch(batch)
        torch.testing.assert_close(w, copies(plain.net.parameters()), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(theta, plain.theta.detach(), rtol=1e-6, atol=1e-6)
    assert trace.order == list(plain.parts) * STEPS
    if clip == 0.5:
        assert min(plain.norms) > clip  # or this case would not tell clipping from none
    for optimizer, reference in zip(trainer.optimizers, (plain.sgd, plain.adam), strict=True):
        states = [list(o.state_dict()["state"].values()) for o in (optimizer, reference)]
        torch.testing.assert_close(*states, rtol=1e-5, atol=1e-6)


def test_each_part_sees_its_own_half() -> None:
    """Other labels for the architecture change the first weight step only through the architecture."""
    ends = []
    for shift in (0, 1):
        search, data, trace = tiny(order="w_first", theta=AdamTheta(lr=0.1)), pairs(1), Trace()
        x, y = data.pairs[0]["theta"]
        data.pairs[0]["theta"] = (x, (y + shift) % 10)
        fit(search, data, callbacks=[trace])
        ends.append((trace.w[0], trace.theta[0]))
    assert same_bits(ends[0][0], ends[1][0])
    assert not torch.equal(ends[0][1], ends[1][1])


# --- what a step leaves alone


class Guarded(DARTS):
    """Checks around each half of a step that the other half's values stay, to the bit."""

    checked: tuple[str, ...] = ()

    def _theta_step(self, batch: Any) -> None:
        for p in self.supernet.parameters():
            p.grad = None
        before, theta = copies(self.supernet.state_dict().values()), copies(self.arch_parameters())
        super()._theta_step(batch)
        assert same_bits(before, self.supernet.state_dict().values())
        assert all(p.grad is None for p in self.supernet.parameters())
        assert not same_bits(theta, self.arch_parameters())
        self.checked += ("theta",)

    def _w_step(self, batch: Any, jointly: bool = False) -> None:
        before, w = copies(self.relaxation.state_dict().values()), copies(self.weights())
        super()._w_step(batch, jointly)
        assert same_bits(before, self.relaxation.state_dict().values())
        assert all(p.grad is None for p in self.arch_parameters())
        assert not same_bits(w, self.weights())
        self.checked += ("w",)


@pytest.mark.parametrize(("order", "parts"), [("theta_first", ("theta", "w")), ("w_first", ("w", "theta"))])
def test_a_step_leaves_the_other_level_alone(order: Any, parts: tuple[str, str]) -> None:
    search = Guarded("nasbench201", channels=4, cells=1, in_channels=1, order=order)
    fit(search)
    assert search.checked == parts * STEPS


@pytest.mark.parametrize("space", ["nasbench201", "darts"])
def test_every_parameter_is_in_exactly_one_optimiser(space: str) -> None:
    search = tiny(space=space, cells=2)
    trainer = fit(search, pairs(1))
    held = [[id(p) for group in o.param_groups for p in group["params"]] for o in trainer.optimizers]
    assert sorted(held[0]) == sorted(id(p) for p in search.supernet.parameters())
    assert sorted(held[1]) == sorted(id(p) for p in search.relaxation.theta.values())
    assert sorted(held[0] + held[1]) == sorted(id(p) for p in search.parameters())


# --- clipping


@pytest.mark.parametrize("clip", [1e-3, 0.5])
def test_no_weight_step_is_longer_than_the_clip(clip: float) -> None:
    free, clipped = Trace(), Trace()
    fit(tiny(w=SGDCosine(clip=None)), callbacks=[free])
    fit(tiny(w=SGDCosine(clip=clip)), callbacks=[clipped])
    assert max(free.norms["w"]) > clip
    assert max(clipped.norms["w"]) <= clip * (1 + 1e-5)
    assert clipped.norms["w"][0] == pytest.approx(clip, rel=1e-3)
    assert clipped.norms["theta"][0] == free.norms["theta"][0]


def test_the_architecture_has_a_clip_of_its_own() -> None:
    free, clipped = Trace(), Trace()
    fit(tiny(), callbacks=[free])
    clip = free.norms["theta"][0] / 2
    fit(tiny(theta=AdamTheta(clip=clip)), callbacks=[clipped])
    assert clipped.norms["theta"][0] == pytest.approx(clip, rel=1e-4)
    assert max(clipped.norms["theta"]) <= clip * (1 + 1e-4)


def test_a_clip_above_the_norm_changes_nothing() -> None:
    ends = []
    for clip in (None, 1e6):
        search = tiny(w=SGDCosine(clip=clip), theta=AdamTheta(clip=clip))
        fit(search)
        ends.append(copies(search.parameters()))
    assert same_bits(*ends)


# --- the schedule


@pytest.mark.parametrize(
    ("limits", "epochs", "steps"),
    [
        ({"max_epochs": 4}, 4, 12),
        ({"max_epochs": -1, "max_steps": 9}, 3, 9),
        ({"max_epochs": -1, "max_steps": 7}, 3, 7),
        ({"max_epochs": 2, "max_steps": 100}, 2, 6),
        ({"max_epochs": 5, "limit_train_batches": 2}, 5, 10),
    ],
    ids=str,
)
def test_the_rate_is_the_cosine_of_the_epoch_in_the_planned_ones(
    limits: dict[str, Any], epochs: int, steps: int
) -> None:
    trace, per_epoch = Trace(), limits.get("limit_train_batches", 3)
    search = tiny(w=SGDCosine(lr=0.1, lr_min=0.02))
    trainer = fit(search, pairs(3), callbacks=[trace], **limits)
    want = [0.02 + 0.04 * (1 + math.cos(math.pi * (step // per_epoch) / epochs)) for step in range(steps)]
    assert trace.rates == pytest.approx(want, rel=1e-9)
    if steps == epochs * per_epoch:
        assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.02, rel=1e-9)
    assert trainer.optimizers[1].param_groups[0]["lr"] == 3e-4


# --- a frozen architecture


def test_frozen_the_search_is_plain_training_of_the_weights() -> None:
    search, trace, data = tiny(), Trace(), pairs()
    before = search.relaxation.theta["cell"].detach().clone()
    search.theta_frozen = True
    plain = Plain(tiny(), "theta_first", 5.0, theta_lr=0.01)
    plain.parts = ("w",)
    trainer = fit(search, data, callbacks=[trace])
    for batch, w in zip(data.pairs, trace.w, strict=True):
        plain.batch(batch)
        torch.testing.assert_close(w, copies(plain.net.parameters()), rtol=1e-6, atol=1e-6)
    assert torch.equal(search.relaxation.theta["cell"], before)
    assert trace.order == ["w"] * STEPS
    assert trainer.global_step == STEPS
    assert "train/loss" in trainer.callback_metrics
    assert "arch/loss" not in trainer.callback_metrics


def test_an_architecture_can_be_thawed_within_a_fit() -> None:
    class Thaw(L.Callback):
        def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
            pl_module.theta_frozen = trainer.current_epoch < 1

    trace = Trace()
    fit(tiny(), pairs(2), max_epochs=2, callbacks=[Thaw(), trace])
    assert trace.order == ["w", "w", "theta", "w", "theta", "w"]
    assert torch.equal(trace.theta[0], trace.theta[1])
    assert not torch.equal(trace.theta[1], trace.theta[2])


def test_without_a_hypergradient_there_is_one_optimiser() -> None:
    search = tiny()
    search.hypergradient = None
    before = search.relaxation.theta["cell"].detach().clone()
    trainer = fit(search)
    assert len(trainer.optimizers) == 1
    assert trainer.global_step == STEPS
    assert torch.equal(search.relaxation.theta["cell"], before)
