"""Multi-fidelity search: tables of brackets, who goes on, caps, failures, any number in flight, resuming."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from lightning_nas.arch import Genotype
from lightning_nas.query import RandomSearch, Result, Searcher, Trial
from lightning_nas.query.searchers.asha import ASHA
from lightning_nas.query.searchers.bohb import BOHB
from lightning_nas.query.searchers.extrapolation import CurveExtrapolation
from lightning_nas.query.searchers.halving import BracketSearch, SuccessiveHalving, UniformSampler
from lightning_nas.query.searchers.hyperband import Hyperband
from lightning_nas.query.searchers.rungs import Rung, brackets, rung_budgets, rungs
from lightning_nas.spaces import get_space

SPACE = get_space("nasbench201")
SEARCHERS: dict[str, Callable[[int], Searcher]] = {
    "SuccessiveHalving": lambda seed: SuccessiveHalving(SPACE, 9, 1, 9, seed=seed),
    "ASHA": lambda seed: ASHA(SPACE, 1, 9, seed=seed),
    "Hyperband": lambda seed: Hyperband(SPACE, 1, 9, seed=seed),
    "BOHB": lambda seed: BOHB(SPACE, 1, 9, random_fraction=0.2, seed=seed),
    "BOHB on darts": lambda seed: BOHB("darts", 1, 3, random_fraction=0.2, seed=seed),
    "CurveExtrapolation": lambda seed: CurveExtrapolation(RandomSearch(SPACE, seed=seed), 6, 2, warmup=2),
    "CurveExtrapolation of Hyperband": lambda seed: CurveExtrapolation(
        Hyperband(SPACE, 1, 9, seed=seed), 9, 2, warmup=3
    ),
}


class Course:
    """Answers trials: a network's score is its quality times how far its training is; remembers where it began."""

    def __init__(self, quality: Callable[[int], float], fails: Callable[[Trial], bool] = lambda _: False) -> None:
        self.quality, self.fails = quality, fails
        self.roots: dict[int, int] = {}
        self.trials: list[Trial] = []
        self.scores: dict[int, float] = {}

    def __call__(self, trial: Trial) -> Result:
        new = sum(earlier.continues is None for earlier in self.trials)
        self.roots[trial.number] = new if trial.continues is None else self.roots[trial.continues]
        self.trials.append(trial)
        if self.fails(trial):
            return Result.failed(trial, "broken")
        self.scores[trial.number] = self.quality(self.roots[trial.number]) * (1 - math.exp(-(trial.budget or 0) / 20))
        return Result(trial, self.scores[trial.number])


def shuffled(n: int, seed: int = 0) -> Callable[[int], float]:
    """A quality for each network, no two the same."""
    qualities = random.Random(seed).sample(range(10, 10 + 20 * n), 20 * n)
    return lambda root: float(qualities[root])


def run(searcher: Searcher, course: Course, trials: int, in_flight: int = 1, seed: int = 0) -> None:
    """Ask and tell, with up to `in_flight` trials under way that end in a random order."""
    rng, under_way = random.Random(seed), list[Trial]()
    while len(course.trials) < trials:
        while len(under_way) < in_flight and (asked := searcher.ask()):
            under_way += asked
        assert under_way, "nothing is pending and nothing is proposed"
        searcher.tell([course(under_way.pop(rng.randrange(len(under_way))))])


def chosen(course: Course, level: int) -> set[int]:
    """The networks that have reached a level."""
    return {course.roots[t.number] for t in course.trials if t.note["rung"] == level}


# --- tables


def counts(sweep: tuple[tuple[Rung, ...], ...]) -> list[list[int]]:
    return [[rung.n for rung in bracket] for bracket in sweep]


def test_hyperband_table_of_the_paper() -> None:
    sweep = brackets(1, 81, 3)
    assert counts(sweep) == [[81, 27, 9, 3, 1], [34, 11, 3, 1], [15, 5, 1], [8, 2], [5]]
    assert [[rung.budget for rung in bracket] for bracket in sweep] == [
        pytest.approx([81 / 3**k for k in range(s, -1, -1)]) for s in (4, 3, 2, 1, 0)
    ]


