"""The table and the picture of the rank correlations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightning_nas.label_study.rows import read_rows
from lightning_nas.reports import write_report

__all__ = ["read_taus", "write_taus"]

Rows = Sequence[Mapping[str, Any]]


def read_taus(file: Path) -> list[dict[str, Any]]:
    """The measurements in a file."""
    numbers = dict.fromkeys(("tau", "tau_best", "top", "seconds"), float)
    return read_rows(file, labels=int, seed=int, ranked=int, iterative=lambda text: text == "True", **numbers)


def write_taus(rows: Rows, stem: Path) -> None:
    """Write and print the tables of the correlations, their figures and their picture."""
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    counts, whole = sorted({row["labels"] for row in rows}), max(row["ranked"] for row in rows)
    lines = [
        f"Kendall tau-b of the prediction with the mean test accuracy over {whole}"
        " architectures (over fewer where a learner's name says so), mean ± standard deviation over seeds, after so"
        " many labels; in brackets over the best tenth of the architectures; then the best test accuracy among the ten"
        " that are predicted best.",
    ]
    figures: list[dict[str, Any]] = []
    for dataset in datasets:
        for iterative in sorted({row["iterative"] for row in rows}):
            own = [row for row in rows if row["dataset"] == dataset and row["iterative"] == iterative]
            how = "labels half of those rated best so far" if iterative else "labels of random architectures"
            lines += ["", f"**{dataset}, {how}**", "",
                      "| learner | " + " | ".join(f"{count} labels" for count in counts)
                      + f" | best of ten, {counts[-1]} | seeds | s |", "|---" * (len(counts) + 4) + "|"]  # fmt: skip
            summary = [_summary(own, name, counts) for name in dict.fromkeys(row["learner"] for row in own)]
            for row in sorted(summary, key=lambda row: -np.nan_to_num(row["tau"][-1])):
                cells = [
                    f"{tau:.3f} ± {deviation:.3f} ({best:.2f})"
                    for tau, deviation, best in zip(row["tau"], row["deviation"], row["tau_best"], strict=True)
                ]
                fewer = f" (of {row['ranked']})" if row["ranked"] < whole else ""
                lines.append(
                    f"| {row['learner']}{fewer} | {' | '.join(cells)} | {row['top'][-1]:.2f} | {row['seeds']}"
                    f" | {row['seconds'][-1]:.1f} |"
                )
                figures.append(row | {"dataset": dataset, "iterative": iterative})
    write_report(stem, lines, {"labels": counts, "rows": figures}, _picture(figures, counts))


def _summary(rows: Rows, name: str, counts: Sequence[int]) -> dict[str, Any]:
    """Means of a learner for each number of labels; NaN where there is none."""
    own = [[row for row in rows if row["learner"] == name and row["labels"] == count] for count in counts]
    figures: dict[str, Any] = {"learner": name, "seeds": max(map(len, own))}
    figures["ranked"] = min(row["ranked"] for part in own for row in part)
    for key in ("tau", "tau_best", "top", "seconds"):
        figures[key] = [float(np.mean([row[key] for row in part])) if part else float("nan") for part in own]
    figures["deviation"] = [float(np.std([row["tau"] for row in part])) if part else float("nan") for part in own]
    return figures


def _picture(figures: Rows, counts: Sequence[int]) -> Figure:
    """Tau over the number of labels."""
    datasets = list(dict.fromkeys(row["dataset"] for row in figures))
    figure = Figure(figsize=(7 * len(datasets), 5), layout="constrained")
    FigureCanvasAgg(figure)
    names = list(dict.fromkeys(row["learner"] for row in figures))
    for axes, dataset in zip(figure.subplots(1, len(datasets), squeeze=False)[0], datasets, strict=True):
        for row in (row for row in figures if row["dataset"] == dataset):
            color = f"C{names.index(row['learner']) % 10}"
            line = ":" if row["iterative"] else ("-", "--")[names.index(row["learner"]) // 10 % 2]
            label = None if row["iterative"] else row["learner"]
            axes.plot(counts, row["tau"], marker="o", markersize=3, color=color, linestyle=line, label=label)
        axes.set_xscale("log")
        axes.set_title(f"{dataset} (dotted: iterative selection)")
        axes.set_xlabel("labels")
        axes.set_ylabel("Kendall tau over the whole space")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=7, ncols=2)
    return figure
