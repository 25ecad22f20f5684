"""RANK-NOSH: who rises, what it costs, what is learned, failures, resuming, real trainings that are paused."""

from __future__ import annotations

import io
import itertools
import math
import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_nas.arch import Genotype
from lightning_nas.benchmarks.base import Benchmark, Record
from lightning_nas.data import DigitsDataModule
from lightning_nas.oracles import FunctionOracle, RoutedOracle, TableOracle, TrainingOracle, ZeroCostOracle
from lightning_nas.proxies import naswot
from lightning_nas.query import Evaluator, History, Oracle, Result, Trial
from lightning_nas.query.encoders import AdjacencyEncoder
from lightning_nas.query.encoders.score import ScoreEncoder
from lightning_nas.query.predictors import NearestNeighbor
from lightning_nas.query.predictors.zero_cost import ZeroCost
from lightning_nas.query.proposals import Pool, RandomPool
from lightning_nas.query.searchers.predictor_search import PredictorSearch
from lightning_nas.query.searchers.pyramid import ordinal_targets, pyramid_counts, pyramid_epochs, shares
from lightning_nas.query.searchers.rank_nosh import RankNOSH
from lightning_nas.spaces import get_space

SPACE = get_space("nasbench201")
LEVELS = (1.0, 4.0, 12.0)


def quality(genotype: Genotype) -> float:
    """A number of each architecture, no two the same."""
    return 50 + zlib.crc32(SPACE.format(SPACE.canonical(genotype)).encode()) / 2**27


def rising(genotype: Genotype, budget: float) -> float:
    """Learning curves that never cross."""
    return quality(genotype) * (1 - math.exp(-(budget + 1) / 5))


def crossing(genotype: Genotype, budget: float) -> float:
    """Any score at any budget; longer trainings do not score better."""
    return zlib.crc32(f"{budget} {SPACE.format(genotype)}".encode()) / 2**32


def nosh(*, by: Callable[[Genotype], float] | None = None, **options: Any) -> RankNOSH:
    """A search with a cheap predictor; with `by`, with one that knows the order."""
    if by is None:
        parts = {"encoder": AdjacencyEncoder(SPACE), "predictor": NearestNeighbor(1)}
    else:
        parts = {"encoder": ScoreEncoder(SPACE, by), "predictor": ZeroCost()}
    return RankNOSH(SPACE, **{"proposal": Pool(DRAWN), **parts, **options})


DRAWN = [SPACE.sample(random.Random(1000 + k)) for k in range(150)]


def run(searcher: RankNOSH, oracle: Oracle, in_flight: int = 1, steps: int = 10**6) -> list[Result]:
    """All results of a search."""
    evaluator, results = Evaluator(oracle, in_flight=in_flight), list[Result]()
    while len(results) < steps and (result := evaluator.step(searcher)) is not None:
        results.append(result)
    return results


def at(results: Sequence[Result], level: int) -> list[Result]:
    return [result for result in results if result.trial.note["level"] == level]


# --- arithmetic


def test_the_example_of_the_pyramid() -> None:
    assert pyramid_counts(100, LEVELS, 0.5) == (100, 50, 25)
    assert pyramid_epochs(100, LEVELS, 0.5) == 100 * 1 + 50 * 3 + 25 * 8 == 450
    assert pyramid_epochs(100, (0, 1, 4, 12), (0.1, 1, 1)) == 10 * 12
    assert pyramid_epochs(7, LEVELS, 1.0) == 7 * 12
    assert shares(LEVELS, (0.5, 0.2)) == (1.0, 0.5, 0.1)
    assert pyramid_counts(1000, (1, 2, 3, 4), 0.1) == (1000, 100, 10, 1)