@pytest.mark.parametrize(
    ("low", "high", "rule", "expected"),
    [
        (4, 108, "hpbandster", [[27, 9, 3, 1], [9, 3, 1], [6, 2], [4]]),
        (4, 108, "hyperband", [[27, 9, 3, 1], [12, 4, 1], [6, 2], [4]]),
        (1, 12, "hpbandster", [[9, 3, 1], [3, 1], [3]]),
        (1, 12, "hyperband", [[9, 3, 1], [5, 1], [3]]),
    ],
)
def test_tables_of_the_benchmarks(low: float, high: float, rule: Any, expected: list[list[int]]) -> None:
    assert counts(brackets(low, high, 3, rule)) == expected


def test_budgets_of_nasbench201() -> None:
    budgets = [rung.budget for rung in brackets(1, 12, 3, "hpbandster")[0]]
    assert budgets == pytest.approx([4 / 3, 4, 12])
    assert [int(budget) for budget in budgets] == [1, 4, 12]  # epochs of a table


@pytest.mark.parametrize(("rule", "slack"), [("hpbandster", 0), ("hyperband", 1)])
def test_a_sweep_keeps_its_budget(rule: Any, slack: int) -> None:
    """At most B = (s_max + 1) R for each of s_max + 1 brackets; rounding up adds at most one network to a bracket."""
    for eta in (2, 3, 4):
        for top in range(6):
            largest = float(eta**top)
            sweep = brackets(1, largest, eta, rule)
            spent = [sum(rung.n * rung.budget for rung in bracket) for bracket in sweep]
            allowed = [(top + 1) * largest + slack * len(bracket) * bracket[0].budget for bracket in sweep]
            assert len(sweep) == top + 1
            assert all(one <= most + 1e-6 for one, most in zip(spent, allowed, strict=True))
            assert sum(spent) <= (top + 1) ** 2 * largest + 1e-6


