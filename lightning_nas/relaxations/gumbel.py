"""The Gumbel-softmax of SNAS, and its straight-through form of GDAS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from lightning_nas.arch import Decisions, Sample
from lightning_nas.relaxations import paths
from lightning_nas.relaxations.base import Relaxation
from lightning_nas.relaxations.softmax import masked_softmax

__all__ = ["Gumbel", "concrete_log_prob"]


def concrete_log_prob(logits: Tensor, log_z: Tensor, mask: Tensor, tau: float) -> Tensor:
    r"""Log-density of the Concrete distribution on the simplex of the open choices.

    .. math::
        \log \Gamma(K) + (K-1) \log \tau + \sum_k (l_k - (\tau + 1) \log z_k) - K \log \sum_k e^{l_k} z_k^{-\tau}

    Reference: Maddison, Mnih and Teh, "The Concrete Distribution", ICLR 2017.

    Args:
        logits: ``(rows, choices)``.
        log_z: Logarithms of the point, of the same shape.
        mask: The open choices, boolean.
        tau: Temperature.

    Returns:
        ``(rows,)``; zero for a row with one open choice.

    Example:
        >>> row = torch.zeros(1, 2)
        >>> concrete_log_prob(row, torch.full((1, 2), 0.3).log(), row == 0, 1.0).shape
        torch.Size([1])
    """
    count = mask.sum(-1)
    terms = (logits - (tau + 1) * log_z).masked_fill(~mask, 0.0).sum(-1)
    total = (logits - tau * log_z).masked_fill(~mask, -torch.inf).logsumexp(-1)
    value = torch.lgamma(count.to(logits)) + (count - 1) * math.log(tau) + terms - count * total
    return torch.where(count > 1, value, 0.0)


class Gumbel(Relaxation):
    r"""A draw :math:`z = \mathrm{softmax}((\log p + G) / \tau)` with :math:`p = \mathrm{softmax}(\alpha)`, Gumbel `G`.

    Soft (SNAS), all candidates run with the weights `z`, and the gradient is pathwise. Hard (GDAS), the largest entry
    is the one active choice, its weight :math:`h = \mathrm{onehot}(z) - \mathrm{stop}(z) + z`: the value is exactly one
    and the gradient that of `z`, so with `c` the gradient for the weight of the active choice `s` it is
    :math:`c z_s (e_s - z) / \tau`. Where a decision keeps more choices, the hard draw has that many active, with the
    largest entries; a soft row sums to one all the same.

    The published code of GDAS on NAS-Bench-201 also adds the weights of the other choices, of value zero, to the
    feature map itself, so that each gets the sum of the gradient of the edge's output. A `Sample` weights outputs of
    candidates and knows no such summand, so there is the clean form alone; in it too every architecture parameter of a
    row gets a gradient, through the softmax.

    `log_prob` is the Concrete log-density of the draw (held fixed), or that of the hard choices.

    References: Xie, Zheng, Liu and Lin, "SNAS: Stochastic Neural Architecture Search", ICLR 2019; Dong and Yang,
    "Searching for a Robust Neural Architecture in Four GPU Hours", CVPR 2019.

    Args:
        decisions: The space's decisions, by group.
        groups: The groups that get architecture parameters; ``None`` for all.
        tau: Temperature at the start; callbacks set the attribute, and the `state_dict` holds it.
        hard: Whether one path is drawn.
        init_mean: Mean of the normal distribution from which `theta` starts (SNAS: 1).
        init_std: Its standard deviation.
        seed: Seed of the start and of all draws.

    Raises:
        ValueError: If the temperature is not positive and finite.

    Example:
        >>> from lightning_nas.arch import Decision
        >>> sample = Gumbel({"cell": (Decision("edge", ("skip", "conv")),)}, hard=True)()
        >>> sample.weights["cell"].sum().item(), len(sample.active["cell"][0])
        (1.0, 1)
    """

    stochastic = True
    scalars: ClassVar[tuple[str, ...]] = ("tau",)

    def __init__(
        self,
        decisions: Decisions,
        groups: Sequence[str] | None = None,
        *,
        tau: float = 1.0,
        hard: bool = False,
        init_mean: float = 0.0,
        init_std: float = 1e-3,
        seed: int = 0,
    ) -> None:
        if not (math.isfinite(tau) and tau > 0):
            raise ValueError(f"tau={tau} must be positive and finite; published schedules go from 10 to 0.03")
        super().__init__(decisions, groups, init_std=init_std, seed=seed)
        with torch.no_grad():
            for theta in self.theta.values():
                theta.add_(init_mean)
        self.tau, self.hard = float(tau), hard
        self.discrete = self.needs_unused_parameters = self.exact_mean = hard

    def forward(self) -> Sample:
        """Draw a sample."""
        weights, active, terms = {}, {}, []
        for group, theta in self.theta.items():
            mask = self.support.mask(group)
            logits = theta.masked_fill(~mask, -torch.inf).log_softmax(-1)
            moved = logits + paths.gumbel(theta.shape, self.generator).to(theta)
            soft = (moved / self.tau).softmax(-1)
            if self.hard:
                choices = paths.best(moved, mask, [decision.keep for decision in self.support.decisions[group]])
                weights[group] = paths.k_hot(choices, soft) + (soft - soft.detach())
                active[group] = paths.ascending(choices)
                terms.append(paths.log_prob(self.support, group, theta, choices).sum())
            else:
                weights[group] = soft
                log_z = (moved / self.tau).log_softmax(-1).detach()
                terms.append(concrete_log_prob(logits, log_z, mask, self.tau).sum())
        return Sample(weights, {**(self.support.active() or {}), **active} or None, torch.stack(terms).sum())

    def expected(self) -> dict[str, Tensor]:
        """The probabilities `p`; hard, those of each choice to be among the drawn."""
        if self.hard:
            return {group: paths.inclusion(self.support, group, theta) for group, theta in self.theta.items()}
        return {group: masked_softmax(theta, self.support.mask(group)) for group, theta in self.theta.items()}
