"""Data modules over arrays that are already in memory."""

from collections.abc import Mapping, Sequence

from lightning_nas.data.augment import Augment
from lightning_nas.data.images import NO_AUGMENT, PictureDataModule
from lightning_nas.data.pictures import Array, Layout, Splits, as_pictures
from lightning_nas.data.split import require_classes

__all__ = ["ArrayDataModule"]


class ArrayDataModule(PictureDataModule):
    """Pictures that are already in memory as NumPy arrays or tensors.

    Args:
        train: Pictures and labels; for shapes and types see `as_images`.
        test: Pictures and labels to test on.
        val: Pictures and labels to validate on; None takes `val_fraction` of the training pictures.
        num_classes: Number of classes; None is one more than the highest training label.
        batch_size: Pictures in a training batch.
        val_fraction: Part of the training pictures held out for validation, 0 for none.
        augment: What is drawn at random for each training picture.
        seed: Seed of the validation split, the order of batches and the augmentation.
        eval_batch_size: Pictures in a validation or test batch.
        mean: Mean per channel in units of ``[0, 1]``; None measures it.
        std: Deviation per channel in units of ``[0, 1]``; None measures it.

    Raises:
        ValueError: If pictures, labels or a number are not as described.

    Example:
        >>> import torch
        >>> images = torch.randint(256, (20, 3, 8, 8), dtype=torch.uint8)
        >>> data = ArrayDataModule((images, torch.arange(20) % 4), batch_size=4, val_fraction=0.2)
        >>> data.num_classes, data.in_channels, data.image_size, data.class_counts
        (4, 3, 8, (4, 4, 4, 4))
        >>> len(data.train_dataloader())
        4
    """

    def __init__(
        self,
        train: tuple[Array, Array],
        test: tuple[Array, Array] | None = None,
        val: tuple[Array, Array] | None = None,
        *,
        num_classes: int | None = None,
        batch_size: int = 64,
        val_fraction: float = 0.1,
        augment: Augment = NO_AUGMENT,
        seed: int = 0,
        eval_batch_size: int = 256,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(batch_size, float(val_fraction), augment, seed, eval_batch_size, mean, std)
        self._parts = {"train": train, "val": val, "test": test}
        self._num_classes = num_classes

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self._num_classes or super().num_classes

    def read(self) -> Splits:
        """Check the arrays."""
        return checked_splits(self._parts, self._num_classes)


def checked_splits(
    parts: Mapping[str, tuple[Array, Array] | None], num_classes: int | None, layout: Layout = "auto"
) -> Splits:
    """Check the arrays of ``train``, ``val`` and ``test``.

    Args:
        parts: Pictures and labels of each part, None where there is none.
        num_classes: Number of classes; None is one more than the highest training label.
        layout: See `as_images`.

    Returns:
        The checked parts.

    Raises:
        ValueError: If something is not as `as_pictures` asks, or there is one class only.
    """
    train = parts["train"]
    if train is None:
        raise ValueError("there are no training pictures; give them")
    known = num_classes if num_classes is not None else 2**31
    checked = {"train": as_pictures(*train, num_classes=known, name="train", layout=layout)}
    require_classes(checked["train"].labels)
    known = num_classes if num_classes is not None else int(checked["train"].labels.max()) + 1
    for name in ("val", "test"):
        if (part := parts.get(name)) is not None:
            checked[name] = as_pictures(*part, num_classes=known, name=name, layout=layout)
    return Splits(**checked)