def test_targets_are_a_transitive_order() -> None:
    rng = random.Random(0)
    standings = [(rng.randrange(3), float(rng.randrange(8))) for _ in range(40)]
    targets = ordinal_targets(standings)
    for (one, a), (other, b) in itertools.product(zip(standings, targets, strict=True), repeat=2):
        wins = one[0] > other[0] if one[0] != other[0] else one[1] > other[1]
        assert (a > b) == wins
        assert (a == b) == (one == other)
    assert ordinal_targets([]) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"levels": ()},
        {"levels": (0,)},
        {"levels": (1, 1)},
        {"levels": (4, 1)},
        {"levels": (-1, 1)},
        {"levels": (1, math.inf)},
        {"ratio": 0.0},
        {"ratio": 1.1},
        {"ratio": (0.5,)},
        {"pool": 3, "initial": 1},
        {"pool": 10, "initial": 11},
        {"initial": 0},
        {"batch": 0},
        {"space": "darts"},
    ],
    ids=str,
)
def test_wrong_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"give|make one of them larger|must be"):
        RankNOSH(**{"space": SPACE, "encoder": AdjacencyEncoder(SPACE), "predictor": NearestNeighbor(), **wrong})


# --- who rises


@pytest.mark.parametrize("in_flight", [1, 4])
@pytest.mark.parametrize("levels", [LEVELS, (0.0, *LEVELS)])
def test_monotone_curves_and_a_perfect_ranker_bring_the_best_to_the_top(
    in_flight: int, levels: tuple[float, ...]
) -> None:
    searcher = nosh(by=quality, levels=levels, initial=8, batch=4, pool=24)
    results = run(searcher, FunctionOracle(SPACE, rising, budgets=True), in_flight)
    best = max(map(quality, DRAWN))
    assert quality(searcher.genotype()) == best
    assert searcher.best is not None
    assert searcher.best.trial.budget == 12
    first = next(result for result in results if quality(result.trial.genotype) == best)
    assert first.trial.note["turn"] == 1  # with the first labels, or earlier by chance
    top = sorted((quality(result.trial.genotype) for result in at(results, 0)), reverse=True)
    for level in range(1, len(levels)):
        reached = sorted((quality(result.trial.genotype) for result in at(results, level)), reverse=True)
        assert reached[:2] == top[: len(reached)][:2]


class Watched:
    """Plays the pyramid by its definition: at each level's turn the best of all that wait there go on."""

    def __init__(self, results: Sequence[Result], levels: Sequence[float], ratio: float) -> None:
        waiting: list[dict[int, float]] = [{} for _ in levels]
        rows = [(result.trial.note["turn"], result.trial.note["level"]) for result in results]
        entered = [0] * len(levels)
        for (_, level), group in itertools.groupby(zip(rows, results, strict=True), key=lambda pair: pair[0]):
            step = [result for _, result in group]
            k = int(level)
            if k:
                places = math.floor(entered[0] * ratio**k + 1e-9) - entered[k]
                order = sorted(waiting[k - 1], key=lambda number, k=k: (-waiting[k - 1][number], number))  # type: ignore[misc]
                assert [result.trial.continues for result in step] == order[:places]
                for number in order[:places]:
                    del waiting[k - 1][number]
            entered[k] += len(step)
            waiting[k].update({result.trial.number: result.score for result in step if result.ok})
        self.entered, self.left = entered, waiting


@pytest.mark.parametrize("in_flight", [1, 3, 50])
@pytest.mark.parametrize("ratio", [0.5, 0.37])
def test_promotions_are_those_of_the_definition(in_flight: int, ratio: float) -> None:
    """Among all members of a level, by the scores at that level alone, with curves that cross."""
    searcher = nosh(levels=(1, 4, 12), ratio=ratio, initial=9, batch=5, pool=42)
    results = run(searcher, FunctionOracle(SPACE, crossing, budgets=True), in_flight)
    watched = Watched(results, LEVELS, ratio)
    assert tuple(watched.entered) == tuple(searcher.entered) == pyramid_counts(42, LEVELS, ratio)
    by_number = {result.trial.number: result.trial for result in results}
    late = 0
    for result in at(results, 1) + at(results, 2):
        below = by_number[result.trial.continues]  # type: ignore[index]
        assert below.genotype == result.trial.genotype
        assert LEVELS.index(below.budget or 0) + 1 == result.trial.note["level"]
        late += below.note["turn"] < result.trial.note["turn"]
    assert late > 0  # some who stayed behind went on in a later round
    assert searcher.best is not None
    assert searcher.best.score == max(result.score for result in at(results, 2))
    assert len({SPACE.canonical(result.trial.genotype) for result in at(results, 0)}) == 42
    assert searcher.ask(3) == []


