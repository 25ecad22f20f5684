"""The binary gates of ProxylessNAS."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_nas.arch import Decisions, Sample
from lightning_nas.relaxations import paths
from lightning_nas.relaxations.base import Relaxation
from lightning_nas.relaxations.softmax import masked_softmax

__all__ = ["BinaryGates"]


class BinaryGates(Relaxation):
    r"""One open gate in each row, drawn from :math:`p = \mathrm{softmax}(\alpha)`; gates pass their gradient on.

    A weight step runs the drawn path alone. For an architecture step, with :math:`\partial L / \partial g_j` the
    gradient for the gate (the weight) of candidate `j`,

    .. math::
        \frac{\partial L}{\partial \alpha_i} \approx \sum_j \frac{\partial L}{\partial g_j} p_j (\delta_{ij} - p_i)

    - ``paths=None``: all candidates run, those behind closed gates with weight zero: memory and time of a mixture.
    - ``paths=2``: two candidates are drawn without replacement and `p` is renormalised between them; one gate is open,
      by that share, and both run. Only the two parameters get a gradient, and after the step `project_` shifts both by
      one number so that the sum of their exponentials, hence the probability of every other candidate, is what it
      was. (An optimiser with a first moment or weight decay moves the others too.)
    - ``paths=1``: one candidate runs, and the gates that are closed count as without gradient. Meant for
      `ScoreFunction`, the REINFORCE variant of the paper: the sample has its log-probability.

    Where a decision keeps more choices, that many gates are open, and ``paths - 1`` more are drawn.

    Reference: Cai, Zhu and Han, "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware",
    ICLR 2019.

    Args:
        decisions: The space's decisions, by group.
        groups: The groups that get architecture parameters; ``None`` for all.
        paths: Candidates of each row in an architecture step; ``None`` for all.
        init_std: Standard deviation of the normal distribution from which `theta` starts.
        seed: Seed of the start and of all draws.

    Raises:
        ValueError: If there are no paths.

    Example:
        >>> from lightning_nas.arch import Decision
        >>> relaxation = BinaryGates({"cell": (Decision("edge", ("skip", "conv", "pool")),)})
        >>> [len(sample.active["cell"][0]) for sample in (relaxation(), relaxation.weight_sample())]
        [2, 1]
    """

    stochastic = True
    needs_unused_parameters = True
    discrete = True

    def __init__(
        self,
        decisions: Decisions,
        groups: Sequence[str] | None = None,
        *,
        paths: int | None = 2,
        init_std: float = 1e-3,
        seed: int = 0,
    ) -> None:
        if paths is not None and paths < 1:
            raise ValueError(f"paths={paths} must be at least 1; published are 2, and None for all candidates")
        super().__init__(decisions, groups, init_std=init_std, seed=seed)
        self.paths = paths
        self._drawn: dict[str, tuple[Tensor, Tensor]] = {}  # what moved since the last projection, theta before it

    def forward(self) -> Sample:
        """Draw the gates of an architecture step."""
        weights, active, terms = {}, {}, []
        for group, theta in self.theta.items():
            near, executed = self._near(group)
            share = masked_softmax(theta, near)
            choices = paths.draw(theta, near, self._keep(group), self.generator)
            weights[group] = paths.k_hot(choices, theta) + (share - share.detach())
            active[group] = paths.ascending(choices if self.paths == 1 else executed)
            terms.append(paths.log_prob(self.support, group, theta, choices).sum())
        score = None if self.paths not in (1, None) else torch.stack(terms).sum()
        return Sample(weights, {**(self.support.active() or {}), **active}, score)

    @torch.no_grad()
    def weight_sample(self) -> Sample:
        """Draw the one path of a weight step."""
        weights, active = {}, {}
        for group, theta in self.theta.items():
            choices = paths.draw(theta, self.support.mask(group), self._keep(group), self.generator)
            weights[group], active[group] = paths.k_hot(choices, theta), paths.ascending(choices)
        return Sample(weights, {**(self.support.active() or {}), **active})

    def expected(self) -> dict[str, Tensor]:
        """The probability of each gate to be open."""
        return {group: paths.inclusion(self.support, group, theta) for group, theta in self.theta.items()}

    @torch.no_grad()
    def project_(self) -> None:
        """Give back to the candidates that were not drawn the probability they had before the step."""
        for group, (near, before) in self._drawn.items():
            theta = self.theta[group]
            masses = [values.masked_fill(~near, -torch.inf).logsumexp(-1, keepdim=True) for values in (theta, before)]
            theta.copy_(torch.where(near, theta - (masses[0] - masses[1]), theta))
        self._drawn.clear()

    def _near(self, group: str) -> tuple[Tensor, paths.Choices]:
        """The candidates among which gates open, as a mask and by row: all open ones, or those of a first draw."""
        mask, is_open, theta = self.support.mask(group), self.support.open(group), self.theta[group]
        if self.paths in (1, None):
            return mask, is_open
        counts = [min(keep + self.paths - 1, len(row)) for keep, row in zip(self._keep(group), is_open, strict=True)]
        drawn = paths.draw(theta, mask, counts, self.generator)
        near = paths.k_hot(drawn, mask)
        if torch.is_grad_enabled():
            together = near | self._drawn[group][0] if group in self._drawn else near
            self._drawn[group] = (together, theta.detach().clone())
        return near, drawn

    def _keep(self, group: str) -> list[int]:
        return [decision.keep for decision in self.support.decisions[group]]
