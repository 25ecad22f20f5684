"""The score-function estimator, REINFORCE."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lightning_nas.arch import Bilevel, Outcome

__all__ = ["ScoreFunction"]


class ScoreFunction(nn.Module):
    r"""REINFORCE: the gradient of the expected reward over draws of the relaxation, without a graph of the supernet.

    .. math::
        -\frac{1}{S} \sum_{s=1}^{S} (R_s - b) \, \nabla_\alpha \log p_\alpha(s)

    plus the gradient of the regularizers. The reward `R` is the accuracy on the validation batch, or minus the loss,
    plus `entropy` times :math:`-\log p`, whose mean is the entropy. The baseline `b` starts at the first reward and
    moves with each draw, before that draw counts: :math:`b \leftarrow d b + (1 - d) R`, as in the released codes. So
    :math:`R - b` is `d` times the difference to the baseline before, and the expectation is that factor times the
    gradient of the expected reward.

    Cost: `samples` forward passes without a graph, and the backward pass of the relaxation.

    References: Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning",
    Machine Learning 1992; Pham, Guan, Zoph, Le and Dean, "Efficient Neural Architecture Search via Parameter Sharing",
    ICML 2018.

    Args:
        samples: Draws to one gradient.
        reward: ``"accuracy"``, or ``"loss"`` for minus the loss.
        baseline_decay: Decay `d` of the baseline; 0 for the reward itself would leave no gradient.
        entropy: Weight of the entropy in the reward.

    Attributes:
        baseline: The moving average of the reward, saved in a checkpoint.
        updates: Number of draws it has seen.

    Raises:
        ValueError: If a number is out of range or the reward is unknown.

    Example:
        >>> theta = torch.tensor([0.0], requires_grad=True)
        >>> rewards = iter([0.25, 0.75])
        >>> problem = Bilevel(
        ...     lambda w: theta.sum(), lambda w: theta.sum(), [], [theta],
        ...     outcome=lambda: Outcome(torch.tensor(0.0), torch.tensor(next(rewards)), theta.sum()),
        ... )
        >>> score = ScoreFunction(baseline_decay=0.5)
        >>> [score(problem)[0].item() for _ in range(2)], score.baseline.item()
        ([-0.0, -0.25], 0.5)
    """

    baseline: Tensor
    updates: Tensor

    def __init__(
        self,
        samples: int = 1,
        reward: Literal["accuracy", "loss"] = "accuracy",
        baseline_decay: float = 0.99,
        entropy: float = 0.0,
    ) -> None:
        super().__init__()
        if samples < 1:
            raise ValueError(f"samples={samples} must be at least 1")
        if reward not in ("accuracy", "loss"):
            raise ValueError(f"unknown reward {reward!r}; allowed are 'accuracy' and 'loss'")
        if not 0 < baseline_decay < 1:
            raise ValueError(f"baseline_decay={baseline_decay} must be more than 0 and less than 1; 0.99 is published")
        self.samples, self.reward, self.baseline_decay, self.entropy = samples, reward, baseline_decay, entropy
        self.register_buffer("baseline", torch.zeros(()))
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    def forward(self, problem: Bilevel) -> list[Tensor]:
        """Draw, and weight the scores by the rewards."""
        if problem.outcome is None:
            raise ValueError("the problem has no `outcome`, which the score-function estimator needs; give it one")
        total = torch.zeros((), device=problem.theta[0].device)
        for _ in range(self.samples):
            drawn = problem.outcome()
            score = drawn.log_prob.sum()
            total = total - self._advantage(drawn, score.detach()) * score / self.samples
        penalty = None if problem.penalty is None else problem.penalty()
        total = total if penalty is None else total + penalty
        theta = list(problem.theta)
        if not total.requires_grad:  # theta reaches neither
            return [torch.zeros_like(p) for p in theta]
        return list(torch.autograd.grad(total, theta, materialize_grads=True))

    @torch.no_grad()
    def _advantage(self, drawn: Outcome, score: Tensor) -> Tensor:
        """The reward over the baseline, which moves first."""
        reward = (drawn.accuracy if self.reward == "accuracy" else -drawn.loss) - self.entropy * score
        reward = reward.to(self.baseline)
        moved = self.baseline_decay * self.baseline + (1 - self.baseline_decay) * reward
        self.baseline.copy_(torch.where(self.updates == 0, reward, moved))
        self.updates.add_(1)
        return (reward - self.baseline).to(score)
