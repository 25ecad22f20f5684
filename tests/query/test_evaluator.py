"""The evaluator and the history: order, failures, kills, two writers."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from asked import Convolutions, Unlucky

from lightning_nas.arch import Genotype
from lightning_nas.query import (
    Evaluator,
    History,
    Processes,
    RandomSearch,
    RayExecutor,
    RegularizedEvolution,
    Result,
    Searcher,
    Trial,
)
from lightning_nas.spaces import get_space

SPACE = get_space("nasbench201")
HERE = Path(__file__).parent


def evolution() -> Searcher:
    return RegularizedEvolution(SPACE, population=4, sample=2, seed=1)


def rows(history: History) -> list[tuple[object, ...]]:
    return [(r.trial.number, SPACE.format(r.trial.genotype), r.score, r.cost, dict(r.trial.note)) for r in history]


def run(searcher: Searcher, evaluator: Evaluator, trials: int) -> list[Result]:
    return [result for _ in range(trials) if (result := evaluator.step(searcher)) is not None]


def test_results_come_in_order_and_the_history_has_them_first(tmp_path: Path) -> None:
    class Watching(RandomSearch):
        def observe(self, result: Result) -> None:
            with sqlite3.connect(tmp_path / "history.sqlite") as file:
                known = [row[0] for row in file.execute("SELECT number FROM results")]
            assert result.trial.number in known  # on the disk before the searcher learns of it

    evaluator = Evaluator(Convolutions(SPACE), History(SPACE, tmp_path / "history.sqlite"), in_flight=3)
    found = run(Watching(SPACE), evaluator, 7)
    assert [result.trial.number for result in found] == list(range(7))
    evaluator.close()


@pytest.mark.parametrize("in_flight", [1, 3])
def test_all_executors_make_the_same_history(in_flight: int) -> None:
    histories = []
    for make in (None, partial(ThreadPoolExecutor, 2)):
        evaluator = Evaluator(Convolutions(SPACE, seconds=0.001), in_flight=in_flight, executor=make)
        run(evolution(), evaluator, 20)
        histories.append(rows(evaluator.history)[:20])
        evaluator.close()
    assert histories[0] == histories[1]


def test_a_search_started_again_evaluates_nothing_twice(tmp_path: Path) -> None:
    path, log = tmp_path / "history.sqlite", tmp_path / "log"
    for trials in (9, 15):
        evaluator = Evaluator(Convolutions(SPACE, log), History(SPACE, path), in_flight=2)
        searcher = evolution()
        run(searcher, evaluator, trials)
        evaluator.close()
    whole = Evaluator(Convolutions(SPACE), in_flight=2)
    run(evolution(), whole, 15)
    with History(SPACE, path) as history:
        assert rows(history)[:15] == rows(whole.history)[:15]
    numbers = [int(line) for line in log.read_text().splitlines()]
    assert len(numbers) == len(set(numbers))


def test_a_kill_at_any_moment_loses_at_most_what_was_under_way(tmp_path: Path) -> None:
    path, log = tmp_path / "history.sqlite", tmp_path / "log"
    script = (
        f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
        "from pathlib import Path\nfrom asked import Convolutions\n"
        "from lightning_nas.query import Evaluator, History, RegularizedEvolution\n"
        "searcher = RegularizedEvolution('nasbench201', population=4, sample=2, seed=1)\n"
        f"oracle = Convolutions(searcher.space, Path({str(log)!r}), 0.01)\n"
        f"evaluator = Evaluator(oracle, History(searcher.space, {str(path)!r}))\n"
        "while True: evaluator.step(searcher)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 120
    while not (log.exists() and len(log.read_text().splitlines()) >= 5):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(ValueError, match="another search writes to"):
        History(SPACE, path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(log.read_text().splitlines())
    with History(SPACE, path) as history:
        assert done - 1 <= len(history) <= done
    evaluator = Evaluator(Convolutions(SPACE, log, 0.01), History(SPACE, path))
    run(evolution(), evaluator, done + 3)
    again = [int(line) for line in log.read_text().splitlines()]
    assert sorted(set(again)) == list(range(done + 3))
    assert len(again) - len(set(again)) <= 1  # the one that was under way
    whole = Evaluator(Convolutions(SPACE))
    run(evolution(), whole, done + 3)
    assert rows(evaluator.history) == rows(whole.history)
    evaluator.close()


def test_another_search_is_not_mistaken_for_this_one(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    first = Evaluator(Convolutions(SPACE), History(SPACE, path))
    run(RandomSearch(SPACE, seed=0), first, 2)
    first.close()
    second = Evaluator(Convolutions(SPACE), History(SPACE, path))
    with pytest.raises(ValueError, match=r"other settings: searcher\.seed was 0 and is 5"):
        run(RandomSearch(SPACE, seed=5), second, 1)
    second.close()
    with pytest.raises(ValueError, match="the history of a search in 'nasbench201', this one is in 'darts'"):
        History(get_space("darts"), path)
    with History(SPACE, path) as history, pytest.raises(ValueError, match="has a result of trial 0 already"):
        history.add(history[0])
    (tmp_path / "other").write_text("no database at all, and long enough to be looked at as one" * 20)
    with pytest.raises(ValueError, match="is no history of a search"):
        History(SPACE, tmp_path / "other")


def test_a_history_keeps_every_field(tmp_path: Path) -> None:
    genotype = SPACE.sample(random.Random(0))
    trial = Trial(3, genotype, 4.5, 1, note={"rung": 2, "kind": "child"})
    given = [
        Result(trial, 91.25, 3.5, 2.5, "training", 90.5, {"latency_ms": 1.5}),
        Result.failed(Trial(4, genotype), "out of memory", 0.5),
    ]
    with History(SPACE, tmp_path / "h") as history:
        for result in given:
            history.add(result)
    with History(SPACE, tmp_path / "h") as history:
        found = list(history)
    assert found[0] == given[0]
    assert (dict(found[0].metrics), dict(found[0].trial.note)) == ({"latency_ms": 1.5}, {"rung": 2, "kind": "child"})
    assert (found[1].error, found[1].ok, found[1].cost) == ("out of memory", False, 0.5)


def test_an_oracle_that_raises_fails_its_trial() -> None:
    class Wrong(Convolutions):
        def __call__(self, trial: Trial) -> Result:
            if trial.number == 1:
                raise RuntimeError("CUDA out of memory")
            return Result(trial, float("inf")) if trial.number == 2 else super().__call__(trial)

    searcher = RandomSearch(SPACE)
    found = run(searcher, Evaluator(Wrong(SPACE)), 4)
    assert [result.ok for result in found] == [True, False, False, True]
    assert found[1].error == "RuntimeError: CUDA out of memory"
    assert found[2].error == "the score is inf"
    assert searcher.failures == 2


@pytest.mark.ddp
@pytest.mark.parametrize("make", [partial(Processes, 2), partial(RayExecutor, 2)], ids=["processes", "ray"])
def test_dead_and_hanging_workers_are_failed_trials(
    make: Callable[[], Executor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    log = tmp_path / "log"
    evaluator = Evaluator(Unlucky(SPACE, log), in_flight=2, executor=make, timeout=2)
    found = run(evolution(), evaluator, 10)
    evaluator.close()
    failed = {result.trial.number: result.error for result in found if not result.ok}
    assert set(failed) == {2, 4, 6, 7}
    assert "the worker died" in str(failed[2])
    assert "no memory left" in str(failed[4])
    assert "gave no answer within 2 s" in str(failed[6])
    numbers = [int(line) for line in log.read_text().splitlines()]
    assert set(numbers) == {0, 1, 3, 5, 8, 9, 10} - ({10} - set(numbers))


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="in_flight=0"):
        Evaluator(Convolutions(SPACE), in_flight=0)
    with pytest.raises(ValueError, match="needs an executor"):
        Evaluator(Convolutions(SPACE), timeout=3)
    searcher = RandomSearch(SPACE)
    with pytest.raises(ValueError, match=r"ask\(n=0\)"):
        searcher.ask(0)
    with pytest.raises(ValueError, match="trial 7 is not pending"):
        searcher.tell([Result(Trial(7, SPACE.sample(random.Random(0))), 1.0)])
    with pytest.raises(ValueError, match="no successful trial"):
        searcher.genotype()


def test_the_best_is_the_best_at_the_largest_budget() -> None:
    class Rungs(RandomSearch):
        def propose(self) -> Trial:
            return self.trial(self.space.sample(self.rng), budget=(1, 3)[self.asked % 2])

    searcher = Rungs(SPACE)
    genotypes: list[Genotype] = []
    for score in (99.0, 10.0, 99.0, 12.0, 98.0, 11.0):
        (trial,) = searcher.ask()
        genotypes.append(trial.genotype)
        searcher.tell([Result(trial, score)])
    assert searcher.genotype() == genotypes[3]
