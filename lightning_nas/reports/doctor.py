"""The health of a search over its epochs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightning_nas.reports.files import write_whole

__all__ = ["plot_health"]

PANELS = {"skips": "skips", "parameter_free": "share without parameters", "entropy": "entropy (nats)"}


def plot_health(report: Mapping[str, Any], out: Path) -> Path | None:
    """Draw skips, operations without parameters, entropy and the dominant eigenvalue over the epochs.

    Args:
        report: What `SearchDoctor.report` gives.
        out: Where to write the picture (PNG).

    Returns:
        The path of the picture, or ``None`` where there is no epoch to draw.
    """
    epochs, history = list(report["epochs"]), report["history"]
    panels = {name: {k: v for k, v in history.items() if k.startswith(f"{name}/")} for name in PANELS}
    panels = {name: curves for name, curves in panels.items() if curves}
    if not epochs or not panels:
        return None
    figure = Figure(figsize=(4.0 * (len(panels) + bool(report["lambda_max"])), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(report["verdict"], fontsize=9, wrap=True)
    columns = list(figure.subplots(1, len(panels) + bool(report["lambda_max"]), squeeze=False)[0])
    for axes, (name, curves) in zip(columns, panels.items(), strict=False):
        for key, values in curves.items():
            axes.plot(epochs, values, marker="." if len(epochs) < 30 else None, label=key.removeprefix(f"{name}/"))
        axes.set_ylabel(PANELS[name])
        axes.legend(frameon=False)
    if report["lambda_max"]:
        columns[-1].plot(report["lambda_epochs"], report["lambda_max"], marker=".", color="black")
        columns[-1].set_ylabel("dominant eigenvalue")
    for axes in columns:
        _finish(axes, report["since"])
    return write_whole(out, lambda path: figure.savefig(path, dpi=150))


def _finish(axes: Axes, since: int | None) -> None:
    axes.set_xlabel("epoch")
    axes.grid(alpha=0.3)
    axes.set_ylim(bottom=0)
    if since is not None:
        axes.axvline(since, color="tab:red", linestyle="--", linewidth=1)