# --- what it costs


@pytest.mark.parametrize(
    ("levels", "ratio"), [(LEVELS, 0.5), (LEVELS, 1.0), ((0.0, 2.0, 5.0), (0.4, 0.5)), ((12.0,), 0.5)]
)
def test_epochs_recomputed_from_the_results(levels: tuple[float, ...], ratio: Any) -> None:
    searcher = nosh(levels=levels, ratio=ratio, initial=7, batch=4, pool=30)
    results = run(searcher, FunctionOracle(SPACE, rising, budgets=True), 2)
    longest: dict[Genotype, float] = {}
    for result in results:
        longest[result.trial.genotype] = max(longest.get(result.trial.genotype, 0.0), result.trial.budget or 0.0)
    spent = sum(result.epochs for result in results)
    assert spent == sum(longest.values()) == pyramid_epochs(30, levels, ratio)
    if ratio == 1.0:
        assert spent == 30 * 12
        assert set(longest.values()) == {12.0}


def test_the_published_size_of_the_example() -> None:
    oracle = FunctionOracle(SPACE, rising, budgets=True)
    results = run(nosh(levels=(1, 4, 12), ratio=0.5, initial=20, batch=10, pool=100), oracle)
    assert sum(result.epochs for result in results) == 450
    assert len(results) == 175


def test_one_level_is_the_search_with_a_predictor() -> None:
    parts = {"encoder": AdjacencyEncoder(SPACE), "predictor": NearestNeighbor(1)}
    plain = PredictorSearch(**parts, proposal=Pool(DRAWN), initial=6, batch=4, budget=12, seed=3)  # type: ignore[arg-type]
    searcher = nosh(levels=(12,), initial=6, batch=4, pool=30, seed=3)
    seen: list[list[tuple[int, Genotype, float | None]]] = [[], []]
    for k, either in enumerate((plain, searcher)):
        for _ in range(30):
            (trial,) = either.ask()
            seen[k].append((trial.number, trial.genotype, trial.budget))
            either.tell([Result(trial, quality(trial.genotype))])
    assert seen[0] == seen[1]
    assert searcher.ask() == []


class Fidelities(Benchmark):
    """Two budgets of each architecture: one training, or two as in NAS-Bench-201."""

    def __init__(self, one: bool) -> None:
        self.one = one
        self.name, self.space, self.datasets, self.budgets = "fidelities", SPACE, ("one",), (12, 200)

    def query(
        self, genotype: Genotype, dataset: str | None = None, epochs: int | None = None, run: int | None = None
    ) -> Record:
        _, count = self.choose(dataset, epochs)
        return Record(crossing(genotype, count), None, 3.0 * count, count)

    def runs(self, genotype: Genotype, dataset: str | None = None, epochs: int | None = None) -> int:
        return 1

    def continues(self, shorter: int, longer: int | None = None, dataset: str | None = None) -> bool:
        return self.one

    def genotypes(self) -> Iterator[Genotype]:
        return iter(DRAWN)

    def best(self, dataset: str | None = None) -> tuple[float, float]:
        return 1.0, 1.0


@pytest.mark.parametrize(("one", "epochs"), [(True, 188.0), (False, 200.0)])
def test_a_table_counts_increments_of_one_training_and_the_whole_of_others(one: bool, epochs: float) -> None:
    results = run(nosh(levels=(12, 200), initial=4, batch=4, pool=8), TableOracle(Fidelities(one)))
    assert [result.epochs for result in at(results, 0)] == [12.0] * 8
    assert [(result.epochs, result.cost) for result in at(results, 1)] == [(epochs, 3 * epochs)] * 4


# --- what is learned


class Spy(NearestNeighbor):
    """Keeps what it learns."""

    def __init__(self) -> None:
        super().__init__(1)
        self.learned: list[tuple[Any, Tensor]] = []

    def fit(self, x: Any, y: Tensor, seed: int = 0) -> Spy:
        self.learned.append((x, y))
        return super().fit(x, y, seed)  # type: ignore[return-value]


def test_the_default_ranker_finds_what_is_good() -> None:
    """What it proposes is better than what is drawn."""

    def convolutions(genotype: Genotype, budget: float) -> float:
        return SPACE.format(genotype).count("nor_conv_3x3") + budget / 100

    searcher = RankNOSH(SPACE, (1, 4), initial=16, batch=8, pool=24, proposal=RandomPool(200))
    results = run(searcher, FunctionOracle(SPACE, convolutions, budgets=True))
    turns = [[r.score for r in at(results, 0) if r.trial.note["turn"] == turn] for turn in range(2)]
    assert sum(turns[1]) / 8 > sum(turns[0]) / 16 + 1


@pytest.mark.parametrize("levels", [(1.0, 4.0), (0.0, 1.0, 4.0)])
def test_the_ranker_learns_the_order_of_what_is_trained(levels: tuple[float, ...]) -> None:
    spy, encoder = Spy(), AdjacencyEncoder(SPACE)
    searcher = nosh(encoder=encoder, predictor=spy, levels=levels, initial=8, batch=4, pool=16)
    results = run(searcher, FunctionOracle(SPACE, crossing, budgets=True))
    assert len(spy.learned) == 2
    for turn, (x, y) in enumerate(spy.learned, start=1):
        before = [result for result in results if result.trial.note["turn"] < turn and result.trial.budget]
        last = {result.trial.genotype: (result.trial.note["level"], result.score) for result in before}
        order = sorted(last.values())
        rows = zip(torch.as_tensor(encoder(list(last))).tolist(), map(order.index, last.values()), strict=True)
        assert sorted(zip(x.tolist(), y.tolist(), strict=True)) == sorted(rows)


def test_level_zero() -> None:
    """A score without training decides who is trained, and nobody goes on from a training that was none."""
    cheap = FunctionOracle(SPACE, quality)
    dear = FunctionOracle(SPACE, crossing, budgets=True)
    searcher = nosh(levels=(0, 2, 4), ratio=(0.25, 0.5), initial=16, batch=8, pool=32)
    results = run(searcher, RoutedOracle([cheap, dear], up_to=[0]), 3)
    assert [len(at(results, level)) for level in range(3)] == [32, 8, 4]
    assert {result.trial.budget for result in at(results, 0)} == {0.0}
    assert [result.score for result in at(results, 0)] == [quality(result.trial.genotype) for result in at(results, 0)]
    assert all(result.trial.continues is None for result in at(results, 1))
    assert all(result.trial.continues is not None for result in at(results, 2))
    first = [result for result in at(results, 0) if result.trial.note["turn"] == 0]
    chosen = [result.trial.genotype for result in at(results, 1) if result.trial.note["turn"] == 0]
    assert chosen == [r.trial.genotype for r in sorted(first, key=lambda r: -r.score)[:4]]
    assert searcher.best is not None
    assert searcher.best.trial.budget == 4


def test_a_small_space_comes_to_an_end() -> None:
    parts: dict[str, Any] = {"encoder": AdjacencyEncoder("small_sep"), "predictor": NearestNeighbor()}
    searcher = RankNOSH("small_sep", (1, 2), initial=10, batch=10, pool=60, **parts)
    results = run(searcher, FunctionOracle("small_sep", lambda genotype: 1.0))
    keys = {searcher.space.canonical(result.trial.genotype) for result in at(results, 0)}
    assert len(keys) == len(at(results, 0)) == 42
    assert len(at(results, 1)) == 21


# --- failures and resuming


@pytest.mark.parametrize("in_flight", [1, 4])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_failures_do_not_block(in_flight: int, share: float) -> None:
    def score(genotype: Genotype, budget: float) -> float:
        if zlib.crc32(f"{budget}/{SPACE.format(genotype)}".encode()) % 100 < 100 * share:
            raise RuntimeError("broken")
        return crossing(genotype, budget)

    searcher = nosh(levels=(0, 1, 4, 12), initial=8, batch=4, pool=32)
    results = run(searcher, FunctionOracle(SPACE, score, budgets=True), in_flight)
    assert len(at(results, 0)) == len({SPACE.canonical(result.trial.genotype) for result in at(results, 0)}) == 32
    failed = {(result.trial.genotype, result.trial.note["level"]) for result in results if not result.ok}
    assert searcher.failures == len(failed)
    for result in results:
        below = (result.trial.genotype, int(result.trial.note["level"]) - 1)
        assert below not in failed
    if share == 1.0:
        assert len(results) == 32
    else:
        assert len(at(results, 3)) >= 1
        known = {genotype: at for genotype, at in searcher.reached.items() if (genotype, at[0] + 1) in failed}
        assert known  # what was reached before a failure stays known
        assert not any(finisher.genotype in known for members in searcher.waiting for finisher in members)


