"""Searches by queries compared: recipes, several seeds, the same budget for all."""

from __future__ import annotations

import json
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.progress import track

from lightning_nas.query import Result
from lightning_nas.query.course import course
from lightning_nas.query_runs import QueryCLI, is_query
from lightning_nas.quiet import quiet
from lightning_nas.reports import require_writable, write_report

__all__ = ["compare"]

Search = tuple[Result, list[Result], list[float]]
"""The best result of a search, all in the order of their trials, and the best score so far after each."""

_SILENT = {"class_path": "lightning_nas.callbacks.GenotypeLogger", "init_args": {"terminal": False}}


def compare(
    recipes: list[str], out: str = "runs/compare", epochs: float = 100, seeds: int = 3, test: str | None = "test/acc"
) -> None:
    """Run recipes of searches by real training with several seeds until each has trained so many epochs.

    Writes a table and a picture. The architecture is chosen by validation, the table reports its test too. A comparison
    that was stopped goes on where it was.

    Args:
        recipes: Files of recipes with a QuerySearch over a TrainingOracle.
        out: Folder for histories, checkpoints and results.
        epochs: Epochs of training in each search; the trial that reaches them is the last, or one of 20 for each epoch
            and 1,000 more, where trials fail.
        seeds: Searches of each recipe.
        test: Metric of a test that follows each training, for the report alone; null for none.
    """
    wrong = [path for path in recipes if not is_query(["--config", path])]
    if not recipes or wrong or seeds < 1 or epochs <= 0:
        raise ValueError(
            f"recipes={wrong or recipes}, seeds={seeds}, epochs={epochs}: give recipes with a QuerySearch, at least"
            " one, and positive numbers"
        )
    folder = require_writable(Path(out))
    jobs = [(path, seed) for seed in range(seeds) for path in recipes]
    found: dict[str, list[Search]] = {Path(path).stem: [] for path in recipes}
    with quiet():
        for path, seed in track(jobs, description=f"{len(jobs)} searches"):
            found[Path(path).stem].append(_run(path, seed, folder, epochs, test))
    _report(found, folder, {"epochs": epochs, "seeds": seeds})


def _run(path: str, seed: int, folder: Path, epochs: float, test: str | None) -> Search:
    """One search.

    Raises:
        ValueError: If no trial succeeded.
        NothingSucceededError: If many trials failed, and no other was.
    """
    name = folder / f"{Path(path).stem}-{seed}"
    options = {
        "seed_everything": seed,
        "model.history": f"{name}.sqlite",
        "model.trials": 1_000 + ceil(20 * epochs),  # an end for one whose trials fail, which cost no epochs
        "model.max_epochs_trained": epochs,
        "model.searcher.init_args.seed": seed,
        "model.oracle.init_args.seed": seed,
        "model.oracle.init_args.folder": name,
        "model.oracle.init_args.test": "null" if test is None else test,
        "trainer.logger": "false",
        "trainer.callbacks": json.dumps([_SILENT]),
        "trainer.enable_checkpointing": "false",
        "trainer.enable_progress_bar": "false",
    }
    cli = QueryCLI(["--config", path, *(f"--{option}={value}" for option, value in options.items())])
    cli.trainer.fit(cli.model)
    told, best = cli.model.told, cli.model.searcher.best
    results = [result for result in cli.model.evaluator.history if result.trial.number < told]
    if best is None:
        raise ValueError(f"no trial succeeded; the first failed with {results[0].error if results else 'nothing'}")
    return best, results, course(results, cli.model.searcher.worth)["best"]


def _report(found: dict[str, list[Search]], folder: Path, setting: dict[str, Any]) -> None:
    """Write and print the results."""
    lines = [
        f"{setting['epochs']:g} epochs of training in each search, {setting['seeds']} seeds; percent, mean ± standard"
        " deviation over the seeds. Chosen by validation.",
        "",
        "| recipe | validation | test | trials | trained in full | failed | seconds |",
        "|---" * 7 + "|",
    ]
    rows = []
    for name, searches in found.items():
        best, runs = [best for best, _, _ in searches], [results for _, results, _ in searches]
        full = [sum(r.trial.budget in (None, b.trial.budget) for r in run) for run, b in zip(runs, best, strict=True)]
        columns = {
            "validation": [result.score for result in best],
            "test": [np.nan if result.test is None else result.test for result in best],
            "trials": [float(len(results)) for results in runs],
            "trained in full": [float(count) for count in full],
            "failed": [float(sum(not result.ok for result in results)) for results in runs],
            "seconds": [sum(result.cost for result in results) for results in runs],
        }
        means = {key: (float(np.mean(values)), float(np.std(values))) for key, values in columns.items()}
        lines.append(f"| {name} | " + " | ".join(f"{mean:.2f} ± {std:.2f}" for mean, std in means.values()) + " |")
        rows.append({"recipe": name} | means)
    write_report(folder / "compare", lines, {"setting": setting, "rows": rows}, _picture(found))


def _picture(found: dict[str, list[Search]]) -> Figure:
    """The best so far (for most searchers that at the largest budget) over the epochs spent, a line for each seed."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for index, (name, runs) in enumerate(found.items()):
        for number, (_, results, best) in enumerate(runs):
            spent = np.cumsum([result.epochs for result in results])
            axes.step(spent, best, where="post", color=f"C{index}", alpha=0.7, label=None if number else name)
    axes.set_xlabel("epochs of training")
    axes.set_ylabel("best validation accuracy so far (%)")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure
