"""Kernel density estimates of categorical variables, and genotypes as vectors of such variables."""

from __future__ import annotations

import random
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_nas.arch import Genotype
from lightning_nas.spaces import Space

__all__ = ["CategoricalKDE", "Variables"]

Codes = NDArray[np.int64]

_CELLS = 2**16
"""Kernel values computed at once: as many as a cache holds."""


class CategoricalKDE:
    r"""The density :math:`p(x) = \frac1n \sum_i \prod_j k_j(x_j, X_{ij})` with the kernel of Aitchison and Aitken.

    :math:`k_j` is :math:`1 - h_j` where the two are the same and :math:`h_j / (c_j - 1)` where they differ. The
    bandwidth is that of the normal reference rule, :math:`h_j = 1.06\, \sigma_j\, n^{-1/(4+d)}` with the standard
    deviation of the codes, as statsmodels' ``KDEMultivariate`` has it, clipped from below. The number of choices is
    that of the variable, not of the values seen, so that no value has an undefined density.

    Args:
        data: Points, ``(n, d)`` integer codes.
        choices: Number of choices of each of the `d` variables.
        min_bandwidth: Bandwidths are at least this.
        bounded: Whether bandwidths are at most :math:`(c_j - 1)/c_j`, where the kernel is uniform. Without a bound, as
            in the released code of BOHB, the codes of variables with many choices spread so far that kernels turn
            negative.

    Reference: Aitchison and Aitken, "Multivariate binary discrimination by the kernel method", Biometrika 1976.

    Example:
        >>> kde = CategoricalKDE(np.array([[0], [0], [1]]), (2,), min_bandwidth=0.3)
        >>> kde.pdf(np.array([[0], [1]])).round(3).tolist()
        [0.533, 0.467]
    """

    def __init__(
        self, data: Codes, choices: tuple[int, ...], min_bandwidth: float = 1e-3, bounded: bool = True
    ) -> None:
        n, d = data.shape
        count = np.asarray(choices)
        bandwidth = np.maximum(1.06 * data.std(axis=0) * n ** (-1 / (4 + d)), min_bandwidth)
        self.bandwidth = np.minimum(bandwidth, (count - 1) / count) if bounded else bandwidth
        self.data, self.choices = data, count
        self._columns = np.ascontiguousarray(data.T)[:, None, :]  # variable, point, datum: the fast order
        self._same = (1 - self.bandwidth)[:, None, None]
        self._other = (self.bandwidth / (count - 1))[:, None, None]

    def pdf(self, points: Codes) -> NDArray[np.float64]:
        """The density of points ``(m, d)``; shape ``(m,)``."""
        step = max(_CELLS // self.data.size, 1)
        return np.concatenate([self._pdf(points[i : i + step]) for i in range(0, len(points), step)])

    def _pdf(self, points: Codes) -> NDArray[np.float64]:
        kernels = np.where(points.T[:, :, None] == self._columns, self._same, self._other)
        density: NDArray[np.float64] = kernels.prod(axis=0).sum(axis=1) / len(self.data)
        return density

    def sample(self, size: int, rng: np.random.Generator) -> Codes:
        r"""Points around those of the data, ``(size, d)``.

        A random point of the data keeps each of its values with probability :math:`1 - h_j` and draws it uniformly
        otherwise, as the released code of BOHB does: the density with the smaller bandwidths
        :math:`h_j (c_j - 1)/c_j`.
        """
        points = self.data[rng.integers(len(self.data), size=size)]
        kept = rng.random(points.shape) < 1 - self.bandwidth
        drawn = (rng.random(points.shape) * self.choices).astype(np.int64)
        return np.where(kept, points, drawn)


class Variables:
    """The decisions of a space as categorical variables.

    A decision that keeps one choice is a variable over its choices, one that keeps several a variable over their
    combinations; a decision without alternative is none. What a decision that does not apply (the operation of an edge
    that is not kept) would have been is drawn at random. A vector that is no genotype as it stands, because decisions
    depend on each other, becomes the genotype that the space reads from it as scores, with small random ones added
    that break ties.

    Args:
        space: The space.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> space, rng = get_space("nasbench201"), random.Random(0)
        >>> variables = Variables(space)
        >>> genotype = space.sample(rng)
        >>> variables.choices, variables.genotype(variables.codes(genotype, rng), rng) == genotype
        ((5, 5, 5, 5, 5, 5), True)
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        rows = [row for group in space.decisions.values() for row in group]
        options = {row.name: list(combinations(range(len(row.choices)), row.keep)) for row in rows}
        self._fixed = {name: kept[0] for name, kept in options.items() if len(kept) == 1}
        self._options = {name: kept for name, kept in options.items() if len(kept) > 1}
        self._codes = {name: {one: code for code, one in enumerate(kept)} for name, kept in self._options.items()}
        self.choices = tuple(map(len, self._options.values()))

    def codes(self, genotype: Genotype, rng: random.Random) -> tuple[int, ...]:
        """The genotype as a vector; `rng` decides on what does not apply."""
        picks = genotype.picks
        return tuple(
            codes[picks[name]] if name in picks else rng.randrange(len(codes)) for name, codes in self._codes.items()
        )

    def genotype(self, codes: tuple[int, ...], rng: random.Random) -> Genotype | None:
        """The genotype of a vector; ``None`` if the space has none near it."""
        picks = {name: kept[code] for (name, kept), code in zip(self._options.items(), codes, strict=True)}
        picks |= self._fixed
        try:
            return self.space.check(Genotype(self.space.name, picks))
        except ValueError:
            pass
        try:
            return self.space.check(self.space.discretize(self._scores(picks, rng)))
        except ValueError:
            return None

    def _scores(self, picks: dict[str, tuple[int, ...]], rng: random.Random) -> dict[str, Tensor]:
        """Scores of one for what is picked, small random ones for the rest."""
        draws = np.random.default_rng(rng.getrandbits(32))
        scores = {}
        for group, rows in self.space.decisions.items():
            table = 1e-3 * draws.random((len(rows), max(len(row.choices) for row in rows)))
            for index, row in enumerate(rows):
                table[index, picks[row.name]] += 1.0
            scores[group] = torch.from_numpy(table)
        return scores
