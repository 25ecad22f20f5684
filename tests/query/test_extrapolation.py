"""Extrapolation of learning curves: known families, calibration, and who is stopped."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import norm

from lightning_nas.query import RandomSearch, Result, Trial
from lightning_nas.query.searchers import curves
from lightning_nas.query.searchers.curves import FAMILIES, Forecast, extrapolate
from lightning_nas.query.searchers.extrapolation import CurveExtrapolation
from lightning_nas.query.searchers.halving import SuccessiveHalving

ALL = np.arange(1, 101, dtype=float)

KNOWN: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "pow3": lambda x: 0.9 - 0.6 * x**-0.7,
    "log_log_linear": lambda x: np.log(0.2 * np.log(x) + 1.4),
    "hill3": lambda x: 0.9 * x**1.2 / (5**1.2 + x**1.2),
    "log_power": lambda x: 0.85 / (1 + (x / math.exp(1.2)) ** -0.9),
    "pow4": lambda x: 0.92 - (0.8 * x + 1.5) ** -0.6,
    "mmf": lambda x: 0.9 - (0.9 - 0.1) / (1 + (0.3 * x) ** 1.1),
    "exp4": lambda x: 0.88 - np.exp(-0.3 - 0.3 * x**0.7),
    "janoschek": lambda x: 0.9 - (0.9 - 0.2) * np.exp(-0.25 * x**0.7),
    "weibull": lambda x: 0.9 - (0.9 - 0.2) * np.exp(-((0.15 * x) ** 0.8)),
    "ilog2": lambda x: 0.95 - 0.5 / np.log(x + 1),
    "vapor_pressure": lambda x: np.exp(-0.4 - 1.2 / x + 0.05 * np.log(x)),
}
"""The formulas of the paper with parameters of their own, written without the code's."""


@pytest.mark.parametrize("name", KNOWN)
def test_curves_of_known_families(name: str) -> None:
    """From a half of it to within two points, by the mixture and by the family alone."""
    curve = KNOWN[name](ALL)
    x, y = ALL[1:50:2], curve[1:50:2]
    assert extrapolate(x.tolist(), y.tolist()).mean == pytest.approx(curve[-1], abs=0.02)
    alone = extrapolate(x.tolist(), y.tolist(), [name])
    assert alone.mean == pytest.approx(curve[-1], abs=0.01)
    assert alone.exceeds(curve[-1] + 0.1) < 0.02 < 0.98 < alone.exceeds(curve[-1] - 0.1)


def test_there_are_the_eleven_families() -> None:
    assert set(KNOWN) == set(FAMILIES)
    for family in FAMILIES.values():
        values = family.curve(ALL, np.array(family.mean))
        assert (np.diff(values) > 0).all()  # what is expected of a curve is that it rises, from 0 to 1
        assert ((values > -0.3) & (values < 1.2)).all()


def test_noisy_curves_are_covered() -> None:
    """The probability to exceed the truth is neither near 0 nor near 1 more often than it should be."""
    rng, levels = np.random.default_rng(0), []
    for name, family in list(FAMILIES.items()) * 4:
        while True:
            curve = family.curve(ALL, rng.normal(family.mean, 0.4 * np.array(family.std)))
            if curve.min() > 0 and 0.5 < curve[-1] < 1:
                break
        x = ALL[1:30:2]
        noisy = curve[1:30:2] + rng.normal(0, 0.01, len(x))
        levels.append(extrapolate(x.tolist(), noisy.tolist()).exceeds(curve[-1]))
        assert np.isfinite(levels[-1]), name
    assert np.mean([0.05 < level < 0.95 for level in levels]) >= 0.9
    assert 0.3 < np.mean(levels) < 0.7


