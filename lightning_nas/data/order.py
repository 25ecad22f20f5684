"""The order of batches, and every seed behind it, as pure functions of a few integers.

Nothing here has a state, which is what makes a loader resume exactly: an epoch and a position are all that has to be
remembered.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["EpochOrder", "derive_seed", "generator_from", "seeded"]


def derive_seed(*numbers: int) -> int:
    """Mix whole numbers into one seed; any two inputs, of equal length or not, give unrelated seeds.

    Args:
        numbers: Whole numbers of at least 0, for example ``seed, epoch, batch``. Their order matters.

    Returns:
        A seed in ``[0, 2**63)``.

    Raises:
        ValueError: If a number is negative.

    Example:
        >>> derive_seed(0, 1) == derive_seed(0, 1), derive_seed(0, 1) == derive_seed(1, 0)
        (True, False)
    """
    if any(number < 0 for number in numbers):
        raise ValueError(f"seeds are made of whole numbers of at least 0, not {numbers}")
    digest = hashlib.blake2b(repr([int(number) for number in numbers]).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator_from(*numbers: int) -> torch.Generator:
    """A CPU generator seeded by `derive_seed` of the numbers.

    Args:
        numbers: Whole numbers of at least 0.

    Returns:
        A new generator.

    Example:
        >>> torch.randint(1000, (2,), generator=generator_from(0, 1)).equal(
        ...     torch.randint(1000, (2,), generator=generator_from(0, 1)))
        True
    """
    return torch.Generator().manual_seed(derive_seed(*numbers))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the context the global CPU generators (random, NumPy, PyTorch) start from `seed`; after it, as before.

    Args:
        seed: Any number of `derive_seed`.

    Yields:
        Nothing.

    Example:
        >>> with seeded(1):
        ...     first = torch.rand(1)
        >>> with seeded(1):
        ...     print(torch.rand(1) == first)
        tensor([True])
    """
    before = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.default_generator.set_state(before[2])


@dataclass(frozen=True)
class EpochOrder:
    """Which samples make up which batch, as a function of seed and epoch.

    Each epoch visits samples without replacement. With several ranks, all see the same order and each takes every
    `world_size`-th sample of it: ranks share no sample, have the same number of batches, and, without `drop_last`,
    together cover all samples exactly once (nothing is repeated to even out the ranks).

    Args:
        num_samples: Samples of the data set.
        batch_size: Samples in a batch, on each rank.
        seed: Seed of the order, the same on all ranks.
        shuffle: A new order in each epoch, or the order of the data set.
        drop_last: Leave the remainder that does not fill a batch on every rank out of the epoch.
        rank: This process.
        world_size: Number of processes.

    Raises:
        ValueError: If a number is out of range or there is less than one batch for each rank.

    Example:
        >>> order = EpochOrder(num_samples=5, batch_size=2, seed=0, shuffle=False, drop_last=False)
        >>> order.batches(epoch=0)
        [tensor([0, 1]), tensor([2, 3]), tensor([4])]
    """

    num_samples: int
    batch_size: int
    seed: int = 0
    shuffle: bool = True
    drop_last: bool = True
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.num_samples < 1 or self.batch_size < 1:
            raise ValueError(
                f"{self.num_samples} samples in batches of {self.batch_size}: both must be at least 1;"
                " check the data set and batch_size"
            )
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must be a whole number of at least 0")
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank={self.rank} must lie in 0..{self.world_size - 1}, for world_size={self.world_size}")
        fewest = self.num_samples // self.world_size
        if fewest < (self.batch_size if self.drop_last else 1):
            raise ValueError(
                f"{self.num_samples} samples are less than one batch of {self.batch_size}"
                f" for each of {self.world_size} process(es); lower batch_size or give more data"
            )
        if fewest < len(self):
            raise ValueError(
                f"{self.num_samples} samples cannot be dealt to {self.world_size} processes in batches of"
                f" {self.batch_size} so that all have as many batches; use batch_size of at least 2"
            )

    def __len__(self) -> int:
        """Batches of an epoch, on every rank."""
        if self.drop_last:
            return self.num_samples // self.world_size // self.batch_size
        return -(-self.num_samples // (self.batch_size * self.world_size))

    def batches(self, epoch: int) -> list[Tensor]:
        """The batches of one epoch on this rank.

        Args:
            epoch: Number of the epoch, from 0.

        Returns:
            ``len(self)`` index tensors, int64.
        """
        if self.shuffle:
            order = torch.randperm(self.num_samples, generator=generator_from(self.seed, epoch))
        else:
            order = torch.arange(self.num_samples)
        mine = order[self.rank :: self.world_size]
        sizes = [self.batch_size] * len(self)
        if not self.drop_last:
            sizes[-1] = len(mine) - sum(sizes[:-1])
            if sizes[-1] == 0:  # this rank has a sample less than others, exactly at the edge of a batch
                sizes[-2:] = [self.batch_size - 1, 1]
        return list(torch.split(mine[: sum(sizes)], sizes))
