"""How well predictors rank a whole space after few labels."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import kendalltau

from lightning_nas.arch import Genotype
from lightning_nas.label_study.learners import LEARNERS
from lightning_nas.label_study.rows import run_all
from lightning_nas.label_study.tau_report import read_taus, write_taus
from lightning_nas.label_study.worlds import World, world
from lightning_nas.query import Trial
from lightning_nas.query.encoders import Encoder
from lightning_nas.query.predictors import Predictor
from lightning_nas.query.proposals import WholeSpace
from lightning_nas.query.searchers.predictor_search import PredictorSearch, TopAndRandom
from lightning_nas.reports import require_writable

__all__ = ["run_taus"]

Floats = NDArray[np.float64]
FIELDS = ("table", "learner", "dataset", "labels", "iterative", "seed", "ranked", "tau", "tau_best", "top", "seconds")


def run_taus(
    table: str = "nasbench201",
    out: str = "runs/labels",
    seeds: int = 5,
    labels: list[int] | None = None,
    learners: list[str] | None = None,
    datasets: list[str] | None = None,
    iterative: bool = True,
    processes: int = 2,
) -> None:
    """Measure the Kendall tau of predictors over a whole space against the number of labels.

    A label is the validation accuracy of one run, drawn at random, at full training; tau (b, with ties) is that of the
    prediction with the mean test accuracy, over all architectures that differ (of a slow predictor over some of them,
    which the table says) and over the best tenth of those. Labels are of random architectures, or, iteratively, half of
    those that the predictor rates best so far, from the same start. Each measurement is a line of `out`/taus.csv; those
    that are there are not done again.

    Args:
        table: "nasbench201" or "nasbench101", in the folder LIGHTNING_NAS_DATA.
        out: Folder for the results.
        seeds: Repetitions, seeds 0, 1, ...
        labels: Numbers of labels, at least 5; None for 20, 50, 100, 200 and 500.
        learners: Names of encoders with predictors; None for all.
        datasets: Data sets of the table; None for the first.
        iterative: Whether iterative selection is measured too.
        processes: Processes that share the work; 1 for this one.
    """
    counts, names = labels or [20, 50, 100, 200, 500], learners or list(LEARNERS)
    sets = _checked(table, counts, names, datasets, seeds)
    file = require_writable(Path(out)) / "taus.csv"
    known = {tuple(str(row[name]) for name in FIELDS[:6]) for row in read_taus(file)}
    jobs = [
        (table, name, dataset, count, turns, seed)
        for seed in range(seeds)
        for count in counts
        for dataset in sets
        for turns in (False, True)[: 1 + iterative]
        for name in names
        if not turns or LEARNERS[name].iterative
    ]
    calls = [partial(measure, *job) for job in jobs if tuple(map(str, job)) not in known]
    run_all(calls, file, FIELDS, processes)
    rows = [row for row in read_taus(file) if row["table"] == table and row["learner"] in names]
    write_taus(rows, file.with_name(f"taus-{table}"))


def _checked(
    table: str, counts: Sequence[int], names: Sequence[str], datasets: Sequence[str] | None, seeds: int
) -> list[str]:
    """The data sets."""
    unknown = sorted(set(names) - set(LEARNERS))
    if unknown or seeds < 1:
        raise ValueError(f"learners {unknown}, seeds={seeds}: known are {', '.join(LEARNERS)}, at least one seed")
    of = world(table)
    if min(counts) < 5 or max(counts) > len(of.members()):
        raise ValueError(f"labels={list(counts)}: give 5 to {len(of.members())}, as many as {table} has that differ")
    if set(datasets or ()) - set(of.table.datasets):
        raise ValueError(f"datasets={datasets}: {table} has {', '.join(of.table.datasets)}")
    return list(datasets or of.table.datasets[:1])


@cache
def _ground(table: str, dataset: str) -> tuple[Sequence[Genotype], Floats]:
    """All architectures that differ, and their mean test accuracies."""
    of = world(table)
    members = of.members()
    return members, np.array([of.test(genotype, dataset) for genotype in members])


@cache
def _encoder(table: str, name: str) -> Encoder:
    """An encoder for all measurements of a process: what it has encoded, and its pretraining, it keeps."""
    return LEARNERS[name].encoder(world(table).space)


def measure(table: str, name: str, dataset: str, labels: int, iterative: bool, seed: int) -> dict[str, Any]:
    """One measurement as a row of the file."""
    torch.set_num_threads(1)
    of, encoder = world(table), _encoder(table, name)
    predictor = LEARNERS[name].predictor(encoder)
    members, test = _ground(table, dataset)
    encoder(members)
    start = time.process_time()
    chosen = _chosen(of, encoder, predictor, dataset, labels, seed) if iterative else _drawn(of, dataset, labels, seed)
    known, scores = chosen
    predictor.fit(encoder(known), torch.tensor(scores, dtype=torch.float64), seed)
    rows = range(len(members))
    if (most := LEARNERS[name].at_most) is not None and most < len(members):
        rows = sorted(random.Random(seed).sample(rows, most))  # type: ignore[assignment]  # noqa: S311
    with torch.no_grad():
        parts = [
            predictor.predict(encoder([members[k] for k in rows[i : i + 2000]])).mean for i in range(0, len(rows), 2000)
        ]
    predicted, truth = torch.cat(parts).double().numpy(), test[list(rows)]
    best = truth >= np.quantile(truth, 0.9)
    measured = {
        "ranked": len(rows),
        "tau": tau_b(predicted, truth),
        "tau_best": tau_b(predicted[best], truth[best]),
        "top": round(float(truth[np.argsort(-predicted, kind="stable")[:10]].max()), 3),
        "seconds": round(time.process_time() - start, 2),
    }
    row = {"table": table, "learner": name, "dataset": dataset, "labels": labels, "iterative": iterative, "seed": seed}
    return row | measured


def tau_b(predicted: Floats, truth: Floats) -> float:
    """Kendall's tau-b; 0 for a prediction that is the same for all, which ranks nothing.

    Args:
        predicted: ``(n,)``.
        truth: ``(n,)``.

    Example:
        >>> tau_b(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])), tau_b(np.zeros(3), np.arange(3.0))
        (0.3333, 0.0)
    """
    found = float(kendalltau(predicted, truth).statistic)
    return 0.0 if np.isnan(found) else round(found, 4)


def _drawn(of: World, dataset: str, labels: int, seed: int) -> tuple[Sequence[Genotype], list[float]]:
    """Random architectures with their labels."""
    members, _ = _ground(of.name, dataset)
    chosen = random.Random(seed).sample(members, labels)  # noqa: S311
    oracle = of.oracle(dataset, seed)
    return chosen, [oracle(Trial(k, genotype)).score for k, genotype in enumerate(chosen)]


def _chosen(
    of: World, encoder: Encoder, predictor: Predictor, dataset: str, labels: int, seed: int
) -> tuple[Sequence[Genotype], list[float]]:
    """As many: the first fifth of those of `_drawn`, then in four turns half of those that are rated best."""
    part = labels // 5
    found, scores = _drawn(of, dataset, labels - 4 * part, seed)
    genotypes, oracle = list(found), of.oracle(dataset, seed)
    search = PredictorSearch(encoder, predictor, proposal=WholeSpace(), choice=TopAndRandom(), seed=seed)
    for turn in range(1, 5):
        search.turn, search.labels = turn, list(zip(genotypes, scores, strict=True))
        search.tried = set(map(search.key, genotypes))
        new = search.chosen(part)
        scores += [oracle(Trial(len(genotypes) + k, genotype)).score for k, genotype in enumerate(new)]
        genotypes += new
    return genotypes, scores
