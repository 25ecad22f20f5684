"""Bilevel pairs from any data module."""

from collections.abc import Callable
from functools import partial
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.utils.data import DataLoader

from lightning_nas.data.images import overfits, placement
from lightning_nas.data.loaders import PairLoader, TensorLoader
from lightning_nas.data.order import derive_seed
from lightning_nas.data.resumable import ResumableLoader
from lightning_nas.data.split import require_classes, split_indices

__all__ = ["BilevelDataModule"]

_PLAIN_HOOKS = ("prepare_data", "val_dataloader", "test_dataloader", "predict_dataloader", "on_exception")
_BATCH_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


class BilevelDataModule(pl.LightningDataModule):
    """Splits the training set of any data module in a part for the weights and a part for the architecture.

    Training batches are pairs ``{"w": batch, "theta": batch}`` of the inner module's batches; everything else
    (preparation, validation, test and prediction loaders, transfer hooks, state) is the inner module's own. The split
    is a function of `seed`, the same on all ranks, and stratified by class where labels are known without loading
    samples: a `TensorLoader`, or a data set with ``targets``, ``labels`` or ``tensors``.

    Args:
        datamodule: Its training loader is a `TensorLoader`, or a DataLoader over a map-style data set.
        val_fraction: Part of the training samples that the architecture is trained on.
        seed: Seed of the split, the order of both parts and their augmentation.

    Raises:
        ValueError: If `val_fraction` is not between 0 and 1, or `seed` is negative; when training data is asked for,
            if it cannot be split or a part is smaller than one batch.

    Example:
        >>> from lightning_nas.data import DigitsDataModule
        >>> data = BilevelDataModule(DigitsDataModule(batch_size=32))
        >>> pair = next(iter(data.train_dataloader()))
        >>> pair["w"][0].shape, pair["theta"][0].shape, data.num_classes
        (torch.Size([32, 1, 8, 8]), torch.Size([32, 1, 8, 8]), 10)
    """

    def __init__(self, datamodule: pl.LightningDataModule, val_fraction: float = 0.5, seed: int = 0) -> None:
        if not 0 < val_fraction < 1:
            raise ValueError(f"val_fraction={val_fraction} must lie between 0 and 1, both excluded")
        if seed < 0:
            raise ValueError(f"seed={seed} must be a whole number of at least 0")
        self.datamodule = datamodule
        super().__init__()
        self.val_fraction, self.seed = val_fraction, seed
        self.prepare_data_per_node = datamodule.prepare_data_per_node
        self.allow_zero_length_dataloader_with_multiple_devices = (
            datamodule.allow_zero_length_dataloader_with_multiple_devices
        )
        self._pairs: PairLoader | None = None
        self._mirror_hooks()

    @property
    def trainer(self) -> pl.Trainer | None:
        """The trainer of this module and of the inner one."""
        return self.datamodule.trainer

    @trainer.setter
    def trainer(self, trainer: pl.Trainer | None) -> None:
        self.datamodule.trainer = trainer

    @property
    def num_classes(self) -> int:
        """Number of classes, where the inner module tells it."""
        return int(_attribute(self.datamodule, "num_classes"))

    @property
    def in_channels(self) -> int:
        """Colour channels, where the inner module tells it."""
        return int(_attribute(self.datamodule, "in_channels"))

    @property
    def image_size(self) -> int:
        """Height and width in pixels, where the inner module tells it."""
        return int(_attribute(self.datamodule, "image_size"))

    def setup(self, stage: str) -> None:
        """Set the inner module up."""
        self.datamodule.setup(stage)
        self._mirror_hooks()

    def teardown(self, stage: str) -> None:
        """End worker processes and tear the inner module down."""
        if self._pairs is not None:
            self._pairs.close()
        self.datamodule.teardown(stage)

    def state_dict(self) -> dict[str, Any]:
        """State of the inner module; the place in the pairs is kept by their loader."""
        return self.datamodule.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the inner module."""
        self.datamodule.load_state_dict(state_dict)

    def train_dataloader(self) -> PairLoader:
        """Pairs of batches from the two parts of the inner module's training set.

        Raises:
            ValueError: If its loader cannot be split or a part is smaller than one batch.
        """
        whole = _splittable(self.datamodule.train_dataloader(), self.seed, overfits(self.trainer))
        labels = whole.labels if isinstance(whole, TensorLoader) else whole.dataset_labels
        order = whole.order
        if labels is not None:
            require_classes(labels)
        rank, world_size = placement(self.trainer)
        for_theta = round(order.num_samples * self.val_fraction)
        if min(for_theta, order.num_samples - for_theta) < order.batch_size * world_size:
            raise ValueError(
                f"val_fraction={self.val_fraction} leaves {order.num_samples - for_theta} samples for the weights and"
                f" {for_theta} for the architecture, less than a batch of {order.batch_size} on {world_size}"
                " process(es); lower batch_size or move val_fraction towards 0.5"
            )
        parts = split_indices(order.num_samples, for_theta, derive_seed(self.seed, 0), labels)
        w, theta = (
            whole.subset(part, seed=derive_seed(self.seed, number), rank=rank, world_size=world_size)
            for number, part in enumerate(parts, 1)
        )
        self._pairs = PairLoader(w, theta).follow(self.trainer)
        return self._pairs

    def _mirror_hooks(self) -> None:
        """Have exactly the hooks that the inner module has: Lightning goes by whether a hook is overridden."""
        for name in _PLAIN_HOOKS + _BATCH_HOOKS:
            vars(self).pop(name, None)
            if is_overridden(name, self.datamodule):
                hook = getattr(self.datamodule, name)
                setattr(self, name, partial(_for_each_part, hook) if name in _BATCH_HOOKS else hook)


def _splittable(loader: Any, seed: int, fixed_order: bool) -> TensorLoader | ResumableLoader:
    if isinstance(loader, TensorLoader | ResumableLoader):
        return loader
    if isinstance(loader, DataLoader):
        return ResumableLoader(loader, seed=seed, shuffle=False if fixed_order else None)
    raise ValueError(
        f"the training loader is a {type(loader).__name__}, which cannot be split; let train_dataloader return one"
        " torch DataLoader over a map-style data set, or a TensorLoader"
    )


def _for_each_part(hook: Callable[..., Any], batch: Any, *arguments: Any, **named: Any) -> Any:
    """Call a batch hook of the inner module, which knows no pairs, for each part of them."""
    if isinstance(batch, dict) and set(batch) == {"w", "theta"}:
        return {part: hook(inner, *arguments, **named) for part, inner in batch.items()}
    return hook(batch, *arguments, **named)


def _attribute(datamodule: pl.LightningDataModule, name: str) -> Any:
    """An attribute of the inner module; AttributeError, and so no attribute here, where it has none."""
    return getattr(datamodule, name)
