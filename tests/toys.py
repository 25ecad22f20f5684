"""Small implementations of the protocols, which the tests of several rooms share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_nas.arch import Bilevel, Decisions, Sample
from lightning_nas.relaxations import Relaxation, masked_softmax


class HardGumbel(Relaxation):
    """One sampled path; the gradient is that of the soft sample (straight through)."""

    stochastic = True
    needs_unused_parameters = True

    def forward(self) -> Sample:
        weights, active = {}, {}
        for group, theta in self.theta.items():
            noise = -torch.empty(theta.shape).exponential_(generator=self.generator).log().to(theta)
            soft = masked_softmax(theta + noise, self.support.mask(group))
            choice = soft.argmax(-1)
            weights[group] = nn.functional.one_hot(choice, theta.shape[1]) + (soft - soft.detach())
            active[group] = tuple((k,) for k in choice.tolist())
        return Sample(weights, (self.support.active() or {}) | active)

    def mean(self) -> Mapping[str, Tensor]:
        return {g: masked_softmax(t.detach(), self.support.mask(g)) for g, t in self.theta.items()}


class UniformPath(Relaxation):
    """One path, each open choice with the same chance; no architecture parameters."""

    stochastic = True
    needs_unused_parameters = True

    def __init__(self, decisions: Decisions, groups: Sequence[str] | None = None, *, seed: int = 0) -> None:
        super().__init__(decisions, (), seed=seed)
        self.drawn = tuple(decisions if groups is None else groups)

    def forward(self) -> Sample:
        weights, active = {}, {}
        for group, mean in self.mean().items():
            choice = mean.multinomial(1, generator=self.generator).squeeze(1)
            weights[group] = nn.functional.one_hot(choice, mean.shape[1]).to(mean)
            active[group] = tuple((k,) for k in choice.tolist())
        return Sample(weights, (self.support.active() or {}) | active)

    def mean(self) -> Mapping[str, Tensor]:
        masks = {group: self.support.mask(group) for group in self.drawn}
        return {group: mask / mask.sum(-1, keepdim=True) for group, mask in masks.items()}


def virtual_weights(problem: Bilevel, create_graph: bool) -> list[Tensor]:
    """The weights after one more step of SGD with momentum on the lower loss."""
    grads = torch.autograd.grad(problem.train_loss(None), list(problem.w), create_graph=create_graph)
    buffers = problem.momentum_buffers or [None] * len(problem.w)
    moved = []
    for w, grad, buffer in zip(problem.w, grads, buffers, strict=True):
        step = grad + problem.weight_decay * w
        moved.append(w - problem.lr * (step if buffer is None else problem.momentum * buffer + step))
    return moved


@dataclass(frozen=True)
class Unrolled:
    """The exact gradient through one virtual step of the weights."""

    def __call__(self, problem: Bilevel) -> list[Tensor]:
        loss = problem.val_loss(virtual_weights(problem, create_graph=True))
        return list(torch.autograd.grad(loss, list(problem.theta), materialize_grads=True))


@dataclass(frozen=True)
class FiniteDifference:
    """The same, with the mixed derivative as a central difference of step `r` over the norm of the direction."""

    r: float = 1e-2

    def __call__(self, problem: Bilevel) -> list[Tensor]:
        w, theta = list(problem.w), list(problem.theta)
        moved = [p.detach().requires_grad_() for p in virtual_weights(problem, create_graph=False)]
        both = torch.autograd.grad(problem.val_loss(moved), theta + moved, materialize_grads=True)
        direct, direction = both[: len(theta)], both[len(theta) :]
        step = self.r / torch.cat([d.flatten() for d in direction]).norm()
        sides = []
        for sign in (1, -1):
            # they require gradients, or a loss that theta does not reach would have no graph at all
            shifted = [(p + sign * step * d).detach().requires_grad_() for p, d in zip(w, direction, strict=True)]
            sides.append(torch.autograd.grad(problem.train_loss(shifted), theta, materialize_grads=True))
        return [d - problem.lr * (plus - minus) / (2 * step) for d, plus, minus in zip(direct, *sides, strict=True)]


class Pairs(L.LightningDataModule):
    """A few fixed pairs of random batches, and one batch for validation."""

    def __init__(
        self, count: int = 4, shape: tuple[int, ...] = (3, 8, 8), batch_size: int = 8, classes: int = 10
    ) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(7)

        def batch() -> tuple[Tensor, Tensor]:
            x = torch.randn(batch_size, *shape, generator=draw)
            return x, torch.randint(classes, (batch_size,), generator=draw)

        self.pairs = [{"w": batch(), "theta": batch()} for _ in range(count)]
        self.held_out = [batch()]

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.pairs, batch_size=None)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.held_out, batch_size=None)  # type: ignore[arg-type]

    test_dataloader = val_dataloader


def quiet_trainer(**settings: Any) -> L.Trainer:
    """A Trainer on the CPU that prints and keeps nothing unless asked to."""
    quiet = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "enable_checkpointing": False, "num_sanity_val_steps": 0}
    return L.Trainer(**quiet | settings)


class AtBatch(L.Callback):
    """Calls a function once, with the search and the batch, before the steps of one batch of a fit."""

    def __init__(self, number: int, function: Callable[[Any, Any], None]) -> None:
        self.number, self.function, self.called = number, function, False

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == self.number:
            self.function(pl_module, batch)
            self.called = True


def one_line(error: BaseException, *words: str) -> None:
    """Check that a message is one line and names what was given, what is allowed and what to do."""
    assert "\n" not in str(error)
    for word in words:
        assert word in str(error), str(error)
