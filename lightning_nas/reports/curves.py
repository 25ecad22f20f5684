"""Curves of a run over its epochs."""

from __future__ import annotations

import csv
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightning_nas.reports.files import write_whole

__all__ = ["plot_metrics"]


def plot_metrics(csv_path: Path, out: Path) -> Path | None:
    """Draw losses and accuracies over the epochs from the ``metrics.csv`` of Lightning's CSVLogger.

    Args:
        csv_path: The file of the logger.
        out: Where to write the picture (PNG).

    Returns:
        The path of the picture, or ``None`` where the file is not there or holds no losses and accuracies.
    """
    curves = _read(csv_path)
    panels = [(kind, {n: c for n, c in curves.items() if n.endswith(f"/{kind}")}) for kind in ("loss", "acc")]
    panels = [(kind, chosen) for kind, chosen in panels if chosen]
    if not panels:
        return None
    figure = Figure(figsize=(4.5 * len(panels), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (kind, chosen) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name, points in chosen.items():
            axes.plot(*zip(*points, strict=True), marker="." if len(points) < 30 else None, label=name)
        axes.set_xlabel("epoch")
        axes.set_ylabel("accuracy" if kind == "acc" else kind)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    return write_whole(out, lambda path: figure.savefig(path, dpi=150))


def _read(csv_path: Path) -> dict[str, list[tuple[int, float]]]:
    """Name of each loss and accuracy -> its ``(epoch, value)`` points."""
    curves: dict[str, list[tuple[int, float]]] = {}
    if not csv_path.is_file():
        return curves
    with csv_path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and row.get("epoch") and name.endswith(("/loss", "/acc")):
                    curves.setdefault(name, []).append((int(float(row["epoch"])), float(value)))
    return curves
