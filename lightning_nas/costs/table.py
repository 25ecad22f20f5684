"""What a network costs, as a sum over the choices that it keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lightning_nas.arch import Decisions, Genotype, Support

__all__ = ["CostTable", "Gate", "inclusion"]

Gate = tuple[str, int, int]
"""Group, row and choice that must be kept, or a row of another group is not part of the network."""

_TINY = 1e-12


def inclusion(weights: Tensor, open_: Tensor, keep: int) -> Tensor:
    r"""The probability that each choice is among `keep` drawn one after another, in proportion to their weights.

    What has been drawn is not put back. For two of them it is
    :math:`\pi_i = p_i + \sum_{j \neq i} p_j \frac{p_i}{1 - p_j}`; where as many are open as are kept, it is one. Where
    all that is left has no weight, the open choices are equally likely.

    Args:
        weights: ``(..., choices)``, not negative; closed choices at zero.
        open_: ``(..., choices)`` boolean: the open choices.
        keep: How many are drawn.

    Returns:
        ``(..., choices)``; rows sum to `keep`, or to the number of open choices if there are fewer.

    Example:
        >>> inclusion(torch.tensor([0.5, 0.25, 0.25]), torch.ones(3, dtype=torch.bool), 2)
        tensor([0.8333, 0.5833, 0.5833])
    """
    total = weights.sum(-1, keepdim=True)
    even = open_.to(weights) / open_.sum(-1, keepdim=True).clamp(min=1)
    usable = total > _TINY
    chance = torch.where(usable, weights / torch.where(usable, total, 1.0), even)
    if keep == 1:
        return chance
    others = ~torch.eye(weights.shape[-1], dtype=torch.bool, device=weights.device)  # row j: without choice j
    rest = inclusion(weights.unsqueeze(-2) * others, open_.unsqueeze(-2) & others, keep - 1)
    return chance + (chance.unsqueeze(-1) * rest).sum(-2)


@dataclass(frozen=True, eq=False)
class CostTable:
    """The cost of every choice of a space, added up over all places that share a decision, and of what is fixed.

    Args:
        decisions: The space's decisions, by group.
        rows: Group -> ``(rows, choices)`` costs; a group that is absent costs nothing.
        fixed: Cost of all that no decision changes.
        unit: What is counted, for example ``"MACs"``.
        gates: Group -> for each row what must be kept too, or the row costs nothing: an edge whose end does not take it
            is not part of the network.

    Example:
        >>> from lightning_nas.arch import Decision
        >>> decisions = {"cell": (Decision("edge", ("skip", "conv")),)}
        >>> table = CostTable(decisions, {"cell": torch.tensor([[0.0, 6.0]])}, fixed=1.0, unit="ms")
        >>> table.of(Genotype("toy", {"edge": (1,)}))
        7.0
        >>> table.expected({"cell": torch.tensor([[0.5, 0.5]])}, Support(decisions)).item()
        4.0
    """

    decisions: Decisions
    rows: Mapping[str, Tensor]
    fixed: float
    unit: str
    gates: Mapping[str, tuple[Gate, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for group, rows in self.rows.items():
            if group not in self.decisions:
                raise ValueError(f"costs of an unknown group {group!r}; the decisions have {sorted(self.decisions)}")
            shape = (len(self.decisions[group]), max(len(d.choices) for d in self.decisions[group]))
            if tuple(rows.shape) != shape:
                raise ValueError(f"costs of group {group!r} have shape {tuple(rows.shape)}; expected {shape}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CostTable):
            return NotImplemented
        plain = (self.decisions, self.fixed, self.unit, self.gates, self.rows.keys())
        if plain != (other.decisions, other.fixed, other.unit, other.gates, other.rows.keys()):
            return False
        return all(torch.equal(rows, other.rows[group]) for group, rows in self.rows.items())

    __hash__ = None  # type: ignore[assignment]

    def to(self, like: Tensor) -> CostTable:
        """The same with the device and the precision of a tensor; itself if it has them."""
        if all(rows.device == like.device and rows.dtype == like.dtype for rows in self.rows.values()):
            return self
        return replace(self, rows={group: rows.to(like) for group, rows in self.rows.items()})

    def of(self, genotype: Genotype) -> float:
        """The cost of the network of a genotype."""
        total = float(self.fixed)
        for group, rows in self.rows.items():
            for row, decision in enumerate(self.decisions[group]):
                total += sum(float(rows[row, k]) for k in genotype.picks.get(decision.name, ()))
        return total

    def expected(self, weights: Mapping[str, Tensor], support: Support, *, inclusive: bool = False) -> Tensor:
        """The cost if each choice counts with its weight; a scalar, differentiable in the weights.

        An edge counts with the probability that its end keeps it. Where inputs are relaxed, their weights say it; where
        they are not, all that are open are equally likely, but for edges whose operations have no weight at all. So for
        weights that are probabilities this is the expectation of `of` over the networks that they stand for, and for
        the weights of a vertex it is `of` itself.

        Args:
            weights: Group -> ``(rows, choices)``; a group that is absent weighs its open choices equally.
            support: The open choices.
            inclusive: Whether weights are the probabilities to be kept, whose rows sum to the number of choices that a
                decision keeps, as those of a discrete relaxation do. Otherwise as many are drawn in proportion to the
                weights, see `inclusion`.
        """
        like = next(iter(weights.values()), torch.zeros(()))
        table, total = self.to(like), like.new_full((), self.fixed)
        masks = {group: support.mask(group) for group in support.decisions}
        for group, costs in table.rows.items():
            weight = weights[group] if group in weights else masks[group] / masks[group].sum(-1, keepdim=True)
            row_costs = (weight * costs).sum(-1)
            if group in self.gates:
                row_costs = row_costs * self._gate(group, weight, weights, masks, inclusive)
            total = total + row_costs.sum()
        return total

    def _gate(
        self, group: str, weight: Tensor, weights: Mapping[str, Tensor], masks: Mapping[str, Tensor], inclusive: bool
    ) -> Tensor:
        """``(rows,)``: the probability of each row of a group to be part of the network."""
        out = torch.zeros_like(weight[:, 0])
        for inputs in sorted({name for name, _, _ in self.gates[group]}):
            at = [(row, gate[1], gate[2]) for row, gate in enumerate(self.gates[group]) if gate[0] == inputs]
            rows, ends, choices = torch.tensor(at, device=out.device).T
            if inputs in weights:
                kept = weights[inputs] if inclusive else self._kept(inputs, weights[inputs], masks[inputs])
            else:
                mask = masks[inputs].clone()
                mask[ends, choices] &= weight.detach()[rows].sum(-1) > 0
                kept = self._kept(inputs, mask.to(weight), mask)
            out = out.index_put((rows,), kept[ends, choices])
        return out

    def _kept(self, group: str, weights: Tensor, mask: Tensor) -> Tensor:
        """``(rows, choices)``: the probability that each choice is kept."""
        decisions = self.decisions[group]
        kept = torch.zeros_like(weights)
        for keep in {decision.keep for decision in decisions}:
            rows = [row for row, decision in enumerate(decisions) if decision.keep == keep]
            chosen = inclusion(weights[rows] * mask[rows], mask[rows], keep)
            kept = kept.index_copy(0, torch.tensor(rows, device=kept.device), chosen)
        return kept
