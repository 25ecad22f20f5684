"""Tables and pictures of the study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lightning_nas.label_study.worlds import World
from lightning_nas.reports import write_report
from lightning_nas.reports.regret import held

__all__ = ["at_labels", "savings", "write_race"]

Rows = Sequence[Mapping[str, Any]]


def at_labels(curve: NDArray[np.float64], labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean test accuracy of the best so far when so many labels are spent; NaN before the first.

    Args:
        curve: Rows of labels spent, validation score, test accuracy.
        labels: Numbers of labels.

    Example:
        >>> at_labels(np.array([[1.0, 90.0, 89.0], [5.0, 91.0, 92.0]]), np.array([0.5, 4.0, 5.0])).tolist()
        [nan, 89.0, 92.0]
    """
    return held(curve[:, 0], curve[:, 2], labels + 1e-9)


def write_race(rows: Rows, of: World, labels: int, stem: Path) -> None:
    """Write and print the table of a race, its figures and its picture."""
    datasets, methods = (list(dict.fromkeys(row[key] for row in rows)) for key in ("dataset", "method"))
    marks = sorted({mark for mark in (50, 100, labels) if mark <= labels})
    lines = [
        f"{of.name}: mean test accuracy in percent (all runs of the table) of the architecture with the best label, ±"
        " standard deviation over the runs; a label is the validation accuracy of one run at full training"
        " (of the mean where the table has no single runs). Best test accuracy in the table: "
        + ", ".join(f"{dataset} {of.table.best(dataset)[1]:.2f}" for dataset in datasets) + ".",
    ]  # fmt: skip
    figures: list[dict[str, Any]] = []
    for dataset in datasets:
        lines += ["", f"**{dataset}**", "", "| method | " + " | ".join(f"{mark} labels" for mark in marks)
                  + " | runs | s a run |", "|---" * (len(marks) + 3) + "|"]  # fmt: skip
        summary = [summarise(rows, method, dataset, marks) for method in methods]
        for row in sorted((row for row in summary if row["runs"]), key=lambda row: -row["test"][-1]):
            cells = [f"{m:.2f} ± {d:.2f}" for m, d in zip(row["test"], row["deviation"], strict=True)]
            lines.append(f"| {row['method']} | {' | '.join(cells)} | {row['runs']} | {row['seconds']:.1f} |")
            figures.append(row)
    saved = [row for dataset in datasets for row in savings(rows, dataset, labels)]
    lines += _savings_lines(saved)
    write_report(stem, lines, {"labels": marks, "rows": figures, "savings": saved}, _picture(rows, of, labels))


def _savings_lines(saved: Rows) -> list[str]:
    """The table of `savings`."""
    if not saved:
        return []
    lines = [
        "",
        "Full trainings (epochs by those of a full training) until the mean test accuracy reaches that of the ranker"
        " that has all proposals trained in full:",
        "",
        "| data | ranker's labels | test | method | its labels | times fewer |",
        "|---" * 6 + "|",
    ]
    for row in saved:
        needed, labels = row["needed"], row["labels"]
        figures = "not reached | -" if needed is None else f"{needed:.1f} | {labels / needed:.1f}"
        lines.append(f"| {row['dataset']} | {labels} | {row['test']:.2f} | {row['method']} | {figures} |")
    return lines


def savings(rows: Rows, dataset: str, labels: int) -> list[dict[str, Any]]:
    """What RANK-NOSH spends until its mean test accuracy is that of its ranker without halving.

    Args:
        rows: The runs.
        dataset: Data set of the table.
        labels: Full trainings of a run.

    Returns:
        For some numbers of the ranker's labels and each form of RANK-NOSH: the ranker's mean test accuracy then, and
        the full trainings needed for it, ``None`` if it is not reached.
    """
    at = np.linspace(0, labels, 20 * labels + 1)
    means = {}
    for method in dict.fromkeys(row["method"] for row in rows if row["method"].startswith(("ranker", "RANK-NOSH"))):
        own = [row["curve"] for row in rows if row["method"] == method and row["dataset"] == dataset]
        means[method] = np.mean([at_labels(curve, at) for curve in own], axis=0) if own else np.full(len(at), np.nan)
    found = []
    for mark in sorted({m for m in (40, 60, 80, 100, labels) if "ranker" in means and m <= labels}):
        target = float(means["ranker"][20 * mark])
        for method in (name for name in means if name != "ranker"):
            enough = np.flatnonzero(means[method] >= target - 1e-9)
            needed = float(at[enough[0]]) if len(enough) else None
            row = {"dataset": dataset, "labels": mark, "test": target, "method": method, "needed": needed}
            found.append(row)
    return found


def summarise(rows: Rows, method: str, dataset: str, marks: Sequence[float]) -> dict[str, Any]:
    """Mean and deviation of a method after some numbers of labels."""
    own = [row for row in rows if row["method"] == method and row["dataset"] == dataset and len(row["curve"])]
    test = np.array([at_labels(row["curve"], np.array(marks, dtype=float)) for row in own]).reshape(-1, len(marks))
    figures = {"test": np.nanmean(test, axis=0), "deviation": np.nanstd(test, axis=0)} if own else {}
    seconds = float(np.mean([row["seconds"] for row in own])) if own else float("nan")
    return {"method": method, "dataset": dataset, "runs": len(own), "seconds": seconds} | figures


def _picture(rows: Rows, of: World, labels: int) -> Figure:
    """Mean regret in test accuracy over labels."""
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    figure = Figure(figsize=(5 * len(datasets), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    at = np.arange(1.0, labels + 1)
    for axes, dataset in zip(figure.subplots(1, len(datasets), squeeze=False)[0], datasets, strict=True):
        optimum = of.table.best(dataset)[1]
        for k, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
            own = [r["curve"] for r in rows if r["method"] == method and r["dataset"] == dataset and len(r["curve"])]
            if own:
                mean = np.mean([at_labels(curve, at) for curve in own], axis=0)
                axes.plot(at, optimum - mean, label=method, color=f"C{k % 10}", linestyle=("-", "--")[k // 10 % 2])
        axes.set_yscale("log")
        axes.set_title(dataset)
        axes.set_xlabel("labels (full trainings)")
        axes.set_ylabel("regret in test accuracy (points)")
        axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False, fontsize=7, ncols=2)
    return figure
