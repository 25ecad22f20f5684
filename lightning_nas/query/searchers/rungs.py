"""The arithmetic of multi-fidelity search: budgets, rungs and brackets."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

__all__ = ["BracketRule", "Rung", "brackets", "rung_budgets", "rungs"]

BracketRule = Literal["hyperband", "hpbandster"]

_TINY = 1e-9  # 3^-4 * 81 is not exactly 1


class Rung(NamedTuple):
    """A step of successive halving.

    Args:
        n: Configurations trained on it.
        budget: Epochs of each in all.
    """

    n: int
    budget: float


def rung_budgets(min_budget: float, max_budget: float, eta: float) -> tuple[float, ...]:
    r"""The budgets :math:`r \eta^k` that are at most the largest, in epochs.

    Args:
        min_budget: The smallest, `r`.
        max_budget: The largest.
        eta: Ratio of one budget to the one before.

    Raises:
        ValueError: If a budget is not positive, the smallest exceeds the largest, or `eta` is not above 1.

    Example:
        >>> rung_budgets(4, 108, 3)
        (4.0, 12.0, 36.0, 108.0)
    """
    return tuple(min_budget * float(eta) ** k for k in range(_levels(min_budget, max_budget, eta) + 1))


def rungs(n: int, min_budget: float, max_budget: float, eta: float) -> tuple[Rung, ...]:
    r"""The rungs of successive halving: :math:`\lfloor n \eta^{-i} \rfloor` configurations at :math:`r \eta^i` epochs.

    Args:
        n: Configurations on the lowest rung.
        min_budget: Epochs there.
        max_budget: Epochs that no rung exceeds.
        eta: One in `eta` configurations goes on.

    Raises:
        ValueError: If the budgets are wrong, or `n` is so small that nobody would reach the top rung.

    Example:
        >>> rungs(9, 4, 36, 3)
        (Rung(n=9, budget=4.0), Rung(n=3, budget=12.0), Rung(n=1, budget=36.0))
    """
    budgets = rung_budgets(min_budget, max_budget, eta)
    steps = tuple(Rung(_floor(n * float(eta) ** -k), budget) for k, budget in enumerate(budgets))
    if steps[-1].n < 1:
        least = math.ceil(float(eta) ** (len(steps) - 1) - _TINY)
        raise ValueError(
            f"n={n}: none would reach budget {budgets[-1]:g}; give at least {least}, or a larger min_budget"
        )
    return steps


def brackets(
    min_budget: float, max_budget: float, eta: float, rule: BracketRule = "hyperband"
) -> tuple[tuple[Rung, ...], ...]:
    r"""The brackets of one sweep of Hyperband, the most aggressive first.

    With :math:`s_{max} = \lfloor \log_\eta (R/r) \rfloor`, bracket `s` starts at :math:`R \eta^{-s}` epochs with

    - ``"hyperband"``: :math:`\lceil \frac{s_{max}+1}{s+1} \eta^s \rceil` configurations, as published,
    - ``"hpbandster"``: :math:`\lfloor \frac{s_{max}+1}{s+1} \rfloor \eta^s`, as the code of BOHB has it.

    Args:
        min_budget: Epochs that no bracket goes below, `r`.
        max_budget: Epochs on the top rung of every bracket, `R`.
        eta: One in `eta` configurations goes on.
        rule: How the number of configurations is rounded.

    Raises:
        ValueError: If the budgets are wrong or the rule is unknown.

    Reference: Li, Jamieson, DeSalvo, Rostamizadeh and Talwalkar, "Hyperband: A Novel Bandit-Based Approach to
    Hyperparameter Optimization", JMLR 2018; Falkner, Klein and Hutter, "BOHB", ICML 2018.

    Example:
        >>> [[rung.n for rung in bracket] for bracket in brackets(4, 108, 3, "hpbandster")]
        [[27, 9, 3, 1], [9, 3, 1], [6, 2], [4]]
        >>> [[rung.n for rung in bracket] for bracket in brackets(4, 108, 3)]
        [[27, 9, 3, 1], [12, 4, 1], [6, 2], [4]]
    """
    if rule not in ("hyperband", "hpbandster"):
        raise ValueError(f"rule={rule!r}; give 'hyperband' or 'hpbandster'")
    s_max, ratio = _levels(min_budget, max_budget, eta), float(eta)
    sweep = []
    for s in range(s_max, -1, -1):
        share = (s_max + 1) / (s + 1)
        n = math.ceil(share * ratio**s - _TINY) if rule == "hyperband" else _floor(_floor(share) * ratio**s)
        sweep.append(tuple(Rung(max(_floor(n * ratio**-i), 1), max_budget * ratio ** (i - s)) for i in range(s + 1)))
    return tuple(sweep)


def _levels(min_budget: float, max_budget: float, eta: float) -> int:
    """How often the smallest budget can be multiplied by eta."""
    if not 0 < min_budget <= max_budget < math.inf or not 1 < eta < math.inf:
        raise ValueError(
            f"min_budget={min_budget}, max_budget={max_budget}, eta={eta}: budgets must be positive, the smallest at"
            " most the largest, and eta above 1"
        )
    return _floor(math.log(max_budget / min_budget) / math.log(eta))


def _floor(value: float) -> int:
    return math.floor(value + _TINY)