def test_posterior_against_a_grid() -> None:
    """A family of two parameters, integrated numerically under the same prior and noise."""
    x, y = ALL[3:20:4], KNOWN["ilog2"](ALL[3:20:4])
    forecast = extrapolate(x.tolist(), y.tolist(), ["ilog2"])
    family = FAMILIES["ilog2"]
    c, a = np.meshgrid(np.linspace(0.6, 1.3, 800), np.linspace(-1.6, 0.2, 800), indexing="ij")
    curve = c[..., None] - np.exp(a)[..., None] / np.log(x + 1)
    misfit = ((curve - y) ** 2).sum(-1)
    noise = math.sqrt(curves._TRUST * curves._NOISE**2 / (len(x) + curves._TRUST))
    prior = ((c - family.mean[0]) / family.std[0]) ** 2 + ((a - family.mean[1]) / family.std[1]) ** 2
    weight = np.exp(-0.5 * (misfit / noise**2 + prior))
    cell = (c[1, 0] - c[0, 0]) * (a[0, 1] - a[0, 0])
    evidence = math.log(weight.sum() * cell / (2 * math.pi * math.prod(family.std)))
    evidence -= 0.5 * curves._TRUST * (curves._NOISE / noise) ** 2 + (len(x) + curves._TRUST) * math.log(noise)
    weight /= weight.sum()
    end = c - np.exp(a) / math.log(101)
    mean = (weight * end).sum()
    std = math.sqrt((weight * (end - mean) ** 2).sum() + noise**2)
    assert forecast.mean == pytest.approx(mean, abs=2e-3)
    assert forecast.stds[0] == pytest.approx(std, rel=0.1)
    assert curves._fit(family, x, y)[0] == pytest.approx(evidence, abs=0.2)


def test_mixture() -> None:
    forecast = Forecast(np.array([0.25, 0.75]), np.array([0.5, 0.9]), np.array([0.1, 0.02]))
    assert forecast.mean == pytest.approx(0.8)
    assert forecast.exceeds(0.9) == pytest.approx(0.25 * norm.sf(0.9, 0.5, 0.1) + 0.75 * 0.5)


def test_evidence_prefers_the_family_that_fits() -> None:
    sigmoid = 0.1 + 0.8 / (1 + (20 / ALL) ** 4)  # an S, which no power law follows
    x, y = ALL[1:60:2].tolist(), sigmoid[1:60:2].tolist()
    weights = dict(zip(FAMILIES, extrapolate(x, y).weights, strict=True))
    assert weights["mmf"] > 0.5
    assert weights["pow3"] + weights["ilog2"] + weights["pow4"] < 1e-6


@pytest.mark.parametrize("y", [[0.5], [0.1] * 3, [0.9] * 20, [0.0] * 30, [1.0] * 30, [0.9, 0.1] * 10, [-3.0, 40.0]])
def test_odd_curves_give_numbers(y: list[float]) -> None:
    forecast = extrapolate([3.0 * (k + 1) for k in range(len(y))], y)
    assert np.isfinite([forecast.mean, *forecast.stds]).all()
    assert 0 <= forecast.exceeds(0.9) <= 1


@pytest.mark.parametrize(("x", "y", "families"), [([], [], ["pow3"]), ([0.0], [0.1], ["pow3"]), ([1.0], [], ["pow3"])])
def test_wrong_curves(x: list[float], y: list[float], families: list[str]) -> None:
    with pytest.raises(ValueError, match="give as many"):
        extrapolate(x, y, families)
    with pytest.raises(ValueError, match="families of"):
        extrapolate([1.0], [0.5], ["pow5"])


# --- the rule


class Networks:
    """Answers trials with the curve of the network that they train, network by network as these begin."""

    def __init__(self, *finals: float) -> None:
        self.finals = finals
        self.network: dict[int, int] = {}
        self.trials: list[Trial] = []

    def score(self, network: int, epochs: float) -> float:
        return 100 * (self.finals[network] - 0.5 * epochs**-0.8)

    def __call__(self, trial: Trial) -> Result:
        new = len(set(self.network.values()))
        self.network[trial.number] = new if trial.continues is None else self.network[trial.continues]
        trained = 0.0
        if trial.continues is not None:
            trained = next(t.budget or 0.0 for t in self.trials if t.number == trial.continues)
        self.trials.append(trial)
        epochs = (trial.budget or 0.0) - trained
        return Result(trial, self.score(self.network[trial.number], trial.budget or 0.0), 2 * epochs, epochs)

    def budgets(self, network: int) -> list[float | None]:
        return [t.budget for t in self.trials if self.network[t.number] == network]


def play(searcher: CurveExtrapolation, networks: Networks, in_flight: int = 1) -> list[Result]:
    """Until all networks have ended; what the inner searcher was told."""
    told: list[Result] = []
    tell = searcher.inner.tell
    searcher.inner.tell = lambda results: (told.extend(results), tell(results))[1]  # type: ignore[method-assign,func-returns-value]
    under_way: list[Trial] = []
    while len(told) < len(networks.finals):
        begun = len(set(networks.network.values())) + sum(t.continues is None for t in under_way)
        room = begun < len(networks.finals) or searcher._ready
        while len(under_way) < in_flight and room and (asked := searcher.ask()):
            under_way += asked
            begun += asked[0].continues is None
            room = begun < len(networks.finals) or searcher._ready
        searcher.tell([networks(under_way.pop(0))])
    return told


