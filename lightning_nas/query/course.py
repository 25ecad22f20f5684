"""How a search went, trial by trial."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from lightning_nas.query.trial import Result

__all__ = ["course"]


def course(results: Iterable[Result], worth: Callable[[Result], tuple[float, ...]]) -> dict[str, list[float]]:
    """The results by column: ``score``, ``cost``, ``epochs``, and the score of the ``best`` so far.

    Scores without training have another scale than accuracies: where there are both, they are NaN.

    Args:
        results: In the order of the trials.
        worth: What makes one better than another, a searcher's `Searcher.worth`.
    """
    kept = list(results)
    trained = {result.source != "zero-cost" for result in kept if result.ok}
    scores = [result.score if len(trained) < 2 or result.source != "zero-cost" else math.nan for result in kept]
    best: list[float] = []
    top: Result | None = None
    for result, score in zip(kept, scores, strict=True):
        if not math.isnan(score) and (top is None or worth(result) > worth(top)):
            top = result
        best.append(math.nan if top is None else top.score)
    costs, epochs = [result.cost for result in kept], [result.epochs for result in kept]
    return {"score": scores, "cost": costs, "epochs": epochs, "best": best}
