"""When a search by queries ends, and the batches that it counts by."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lightning_nas.data.stateful import StatefulLoader
from lightning_nas.query import Result, Searcher

__all__ = ["Limits", "NothingSucceededError", "Turns", "complain"]

_LOG = logging.getLogger(__name__)
_SHOWN = 5
"""Failed trials that are printed; all are in the history."""


class NothingSucceededError(RuntimeError):
    """Every trial of a search has failed so far, and there were many."""


@dataclass(frozen=True)
class Limits:
    """What a search may spend; ``None`` for no limit.

    Args:
        trials: Trials in all.
        cost: Seconds.
        epochs: Epochs of training.

    Raises:
        ValueError: If a limit is not positive.

    Example:
        >>> Limits(20, cost=60).reached(7, {"cost": 61.5, "epochs": 3.0})
        '62 s are spent'
    """

    trials: int
    cost: float | None = None
    epochs: float | None = None

    def __post_init__(self) -> None:
        if any(value is not None and value <= 0 for value in vars(self).values()):
            raise ValueError(
                f"trials={self.trials}, max_cost={self.cost}, max_epochs_trained={self.epochs}: each must be positive"
            )

    def reached(self, told: int, spent: Mapping[str, float]) -> str | None:
        """Which limit is reached, if one is."""
        if told >= self.trials:
            return f"{told} trials are told"
        if self.cost is not None and spent["cost"] >= self.cost:
            return f"{spent['cost']:.0f} s are spent"
        if self.epochs is not None and spent["epochs"] >= self.epochs:
            return f"{spent['epochs']:.0f} epochs are spent"
        return None


def complain(result: Result, searcher: Searcher, told: int, most: int) -> None:
    """Say that a trial has failed, and end a search in which all do.

    Args:
        result: The result, which the searcher was told.
        searcher: The searcher.
        told: Trials that it was told.
        most: Trials after which there must be one that succeeded.

    Raises:
        NothingSucceededError: If so many have failed, and no other.
    """
    if searcher.failures <= _SHOWN:
        more = "; further failures are not shown" if searcher.failures == _SHOWN else ""
        _LOG.warning("trial %d failed: %s%s", result.trial.number, result.error, more)
    if searcher.best is None and told >= most:
        raise NothingSucceededError(
            f"all of the first {told} trials failed, the last one with: {result.error}. Mend that, or raise"
            " max_failures"
        )


class Turns(StatefulLoader[int]):
    """The numbers of the trials, from any place.

    Args:
        trials: How many in an epoch.
    """

    def __init__(self, trials: int) -> None:
        super().__init__()
        self.trials = trials

    def __len__(self) -> int:
        return self.trials

    def read(self, epoch: int, start: int = 0) -> Iterator[int]:
        """The numbers from `start` on."""
        return iter(range(start, self.trials))

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on where `state_dict` was taken, or at the end of an epoch that has become shorter."""
        place = state_dict.get("position")
        super().load_state_dict(state_dict | ({"position": min(place, self.trials)} if isinstance(place, int) else {}))
