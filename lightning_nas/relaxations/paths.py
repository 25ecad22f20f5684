"""Drawing whole choices: as many of a row as its decision keeps, without replacement."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_nas.arch import Decision, Support

__all__ = ["Choices", "ascending", "best", "draw", "ends", "gumbel", "inclusion", "k_hot", "log_prob"]

Choices = tuple[tuple[int, ...], ...]
"""For each row the choices taken, in the order in which they were drawn."""


def gumbel(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise in double precision on the CPU; drawn again should an entry not be finite."""
    while True:
        noise = -torch.empty(*shape, dtype=torch.float64).exponential_(generator=generator).log()
        if bool(noise.isfinite().all()):
            return noise


def best(scores: Tensor, mask: Tensor, counts: Sequence[int]) -> Choices:
    """The choices of the largest scores among the open ones, the largest first; of equal scores the first.

    Args:
        scores: ``(rows, choices)``.
        mask: Boolean, of the same shape; each row has at least as many open choices as are taken.
        counts: How many choices each row takes.

    Example:
        >>> best(torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([[True, True, True]]), [2])
        ((1, 2),)
    """
    ranked = scores.detach().masked_fill(~mask, -torch.inf).sort(dim=-1, descending=True, stable=True).indices
    return tuple(tuple(row[:count]) for row, count in zip(ranked.tolist(), counts, strict=True))


def draw(logits: Tensor, mask: Tensor, counts: Sequence[int], generator: torch.Generator) -> Choices:
    """Draw choices one after another without replacement, each in proportion to ``exp(logits)`` among those left.

    The largest of the logits with Gumbel noise are such a draw.
    """
    return best(logits.detach() + gumbel(logits.shape, generator).to(logits), mask, counts)


def k_hot(choices: Choices, like: Tensor) -> Tensor:
    """One at each choice taken, zero elsewhere: ``(rows, choices)``, on the device and of the type of a tensor.

    Example:
        >>> k_hot(((2,), (0, 1)), torch.empty(2, 3)).tolist()
        [[0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]
    """
    rows = torch.zeros(like.shape)
    for index, row in enumerate(choices):
        rows[index, list(row)] = 1.0
    return rows.to(like)


def log_prob(support: Support, group: str, logits: Tensor, choices: Choices) -> Tensor:
    """Log-probability of an ordered draw, ``(rows,)``, differentiable in the logits; zero where nothing is left open.

    With one choice to keep it is the log-probability of the categorical distribution.
    """
    left = support.mask(group).clone()
    total = 0.0 * logits.masked_fill(~left, 0.0).sum(-1)  # so it has a graph when nothing is left open
    undecided = [len(row) > d.keep for row, d in zip(support.open(group), support.decisions[group], strict=True)]
    for step in range(max(map(len, choices), default=0)):
        rows = [r for r, row in enumerate(choices) if undecided[r] and step < len(row)]
        if rows:
            picked = [choices[r][step] for r in rows]
            each = logits[rows].masked_fill(~left[rows], -torch.inf).log_softmax(-1)
            at = torch.tensor(rows, device=logits.device)
            total = total.index_add(0, at, each[list(range(len(rows))), picked])
            left[rows, picked] = False
    return total


def inclusion(support: Support, group: str, logits: Tensor) -> Tensor:
    r"""Probability of each choice to be drawn, ``(rows, choices)``; a row sums to the number of choices it keeps.

    For one choice to keep it is the softmax :math:`p`; for more,
    :math:`\pi_i = p_i + \sum_j p_j \pi_i^{(j)}`, where the draw of what is left goes on without `j`.
    """
    masked = logits.masked_fill(~support.mask(group), -torch.inf)
    rows: dict[int, list[int]] = {}
    for index, decision in enumerate(support.decisions[group]):
        rows.setdefault(decision.keep, []).append(index)
    if len(rows) == 1:
        return _inclusion(masked, next(iter(rows)))
    out = torch.zeros_like(masked)
    for keep, same in rows.items():
        out = out.index_copy(0, torch.tensor(same, device=logits.device), _inclusion(masked[same], keep))
    return out


def _inclusion(logits: Tensor, keep: int) -> Tensor:
    first = logits.softmax(-1)
    if keep == 1:
        return first
    without = torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)
    rest = _inclusion(logits.unsqueeze(-2).masked_fill(without, -torch.inf), keep - 1)
    return first + (first.unsqueeze(-1) * rest).sum(-2)


def ascending(active: Choices) -> Choices:
    """The choices in ascending order, as a `Sample` lists them."""
    return tuple(tuple(sorted(row)) for row in active)


def ends(rows: Sequence[Decision]) -> dict[str, dict[str, int]]:
    """Target node -> source node -> row, of the decisions that are edges, named ``"<kind>/<target><-<source>"``.

    Example:
        >>> ends((Decision("normal/2<-0", ("skip",)), Decision("normal/2<-1", ("skip",))))
        {'2': {'0': 0, '1': 1}}
    """
    found: dict[str, dict[str, int]] = {}
    for index, decision in enumerate(rows):
        target, arrow, source = decision.name.rpartition("/")[2].partition("<-")
        if arrow:
            found.setdefault(target, {})[source] = index
    return found
