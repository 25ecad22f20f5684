"""The arithmetic of RANK-NOSH: levels of a pyramid, and the order of what stands on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from operator import mul

__all__ = ["ordinal_targets", "pyramid_counts", "pyramid_epochs", "shares", "whole"]


def pyramid_counts(pool: int, levels: Sequence[float], ratio: float | Sequence[float] = 0.5) -> tuple[int, ...]:
    r"""How many of `pool` architectures come to each level, :math:`n_i = \lfloor M r_1 \cdots r_{i-1} \rfloor`.

    Args:
        pool: Architectures on the lowest level.
        levels: Epochs of the levels.
        ratio: Share of a level that goes on to the next; one for all, or one for each step.

    Raises:
        ValueError: If levels or ratios are wrong, or none would reach the top.

    Example:
        >>> pyramid_counts(100, (1, 4, 12))
        (100, 50, 25)
    """
    counts = tuple(whole(share * pool) for share in shares(levels, ratio))
    if counts[-1] < 1:
        raise ValueError(f"pool={pool}, ratio={ratio}: none would reach {levels[-1]:g} epochs; make one of them larger")
    return counts


def pyramid_epochs(pool: int, levels: Sequence[float], ratio: float | Sequence[float] = 0.5) -> float:
    r"""Epochs of training in all, :math:`\sum_i n_i (e_i - e_{i-1})`, as a paused training goes on where it was.

    Args:
        pool: Architectures on the lowest level.
        levels: Epochs of the levels.
        ratio: Share of a level that goes on to the next; one for all, or one for each step.

    Raises:
        ValueError: If levels or ratios are wrong, or none would reach the top.

    Example:
        >>> pyramid_epochs(100, (1, 4, 12))  # training all of them to the end takes 1,200
        450.0
    """
    steps = [high - low for low, high in pairwise((0.0, *levels))]
    return float(sum(map(mul, pyramid_counts(pool, levels, ratio), steps)))


def ordinal_targets(standings: Sequence[tuple[int, float]]) -> list[float]:
    """One number for each (level, score), in the order in which the higher level wins, then the score.

    Scores of different levels are of trainings of different lengths and are never compared.

    Args:
        standings: Level and score of each architecture.

    Returns:
        Whole numbers from 0, the same for the same standing.

    Example:
        >>> ordinal_targets([(0, 95.0), (2, 60.0), (1, 70.0), (2, 50.0)])
        [0.0, 3.0, 1.0, 2.0]
    """
    place = {standing: float(k) for k, standing in enumerate(sorted(set(standings)))}
    return [place[standing] for standing in standings]


def shares(levels: Sequence[float], ratio: float | Sequence[float]) -> tuple[float, ...]:
    """What part of the pool comes to each level.

    Args:
        levels: Epochs of the levels.
        ratio: Share of a level that goes on to the next; one for all, or one for each step.

    Raises:
        ValueError: If levels or ratios are wrong.

    Example:
        >>> shares((1, 4, 12), (0.5, 0.2))
        (1.0, 0.5, 0.1)
    """
    steps = len(levels) - 1
    ratios = [float(ratio)] * steps if isinstance(ratio, (int, float)) else list(map(float, ratio))
    ascending = all(low < high for low, high in pairwise(levels))
    if not levels or levels[0] < 0 or not ascending or not 0 < levels[-1] < math.inf:
        raise ValueError(f"levels={tuple(levels)}: give ascending numbers of epochs, the first at least 0")
    if len(ratios) != steps or not all(0 < r <= 1 for r in ratios):
        raise ValueError(f"ratio={ratio}: give one number above 0 and up to 1, or one for each of the {steps} steps")
    return tuple(accumulate(ratios, mul, initial=1.0))


def whole(value: float) -> int:
    """The whole part of a number that rounding may have made slightly too small.

    Args:
        value: The number.

    Example:
        >>> whole(0.7 * 0.1 * 100)  # 6.999...
        7
    """
    return math.floor(value + 1e-9)
