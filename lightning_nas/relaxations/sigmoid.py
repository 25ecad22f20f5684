"""The sigmoid weights of FairDARTS."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lightning_nas.arch import Decisions, Sample
from lightning_nas.relaxations.base import Relaxation

__all__ = ["Sigmoid"]


class Sigmoid(Relaxation):
    r"""Every candidate, weighted by :math:`\sigma(\alpha)`: candidates do not compete, and rows have any sum.

    Reference: Chu, Zhou, Zhang and Li, "Fair DARTS: Eliminating Unfair Advantages in Differentiable Architecture
    Search", ECCV 2020.

    Args:
        decisions: The space's decisions, by group.
        groups: The groups that get architecture parameters; ``None`` for all.
        init_std: Standard deviation of the start around zero, a weight of one half; as published it is zero.
        seed: Seed of the start.

    Example:
        >>> from lightning_nas.arch import Decision
        >>> Sigmoid({"cell": (Decision("edge", ("skip", "conv", "pool")),)})().weights["cell"].tolist()
        [[0.5, 0.5, 0.5]]
    """

    simplex = False

    def __init__(
        self, decisions: Decisions, groups: Sequence[str] | None = None, *, init_std: float = 0.0, seed: int = 0
    ) -> None:
        super().__init__(decisions, groups, init_std=init_std, seed=seed)

    def forward(self) -> Sample:
        """The weights; the same at every call."""
        return Sample(self.expected(), self.support.active())

    def expected(self) -> dict[str, Tensor]:
        """The weights."""
        return {
            group: theta.sigmoid().masked_fill(~self.support.mask(group), 0.0) for group, theta in self.theta.items()
        }
