"""BOHB: Hyperband with proposals of a density model."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from lightning_nas.arch import Genotype
from lightning_nas.query.searchers.hyperband import Hyperband
from lightning_nas.query.searchers.kde import CategoricalKDE, Variables
from lightning_nas.query.trial import Trial
from lightning_nas.spaces import Space, get_space

__all__ = ["BOHB", "KDESampler"]

_ATTEMPTS = 20
"""How many vectors near no genotype are drawn before a genotype is drawn uniformly."""


class _Observations:
    """Vectors and losses at one budget, in arrays that grow."""

    def __init__(self, d: int) -> None:
        self.count = 0
        self._codes, self._losses = np.empty((64, d), dtype=np.int64), np.empty(64)

    def add(self, codes: tuple[int, ...], loss: float) -> None:
        if self.count == len(self._losses):
            self._codes = np.concatenate([self._codes, np.empty_like(self._codes)])
            self._losses = np.concatenate([self._losses, np.empty_like(self._losses)])
        self._codes[self.count], self._losses[self.count] = codes, loss
        self.count += 1

    @property
    def codes(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        return self._codes[: self.count]

    @property
    def losses(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        return self._losses[: self.count]


class KDESampler:
    r"""Proposes genotypes that are dense among the good ones and rare among the bad ones.

    The good ones are the best :math:`\max(d+1, top \cdot n)` at the largest budget with enough results, the bad ones
    the next :math:`\max(d+1, (1-top)\, n)`; enough is at least `d + 1` of each for `d` variables. Of `samples` draws
    from the density of the good ones, the one with the largest ratio of the two densities is proposed. Failed trials
    count as the worst.

    The published method also widens the draws of continuous variables; a search space has none, so there is no such
    factor here.

    Args:
        space: Name of a search space, or a space.
        samples: Draws of which the best is proposed.
        random_fraction: Probability of a uniform draw instead.
        min_bandwidth: Bandwidths are at least this.
        top: Fraction of the results that are good.
        bounded: Whether bandwidths are bounded from above, see `CategoricalKDE`.

    Raises:
        ValueError: If a number is out of its range.
    """

    def __init__(
        self,
        space: str | Space = "nasbench201",
        samples: int = 64,
        random_fraction: float = 1 / 3,
        min_bandwidth: float = 1e-3,
        top: float = 0.15,
        bounded: bool = True,
    ) -> None:
        if samples < 1 or not 0 <= random_fraction <= 1 or not 0 < top < 1 or not 0 < min_bandwidth < 1:
            raise ValueError(
                f"samples={samples}, random_fraction={random_fraction}, top={top}, min_bandwidth={min_bandwidth}: give"
                " at least one sample, a random_fraction from 0 to 1, and the others between 0 and 1"
            )
        self.space = get_space(space)
        self.samples, self.random_fraction, self.top = samples, random_fraction, top
        self.min_bandwidth, self.bounded = min_bandwidth, bounded
        self.variables = Variables(self.space)
        self.observations: dict[float, _Observations] = {}
        self._fitted: tuple[CategoricalKDE, CategoricalKDE] | None = None
        self._rng = random.Random(0)  # noqa: S311

    def __call__(self, rng: random.Random) -> Genotype:  # noqa: D102
        model = None if rng.random() < self.random_fraction else self.model()
        if model is None:
            return self.space.sample(rng)
        good, bad = model
        draws = np.random.default_rng(rng.getrandbits(64))
        for _ in range(_ATTEMPTS):
            points = good.sample(self.samples, draws)
            ratio = np.maximum(bad.pdf(points), 1e-32) / np.maximum(good.pdf(points), 1e-32)
            genotype = self.variables.genotype(tuple(points[int(ratio.argmin())].tolist()), rng)
            if genotype is not None:
                return genotype
        return self.space.sample(rng)

    def model(self) -> tuple[CategoricalKDE, CategoricalKDE] | None:
        """The densities of good and bad vectors at the largest budget with enough results; ``None`` if none has."""
        budget = self._model_budget()
        if self._fitted is None and budget is not None:
            self._fitted = self._fit(self.observations[budget])
        return self._fitted

    def _model_budget(self) -> float | None:
        """The largest budget with enough results."""
        least = 2 * (len(self.variables.choices) + 1)
        return max((budget for budget, seen in self.observations.items() if seen.count >= least), default=None)

    def _fit(self, seen: _Observations) -> tuple[CategoricalKDE, CategoricalKDE]:
        least = len(self.variables.choices) + 1
        n_good = max(least, int(self.top * seen.count + 1e-9))
        n_bad = max(least, int((1 - self.top) * seen.count + 1e-9))
        order = np.argsort(seen.losses, kind="stable")
        good, bad = seen.codes[order[:n_good]], seen.codes[order[n_good : n_good + n_bad]]
        choices, low = self.variables.choices, self.min_bandwidth
        return CategoricalKDE(good, choices, low, self.bounded), CategoricalKDE(bad, choices, low, self.bounded)

    def learn(self, trial: Trial, score: float) -> None:
        """Take note of a score, unless there is a model at a larger budget."""
        budget = float("inf") if trial.budget is None else trial.budget
        if budget < (self._model_budget() or 0.0):
            return
        seen = self.observations.setdefault(budget, _Observations(len(self.variables.choices)))
        self._rng.seed(trial.number)
        seen.add(self.variables.codes(trial.genotype, self._rng), -score)
        self._fitted = None

    def state(self) -> dict[str, Any]:  # noqa: D102
        items = self.observations.items()
        return {
            "observations": [(b, torch.tensor(seen.codes), torch.tensor(seen.losses)) for b, seen in items],
        }

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        self.observations, self._fitted = {}, None
        for budget, codes, losses in state["observations"]:
            seen = self.observations[budget] = _Observations(len(self.variables.choices))
            for code, loss in zip(codes.tolist(), losses.tolist(), strict=True):
                seen.add(tuple(code), loss)


class BOHB(Hyperband):
    """Hyperband whose new genotypes come from a density model of good and bad ones.

    Reference: Falkner, Klein and Hutter, "BOHB: Robust and Efficient Hyperparameter Optimization at Scale", ICML 2018.
    The settings for NAS-Bench-201 are those of Dong and Yang, ICLR 2020: ``min_budget=1, max_budget=12, samples=4,
    random_fraction=0.0, min_bandwidth=0.3``; for NAS-Bench-101, Ying et al., ICML 2019: ``min_bandwidth=0.3``.

    Args:
        space: Name of a search space, or a space.
        min_budget: Epochs that no rung goes below.
        max_budget: Epochs on the top rungs.
        eta: One in `eta` goes on.
        samples: Draws from the model of which the best is proposed.
        random_fraction: Probability of a uniform draw instead.
        min_bandwidth: Bandwidths are at least this.
        top: Fraction of the results that are good.
        bounded: Whether bandwidths are bounded from above, see `CategoricalKDE`.
        seed: Seed of all draws.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> searcher = BOHB("nasbench201", min_budget=1, max_budget=12, samples=4, random_fraction=0.0)
        >>> [[rung.n for rung in bracket] for bracket in searcher.schedule]
        [[9, 3, 1], [3, 1], [3]]
    """

    def __init__(
        self,
        space: str | Space = "nasbench201",
        min_budget: float = 4,
        max_budget: float = 108,
        eta: float = 3,
        samples: int = 64,
        random_fraction: float = 1 / 3,
        min_bandwidth: float = 1e-3,
        top: float = 0.15,
        bounded: bool = True,
        seed: int = 0,
    ) -> None:
        found = get_space(space)
        sampler = KDESampler(found, samples, random_fraction, min_bandwidth, top, bounded)
        super().__init__(found, min_budget, max_budget, eta, "hpbandster", sampler, seed)
