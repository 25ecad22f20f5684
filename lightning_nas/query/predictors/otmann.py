"""OTMANN: optimal transport between graphs of operations, a distance and a correlation for Gaussian processes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from lightning_nas.query.encoders.base import Encoded, Graphs
from lightning_nas.query.predictors.base import graphs
from lightning_nas.query.predictors.correlation import Correlation

__all__ = ["OTMANN", "label_costs", "path_lengths"]

_MOST_KNOWN = 20_000
_AT_ONCE = 4_096


def label_costs(vocabulary: Sequence[str]) -> Tensor:
    r"""What it costs to take one operation for another, ``(kinds, kinds)``, infinite where it makes no sense.

    Equal labels cost 0. Convolutions of kernel sizes `k` and `k'` cost :math:`\sqrt{2 |k - k'|} / 10`, and 0.2 more if
    they are of different kinds (separable, dilated, ...). Two kinds of pooling cost 0.5.

    Args:
        vocabulary: Names of the labels.

    Example:
        >>> label_costs(["input", "sep_conv_3x3", "sep_conv_5x5", "max_pool_3x3", "avg_pool_3x3"])[1:, 1:]
        tensor([[0.0000, 0.2000,    inf,    inf],
                [0.2000, 0.0000,    inf,    inf],
                [   inf,    inf, 0.0000, 0.5000],
                [   inf,    inf, 0.5000, 0.0000]], dtype=torch.float64)
    """
    return torch.tensor([[_label_cost(a, b) for b in vocabulary] for a in vocabulary], dtype=torch.float64)


def _label_cost(a: str, b: str) -> float:
    if a == b:
        return 0.0
    if "conv" in a and "conv" in b:
        sizes = [int(found[1]) if (found := re.search(r"(\d+)x\d+", name)) else 1 for name in (a, b)]
        kinds = {re.sub(r"\d+x\d+", "", name) for name in (a, b)}
        return math.sqrt(2 * abs(sizes[0] - sizes[1])) / 10 + (0.2 if len(kinds) > 1 else 0.0)
    return 0.5 if "pool" in a and "pool" in b else math.inf


def path_lengths(batch: Graphs, groups: Tensor) -> Tensor:
    """How far each vertex is from the graph's inputs and outputs, ``(n, v, 6 * groups)``.

    The shortest and the longest path, and the expected length of a random walk that takes each edge alike, against the
    edges and along them. A length is the number of vertices of a group that are passed, the first of the path included,
    the last not. A vertex without edges into it counts as an input, one without edges out of it as an output.

    Args:
        batch: `n` acyclic graphs.
        groups: ``(groups, kinds)`` booleans, which labels belong to each group.

    Example:
        >>> path = torch.tensor([[[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]])
        >>> path_lengths(Graphs(path, torch.tensor([[0, 1, 0]]), kinds=2), torch.tensor([[True, True]]))[0, :, [0, 3]]
        tensor([[0., 2.],
                [1., 1.],
                [2., 0.]], dtype=torch.float64)
    """
    passed = (groups[:, batch.labels.clamp_min(0)] & batch.mask()).double()
    edges = batch.adjacency > 0
    sides = (edges.transpose(1, 2), edges)
    lengths = [_settled(partial(_one_step, of, side, passed), passed) for side in sides for of in _PATHS]
    return torch.cat(lengths).permute(1, 2, 0)


def _shortest(next_: Tensor, far: Tensor) -> Tensor:
    return far.masked_fill(~next_, math.inf).amin(dim=-1)


def _longest(next_: Tensor, far: Tensor) -> Tensor:
    return far.masked_fill(~next_, -math.inf).amax(dim=-1)


def _expected(next_: Tensor, far: Tensor) -> Tensor:
    return (far * next_).sum(dim=-1) / next_.sum(dim=-1).clamp_min(1)


_Path = Callable[[Tensor, Tensor], Tensor]
_PATHS: tuple[_Path, ...] = (_shortest, _longest, _expected)


def _one_step(path: _Path, next_: Tensor, passed: Tensor, length: Tensor) -> Tensor:
    """Lengths ``(groups, n, v)`` from those of the next vertices."""
    return torch.where(next_.any(dim=-1), path(next_, length[:, :, None, :]) + passed, 0.0)


def _settled(step: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """What a step no longer changes; in an acyclic graph soon."""
    length = torch.zeros_like(like)
    for _ in range(like.shape[-1]):
        before, length = length, step(length)
        if torch.equal(before, length):
            break
    return length


class OTMANN(Correlation):
    r"""A correlation from the cost of turning one graph into another by optimal transport of its operations.

    Each vertex carries mass. Carrying a unit of it from vertex `i` of one graph to vertex `j` of the other costs
    ``mismatch * label cost + s * structural cost``; a unit of either graph that is not carried costs 1. The
    structural cost is half the mean difference of the `path_lengths`, among all operations, convolutions and poolings.
    The least total is the distance `d`; over the two graphs' mass it is the normalised distance. Each `s` of
    `structure` gives one of both, and the correlation is

    .. math:: \exp\Bigl(-\sum_s \beta_s d_s + \beta'_s \bar d_s^2\Bigr)

    with :math:`\beta` learned. It is not always positive semi-definite, see `known_matrix`. Cells have no channel
    numbers, so a vertex has mass 1 unless `masses` says otherwise. Masses are whole numbers: a vertex of mass `m` is
    `m` vertices, and transport an assignment, solved exactly. Distances of graphs that were labelled once are kept.

    Reference: Kandasamy et al., "Neural Architecture Search with Bayesian Optimisation and Optimal Transport", NeurIPS
    2018.

    Args:
        vocabulary: Names of the labels, those of a `GraphEncoder`.
        structure: The weights of the structural cost.
        mismatch: The weight of the label cost.
        masses: Masses of the vertices with some labels.

    Raises:
        ValueError: If a weight is not positive, or a mass no positive whole number or of an unknown label.

    Example:
        >>> otmann = OTMANN(["input", "conv_3x3", "max_pool"])
        >>> pair = Graphs(torch.zeros(2, 2, 2), torch.tensor([[0, 1], [0, 2]]), kinds=3)
        >>> otmann.distance(pair, pair)[0]  # the input stays, a convolution goes, a pooling comes
        tensor([[0., 2.], [2., 0.]], dtype=torch.float64)
    """

    takes = ("graphs",)
    positive = False

    def __init__(
        self,
        vocabulary: Sequence[str],
        structure: Sequence[float] = (0.1, 0.25, 0.61, 1.5),
        mismatch: float = 1.0,
        masses: Mapping[str, int] | None = None,
    ) -> None:
        if not structure or min(*structure, mismatch) <= 0:
            raise ValueError(f"structure={structure}, mismatch={mismatch}: give positive weights")
        for label, mass in (masses or {}).items():
            if label not in vocabulary or mass != int(mass) or mass < 1:
                raise ValueError(
                    f"mass {mass} of {label!r}: give whole numbers from 1 to labels of {tuple(vocabulary)}"
                )
        self.structure = np.array(structure)
        self.costs = mismatch * label_costs(vocabulary).numpy()
        self.masses = np.array([int((masses or {}).get(label, 1)) for label in vocabulary])
        self.groups = torch.tensor([[word in label for label in vocabulary] for word in ("", "conv", "pool")])
        self._numbers: dict[bytes, int] = {}
        self._labels: list[np.ndarray] = []
        self._lengths: list[np.ndarray] = []
        self._rows: dict[int, np.ndarray] = {}

    def distance(self, a: Graphs, b: Graphs) -> Tensor:
        """Distances ``(structure, n, m)`` of `n` and `m` graphs.

        Raises:
            ValueError: If the graphs' vocabulary is not as long as this one's.
        """
        if {a.kinds, b.kinds} != {len(self.costs)}:
            raise ValueError(f"graphs with {a.kinds} and {b.kinds} labels, but a vocabulary of {len(self.costs)}")
        if len(self._labels) > _MOST_KNOWN:
            self._numbers, self._labels, self._lengths, self._rows = {}, [], [], {}
        one, other = self._known(a), self._known(b)
        for row in set(other):
            old = self._rows.get(row, np.full((len(self.structure), 0), np.nan))
            if (more := len(self._labels) - old.shape[1]) > 0:
                self._rows[row] = np.pad(old, ((0, 0), (0, max(more, old.shape[1]))), constant_values=np.nan)
        pairs = [(i, j) for j in dict.fromkeys(other) for i in set(one) if np.isnan(self._rows[j][0, i])]
        for start in range(0, len(pairs), _AT_ONCE):
            some = pairs[start : start + _AT_ONCE]
            for (i, j), distances in zip(some, self._solve(some), strict=True):
                self._rows[j][:, i] = distances
        return torch.from_numpy(np.stack([self._rows[j][:, one] for j in other], axis=2))

    def _known(self, batch: Graphs) -> list[int]:
        """The graphs' numbers; the same for graphs whose vertices are the same in all that costs depend on."""
        lengths = path_lengths(batch, self.groups).round(decimals=9).numpy()
        numbers = []
        for labels, far in zip(batch.labels.numpy(), lengths, strict=True):
            rows = np.column_stack([labels, far])[labels >= 0]
            rows = rows[np.lexsort(rows.T[::-1])]
            key = rows.tobytes()
            if key not in self._numbers:
                self._numbers[key] = len(self._labels)
                each = self.masses[rows[:, 0].astype(int)]
                self._labels.append(np.repeat(rows[:, 0].astype(int), each))
                self._lengths.append(np.repeat(rows[:, 1:], each, axis=0))
            numbers.append(self._numbers[key])
        return numbers

    def _solve(self, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
        """Distances ``(pairs, structure)``.

        Not to carry a pair of units costs 2. So the distance is all mass, less what the best assignment saves.
        """
        (here, far), (there, away) = (self._stacked([pair[side] for pair in pairs]) for side in (0, 1))
        costs = np.pad(self.costs, (0, 1), constant_values=math.inf)[here[:, :, None], there[:, None, :]]
        apart = torch.cdist(far, away, p=1.0).numpy() / (2 * far.shape[-1])
        gain = np.minimum(costs[:, None] + self.structure[:, None, None] * apart[:, None] - 2, 0)
        saved = [[each[linear_sum_assignment(each)].sum() for each in pair] for pair in gain]
        mass: np.ndarray = (here >= 0).sum(axis=1) + (there >= 0).sum(axis=1)
        return np.round(mass[:, None] + np.array(saved), 9)  # what else is solved with a pair leaves no trace

    def _stacked(self, numbers: Sequence[int]) -> tuple[np.ndarray, Tensor]:
        """Labels ``(pairs, v)``, -1 for padding, and lengths ``(pairs, v, f)`` of graphs."""
        width = max(len(self._labels[k]) for k in numbers)
        labels = np.full((len(numbers), width), -1)
        lengths = np.zeros((len(numbers), width, self._lengths[numbers[0]].shape[1]))
        for row, k in enumerate(numbers):
            labels[row, : len(self._labels[k])] = self._labels[k]
            lengths[row, : len(self._labels[k])] = self._lengths[k]
        return labels, torch.from_numpy(lengths)

    def compare(self, a: Encoded, b: Encoded) -> tuple[Tensor, ...]:
        """The distances, and the squares of the normalised ones, ``(2 * structure, n, m)``."""
        one, other = graphs(a, self), graphs(b, self)
        distance = self.distance(one, other)
        mass = [torch.from_numpy(self.masses)[g.labels.clamp_min(0)].mul(g.mask()).sum(dim=1) for g in (one, other)]
        return (torch.cat([distance, (distance / (mass[0][:, None] + mass[1])).square()]),)

    def matrix(self, compared: tuple[Tensor, ...], parameters: Tensor) -> Tensor:
        """The correlations ``(1, n, m)``; the parameters are ``(1, 2 * structure)`` factors."""
        return torch.exp(-torch.einsum("vq,qnm->vnm", parameters, compared[0]))

    def start(self, compared: tuple[Tensor, ...]) -> Tensor:
        """Factors with which graphs at the mean distance have correlation 1/e."""
        mean = compared[0].mean(dim=(1, 2))
        return 1 / (len(mean) * mean.clamp_min(1e-3))

    def prior(self, compared: tuple[Tensor, ...]) -> tuple[Tensor, float]:
        """A log-normal prior about where learning begins; each factor may well be e times larger or smaller."""
        return self.start(compared).log(), 1.0
