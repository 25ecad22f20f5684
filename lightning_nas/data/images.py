"""Data modules over pictures that fit in memory."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property

import lightning.pytorch as pl
import torch
from torch import Tensor

from lightning_nas.data.augment import Augment, check_statistics
from lightning_nas.data.loaders import TensorLoader
from lightning_nas.data.pictures import Pictures, Splits, channel_statistics
from lightning_nas.data.split import require_classes, split_indices

__all__ = ["PictureDataModule"]

NO_AUGMENT = Augment()


class PictureDataModule(pl.LightningDataModule, ABC):
    """Train, validation and test pictures in memory; a subclass says where they come from.

    Training batches are shuffled and augmented, evaluation batches are neither; all are normalised, and all are dealt
    to the ranks of a distributed run without repetition. Pictures are read when first needed.

    Args:
        batch_size: Pictures in a training batch, on each rank.
        held_out: How much of the training pictures becomes the validation set, where the source has none of its own:
            a fraction in ``[0, 1)`` or a whole number of pictures, stratified by class; 0 for no validation set.
        augment: What is drawn at random for each training picture.
        seed: Seed of the validation split, the order of batches and the augmentation.
        eval_batch_size: Pictures in a validation or test batch, on each rank.
        mean: Mean per channel in units of ``[0, 1]``; None measures it on the training pictures.
        std: Deviation per channel in units of ``[0, 1]``; None measures it on the training pictures.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        batch_size: int,
        held_out: float,
        augment: Augment,
        seed: int,
        eval_batch_size: int,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
    ) -> None:
        super().__init__()
        if batch_size < 1 or eval_batch_size < 1:
            raise ValueError(f"batch_size={batch_size} and eval_batch_size={eval_batch_size} must be at least 1")
        if held_out < 0 or (isinstance(held_out, float) and held_out >= 1):
            raise ValueError(f"the validation part {held_out} must be a fraction in [0, 1), or 0 or more pictures")
        if seed < 0:
            raise ValueError(f"seed={seed} must be a whole number of at least 0")
        if (mean is None) != (std is None):
            raise ValueError(f"mean={mean} and std={std}: give both, or neither to measure them")
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.held_out, self.augment, self.seed = held_out, augment, seed
        self._given = None if mean is None or std is None else (tuple(mean), tuple(std))

    @abstractmethod
    def read(self) -> Splits:
        """Read the checked pictures from their source."""

    @cached_property
    def splits(self) -> Splits:
        """Train, validation and test pictures, read when first asked for.

        Raises:
            ValueError: If they cannot be read or do not fit together.
        """
        splits = self.read()
        require_classes(splits.train.labels)
        shape = splits.train.images.shape[1:]
        if shape[1] != shape[2]:
            raise ValueError(f"pictures are {shape[1]}x{shape[2]}; make them square, by cropping or padding")
        for name, part in (("validation", splits.val), ("test", splits.test)):
            if part is not None and part.images.shape[1:] != shape:
                raise ValueError(f"{name} pictures are {tuple(part.images.shape[1:])}, training ones {tuple(shape)}")
        return splits if splits.val is not None else self._hold_out(splits)

    @cached_property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation per channel, as given or measured on the training pictures, in units of ``[0, 1]``."""
        if self._given is None:
            return channel_statistics(self.splits.train.images)
        check_statistics(*self._given, channels=self.in_channels)
        return self._given

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return int(self.splits.train.labels.max()) + 1

    @property
    def in_channels(self) -> int:
        """Colour channels."""
        return self.splits.train.images.shape[1]

    @property
    def image_size(self) -> int:
        """Height and width in pixels."""
        return self.splits.train.images.shape[2]

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Training pictures of each class."""
        return tuple(self.splits.train.labels.bincount(minlength=self.num_classes).tolist())

    @property
    def train_labels(self) -> Tensor:
        """Classes of the training pictures, without those held out."""
        return self.splits.train.labels

    @property
    def test_labels(self) -> Tensor:
        """Classes of the test pictures, empty where there are none."""
        return torch.empty(0, dtype=torch.int64) if self.splits.test is None else self.splits.test.labels

    def setup(self, stage: str) -> None:
        """Read the pictures; without validation pictures, Lightning then finds no validation loader and skips it."""
        _ = self.splits, self.statistics
        if self.splits.val is None:
            self.val_dataloader = super().val_dataloader  # type: ignore[method-assign]

    def train_dataloader(self) -> TensorLoader:
        """Shuffled and augmented batches; the remainder of an epoch is left out where a batch can be filled."""
        rank, world_size = placement(self.trainer)
        images, labels = self.splits.train
        return TensorLoader(
            images,
            labels,
            self.batch_size,
            mean=self.statistics[0],
            std=self.statistics[1],
            augment=self.augment,
            seed=self.seed,
            shuffle=not overfits(self.trainer),
            drop_last=len(images) >= self.batch_size * world_size,
            rank=rank,
            world_size=world_size,
        ).follow(self.trainer)

    def val_dataloader(self) -> TensorLoader:
        """The validation pictures in order.

        Raises:
            ValueError: If there are none.
        """
        return self._evaluation(self.splits.val, "validation")

    def test_dataloader(self) -> TensorLoader:
        """The test pictures in order.

        Raises:
            ValueError: If there are none.
        """
        return self._evaluation(self.splits.test, "test")

    def _evaluation(self, part: Pictures | None, name: str) -> TensorLoader:
        if part is None:
            raise ValueError(f"{type(self).__name__} has no {name} pictures; give it some, or leave the {name} out")
        rank, world_size = placement(self.trainer)
        return TensorLoader(
            *part,
            self.eval_batch_size,
            mean=self.statistics[0],
            std=self.statistics[1],
            shuffle=False,
            drop_last=False,
            rank=rank,
            world_size=world_size,
        )

    def _hold_out(self, splits: Splits) -> Splits:
        images, labels = splits.train
        count = self.held_out if isinstance(self.held_out, int) else round(self.held_out * len(labels))
        if count == 0:
            return splits
        if count >= len(labels):
            raise ValueError(f"cannot hold out {count} of {len(labels)} training pictures; leave some to train on")
        train, val = split_indices(len(labels), count, self.seed, labels)
        return splits._replace(train=Pictures(images[train], labels[train]), val=Pictures(images[val], labels[val]))


def placement(trainer: pl.Trainer | None) -> tuple[int, int]:
    """Rank and number of processes of a trainer; without one, the only process.

    Args:
        trainer: The trainer a data module is attached to, if any.

    Returns:
        Rank and world size.
    """
    return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)


def overfits(trainer: pl.Trainer | None) -> bool:
    """Whether a trainer was asked to train on the same few batches again and again, which needs a fixed order.

    Args:
        trainer: The trainer a data module is attached to, if any.

    Returns:
        Whether ``overfit_batches`` is set.
    """
    return trainer is not None and bool(trainer.overfit_batches)  # type: ignore[attr-defined]
