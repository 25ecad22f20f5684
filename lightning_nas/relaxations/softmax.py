"""The softmax mixture of DARTS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from lightning_nas.arch import Decisions, Sample
from lightning_nas.relaxations.base import Relaxation

__all__ = ["Softmax", "masked_softmax"]


def masked_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the open choices: ``(rows, choices)``, ``(rows, choices)`` boolean -> rows that sum to one.

    Example:
        >>> masked_softmax(torch.zeros(1, 3), torch.tensor([[True, True, False]])).tolist()
        [[0.5, 0.5, 0.0]]
    """
    return logits.masked_fill(~mask, -torch.inf).softmax(dim=-1)


class Softmax(Relaxation):
    r"""Every candidate, weighted by :math:`p = \mathrm{softmax}(\alpha)` over the open choices of its row.

    With `auxiliary_skip`, a number that a callback brings to zero, a sample has that much more of the choice
    ``"skip_connect"`` on every row where it is open; `expected` has not (Chu et al., "DARTS-: Robustly Stepping out of
    Performance Collapse Without Indicators", ICLR 2021, where the auxiliary skip of an edge of stride 2 has weights of
    its own).

    Reference: Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", ICLR 2019.

    Args:
        decisions: The space's decisions, by group.
        groups: The groups that get architecture parameters; ``None`` for all.
        auxiliary_skip: Weight of the auxiliary skip.
        init_std: Standard deviation of the normal distribution from which `theta` starts.
        seed: Seed of the start.

    Example:
        >>> from lightning_nas.arch import Decision
        >>> relaxation = Softmax({"cell": (Decision("edge", ("skip_connect", "conv")),)}, init_std=0.0)
        >>> relaxation().weights["cell"].tolist()
        [[0.5, 0.5]]
        >>> relaxation.auxiliary_skip = 0.25
        >>> relaxation().weights["cell"].tolist()
        [[0.75, 0.5]]
    """

    scalars: ClassVar[tuple[str, ...]] = ("auxiliary_skip",)

    def __init__(
        self,
        decisions: Decisions,
        groups: Sequence[str] | None = None,
        *,
        auxiliary_skip: float = 0.0,
        init_std: float = 1e-3,
        seed: int = 0,
    ) -> None:
        super().__init__(decisions, groups, init_std=init_std, seed=seed)
        self.auxiliary_skip = float(auxiliary_skip)

    def forward(self) -> Sample:
        """The mixture; the same at every call."""
        weights = self.expected()
        if self.auxiliary_skip:
            weights = {group: rows + self.auxiliary_skip * self._skips(group, rows) for group, rows in weights.items()}
        return Sample(weights, self.support.active())

    def _skips(self, group: str, like: Tensor) -> Tensor:
        """One at each open skip, ``(rows, choices)``."""
        names = [decision.choices for decision in self.support.decisions[group]]
        skips = [[float(row[k : k + 1] == ("skip_connect",)) for k in range(like.shape[1])] for row in names]
        return torch.tensor(skips).to(like) * self.support.mask(group)

    def expected(self) -> dict[str, Tensor]:
        """The mixture without the auxiliary skip."""
        return {group: masked_softmax(theta, self.support.mask(group)) for group, theta in self.theta.items()}
