"""Perturbations: what a method does to the sample of the weight step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor, nn

from lightning_nas.arch import Sample

__all__ = ["AdversarialSmoothing", "Perturbation", "Projection", "RandomSmoothing", "project", "rescale"]

Loss = Callable[[Sample], Tensor]
Projection = Literal["published", "exact"]


@runtime_checkable
class Perturbation(Protocol):
    """A function that moves the sample of a weight step within a neighbourhood."""

    def __call__(self, sample: Sample, loss: Callable[[Sample], Tensor]) -> Sample:
        """The perturbed sample; `loss` is the training loss on the current batch, for an attack."""


def rescale(moved: Tensor, p: Tensor, is_open: Tensor) -> Tensor:
    """Clip weights at 0 and 1 and divide rows by their sums, as SDARTS does; not a projection.

    A row of which nothing is left becomes one at the largest of `p`. Rows get the sum that `p` has, one on the simplex,
    and what is above 1 in `p` may stay there.

    Args:
        moved: ``(rows, choices)``.
        p: The same before it was moved.
        is_open: Boolean, what may differ from zero.

    Example:
        >>> p = torch.tensor([[0.5, 0.25, 0.25]])
        >>> rescale(torch.tensor([[0.6, 0.2, -0.1]]), p, p > 0)
        tensor([[0.7500, 0.2500, 0.0000]])
    """
    kept = torch.minimum(moved.clamp(min=0.0), p.clamp(min=1.0)) * is_open
    sums = kept.sum(-1, keepdim=True)
    best = nn.functional.one_hot(p.argmax(-1), p.shape[-1]).to(p) * is_open
    total = p.sum(-1, keepdim=True)
    return torch.where(sums > 0, kept * (total / sums.clamp(min=torch.finfo(p.dtype).tiny)), best * total)


def project(moved: Tensor, low: Tensor, high: Tensor, total: Tensor) -> Tensor:
    r"""The nearest point of a box in which rows have given sums.

    It is :math:`q = \mathrm{clip}(v - t, l, h)` with the `t` that gives the sum, which is piecewise linear in `t` with
    kinks at :math:`v - l` and :math:`v - h`.

    Args:
        moved: ``v``, of shape ``(rows, choices)``.
        low: The lower corner `l`.
        high: The upper corner `h`.
        total: ``(rows, 1)``, between the sums of the two corners.

    Example:
        >>> low, high = torch.tensor([[0.25, 0.25, 0.0]]), torch.tensor([[0.75, 0.5, 0.0]])
        >>> project(torch.tensor([[0.75, 0.75, 0.0]]), low, high, torch.ones(1, 1))
        tensor([[0.5000, 0.5000, 0.0000]])
    """
    kinks = torch.cat([moved - high, moved - low], dim=-1).sort(-1).values
    corners = (low.unsqueeze(-2), high.unsqueeze(-2))
    sums = torch.clamp(moved.unsqueeze(-2) - kinks.unsqueeze(-1), *corners).sum(-1)  # falls from kink to kink
    left = ((sums >= total).sum(-1, keepdim=True) - 1).clamp(0, kinks.shape[-1] - 2)
    here, beyond = kinks.gather(-1, left), kinks.gather(-1, left + 1)
    above, below = sums.gather(-1, left), sums.gather(-1, left + 1)
    fall = above - below
    share = torch.where(fall > 0, (above - total) / torch.where(fall > 0, fall, 1.0), 0.0).clamp(0.0, 1.0)
    return torch.clamp(moved - here - share * (beyond - here), low, high)


class RandomSmoothing(nn.Module):
    r"""Weights are trained under uniform noise on the mixture, brought back to the simplex.

    .. math:: p + \delta, \qquad \delta \sim U[-\epsilon, \epsilon] \text{ for each open choice}

    As published, it comes back by clipping at 0 and 1 and dividing rows by their sums, which can lead out of the box
    (with :math:`\epsilon = 0.3` and eight operations by as much as 0.9). ``projection="exact"`` takes the nearest point
    of the simplex within the box instead, a deviation.

    What is closed or has no weight stays at zero, so a row of one open choice, and a sample of a single path, stay as
    they are: smoothing does nothing for methods that draw paths. Rows whose sum is not one keep their sum.

    Reference: Chen and Hsieh, "Stabilizing Differentiable Architecture Search via Perturbation-based Regularization",
    ICML 2020.

    Args:
        eps: Half the side of the box, in [0, 1]; an attribute that a schedule may set.
        projection: ``"published"`` or ``"exact"``.
        seed: Seed of the noise; the state of the generator is part of the `state_dict`.

    Raises:
        ValueError: If `eps` is out of range or the projection unknown.

    Example:
        >>> smoothing = RandomSmoothing(0.1)
        >>> moved = smoothing(Sample({"cell": torch.tensor([[0.5, 0.5, 0.0]])}), lambda sample: torch.zeros(()))
        >>> round(moved.weights["cell"].sum().item(), 5), moved.weights["cell"][0, 2].item()
        (1.0, 0.0)
    """

    def __init__(self, eps: float, projection: Projection = "published", seed: int = 0) -> None:
        super().__init__()
        if not 0 <= eps <= 1:
            raise ValueError(f"eps={eps} must lie between 0 and 1")
        if projection not in get_args(Projection):
            raise ValueError(f"unknown projection {projection!r}; allowed are {', '.join(get_args(Projection))}")
        self.eps, self.projection = float(eps), projection
        self.generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def forward(self, sample: Sample, loss: Loss) -> Sample:
        """The sample under noise; the loss is not asked."""
        p, is_open = dict(sample.weights), open_choices(sample)
        if not self.eps or _is_path(sample):
            return sample
        return sample._replace(weights={g: self._back(self._noisy(rows), rows, is_open[g]) for g, rows in p.items()})

    def _noisy(self, p: Tensor) -> Tensor:
        noise = 2 * torch.rand(p.shape, generator=self.generator) - 1
        return p + self.eps * noise.to(p)

    def _back(self, moved: Tensor, p: Tensor, is_open: Tensor) -> Tensor:
        """What was moved, in the box and on the simplex."""
        if self.projection == "published":
            return rescale(moved, p, is_open)
        low, high = (p - self.eps).clamp(min=0.0) * is_open, torch.minimum(p + self.eps, p.clamp(min=1.0)) * is_open
        return project(moved * is_open, low, high, p.sum(-1, keepdim=True))

    def get_extra_state(self) -> Tensor:
        """The state of the generator."""
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Restore it."""
        self.generator.set_state(state.cpu())


