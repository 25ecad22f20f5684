"""The studies of searches with few labels: what they count, that they go on, and what they leave."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from lightning_nas.cli import main
from lightning_nas.label_study import taus
from lightning_nas.label_study.contestants import CONTESTANTS, able
from lightning_nas.label_study.learners import LEARNERS
from lightning_nas.label_study.race import trace
from lightning_nas.label_study.report import at_labels, savings
from lightning_nas.label_study.rows import run_all
from lightning_nas.label_study.worlds import World, world
from lightning_nas.query import RandomSearch, SuccessiveHalving
from lightning_nas.query.predictors import NearestNeighbor


@pytest.fixture
def data(benchmark_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIGHTNING_NAS_DATA", str(benchmark_data))
    return benchmark_data


def test_a_curve_holds_until_the_next_best() -> None:
    curve = np.array([[1.0, 90.0, 80.0], [3.0, 91.0, 85.0]])
    assert at_labels(curve, np.array([1.0, 2.9, 3.0, 9.0])).tolist() == [80.0, 80.0, 85.0, 85.0]
    assert np.isnan(at_labels(curve, np.array([0.9]))).all()


def test_labels_are_full_trainings_and_what_goes_on_pays_the_rest(data: Path) -> None:
    of = world("nasbench201")
    full = trace(RandomSearch(of.space, seed=0), of, "cifar10", 0, 7)
    assert full[0][0] == 1.0
    assert all(spent == int(spent) <= 7 for spent, _, _ in full)
    assert [score for _, score, _ in full] == sorted(score for _, score, _ in full)
    halving = SuccessiveHalving(of.space, n=17, min_budget=12, max_budget=200, eta=200 / 12, seed=0)
    mixed = trace(halving, of, "cifar10", 0, 50)
    assert mixed[0][0] == pytest.approx(12 / 200)
    assert min(spent for spent, _, _ in mixed if spent > 17 * 12 / 200 + 1e-9) == pytest.approx((17 * 12 + 188) / 200)


def test_the_score_is_of_one_run_and_the_report_of_all(data: Path) -> None:
    of: World = world("nasbench201")
    searcher = RandomSearch(of.space, seed=1)
    _, score, test = trace(searcher, of, "cifar10", 1, 5)[-1]
    best = searcher.genotype()
    single = [of.table.query(best, "cifar10", run=run).val for run in range(of.table.runs(best, "cifar10"))]
    assert score in single
    assert len(set(single)) > 1
    assert test == of.table.query(best, "cifar10").test


def test_runs_that_fail_do_not_stop_the_others(tmp_path: Path) -> None:
    def broken() -> dict[str, int]:
        raise ValueError("out of luck")

    calls = [lambda: {"a": 1}, broken, lambda: {"a": 3}]
    with pytest.raises(RuntimeError, match=r"1 of 3 runs failed.*ValueError: out of luck"):
        run_all(calls, tmp_path / "rows.csv", ("a",), processes=1)
    assert (tmp_path / "rows.csv").read_text().split() == ["a", "1", "3"]


def test_iterative_selection_starts_where_random_labels_start(data: Path) -> None:
    of = world("nasbench201")
    encoder = LEARNERS["boosting on adjacency"].encoder(of.space)
    drawn, _ = taus._drawn(of, "cifar10", 2, 0)
    found, scores = taus._chosen(of, encoder, NearestNeighbor(), "cifar10", 10, 0)
    assert list(found[:2]) == list(drawn)
    assert len({of.space.canonical(genotype) for genotype in found}) == len(scores) == 10


def test_scores_are_of_the_table_that_is_searched(data: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "few.npz", genotype=np.array(["another"]), score=np.array([1.0]))
    of = world("nasbench201", str(tmp_path / "few.npz"))
    assert "RANK-NOSH, level 0" in able(of)
    assert "RANK-NOSH, level 0" not in able(world("nasbench201"))
    with pytest.raises(ValueError, match=r"few.npz lack \|"):
        trace(CONTESTANTS["RANK-NOSH, level 0"](of, 0), of, "cifar10", 0, 5)


def test_a_race_goes_on_and_leaves_table_and_picture(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"--out={tmp_path}", "--labels=6", "--methods=[random, REA]", "--processes=1", "--datasets=[cifar100]"]
    main(["benchmark", "race", "--runs=1", *options])
    first = (tmp_path / "race.csv").read_text()
    main(["benchmark", "race", "--runs=2", *options])
    rows = list(csv.DictReader((tmp_path / "race.csv").open()))
    assert (tmp_path / "race.csv").read_text().startswith(first)
    assert [(row["method"], row["seed"]) for row in rows] == [
        ("random", "0"),
        ("REA", "0"),
        ("random", "1"),
        ("REA", "1"),
    ]
    figures = json.loads((tmp_path / "race-nasbench201.json").read_text())
    for row in figures["rows"]:
        ends = [json.loads(line["curve"])[-1][2] for line in rows if line["method"] == row["method"]]
        assert row["runs"] == 2
        assert row["test"][-1] == pytest.approx(np.mean(ends))
        assert row["deviation"][-1] == pytest.approx(np.std(ends))
    assert (tmp_path / "race-nasbench201.png").stat().st_size > 10_000
    assert "| REA |" in capsys.readouterr().out


def test_what_halving_saves_is_read_off_the_means() -> None:
    def row(method: str, *curve: tuple[float, float]) -> dict[str, object]:
        return {"method": method, "dataset": "a", "curve": np.array([(at, 0.0, test) for at, test in curve])}

    rows = [
        row("ranker", (1, 80.0), (50, 90.0)),
        row("ranker", (1, 82.0), (50, 94.0)),  # mean 81, from 50 on 92
        row("RANK-NOSH", (1, 80.0), (20, 92.0)),
        row("RANK-NOSH", (1, 80.0), (30, 92.0)),  # mean 86 from 20 on, 92 from 30 on
        row("RANK-NOSH, level 0", (1, 91.9)),
        row("random", (1, 99.0)),
    ]
    found = {(r["labels"], r["method"]): (r["test"], r["needed"]) for r in savings(rows, "a", 60)}
    assert found == {
        (40, "RANK-NOSH"): (81.0, 20.0),
        (40, "RANK-NOSH, level 0"): (81.0, 1.0),
        (60, "RANK-NOSH"): (92.0, 30.0),
        (60, "RANK-NOSH, level 0"): (92.0, None),
    }
    assert savings(rows[2:], "a", 60) == []


def test_correlations_go_on_and_leave_table_and_picture(data: Path, tmp_path: Path) -> None:
    names = "[boosting on adjacency, nearest neighbors on path]"
    options = [f"--out={tmp_path}", "--labels=[20, 40]", f"--learners={names}", "--processes=1", "--seeds=1"]
    main(["benchmark", "taus", *options])
    first = (tmp_path / "taus.csv").read_text()
    main(["benchmark", "taus", *options])
    assert (tmp_path / "taus.csv").read_text() == first
    rows = list(csv.DictReader((tmp_path / "taus.csv").open()))
    assert len(rows) == 4
    assert all(0.1 < float(row["tau"]) < 1 for row in rows)
    assert (tmp_path / "taus-nasbench201.png").is_file()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["race", "--methods=[BANANA]"], "BANANAS"),
        (["race", "--runs=0"], "at least 1"),
        (["race", "--table=nasbench9"], "nasbench201"),
        (["race", "--datasets=[mnist]", "--methods=[random]"], "cifar10"),
        (["race", "--methods=[RANK-NOSH]", "--table=nasbench101"], "lacks the levels"),
        (["taus", "--learners=[oracle]"], "boosting"),
        (["taus", "--labels=[4]"], "5 to 6466"),
        (["taus", "--datasets=[mnist]"], "cifar10"),
        (["scores", "nowhere.npz", "--batch=0"], "at least one picture"),
    ],
)
def test_what_is_wrong_is_said(
    command: list[str], said: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["benchmark", *command])
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("table", ["nasbench201", "nasbench101"])
def test_everyone_can_take_part(table: str, data: Path) -> None:
    of = world(table)
    for name, make in CONTESTANTS.items():
        if name not in able(of):
            with pytest.raises(ValueError, match=r"leave RANK-NOSH out|benchmark scores"):
                make(of, 0)
        else:
            (trial,) = make(of, 0).ask()
            assert of.space.check(trial.genotype) == trial.genotype


@pytest.mark.parametrize("table", ["nasbench201", "nasbench101"])
def test_every_learner_can_be_made(table: str, data: Path) -> None:
    for parts in LEARNERS.values():
        encoder = parts.encoder(world(table).space)
        assert parts.predictor(encoder) is not None
