"""The published comparison of searchers on NAS-Bench-201, repeated: many runs of a fixed simulated time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.progress import track

from lightning_nas.benchmarks import NASBench201
from lightning_nas.oracles import TableOracle
from lightning_nas.query import BOHB, Processes, RandomSearch, RegularizedEvolution, Reinforce, Searcher
from lightning_nas.reports import require_writable, write_report
from lightning_nas.reports.regret import held

__all__ = ["CONTESTANTS", "PUBLISHED", "Run", "run_protocol", "simulate"]

CONTESTANTS: dict[str, Callable[[int, bool], Searcher]] = {
    "REA": lambda seed, curves: RegularizedEvolution(
        population=10, sample=3, replace=True, mutate="nasbench201", budget=12, seed=seed
    ),
    "random": lambda seed, curves: RandomSearch(budget=12, seed=seed),
    "REINFORCE": lambda seed, curves: Reinforce(lr=0.01, budget=12, seed=seed),
    "REINFORCE, lr 0.5": lambda seed, curves: Reinforce(lr=0.5, budget=12, seed=seed),
    "BOHB": lambda seed, curves: BOHB(
        min_budget=1 if curves else 12, max_budget=12, samples=4, random_fraction=0.0, min_bandwidth=0.3, seed=seed
    ),
}
"""Name -> the searcher in the published setting, from a seed and whether the table has the curve of 12 epochs.

