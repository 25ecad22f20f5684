"""A score of an untrained network as an oracle."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable

import lightning as L
from torch import Tensor, nn

from lightning_nas.arch import Genotype
from lightning_nas.derived import DerivedNetwork
from lightning_nas.oracles.batches import first_batches, needed, seeded
from lightning_nas.query.trial import Oracle, Result, Trial
from lightning_nas.spaces import Space, get_space

__all__ = ["ZeroCostOracle", "ZeroCostScore", "network_seed"]


def network_seed(seed: int, text: str) -> int:
    """A seed that belongs to an architecture, the same wherever and whenever it is built.

    Example:
        >>> network_seed(0, "cell") == network_seed(0, "cell") != network_seed(1, "cell")
        True
    """
    return zlib.crc32(f"{seed}/{text}".encode())


class ZeroCostOracle(Oracle):
    """A function of a network in its initial state and one training batch.

    Reference: Abdelfattah, Mehrotra, Dudziak and Lane, "Zero-Cost Proxies for Lightweight NAS", ICLR 2021.

    Args:
        space: Name of a search space, or a space.
        score: Function from network, pictures ``(N, C, H, W)`` and labels ``(N,)`` to a number that is to be large.
        data: Data module whose first training batch is used.
        channels: Channels of the network's first stage; ``None`` for the published number.
        cells: Its number of cells, or of cells a stage; ``None`` for the published number.
        seed: Seed of the initial weights.

    Example:
        >>> import random
        >>> from lightning_nas.data import DigitsDataModule
        >>> from lightning_nas.flops import count_parameters
        >>> oracle = ZeroCostOracle("nasbench201", lambda net, x, y: count_parameters(net), DigitsDataModule(), 4, 1)
        >>> oracle(Trial(0, oracle.space.sample(random.Random(0)), budget=0)).score > 1000
        True
    """

    def __init__(
        self,
        space: str | Space,
        score: Callable[[nn.Module, Tensor, Tensor], float],
        data: L.LightningDataModule | None = None,
        channels: int | None = None,
        cells: int | None = None,
        seed: int = 0,
    ) -> None:
        self.space, self.score, self.data = get_space(space), score, data
        self.channels, self.cells, self.seed = channels, cells, seed
        self._batch: tuple[Tensor, Tensor] | None = None

    def __call__(self, trial: Trial) -> Result:
        """The score; the cost is the time it takes, and no epochs."""
        start = time.perf_counter()
        if self._batch is None:
            self._batch = first_batches(needed(self.data), 1, "train")[0]
        x, y = self._batch
        classes = int(getattr(self.data, "num_classes", int(y.max()) + 1))
        with seeded(network_seed(self.seed, self.space.format(trial.genotype))):
            network = DerivedNetwork(
                trial.genotype,
                space=self.space,
                channels=self.channels,
                cells=self.cells,
                num_classes=classes,
                in_channels=x.shape[1],
            )
            score = float(self.score(network, x, y))
        return Result(trial, score, time.perf_counter() - start, source="zero-cost")


class ZeroCostScore:
    """A zero-cost oracle as a function from a genotype to its score, for a `ScoreEncoder`.

    Args:
        oracle: The oracle. In a recipe it names a data module of its own, and the recipe has one as well.

    Example:
        >>> import random
        >>> from lightning_nas.data import DigitsDataModule
        >>> from lightning_nas.proxies import naswot
        >>> score = ZeroCostScore(ZeroCostOracle("nasbench201", naswot, DigitsDataModule(batch_size=8), 4, 1))
        >>> score(score.oracle.space.sample(random.Random(0))) > 0
        True
    """

    def __init__(self, oracle: ZeroCostOracle) -> None:
        self.oracle = oracle

    def __call__(self, genotype: Genotype) -> float:
        """The score, which may be infinite or NaN."""
        return self.oracle(Trial(0, genotype, budget=0.0)).score
