"""Pictures from a NumPy ``.npz`` file."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from lightning_nas.data.arrays import checked_splits
from lightning_nas.data.augment import Augment
from lightning_nas.data.images import NO_AUGMENT, PictureDataModule
from lightning_nas.data.pictures import Layout, Pictures, Splits

__all__ = ["NPZDataModule"]

_REQUIRED = ("x_train", "y_train", "x_test", "y_test")


class NPZDataModule(PictureDataModule):
    """Pictures from a file with the arrays ``x_train, y_train, x_test, y_test`` and, if wanted, ``x_val, y_val``.

    Pictures are uint8, or floating point in ``[0, 1]`` (rounded to 256 steps), of shape ``(N, H, W)``, ``(N, H, W, C)``
    or ``(N, C, H, W)``; labels are whole numbers from 0. Nothing pickled is loaded.

    Args:
        path: The file, as `numpy.savez` writes it.
        num_classes: Number of classes; None is one more than the highest training label.
        layout: Order of four dimensions; "auto" takes the one of size 1, 3 or 4 as the channels.
        batch_size: Pictures in a training batch.
        val_fraction: Part of the training pictures held out for validation where the file has no ``x_val``.
        augment: What is drawn at random for each training picture.
        seed: Seed of the validation split, the order of batches and the augmentation.
        eval_batch_size: Pictures in a validation or test batch.
        mean: Mean per channel in units of ``[0, 1]``; None measures it.
        std: Deviation per channel in units of ``[0, 1]``; None measures it.
        image_size: Height and width to which pictures are reduced by averaging whole blocks of pixels; None leaves
            them as they are.

    Raises:
        ValueError: If a number is out of range, `image_size` does not divide that of the pictures, or the file is
            missing or not as described.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     x, y = np.random.rand(8, 4, 4), np.arange(8) % 2
        ...     np.savez(f"{folder}/tiny.npz", x_train=x, y_train=y, x_test=x, y_test=y)
        ...     NPZDataModule(f"{folder}/tiny.npz", val_fraction=0.25).class_counts
        (3, 3)
    """

    def __init__(
        self,
        path: str,
        num_classes: int | None = None,
        layout: Layout = "auto",
        batch_size: int = 64,
        val_fraction: float = 0.1,
        augment: Augment = NO_AUGMENT,
        seed: int = 0,
        eval_batch_size: int = 256,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        image_size: int | None = None,
    ) -> None:
        super().__init__(batch_size, float(val_fraction), augment, seed, eval_batch_size, mean, std)
        self.path, self.layout, self._num_classes, self._image_size = path, layout, num_classes, image_size

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self._num_classes or super().num_classes

    def read(self) -> Splits:
        """Read and check the arrays of the file."""
        arrays = self._arrays()
        missing = [key for key in _REQUIRED if key not in arrays]
        if ("x_val" in arrays) != ("y_val" in arrays):
            missing.append("y_val" if "x_val" in arrays else "x_val")
        if missing:
            raise ValueError(
                f"{self.path} lacks {', '.join(missing)}; it holds {', '.join(sorted(arrays)) or 'nothing'}"
            )
        parts = {
            part: (arrays[f"x_{part}"], arrays[f"y_{part}"])
            for part in ("train", "val", "test")
            if f"x_{part}" in arrays
        }
        try:
            splits = checked_splits(parts, self._num_classes, self.layout)
            return splits if self._image_size is None else _reduced(splits, self._image_size)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error

    def _arrays(self) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
        if not Path(self.path).is_file():
            raise ValueError(f"there is no file {self.path!r}; give path the name of an .npz file")
        try:
            with np.load(self.path, allow_pickle=False) as file:
                names = [name for name in file.files if name[:2] in ("x_", "y_")]
                return {name: file[name] for name in names}
        except (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{self.path} is not an .npz file of plain arrays ({type(error).__name__}); write it by numpy.savez"
                " from numbers, nothing pickled"
            ) from error


def _reduced(splits: Splits, size: int) -> Splits:
    """The pictures at a lower resolution, each pixel the mean of a block."""
    side = splits.train.images.shape[-1]
    if size < 1 or side % size:
        raise ValueError(f"image_size={size} does not divide the pictures' {side} pixels; give a divisor")

    def smaller(part: Pictures) -> Pictures:
        means = [F.avg_pool2d(chunk.float(), side // size) for chunk in torch.split(part.images, 4096)]
        return Pictures(torch.cat(means).round().to(torch.uint8), part.labels)

    train, *others = (None if part is None else smaller(part) for part in splits)
    return Splits(train or splits.train, *others)
