"""How a search by queries went: the best so far over what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lightning_nas.reports.files import write_whole

__all__ = ["held", "plot_regret"]


def held(when: NDArray[np.float64], value: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a value that changes now and then is at some times; NaN before it is first known.

    Args:
        when: Ascending times of the changes ``(n,)``.
        value: The values from then on ``(n,)``.
        at: The times ``(m,)``.

    Example:
        >>> held(np.array([1.0, 5.0]), np.array([8.0, 9.0]), np.array([0.0, 4.0, 5.0])).tolist()
        [nan, 8.0, 9.0]
    """
    place = np.searchsorted(when, at, side="right") - 1
    return np.where(place < 0, np.nan, value[np.maximum(place, 0)])


def plot_regret(
    columns: Mapping[str, Sequence[float]], out: Path, optimum: float | None = None, cost_name: str = "seconds"
) -> Path:
    """Draw scores and the best so far, over trials and over cost; the regret too, where the optimum is known.

    Args:
        columns: ``"score"`` (NaN for a trial that failed), ``"best"`` after each trial, ``"cost"`` of each trial.
        out: Where to write the picture (PNG).
        optimum: The best score that there is.
        cost_name: What the cost is counted in.

    Returns:
        The path of the picture.

    Raises:
        ValueError: If the columns have different lengths.
    """
    score, best, cost = (np.asarray(columns[name], dtype=float) for name in ("score", "best", "cost"))
    if not len(score) == len(best) == len(cost):
        raise ValueError(f"columns of different lengths: {len(score)}, {len(best)}, {len(cost)}")
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = (("trial", np.arange(1, len(score) + 1)), (cost_name, np.cumsum(cost)))
    for axes, (name, at) in zip(figure.subplots(1, 2), panels, strict=True):
        if optimum is None:
            axes.plot(at, score, ".", alpha=0.5, label="score")
            axes.step(at, best, where="post", label="best so far")
            axes.set_ylabel("validation score")
        else:
            axes.plot(at, optimum - score, ".", alpha=0.5, label="regret of the trial")
            axes.step(at, optimum - best, where="post", label="regret of the best so far")
            axes.set_yscale("log")
            axes.set_ylabel("regret in validation score")
        axes.set_xlabel(name)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    return write_whole(out, lambda path: figure.savefig(path, dpi=150))
