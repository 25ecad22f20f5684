"""Architecture parameters on the simplex, as in GAEA."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_nas.arch import Decisions, Sample
from lightning_nas.relaxations.base import Relaxation

__all__ = ["Simplex"]


class Simplex(Relaxation):
    r"""Every candidate, weighted by `theta` itself, whose rows lie on the simplex.

    It starts uniform over the open choices and is meant for `ExponentiatedGradient`, whose steps stay on the simplex. A
    row is divided by its sum over the open choices, so `theta` need not be touched when choices are closed; for a row
    of sum one this shifts its gradient by a constant, which an exponentiated step does not see. `project_` clips a row
    at zero and divides it by its sum, which is the projection that belongs to this geometry (that of least relative
    entropy); after another optimiser it serves as well.

    Reference: Li, Khodak, Balcan and Talwalkar, "Geometry-Aware Gradient Algorithms for Neural Architecture Search",
    ICLR 2021.

    Args:
        decisions: The space's decisions, by group.
        groups: The groups that get architecture parameters; ``None`` for all.
        seed: Not used; there is nothing to draw.

    Example:
        >>> from lightning_nas.arch import Decision
        >>> relaxation = Simplex({"cell": (Decision("a", ("skip", "conv", "pool", "none")), Decision("b", ("skip",)))})
        >>> relaxation.theta["cell"].tolist()
        [[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]]
    """

    def __init__(self, decisions: Decisions, groups: Sequence[str] | None = None, *, seed: int = 0) -> None:
        super().__init__(decisions, groups, seed=seed)
        self.theta = nn.ParameterDict(
            {group: nn.Parameter(_uniform(self.support.mask(group))) for group in self.groups}
        )

    def forward(self) -> Sample:
        """The weights; the same at every call."""
        return Sample(self.expected(), self.support.active())

    def expected(self) -> dict[str, Tensor]:
        """The weights."""
        weights = {}
        for group, theta in self.theta.items():
            # the least positive number is lost in any sum, but for a row of zeros
            left = (theta + torch.finfo(theta.dtype).tiny) * self.support.mask(group)
            weights[group] = left / left.sum(-1, keepdim=True)
        return weights

    @torch.no_grad()
    def project_(self) -> None:
        """Clip at zero, close what is closed, and divide each row by its sum if that is not one."""
        for group, theta in self.theta.items():
            mask = self.support.mask(group)
            left = theta.clamp(min=0.0) * mask
            total = left.sum(-1, keepdim=True)
            scaled = torch.where((total - 1).abs() > 1e-6, left / total.clamp(min=torch.finfo(theta.dtype).tiny), left)
            theta.copy_(torch.where(total > 0, scaled, _uniform(mask).to(theta)))


def _uniform(mask: Tensor) -> Tensor:
    return mask / mask.sum(-1, keepdim=True)
