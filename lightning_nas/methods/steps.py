"""The two steps of a differentiable search: of the weights, and of the architecture parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer

from lightning_nas import strategy
from lightning_nas.arch import Bilevel, Outcome, Sample
from lightning_nas.hypergradients import Hypergradient
from lightning_nas.methods.base import SearchModule
from lightning_nas.optimizers import SGDCosine, ThetaRecipe
from lightning_nas.penalties import Regularizer
from lightning_nas.perturbations import Perturbation
from lightning_nas.relaxations import Relaxation

__all__ = ["Batch", "BilevelSteps"]

Batch = tuple[Tensor, Tensor]


class BilevelSteps(SearchModule):
    """A search with a supernet and a relaxation, and what a step of either is; `DifferentiableSearch` makes fits of it.

    Attributes:
        supernet: Network with ``forward(x, sample)``.
        relaxation: Owns the architecture parameters and the Support.
        hypergradient: How the architecture gradient is computed; ``None`` for weights only.
        regularizers: Terms and factors of the upper loss.
        perturbation: What happens to the sample of a weight step.
        loss: Function from logits and labels to a scalar.
        w: Recipe of the weights' optimiser.
        theta: Recipe of the architecture parameters' optimiser.
    """

    supernet: nn.Module
    relaxation: Relaxation
    hypergradient: Hypergradient | None
    regularizers: tuple[Regularizer, ...]
    perturbation: Perturbation | None
    loss: Callable[[Tensor, Tensor], Tensor]
    w: SGDCosine
    theta: ThetaRecipe

    def weights(self) -> list[nn.Parameter]:
        """The supernet's weights `w`."""
        return [p for p in self.supernet.parameters() if p.requires_grad]

    def arch_parameters(self) -> list[nn.Parameter]:
        """The architecture parameters `theta`, in no weight optimiser."""
        return self.relaxation.arch_parameters()

    def agreed(self, scores: Tensor) -> Tensor:
        """The mean of scores over all processes, the same in each: what a change of the Support is decided by."""
        (mean,) = strategy.reduce(self.trainer, [scores])
        mean = mean.clone()
        strategy.broadcast(self.trainer, [mean])
        return mean

    def problem(self, batch: dict[str, Batch]) -> Bilevel:
        """The bilevel problem of one batch at the current weights.

        Each loss has one draw of the relaxation, repeated with a new graph at each call: second-order hypergradients
        differentiate a loss more than once.
        """
        begun: dict[str, Tensor] = {}

        def draw(part: str) -> Sample:
            if part in begun:
                return self.relaxation.redraw(begun[part])
            begun[part] = self.relaxation.generator.get_state()
            sample: Sample = self.relaxation()
            return sample

        def train_loss(w: Sequence[Tensor] | None = None) -> Tensor:
            return self._loss(batch["w"], draw("w"), w)

        def val_loss(w: Sequence[Tensor] | None = None) -> Tensor:
            sample = draw("theta")
            loss = self._loss(batch["theta"], sample, w)
            self._report("arch/loss", loss)
            return self.penalized(loss, sample)

        def outcome() -> Outcome:
            sample: Sample = self.relaxation()
            x, y = batch["theta"]
            with torch.no_grad():
                logits = self.supernet(x, sample.detach())
                loss, accuracy = self.loss(logits, y), (logits.argmax(-1) == y).float().mean()
            self._report("arch/loss", loss)
            if sample.log_prob is None:
                raise TypeError(f"{type(self.relaxation).__name__} gives no log-probability, which the score needs")
            return Outcome(loss, accuracy, sample.log_prob)

        optimizer = self._optimizers()[0]
        group, state = optimizer.param_groups[0], optimizer.state
        buffers = [state[p].get("momentum_buffer") if p in state else None for p in self.weights()]
        return Bilevel(
            train_loss,
            val_loss,
            self.weights(),
            self.arch_parameters(),
            group["lr"],
            group["momentum"],
            group["weight_decay"],
            buffers,
            outcome,
            lambda: self.penalty(None),
        )

    def penalty(self, sample: Sample | None) -> Tensor | None:
        """The sum of the regularizers that are terms, of a fresh draw if no sample is given; ``None`` without any."""
        terms = [term for term in self.regularizers if not getattr(term, "multiplies", False)]
        if not terms:
            return None
        sample = self.relaxation() if sample is None else sample
        values = [term(self.relaxation, sample) for term in terms]
        total: Tensor = sum(values[1:], start=values[0])
        return total

    def penalized(self, loss: Tensor, sample: Sample) -> Tensor:
        """The loss times the regularizers that are factors, plus those that are terms."""
        for factor in self.regularizers:
            if getattr(factor, "multiplies", False):
                loss = loss * factor(self.relaxation, sample)
        penalty = self.penalty(sample)
        return loss if penalty is None else loss + penalty

    def _loss(self, batch: Batch, sample: Sample, w: Sequence[Tensor] | None = None) -> Tensor:
        """The loss with the live weights, or with others in their place (then on copies of the buffers)."""
        x, y = batch
        if w is None:
            return self.loss(self.supernet(x, sample), y)
        names = [name for name, p in self.supernet.named_parameters() if p.requires_grad]
        state = dict(zip(names, w, strict=True)) | {n: b.clone() for n, b in self.supernet.named_buffers()}
        return self.loss(functional_call(self.supernet, state, (x, sample)), y)

    def _theta_step(self, batch: dict[str, Batch]) -> None:
        if self.hypergradient is not None:
            self._move_theta(self.hypergradient(self.problem(batch)))

    def _move_theta(self, grads: Sequence[Tensor]) -> None:
        """A step of the architecture parameters along the mean gradient of all processes."""
        grads = strategy.reduce(self.trainer, grads)
        if self.theta.clip is not None:
            norm = nn.utils.get_total_norm(grads)
            grads = [grad * (self.theta.clip / norm.clamp(min=self.theta.clip)) for grad in grads]
        for parameter, grad in zip(self.arch_parameters(), grads, strict=True):
            parameter.grad = grad
        optimizer = self._optimizers()[1]
        optimizer.step()
        optimizer.zero_grad()
        self.relaxation.project_()

    def _w_step(self, batch: dict[str, Batch], jointly: bool = False) -> None:
        """A step of the weights; jointly, the same backward pass gives the architecture gradient too."""
        sample = self.relaxation() if jointly else self.relaxation.weight_sample()
        if self.perturbation is not None and not jointly:
            sample = self.perturbation(sample, lambda moved: self._loss(batch["w"], moved)).detach()
        loss = self._loss(batch["w"], sample)
        self._report("train/loss", loss)
        total = self.penalized(loss, sample) if jointly else loss
        optimizer = self.optimizers()
        optimizer = optimizer[0] if isinstance(optimizer, list) else optimizer
        optimizer.zero_grad()
        self.manual_backward(total)
        optimizer.step()
        if jointly:
            scale = strategy.loss_scale(self.trainer)
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.arch_parameters()]
            self._move_theta([grad / scale for grad in grads])

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip the gradient of the weights (here it is unscaled under fp16)."""
        if self.w.clip is not None:
            nn.utils.clip_grad_norm_(self.weights(), self.w.clip)

    def _optimizers(self) -> list[Optimizer]:
        """The raw optimisers: a step on them moves no counter of the Trainer."""
        optimizers = self.optimizers(use_pl_optimizer=False)
        return list(optimizers) if isinstance(optimizers, list) else [optimizers]

    def _report(self, name: str, loss: Tensor) -> None:
        self.check_finite(loss, name, self._optimizers()[0].param_groups[0]["lr"])
        self.log(name, loss.detach(), on_step=False, on_epoch=True, prog_bar=True, batch_size=1, sync_dist=True)