With it BOHB has the published budgets of 1.33, 4 and 12 epochs; without, that of 12 alone.
"""

PUBLISHED = {
    "REA": ((93.92, 0.30), (71.84, 0.99), (45.54, 1.03)),
    "random": ((93.70, 0.36), (71.04, 1.07), (44.57, 1.25)),
    "REINFORCE": ((93.85, 0.37), (71.71, 1.09), (45.24, 1.18)),
    "BOHB": ((93.61, 0.52), (70.85, 1.28), (44.42, 1.49)),
}
"""Name -> test accuracy in percent, mean and deviation over 500 runs, on the three data sets (Dong and Yang, 2020)."""


@dataclass(frozen=True)
class Run:
    """One search.

    Args:
        val: Validation accuracy that chose the architecture (12 epochs).
        test: Its mean test accuracy after 200 epochs.
        trials: Trials within the time.
        incumbents: Pairs of simulated seconds and mean test accuracy of the best so far.
        seconds: Real seconds in asking, answering and telling.
        budget: Simulated seconds that it had.
    """

    val: float
    test: float
    trials: int
    incumbents: tuple[tuple[float, float], ...]
    seconds: tuple[float, float, float]
    budget: float


def simulate(searcher: Searcher, oracle: TableOracle, budget: float) -> Run:
    """Search until the next trial would exceed the simulated time, which is not counted any more.

    As in the published scripts each trial costs its whole training, also one that continues another.

    Args:
        searcher: The searcher.
        oracle: The table.
        budget: Simulated seconds.
    """
    spent, trials, incumbents = 0.0, 0, []
    clocks = [0.0, 0.0, 0.0]
    while True:
        start = time.perf_counter()
        (trial,) = searcher.ask()
        asked = time.perf_counter()
        result = oracle(trial)
        answered = time.perf_counter()
        if spent + result.cost > budget:
            break
        before = searcher.best
        searcher.tell([result])
        told = time.perf_counter()
        clocks = [clocks[0] + asked - start, clocks[1] + answered - asked, clocks[2] + told - answered]
        spent, trials = spent + result.cost, trials + 1
        if searcher.best is not before:
            incumbents.append((spent, _test(oracle, searcher)))
    best = searcher.best
    if best is None:
        raise ValueError(f"{budget} simulated seconds are not enough for one trial")
    return Run(best.score, incumbents[-1][1], trials, tuple(incumbents), (clocks[0], clocks[1], clocks[2]), budget)


def _test(oracle: TableOracle, searcher: Searcher) -> float:
    """Mean test accuracy of the best so far, trained in full."""
    record = oracle.benchmark.query(searcher.genotype(), oracle.dataset)
    return float("nan") if record.test is None else record.test


def _runs(name: str, dataset: str, seeds: Iterable[int], path: str | None, budget: float) -> list[Run]:
    """Runs of a method in this process."""
    table, make = _table(path), CONTESTANTS[name]
    curves = table.has_curve(dataset, 12)
    return [simulate(make(seed, curves), TableOracle(table, dataset, seed=seed), budget) for seed in seeds]


_TABLES: dict[str | None, NASBench201] = {}


def _table(path: str | None) -> NASBench201:
    """The table, read once a process; the training of 12 epochs answers for fewer too."""
    if path not in _TABLES:
        _TABLES[path] = NASBench201(path, training=12)
    return _TABLES[path]


def _relative_cost(table: NASBench201, dataset: str) -> float:
    """How many times longer a training takes than on CIFAR-10."""
    genotype = next(table.genotypes())
    return table.query(genotype, dataset, 12).seconds / table.query(genotype, None, 12).seconds


def run_protocol(
    table: str | None = None,
    out: str = "runs/nasbench201",
    runs: int = 500,
    seconds: float = 12_000,
    methods: list[str] | None = None,
    own_seconds: bool = False,
    processes: int = 2,
) -> None:
    """Repeat the published comparison on NAS-Bench-201 and write a table and a picture beside the published figures.

    Each method searches by the validation accuracy of 12 epochs for a simulated time, on each data set; what counts is
    the mean test accuracy, after 200 epochs, of the architecture with the best validation accuracy. BOHB has its
    published budgets of 1.33, 4 and 12 epochs where the table has the curve of 12 epochs, and else that of 12 alone.

    Args:
        table: Table of NAS-Bench-201, see `NASBench201`; None for the folder that LIGHTNING_NAS_DATA names.
        out: Folder for the results.
        runs: Runs of each method on each data set.
        seconds: Simulated seconds of a run.
        methods: Names of methods; None for the four of the published table.
        own_seconds: Whether the time is counted in seconds of each data set's own training; otherwise in seconds of
            CIFAR-10's, so that all data sets get as many trials.
        processes: Processes that share the runs; 1 for this one.
    """
    unknown = set(methods or ()) - set(CONTESTANTS)
    if unknown or runs < 1 or processes < 1:
        raise ValueError(
            f"methods={methods}, runs={runs}, processes={processes}: known methods are {', '.join(CONTESTANTS)},"
            " numbers must be at least 1"
        )
    folder, start = require_writable(Path(out)), time.perf_counter()
    datasets = _table(table).datasets
    jobs = [(name, dataset) for name in methods or PUBLISHED for dataset in datasets]
    chunks = [(job, seeds) for job in jobs for seeds in np.array_split(np.arange(runs), -(-runs // 50))]
    found: dict[tuple[str, str], list[Run]] = {job: [] for job in jobs}
    setting: dict[str, Any] = {"runs": runs, "simulated_seconds": seconds, "own_seconds": own_seconds}
    curves = [dataset for dataset in datasets if _table(table).has_curve(dataset, 12)]
    setting["bohb"] = f"1.33, 4 and 12 epochs on {', '.join(curves) or 'none'}, else 12 alone"
    scale = {dataset: 1.0 if own_seconds else _relative_cost(_table(table), dataset) for dataset in datasets}
    calls = [(job, partial(_runs, *job, seeds.tolist(), table, seconds * scale[job[1]])) for job, seeds in chunks]
    with Processes(processes) if processes > 1 else nullcontext() as pool:
        started = [(job, call if pool is None else pool.submit(call).result) for job, call in calls]
        for job, wait in track(started, description=f"{runs} runs of each method"):
            found[job] += wait()
    _report(found, folder, setting | {"seconds": time.perf_counter() - start})


def _report(found: dict[tuple[str, str], list[Run]], folder: Path, setting: dict[str, Any]) -> None:
    """Write and print the results."""
    lines = [
        f"NAS-Bench-201, {setting['simulated_seconds']:.0f} simulated seconds of"
        f" {'each data set' if setting['own_seconds'] else 'CIFAR-10'}, {setting['runs']} runs; test accuracy in"
        " percent, mean ± standard deviation; validation accuracy after 12 epochs."
        + (f" Budgets of BOHB: {setting['bohb']}." if any(name == "BOHB" for name, _ in found) else ""),
        "",
        "| method | data | test | published | difference | validation | trials | ms a run: ask, answer, tell |",
        "|---" * 8 + "|",
    ]
    rows = []
    for (name, dataset), runs in found.items():
        test, val = np.array([run.test for run in runs]), np.array([run.val for run in runs])
        mean, deviation = PUBLISHED[name.split(",")[0]][("cifar10", "cifar100", "ImageNet16-120").index(dataset)]
        parts = 1000 * np.mean([run.seconds for run in runs], axis=0)
        trials = float(np.mean([run.trials for run in runs]))
        lines.append(
            f"| {name} | {dataset} | {test.mean():.2f} ± {test.std():.2f} | {mean:.2f} ± {deviation:.2f}"
            f" | {test.mean() - mean:+.2f} | {val.mean():.2f} ± {val.std():.2f} | {trials:.1f}"
            f" | {parts[0]:.1f}, {parts[1]:.1f}, {parts[2]:.1f} |"
        )
        rows.append(
            {"method": name, "dataset": dataset, "test": test.mean(), "deviation": test.std(), "trials": trials}
        )
    lines += ["", f"{setting['seconds']:.0f} s in all"]
    write_report(folder / "protocol", lines, {"setting": setting, "rows": rows}, _picture(found))


def _picture(found: dict[tuple[str, str], list[Run]]) -> Figure:
    """Mean test accuracy of the best so far over simulated time."""
    datasets = list(dict.fromkeys(dataset for _, dataset in found))
    figure = Figure(figsize=(5 * len(datasets), 4), layout="constrained")
    FigureCanvasAgg(figure)
    at = np.linspace(0.05, 1.0, 100)
    for axes, dataset in zip(figure.subplots(1, len(datasets), squeeze=False)[0], datasets, strict=True):
        for name, runs in ((name, runs) for (name, data), runs in found.items() if data == dataset):
            axes.plot(at, np.mean([_curve(run, at) for run in runs], axis=0), label=name)
        axes.set_title(dataset)
        axes.set_xlabel("share of the simulated time")
        axes.set_ylabel("test accuracy of the best so far (%)")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    return figure


def _curve(run: Run, at: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The accuracy of the best so far at shares of the time; before the first trial that of the first."""
    when, value = np.array(run.incumbents).T
    return held(when, value, np.maximum(at * run.budget, when[0]))
