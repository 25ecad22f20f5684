"""The sampled path of DSNAS, whose weights of one carry the score gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_nas.arch import Sample
from lightning_nas.relaxations import paths
from lightning_nas.relaxations.base import Relaxation

__all__ = ["ScorePath"]


class ScorePath(Relaxation):
    r"""One path drawn from :math:`p = \mathrm{softmax}(\alpha)`; its weights of one carry the score gradient.

    The weight of the choice `s` that a row has drawn is :math:`Z_s = 1 + \log p_s - \mathrm{stop}(\log p_s)`. With
    :math:`r = \partial L / \partial Z_s` the gradient of the row is :math:`r \nabla \log p_s`: in expectation that of
    :math:`E_Z[L]` if `L` is linear in `Z`. One candidate of each row runs. Where a decision keeps more choices, each of
    them carries the log-probability of the whole draw.

    Reference: Hu, Xie, Zheng, Liu, Shi, Liu and Lin, "DSNAS: Direct Neural Architecture Search without Parameter
    Retraining", CVPR 2020.

    Example:
        >>> from lightning_nas.arch import Decision
        >>> relaxation = ScorePath({"cell": (Decision("edge", ("skip", "conv")),)}, init_std=0.0)
        >>> relaxation().weights["cell"].sum().backward()
        >>> relaxation.theta["cell"].grad.abs().tolist()
        [[0.5, 0.5]]
    """

    stochastic = True
    needs_unused_parameters = True
    discrete = True

    def forward(self) -> Sample:
        """Draw a path."""
        weights, active, terms = {}, {}, []
        for group, theta in self.theta.items():
            counts = [decision.keep for decision in self.support.decisions[group]]
            choices = paths.draw(theta, self.support.mask(group), counts, self.generator)
            score = paths.log_prob(self.support, group, theta, choices)
            weights[group] = paths.k_hot(choices, theta) * (1 + (score - score.detach())).unsqueeze(1)
            active[group] = paths.ascending(choices)
            terms.append(score.sum())
        return Sample(weights, {**(self.support.active() or {}), **active}, torch.stack(terms).sum())

    def expected(self) -> dict[str, Tensor]:
        """The probability of each choice to be drawn."""
        return {group: paths.inclusion(self.support, group, theta) for group, theta in self.theta.items()}