@pytest.mark.parametrize("levels", [LEVELS, (0.0, 1.0, 4.0)])
@pytest.mark.parametrize("before", [0, 1, 9, 14, 23, 41])
def test_resumes_exactly(levels: tuple[float, ...], before: int) -> None:
    """Also with trials pending, and with what was saved loaded as weights."""

    def go_on(searcher: RankNOSH, trials: int) -> list[dict[str, Any]]:
        seen = []
        for _ in range(trials):
            searcher.ask(max(3 - len(searcher.pending), 1))
            if not searcher.pending:
                break
            number = min(searcher.pending) if len(searcher.pending) % 2 else max(searcher.pending)
            trial = searcher.pending[number]
            seen.append(trial.to_plain(SPACE))
            score = crossing(trial.genotype, trial.budget or 0.0)
            searcher.tell([Result.failed(trial, "broken") if number % 11 == 7 else Result(trial, score)])
        return seen

    searcher, other = (nosh(levels=levels, initial=9, batch=5, pool=40, seed=3) for _ in range(2))
    go_on(searcher, before)
    searcher.ask(2)
    assert searcher.pending
    file = io.BytesIO()
    torch.save(searcher.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    rest = go_on(searcher, 100)
    assert len(rest) > 10
    assert go_on(other, 100) == rest
    assert other.state_dict() == searcher.state_dict()


# --- real trainings


def trainings(folder: Path) -> TrainingOracle:
    few = {"limit_train_batches": 1, "limit_val_batches": 1}
    exact: dict[str, Any] = {"monitor": "val/loss", "scale": -1.0}
    return TrainingOracle(SPACE, DigitsDataModule(), 2, folder, channels=4, cells=1, trainer=few, **exact)


def test_real_trainings_are_paused_and_go_on(tmp_path: Path) -> None:
    """Each score is that of a training without a pause; a search that is stopped and started again is the same."""

    def searcher() -> RankNOSH:
        return nosh(levels=(0, 1, 2), ratio=0.5, initial=2, batch=2, pool=4, proposal=Pool(DRAWN[:20]), seed=1)

    def oracle(folder: Path) -> RoutedOracle:
        free = ZeroCostOracle(SPACE, naswot, DigitsDataModule(batch_size=8), channels=4, cells=1)
        return RoutedOracle([free, trainings(folder)], up_to=[0])

    results = run(searcher(), oracle(tmp_path / "a"))
    trained = [result for result in results if result.source == "training"]
    assert [result.source for result in at(results, 0)] == ["zero-cost" if r.ok else "failed" for r in at(results, 0)]
    assert len(at(results, 1)) == 2
    assert len(at(results, 2)) == 1
    assert [result.epochs for result in trained] == [1.0] * 3
    assert sum(result.epochs for result in results) == pyramid_epochs(4, (0, 1, 2)) == 3
    (top,) = at(results, 2)
    assert top.trial.continues is not None
    straight = trainings(tmp_path / "straight")(Trial(0, top.trial.genotype, 2.0))
    assert straight.score == top.score
    assert straight.epochs == 2.0

    with History(SPACE, tmp_path / "history.sqlite") as history:
        evaluator, stopped = Evaluator(oracle(tmp_path / "b"), history), searcher()
        for _ in range(5):
            evaluator.step(stopped)
    with History(SPACE, tmp_path / "history.sqlite") as history:
        evaluator, again = Evaluator(oracle(tmp_path / "b"), history), searcher()
        told = []
        while (result := evaluator.step(again)) is not None:
            told.append(result)
    assert [(r.trial, r.epochs) for r in told] == [(r.trial, r.epochs) for r in results]
    assert [r.score for r in told if r.ok] == [r.score for r in results if r.ok]