def test_rungs_of_successive_halving() -> None:
    assert rungs(81, 1, 81, 3) == tuple(Rung(81 // 3**k, 3**k) for k in range(5))
    assert rungs(20, 2, 17, 2) == (Rung(20, 2), Rung(10, 4), Rung(5, 8), Rung(2, 16))
    assert rung_budgets(1, 12, 3) == (1, 3, 9)
    assert len(rung_budgets(1, 3**10, 3)) == 11  # a logarithm that falls just short of 10


@pytest.mark.parametrize(
    "make",
    [
        lambda: rungs(8, 1, 9, 3),
        lambda: rung_budgets(0, 9, 3),
        lambda: rung_budgets(4, 3, 3),
        lambda: rung_budgets(1, 9, 1),
        lambda: rung_budgets(1, math.inf, 3),
        lambda: brackets(1, 9, 3, "other"),  # type: ignore[arg-type]
        lambda: BracketSearch(SPACE, []),
        lambda: BracketSearch(SPACE, [[]]),
    ],
)
def test_wrong_settings(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"give|must be"):
        make()


# --- successive halving


def test_successive_halving_finds_the_best() -> None:
    course, quality = Course(shuffled(27)), shuffled(27)
    searcher = SuccessiveHalving(SPACE, 27, 4, 108)
    run(searcher, course, 27 + 9 + 3 + 1)
    assert searcher.best is not None
    assert searcher.best.trial.budget == 108
    assert course.roots[searcher.best.trial.number] == max(range(27), key=quality)
    order = sorted(range(27), key=quality, reverse=True)
    for level, kept in enumerate((27, 9, 3, 1)):
        assert chosen(course, level) == set(order[:kept])


@pytest.mark.parametrize("in_flight", [1, 3, 50])
def test_brackets_follow_the_schedule(in_flight: int) -> None:
    course, searcher = Course(shuffled(200)), Hyperband(SPACE, 1, 9, seed=1)
    plan = [(b, k, r) for b, bracket in enumerate(2 * searcher.schedule) for k, r in enumerate(bracket)]
    run(searcher, course, 2 * sum(rung.n for bracket in searcher.schedule for rung in bracket), in_flight)
    for b, k, rung in plan:
        trials = [t for t in course.trials if (t.note["bracket"], t.note["rung"]) == (b, k)]
        assert len(trials) == rung.n
        assert {t.budget for t in trials} == {rung.budget}
        assert all((t.continues is None) == (k == 0) for t in trials)
        if k:
            below = [t for t in course.trials if (t.note["bracket"], t.note["rung"]) == (b, k - 1)]
            ranked = sorted(below, key=lambda t: -course.scores[t.number])[: rung.n]
            assert {t.continues for t in trials} == {t.number for t in ranked}


def test_a_promotion_keeps_its_genotype() -> None:
    for make in (SEARCHERS["Hyperband"], SEARCHERS["ASHA"]):
        course = Course(shuffled(200))
        run(make(0), course, 60)
        by_number = {t.number: t for t in course.trials}
        promoted = [t for t in course.trials if t.continues is not None]
        assert len(promoted) > 5
        for t in promoted:
            below = by_number[t.continues]  # type: ignore[index]
            assert below.genotype == t.genotype
            assert (below.budget or 0) < (t.budget or 0)
        assert len({t.continues for t in promoted}) == len(promoted)


def test_a_rung_waits_for_its_last_result() -> None:
    searcher = SuccessiveHalving(SPACE, 9, 1, 9)
    trials = searcher.ask(20)
    assert len(trials) == 9
    searcher.tell([Result(trial, 1.0) for trial in trials[1:]])
    assert searcher.ask() == []
    searcher.tell([Result(trials[0], 2.0)])
    promoted = searcher.ask(20)
    assert [trial.continues for trial in promoted] == [0, 1, 2]  # the best, then the oldest among equals


# --- ASHA


def asha_until(n: int, quality: Callable[[int], float]) -> Course:
    """One worker, until the network after the n-th is asked for."""
    searcher, course = ASHA(SPACE, 1, 27), Course(quality)
    while True:
        (trial,) = searcher.ask()
        if trial.continues is None and len(chosen(course, 0)) == n:
            return course
        searcher.tell([course(trial)])


def test_asha_promotes_as_successive_halving_does() -> None:
    """Best first: the same sets. In any order: all of them, and few others, which were promoted too early."""
    n = 729
    course = asha_until(n, lambda root: float(n - root))
    assert [chosen(course, level) for level in range(4)] == [set(range(n // 3**level)) for level in range(4)]
    quality = shuffled(n)
    course, order = asha_until(n, quality), sorted(range(n), key=quality, reverse=True)
    for level in range(1, 4):
        best = set(order[: n // 3**level])
        reached = chosen(course, level)
        assert len(reached & best) >= 0.95 * len(best)
        assert len(reached - best) <= 3 * math.sqrt(n // 3 ** (level - 1))
    assert chosen(course, 1) >= set(order[: n // 3])


@pytest.mark.parametrize(("in_flight", "at_once"), [(1, 1), (7, 1), (20, 15)])
def test_asha_against_a_plain_implementation(in_flight: int, at_once: int) -> None:
    """Every proposal is what a scan of all results, from the top rung down, comes to."""
    searcher, course, rng = ASHA(SPACE, 1, 27), Course(shuffled(400), lambda t: t.number % 11 == 5), random.Random(3)
    results: list[list[tuple[float, int]]] = [[], [], [], []]
    gone: set[int] = set()
    under_way: list[Trial] = []
    for _ in range(600 // at_once):
        while len(under_way) < in_flight:
            expected = None
            for level in (2, 1, 0):
                top = sorted(results[level])[: len(results[level]) // 3]
                free = [number for loss, number in top if number not in gone and loss < math.inf]
                if free:
                    expected = (free[0], 3.0 ** (level + 1))
                    gone.add(free[0])
                    break
            (trial,) = searcher.ask()
            assert (trial.continues, trial.budget) == (expected or (None, 1.0))
            under_way.append(trial)
        rng.shuffle(under_way)
        for trial in under_way[:at_once]:
            result = course(trial)
            results[int(trial.note["rung"])].append((-result.score if result.ok else math.inf, trial.number))
            searcher.tell([result])
        del under_way[:at_once]
    assert len(results[3]) > 5


# --- failures, resuming, slots


@pytest.mark.parametrize("name", SEARCHERS)
@pytest.mark.parametrize("in_flight", [1, 4])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_failures_do_not_block(name: str, in_flight: int, share: float) -> None:
    rng = random.Random(1)
    course = Course(lambda root: 50.0 + root % 7, lambda _: rng.random() < share)
    searcher = SEARCHERS[name](0)
    run(searcher, course, 60, in_flight)
    assert searcher.failures == len(course.trials) - len(course.scores)
    assert all(t.continues in course.scores for t in course.trials if t.continues is not None)


def test_a_failure_counts_as_the_worst() -> None:
    searcher = SuccessiveHalving(SPACE, 9, 1, 9)
    trials = searcher.ask(9)
    searcher.tell([Result(t, -100.0) if t.number in (4, 7) else Result.failed(t, "broken") for t in trials])
    assert sorted(t.continues or 0 for t in searcher.ask(9)) == [4, 7]
    asha = ASHA(SPACE, 1, 9)
    trials = asha.ask(3)
    asha.tell([Result.failed(t, "broken") for t in trials[:2]] + [Result(trials[2], -100.0)])
    assert asha.propose().continues == 2


@pytest.mark.parametrize("name", SEARCHERS)
@pytest.mark.parametrize("before", [1, 4, 20, 47])
def test_resumes_in_the_midst_of_a_bracket(name: str, before: int) -> None:
    """Also with trials pending, and with what was saved loaded as weights."""

    def go_on(searcher: Searcher, trials: int) -> list[tuple[int, Genotype, float | None, int | None, dict[str, Any]]]:
        seen = []
        for _ in range(trials):
            searcher.ask(max(3 - len(searcher.pending), 1))
            number = min(searcher.pending) if len(searcher.pending) % 2 else max(searcher.pending)
            trial = searcher.pending[number]
            seen.append((number, trial.genotype, trial.budget, trial.continues, dict(trial.note)))
            score = 60.0 + (number * 7919) % 31 + math.log(trial.budget or 1.0)
            searcher.tell([Result.failed(trial, "broken") if number % 13 == 8 else Result(trial, score)])
        return seen

    searcher, other = SEARCHERS[name](3), SEARCHERS[name](3)
    go_on(searcher, before)
    searcher.ask(2)
    assert searcher.pending
    file = io.BytesIO()
    torch.save(searcher.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert go_on(other, 20) == go_on(searcher, 20)


def test_same_seed_same_search() -> None:
    genotypes = [[t.genotype for t in Hyperband(SPACE, 1, 9, seed=seed).ask(9)] for seed in (0, 0, 1)]
    assert genotypes[0] == genotypes[1] != genotypes[2]


class _Spy(UniformSampler):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(SPACE)
        self.calls = 0
        self.learned: list[tuple[int, float]] = []

    def __call__(self, rng: random.Random) -> Genotype:
        self.calls += 1
        return super().__call__(rng)

    def learn(self, trial: Trial, score: float) -> None:
        self.learned.append((trial.number, score))


def test_the_sampler_slot() -> None:
    for make in (
        lambda spy: SuccessiveHalving(SPACE, 9, 1, 9, sampler=spy),
        lambda spy: Hyperband(SPACE, 1, 9, sampler=spy),
        lambda spy: ASHA(SPACE, 1, 9, sampler=spy),
    ):
        spy = _Spy()
        course = Course(shuffled(50), lambda t: t.number == 4)
        run(make(spy), course, 30)
        assert spy.calls == sum(t.continues is None for t in course.trials)
        assert spy.learned == [(t.number, course.scores.get(t.number, -math.inf)) for t in course.trials]
