"""Searches side by side by the number of labels: who chooses the best architecture from how many trainings."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_nas.label_study.contestants import CONTESTANTS, able
from lightning_nas.label_study.report import write_race
from lightning_nas.label_study.rows import read_rows, run_all
from lightning_nas.label_study.worlds import World, world
from lightning_nas.query import Searcher
from lightning_nas.reports import require_writable

__all__ = ["run_race", "trace"]

FIELDS = ("table", "method", "dataset", "seed", "labels", "scores", "seconds", "curve")


def trace(searcher: Searcher, of: World, dataset: str, seed: int, labels: float) -> list[tuple[float, float, float]]:
    """Search until the next trial would exceed so many full trainings.

    Args:
        searcher: The searcher.
        of: Where it searches.
        dataset: Data set of the table.
        seed: Seed of the runs that the oracle draws.
        labels: Budget in full trainings; a shorter training counts by its epochs.

    Returns:
        For each new best the labels spent, its validation score and its mean test accuracy.
    """
    oracle, spent = of.oracle(dataset, seed), 0.0
    found: list[tuple[float, float, float]] = []
    epochs: dict[int, float] = {}
    while True:
        trials = searcher.ask()
        if not trials:
            return found
        (trial,) = trials
        before = epochs.get(-1 if trial.continues is None else trial.continues, 0.0)
        budget = of.full if trial.budget is None else trial.budget
        spent += (budget - before) / of.full
        if spent > labels + 1e-9:
            return found
        epochs[trial.number] = budget
        best = searcher.best
        searcher.tell([oracle(trial)])
        if searcher.best is not None and searcher.best is not best and budget > 0:
            found.append((spent, searcher.best.score, of.test(searcher.genotype(), dataset)))


def one_run(
    table: str, scores: str | None, folder: str, method: str, dataset: str, seed: int, labels: int
) -> dict[str, Any]:
    """A run as a row of the file."""
    torch.set_num_threads(1)
    of, start = world(table, scores, folder), time.process_time()
    curve = trace(CONTESTANTS[method](of, seed), of, dataset, seed, labels)
    seconds = round(time.process_time() - start, 2)
    rounded = [[round(value, 4) for value in point] for point in curve]
    row = {"table": table, "method": method, "dataset": dataset, "seed": seed, "labels": labels}
    row["scores"] = _used(method, scores)
    return row | {"seconds": seconds, "curve": json.dumps(rounded)}


def run_race(
    table: str = "nasbench201",
    out: str = "runs/labels",
    runs: int = 50,
    labels: int = 150,
    methods: list[str] | None = None,
    datasets: list[str] | None = None,
    scores: str | None = None,
    processes: int = 2,
) -> None:
    """Compare searches at equal numbers of labels on a tabular benchmark; write a table and a picture.

    A label is the validation accuracy of one run, drawn at random, at full training. What counts is the mean test
    accuracy of the architecture whose label is best. Each run is a line of `out`/race.csv; those that are there are
    not done again, so the command goes on where it was stopped; begin in a new folder after a method was changed.

    Args:
        table: "nasbench201" or "nasbench101" (the graphs of nb1shot1_ss12.npz), in the folder LIGHTNING_NAS_DATA.
        out: Folder for the results.
        runs: Runs of each method on each data set, seeds 0, 1, ...
        labels: Full trainings of a run.
        methods: Names of methods; None for all that the table allows.
        datasets: Data sets of the table; None for all.
        scores: File of scores without training, which "RANK-NOSH, level 0" needs; None for none.
        processes: Processes that share the runs; 1 for this one.
    """
    names, sets = _checked(methods, datasets, world(table, scores), runs, labels)
    file = require_writable(Path(out)) / "race.csv"
    wanted = [(name, dataset, seed) for seed in range(runs) for dataset in sets for name in names]

    known = _known(file, table, labels, scores)
    calls = [partial(one_run, table, scores, out, *job, labels=labels) for job in wanted if job not in known]
    try:
        run_all(calls, file, FIELDS, processes)
    finally:
        known = _known(file, table, labels, scores)
        done = [known[job] for job in wanted if job in known]
        if done:
            write_race(done, world(table, scores), labels, file.with_name(f"race-{table}"))


def _known(file: Path, table: str, labels: int, scores: str | None) -> dict[tuple[str, str, int], dict[str, Any]]:
    """The runs that are in the file, by method, data set and seed."""
    rows = [row for row in read_race(file, labels) if row["table"] == table]
    own = [row for row in rows if row["scores"] == _used(row["method"], scores)]
    return {(row["method"], row["dataset"], row["seed"]): row for row in own}


def _used(method: str, scores: str | None) -> str:
    """The name of the file of scores that a method uses; empty if it uses none."""
    return Path(scores).stem if scores is not None and method == "RANK-NOSH, level 0" else ""


def _checked(
    methods: Sequence[str] | None, datasets: Sequence[str] | None, of: World, runs: int, labels: int
) -> tuple[list[str], list[str]]:
    """The methods and the data sets."""
    unknown = sorted(set(methods or ()) - set(CONTESTANTS))
    if unknown or runs < 1 or labels < 1:
        raise ValueError(
            f"methods {unknown}, runs={runs}, labels={labels}: known methods are {', '.join(CONTESTANTS)}, and numbers"
            " must be at least 1"
        )
    known = of.table.datasets
    if set(datasets or ()) - set(known):
        raise ValueError(f"datasets={datasets}: {of.name} has {', '.join(known)}")
    unable = sorted(set(methods or ()) - set(able(of)))
    if unable:
        raise ValueError(f"methods {unable}: {of.name} lacks the levels of training or the scores that they need")
    return list(methods or able(of)), list(datasets or known)


def read_race(file: Path, labels: int) -> list[dict[str, Any]]:
    """The runs in a file that had so many labels."""
    rows = read_rows(file, seed=int, labels=int, seconds=float)
    for row in rows:
        row["curve"] = np.array(json.loads(row["curve"]), dtype=float).reshape(-1, 3)
    return [row for row in rows if row["labels"] == labels]
