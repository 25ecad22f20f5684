"""Batches of pictures in memory, and pairs of batches for a bilevel search."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_nas.data.augment import Augment, check_statistics
from lightning_nas.data.order import EpochOrder, generator_from
from lightning_nas.data.stateful import StatefulLoader

__all__ = ["PairLoader", "TensorLoader"]


class TensorLoader(StatefulLoader[tuple[Tensor, Tensor]]):
    """Batches from pictures in memory: one gather, augmentation of the whole batch, no worker processes.

    The draws of a batch depend on (seed, epoch, batch, rank) only.

    Args:
        images: uint8 ``(N, C, H, W)``.
        labels: int64 ``(N,)``.
        batch_size: Pictures in a batch, on each rank.
        mean: Mean per channel in units of ``[0, 1]``; None is 0.
        std: Deviation per channel in units of ``[0, 1]``; None is 1.
        augment: What is drawn at random for each picture.
        seed: Seed of order and augmentation, the same on all ranks.
        shuffle: A new order in each epoch.
        drop_last: Leave out the remainder that does not fill a batch.
        rank: This process.
        world_size: Number of processes.

    Raises:
        ValueError: If pictures, labels or a number are not as described.

    Example:
        >>> images, labels = torch.zeros(5, 1, 8, 8, dtype=torch.uint8), torch.arange(5)
        >>> loader = TensorLoader(images, labels, batch_size=2, shuffle=False)
        >>> [y.tolist() for _, y in loader], loader.state_dict()
        ([[0, 1], [2, 3]], {'epoch': 0, 'position': 2})
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        augment: Augment | None = None,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__()
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(f"images must be uint8 (N, C, H, W), not {images.dtype} {tuple(images.shape)}")
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"labels must be int64 ({len(images)},), one for each picture, not {labels.dtype} {tuple(labels.shape)}"
            )
        self.images, self.labels = images, labels
        self.mean = tuple(mean) if mean is not None else (0.0,) * images.shape[1]
        self.std = tuple(std) if std is not None else (1.0,) * images.shape[1]
        check_statistics(self.mean, self.std, images.shape[1])
        self.augment = augment or Augment()
        self.order = EpochOrder(len(images), batch_size, seed, shuffle, drop_last, rank, world_size)

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.order)

    def read(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """See `StatefulLoader.read`; a batch is (pictures float32 ``(B, C, H, W)``, labels int64 ``(B,)``)."""
        order = self.order
        for number, indices in enumerate(order.batches(epoch)[start:], start):
            place = indices.to(self.images.device)
            drawn = generator_from(order.seed, epoch, number, order.rank) if self.augment.random else None
            pictures = self.augment(self.images.index_select(0, place), self.mean, self.std, drawn)
            yield pictures, self.labels.index_select(0, place)

    def subset(
        self, indices: Tensor, *, seed: int | None = None, rank: int | None = None, world_size: int | None = None
    ) -> "TensorLoader":
        """A loader of the same kind over some of the pictures.

        Args:
            indices: int64 numbers of the pictures.
            seed: Seed of order and augmentation; None keeps this one.
            rank: This process; None keeps this one.
            world_size: Number of processes; None keeps this one.

        Returns:
            A new loader at the beginning of its first epoch.
        """
        order = self.order
        return TensorLoader(
            self.images[indices],
            self.labels[indices],
            order.batch_size,
            mean=self.mean,
            std=self.std,
            augment=self.augment,
            seed=order.seed if seed is None else seed,
            shuffle=order.shuffle,
            drop_last=order.drop_last,
            rank=order.rank if rank is None else rank,
            world_size=order.world_size if world_size is None else world_size,
        )


class PairLoader(StatefulLoader[dict[str, Any]]):
    """Pairs ``{"w": batch, "theta": batch}`` of a bilevel search: weights train on one part, architecture on the other.

    An epoch is one of `w`. The batches of `theta` are one endless stream over its epochs: batch ``t`` of the training,
    counted over the epochs of `w`, pairs with batch ``t`` of that stream, so `theta` neither restarts with `w` nor
    needs a state of its own, and is kept open in between. This is sampling without replacement on both sides. Published
    code instead opens the architecture's loader anew for each batch (``next(iter(loader))``), which is sampling with
    replacement, and slow.

    Args:
        w: Loader of the weights' part.
        theta: Loader of the architecture's part.

    Raises:
        ValueError: If one of them is not a `StatefulLoader`.

    Example:
        >>> images = torch.zeros(6, 1, 8, 8, dtype=torch.uint8)
        >>> w = TensorLoader(images[:4], torch.arange(4), batch_size=2, shuffle=False)
        >>> theta = TensorLoader(images[4:], torch.arange(4, 6), batch_size=2, shuffle=False)
        >>> [(pair["w"][1].tolist(), pair["theta"][1].tolist()) for pair in PairLoader(w, theta)]
        [([0, 1], [4, 5]), ([2, 3], [4, 5])]
    """

    def __init__(self, w: StatefulLoader[Any], theta: StatefulLoader[Any]) -> None:
        super().__init__()
        for name, loader in (("w", w), ("theta", theta)):
            if not isinstance(loader, StatefulLoader):
                raise ValueError(
                    f"{name} is a {type(loader).__name__}, which cannot be read from any place;"
                    " give a TensorLoader or ResumableLoader"
                )
        self.w, self.theta = w, theta
        # Lightning sets an attribute of this name to None when a fit ends, which ends theta's worker processes
        self._iterator: Iterator[Any] | None = None
        self._next = -1

    def __len__(self) -> int:
        """Pairs of an epoch: the batches of `w`."""
        return len(self.w)

    def read(self, epoch: int, start: int = 0) -> Iterator[dict[str, Any]]:
        """See `StatefulLoader.read`."""
        for number, batch in enumerate(self.w.read(epoch, start), epoch * len(self) + start):
            yield {"w": batch, "theta": self._theta_batch(number)}

    def close(self) -> None:
        """Let go of worker processes and open iterators."""
        self._iterator = None
        self.w.close()
        self.theta.close()

    def _theta_batch(self, number: int) -> Any:
        """Batch `number` of theta's stream, from the open iterator wherever it is at that place."""
        epoch, position = divmod(number, len(self.theta))
        if self._iterator is None or self._next != number or position == 0:
            self._iterator = self.theta.read(epoch, position)
        self._next = number + 1
        return next(self._iterator)
