"""A trained supernet as an oracle."""

from __future__ import annotations

import time
from pathlib import Path

import lightning as L
import torch
from torch import Tensor, nn

from lightning_nas.oracles.batches import first_batches, needed, seeded
from lightning_nas.query.trial import Oracle, Result, Trial
from lightning_nas.spaces import Space, get_space
from lightning_nas.supernet import build_supernet

__all__ = ["SupernetOracle", "load_supernet"]


def load_supernet(checkpoint: str | Path, space: Space) -> nn.Module:
    """The supernet of a search's checkpoint.

    Args:
        checkpoint: The file that the Trainer of a differentiable search wrote.
        space: The space of that search.

    Raises:
        ValueError: If the checkpoint is of another space, or not of a search with the space's own supernet.
    """
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    if state.get("space") != space.name:
        raise ValueError(f"{checkpoint} is of space {state.get('space')!r}, not of {space.name!r}")
    options = state.get("hyper_parameters", {})
    sizes = {name: options[name] for name in ("channels", "cells", "num_classes", "in_channels") if name in options}
    prefix = "supernet."
    weights = {name.removeprefix(prefix): w for name, w in state["state_dict"].items() if name.startswith(prefix)}
    supernet = build_supernet(space, **sizes, partial=options.get("partial", 1))
    try:
        supernet.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{checkpoint} has no supernet as the space builds it ({reason}); pass supernet=") from None
    return supernet


class SupernetOracle(Oracle):
    """Accuracy of a genotype with the weights of a supernet, on the same validation batches for all.

    The supernet normalises by the statistics of each batch. A `FewShotSupernet` asks the part in charge.

    Reference: Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020.

    Args:
        space: Name of a search space, or a space.
        data: Data module whose validation data is used.
        supernet: The supernet.
        checkpoint: Or the checkpoint of a search, whose supernet is loaded.
        batches: Validation batches; ``None`` for all.

    Raises:
        ValueError: Unless exactly one of `supernet` and `checkpoint` is given.

    Example:
        >>> import random
        >>> from lightning_nas.data import DigitsDataModule
        >>> space = get_space("nasbench201")
        >>> oracle = SupernetOracle(space, DigitsDataModule(), build_supernet(space, 4, 1, in_channels=1), batches=1)
        >>> result = oracle(Trial(0, space.sample(random.Random(0))))
        >>> 0 <= result.score <= 100, result.source
        (True, 'supernet')
    """

    def __init__(
        self,
        space: str | Space,
        data: L.LightningDataModule | None = None,
        supernet: nn.Module | None = None,
        checkpoint: str | Path | None = None,
        batches: int | None = None,
    ) -> None:
        if (supernet is None) == (checkpoint is None):
            raise ValueError("give a supernet or the checkpoint of a search, and not both")
        self.space, self.data, self.count = get_space(space), data, batches
        self.supernet = load_supernet(checkpoint, self.space) if supernet is None and checkpoint else supernet
        self._batches: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def __call__(self, trial: Trial) -> Result:
        """Validation accuracy in percent; the cost is the time it takes."""
        if self.supernet is None:
            raise ValueError("there is no supernet")
        start = time.perf_counter()
        if not self._batches:
            self._batches = first_batches(needed(self.data), self.count)
        training = self.supernet.training
        self.supernet.eval()
        try:
            sample = self.space.vertex(trial.genotype)
            with seeded(0):  # for candidates that draw
                right = sum(float((self.supernet(x, sample).argmax(-1) == y).sum()) for x, y in self._batches)
        finally:
            self.supernet.train(training)
        count = sum(len(y) for _, y in self._batches)
        return Result(trial, 100 * right / count, time.perf_counter() - start, source="supernet")
