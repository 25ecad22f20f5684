"""Paths drawn uniformly, as in random search with weight sharing and in SPOS."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_nas.arch import Decisions, Sample
from lightning_nas.relaxations import paths
from lightning_nas.relaxations.base import Relaxation

__all__ = ["UniformPath"]


class UniformPath(Relaxation):
    r"""One path, each open choice of a row with the same chance; there are no architecture parameters.

    Rows that keep more than one choice draw that many, without replacement.

    References: Li and Talwalkar, "Random Search and Reproducibility for Neural Architecture Search", UAI 2019; Guo et
    al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020.

    Args:
        decisions: The space's decisions, by group.
        groups: The groups that are drawn; ``None`` for all.
        inputs: Whether the inputs of nodes are drawn too, from the groups ``"<group>/inputs"`` (DARTS: two of each
            node); otherwise every edge is executed.
        reject: Whether the operations of a node are drawn again if all of them, on the inputs it takes, are `none`.
            A node that may take nothing but edges without another choice is left alone.
        seed: Seed of all draws.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> space = get_space("darts")
        >>> sample = UniformPath(space.decisions, space.relaxed, inputs=True)()
        >>> [len(row) for row in sample.active["normal/inputs"]], {len(row) for row in sample.active["normal"]}
        ([2, 2, 2, 2], {1})
    """

    stochastic = True
    needs_unused_parameters = True
    discrete = True

    def __init__(
        self,
        decisions: Decisions,
        groups: Sequence[str] | None = None,
        *,
        inputs: bool = False,
        reject: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(decisions, groups, seed=seed)
        beside = [f"{group}/inputs" for group in self.groups if inputs]
        self.groups = (*self.groups, *(group for group in beside if group in decisions and group not in self.groups))
        self.theta, self.reject = nn.ParameterDict(), reject

    def forward(self) -> Sample:
        """Draw a path."""
        choices = {group: self._draw(group, range(len(self.support.decisions[group]))) for group in self.groups}
        for group in self.groups if self.reject else ():
            for node in self._nodes(group):
                choices[group] = self._something(group, node, choices)
        weights = {group: paths.k_hot(rows, self._even(group)) for group, rows in choices.items()}
        active = {group: paths.ascending(rows) for group, rows in choices.items()}
        return Sample(weights, {**(self.support.active() or {}), **active})

    def expected(self) -> dict[str, Tensor]:
        """The probability of each choice to be drawn."""
        chances = {group: self._even(group) for group in self.groups}
        for group in self.groups if self.reject else ():
            for node in self._nodes(group):
                share = {row: self._share_of_none(group, row) for row in node.rows}
                for row, (of_none, of_others) in given_something(share, node.taken).items():
                    is_none = [name == "none" for name in self.support.decisions[group][row].choices]
                    factor = [of_none if none else of_others for none in is_none]
                    chances[group][row, : len(factor)] *= torch.tensor(factor).to(chances[group])
        return chances

    def _even(self, group: str) -> Tensor:
        """The same chance for each open choice, ``(rows, choices)``."""
        mask, keep = self.support.mask(group), [[float(d.keep)] for d in self.support.decisions[group]]
        return torch.tensor(keep, device=mask.device) * mask / mask.sum(-1, keepdim=True)

    def _draw(self, group: str, rows: Sequence[int]) -> paths.Choices:
        mask = self.support.mask(group)[list(rows)]
        counts = [self.support.decisions[group][row].keep for row in rows]
        return paths.draw(torch.zeros(mask.shape, device=mask.device), mask, counts, self.generator)

    def _something(self, group: str, node: _Node, choices: dict[str, paths.Choices]) -> paths.Choices:
        """The choices of a group, those on the edges into a node drawn again as long as it gets nothing."""
        inputs = range(len(node.rows)) if node.inputs is None else choices[f"{group}/inputs"][node.inputs]
        taken = [row for row, k in zip(node.rows, node.sources, strict=True) if node.inputs is None or k in inputs]
        drawn = choices[group]
        while all(self.support.decisions[group][row].choices[drawn[row][0]] == "none" for row in taken):
            again = dict(zip(node.rows, self._draw(group, node.rows), strict=True))
            drawn = tuple(again.get(row, old) for row, old in enumerate(drawn))
        return drawn

    def _nodes(self, group: str) -> list[_Node]:
        """The nodes at which the edges of a group end, without those that can get nothing but `none`."""
        inputs, found = f"{group}/inputs", []
        ends = paths.ends(self.support.decisions[group])
        if inputs in self.groups and ends:
            rows = zip(self.support.decisions[inputs], self.support.open(inputs), strict=True)
            for index, (d, is_open) in enumerate(rows):
                into = ends[d.name.rpartition("/")[2]]
                found.append(_Node(tuple(into[d.choices[k]] for k in is_open), is_open, index, d.keep))
        else:
            found += [_Node(tuple(into.values()), tuple(range(len(into))), None, len(into)) for into in ends.values()]
        return [node for node in found if sum(self._share_of_none(group, row) == 1 for row in node.rows) < node.taken]

    def _share_of_none(self, group: str, row: int) -> float:
        names, is_open = self.support.decisions[group][row].choices, self.support.open(group)[row]
        return sum(names[k] == "none" for k in is_open) / len(is_open)


class _Node(NamedTuple):
    """Where edges end: their rows, the choice of input that each belongs to, the row of that decision, how many count.

    All edges count if inputs are not drawn; then there is no row.
    """

    rows: tuple[int, ...]
    sources: tuple[int, ...]
    inputs: int | None
    taken: int


def given_something(none: dict[int, float], taken: int) -> dict[int, tuple[float, float]]:
    """How the chances on the edges into a node change if not all edges taken may be `none`.

    Args:
        none: Edge -> chance of `none`.
        taken: How many edges, drawn uniformly, the node takes.

    Returns:
        Edge -> factors of the chance of `none` and of those of all others.

    Example:
        >>> given_something({0: 0.5, 1: 0.5}, 2)  # 1/3 of the time each of: none and other, other and none, both other
        {0: (0.666..., 1.333...), 1: (0.666..., 1.333...)}
    """
    subsets = list(combinations(none, taken))
    factors = dict.fromkeys(none, (0.0, 0.0))
    for subset in subsets:
        nothing = prod(none[edge] for edge in subset)
        for edge, (of_none, of_others) in factors.items():
            if edge not in subset or not none[edge]:
                kept, grown = 1.0, 1.0 / (1.0 - nothing) if edge in subset else 1.0
            else:
                kept, grown = (none[edge] - nothing) / (1.0 - nothing) / none[edge], 1.0 / (1.0 - nothing)
            factors[edge] = (of_none + kept / len(subsets), of_others + grown / len(subsets))
    return factors