class AdversarialSmoothing(RandomSmoothing):
    r"""Weights are trained under the mixture nearby that raises their loss: ascent along the sign of the gradient.

    From a random start in the box, `steps` steps of length :math:`2\epsilon / \text{steps}`, each brought back into the
    box and to the simplex as in `RandomSmoothing`; the result is dropped if the loss is lower than before. With
    ``projection="exact"`` the gradient is taken within the simplex (less its mean over the open choices of a row),
    since one of a single sign leads nowhere there. The attack takes gradients of the sample's weights alone. It sees
    the network as the weight step does, with batch normalisation by the statistics of the batch; the published attack
    runs in evaluation mode on running statistics, which a supernet here does not keep.

    A sample of a single path stays as it is, see `RandomSmoothing`. With several processes each attacks on its own
    batch.

    Reference: Chen and Hsieh, "Stabilizing Differentiable Architecture Search via Perturbation-based Regularization",
    ICML 2020.

    Args:
        eps: Half the side of the box, in [0, 1]; an attribute that a schedule may set.
        steps: Steps of the ascent.
        projection: ``"published"`` or ``"exact"``, see `RandomSmoothing`.
        seed: Seed of the random start.

    Raises:
        ValueError: If `eps` or `steps` is out of range or the projection unknown.

    Example:
        >>> attack = AdversarialSmoothing(0.25, projection="exact")
        >>> sample = Sample({"cell": torch.tensor([[0.5, 0.5]])})
        >>> moved = attack(sample, lambda sample: sample.weights["cell"][0, 0])
        >>> [round(p, 4) for p in moved.weights["cell"][0].tolist()]
        [0.75, 0.25]
    """

    def __init__(self, eps: float, steps: int = 7, projection: Projection = "published", seed: int = 0) -> None:
        if steps < 1:
            raise ValueError(f"steps={steps} must be at least 1")
        super().__init__(eps, projection, seed)
        self.steps = steps

    def forward(self, sample: Sample, loss: Loss) -> Sample:
        """The sample nearby that the loss is higher for."""
        if not self.eps or _is_path(sample):
            return sample
        p, is_open = sample.detach().weights, open_choices(sample)
        with torch.no_grad():
            before = loss(sample._replace(weights=p))
            q = {g: self._back(self._noisy(rows), rows, is_open[g]) for g, rows in p.items()}
        for _ in range(self.steps):
            q = self._ascend(q, p, is_open, sample, loss)
        with torch.no_grad():
            better = loss(sample._replace(weights=q)) >= before
            return sample._replace(weights={g: torch.where(better, rows, p[g]) for g, rows in q.items()})

    def _ascend(
        self,
        q: Mapping[str, Tensor],
        p: Mapping[str, Tensor],
        is_open: Mapping[str, Tensor],
        sample: Sample,
        loss: Loss,
    ) -> dict[str, Tensor]:
        leaves = {group: rows.detach().requires_grad_() for group, rows in q.items()}
        with torch.enable_grad():
            value = loss(sample._replace(weights=leaves))
        grads = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
        moved = {}
        for (group, rows), grad in zip(leaves.items(), grads, strict=True):
            if self.projection == "exact":
                count = is_open[group].sum(-1, keepdim=True).clamp(min=1)
                grad = grad - (grad * is_open[group]).sum(-1, keepdim=True) / count
            step = rows.detach() + 2 * self.eps / self.steps * grad.sign()
            inside = torch.clamp(step, p[group] - self.eps, p[group] + self.eps)
            moved[group] = self._back(inside, p[group], is_open[group])
        return moved


def open_choices(sample: Sample) -> dict[str, Tensor]:
    """Group -> boolean ``(rows, choices)``: the active choices that have weight."""
    found = {}
    for group, rows in sample.weights.items():
        found[group], active = rows > 0, sample.open(group)
        if active is not None:
            columns = range(rows.shape[1])
            found[group] = found[group] & torch.tensor([[k in row for k in columns] for row in active]).to(rows.device)
    return found


def _is_path(sample: Sample) -> bool:
    """Whether each row has one active choice at most."""
    active = [sample.open(group) for group in sample.weights]
    return all(rows is not None and all(len(row) <= 1 for row in rows) for rows in active)
