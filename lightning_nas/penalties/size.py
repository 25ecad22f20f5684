"""The penalty of NASP on large operations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_nas.arch import Sample
from lightning_nas.costs import CostTable, cost_table
from lightning_nas.penalties.base import Searching, size_of
from lightning_nas.relaxations import Relaxation
from lightning_nas.spaces import NetworkSize, Space

__all__ = ["SquaredSize"]


class SquaredSize:
    r"""Squares of the architecture parameters, each times its operation's share in all parameters.

    With :math:`c_o` the parameters of a candidate, it is :math:`\lambda \sum_o \alpha_o^2 c_o / \sum_o c_o`, taken over
    the open choices of all rows.

    Reference: Yao, Xu, Tu and Zhu, "Efficient Neural Architecture Search via Proximal Iterations", AAAI 2020.

    Args:
        weight: The factor.
        groups: The groups that count; ``None`` for all. As published, ``("normal",)``.

    Attributes:
        table: Parameters of the candidates; made when a search begins.

    Example:
        >>> from lightning_nas.relaxations import Proximal
        >>> from lightning_nas.spaces import get_space
        >>> space, penalty = get_space("nasbench201"), SquaredSize(2.0)
        >>> penalty.build(space, NetworkSize(16, 5))
        >>> relaxation = Proximal(space.decisions)
        >>> penalty(relaxation, relaxation()).item()
        0.5
    """

    def __init__(self, weight: float, groups: Sequence[str] | None = None) -> None:
        self.weight, self.groups = weight, None if groups is None else tuple(groups)
        self.table: CostTable | None = None

    def setup(self, search: Searching) -> None:
        """Count the parameters in the search's supernet.

        Raises:
            ValueError: If its space has no table of costs, or not the groups.
        """
        self.build(search.space, size_of(search))

    def build(self, space: Space, size: NetworkSize) -> None:
        """Count the parameters in a network of a size."""
        table = cost_table(space, size, cost="params")
        unknown = set(self.groups or ()) - set(table.rows)
        if unknown:
            raise ValueError(f"groups {sorted(unknown)} have no operations; {space.name!r} has {sorted(table.rows)}")
        self.table = table

    def __call__(self, relaxation: Relaxation, sample: Sample) -> Tensor:
        """The weighted sum."""
        groups = [g for g in relaxation.theta if self.table and g in (self.groups or self.table.rows)]
        if self.table is None or not groups:
            raise ValueError("SquaredSize has no table, or the relaxation no parameters; call setup(search) first")
        self.table = self.table.to(relaxation.theta[groups[0]])
        total, squares = [], []
        for group in groups:
            size = self.table.rows[group] * relaxation.support.mask(group)
            total.append(size.sum())
            squares.append((relaxation.theta[group].square() * size).sum())
        return self.weight * torch.stack(squares).sum() / torch.stack(total).sum().clamp(min=1)