def test_a_bad_curve_is_stopped_and_a_good_one_is_not() -> None:
    networks = Networks(0.5, 0.9, 0.6, 0.95, 0.3)
    searcher = CurveExtrapolation(RandomSearch("nasbench201"), epochs=50, period=5)
    told = play(searcher, networks)
    whole = [5.0 * k for k in range(1, 11)]
    assert [networks.budgets(k) for k in (0, 1, 3)] == [whole] * 3  # the first has nobody to beat; these are better
    for bad in (2, 4):
        assert networks.budgets(bad) == whole[: len(networks.budgets(bad))]
        assert 4 <= len(networks.budgets(bad)) <= 6
        assert told[bad].score == pytest.approx(networks.score(bad, 50.0), abs=3.0)
        assert told[bad].source == "extrapolation"
    assert searcher.stopped == 2
    assert [r.epochs for r in told] == [networks.budgets(k)[-1] for k in range(5)]
    assert [r.cost for r in told] == [2 * r.epochs for r in told]
    assert searcher.genotype() == searcher.inner.genotype() == told[3].trial.genotype


def test_each_part_continues_the_one_before() -> None:
    networks = Networks(0.8, 0.9, 0.7)
    play(CurveExtrapolation(RandomSearch("nasbench201"), epochs=7, period=3, threshold=0.0), networks, in_flight=2)
    for k in range(3):
        parts = [t for t in networks.trials if networks.network[t.number] == k]
        assert [t.budget for t in parts] == [3.0, 6.0, 7.0]
        assert [t.continues for t in parts] == [None, parts[0].number, parts[1].number]
        assert len({t.genotype for t in parts}) == 1


def test_uninformative_curves_are_not_stopped() -> None:
    """One point of a curve that may still come to anything; and nobody before the warm-up is over."""
    for start in (0.3, 0.5, 0.7):
        assert extrapolate([2.0], [start]).exceeds(0.94) > 0.05
    networks = Networks(0.95, 0.2)
    play(CurveExtrapolation(RandomSearch("nasbench201"), epochs=40, period=4, warmup=7), networks)
    assert len(networks.budgets(1)) == 7


def test_threshold() -> None:
    networks = Networks(0.9, 0.3, 0.8)
    searcher = CurveExtrapolation(RandomSearch("nasbench201"), epochs=40, period=4, threshold=0.0)
    play(searcher, networks)
    assert searcher.stopped == 0
    assert [len(networks.budgets(k)) for k in range(3)] == [10] * 3


def test_budgets_of_the_inner_searcher() -> None:
    """Rungs are trained in parts, each network goes on from where it was, and its curve with it."""
    networks = Networks(*(0.4 + 0.05 * k for k in range(9)))
    searcher = CurveExtrapolation(SuccessiveHalving("nasbench201", 9, 2, 18), epochs=18, period=2, threshold=0.0)
    for _ in range(9 + 3 * 2 + 6):
        (trial,) = searcher.ask()
        searcher.tell([networks(trial)])
    assert [networks.budgets(k) for k in range(9)] == [
        *[[2.0]] * 6,
        [2.0, 4.0, 6.0],
        [2.0, 4.0, 6.0],
        [2.0 * k for k in range(1, 10)],
    ]
    assert searcher._ended[12][0].points == [(2.0 * k, networks.score(8, 2.0 * k)) for k in range(1, 10)]


def test_a_failure_ends_the_inner_trial() -> None:
    searcher = CurveExtrapolation(RandomSearch("nasbench201"), epochs=10, period=5)
    (trial,) = searcher.ask()
    searcher.tell([Result(trial, 50.0)])
    (trial,) = searcher.ask()
    searcher.tell([Result.failed(trial, "broken")])
    assert (searcher.failures, searcher.inner.failures, searcher.inner.pending) == (1, 1, {})
    assert searcher.ask()[0].continues is None


@pytest.mark.parametrize("wrong", [{"period": 0}, {"period": 11}, {"threshold": 1.5}, {"warmup": 0}, {"perfect": 0.0}])
def test_wrong_settings_of_the_rule(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        CurveExtrapolation(RandomSearch("nasbench201"), **{"epochs": 10, "period": 5, **wrong})  # type: ignore[arg-type]
