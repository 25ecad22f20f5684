"""The handwritten digits that ship with scikit-learn: real pictures without a download."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F

from lightning_nas.data.augment import Augment
from lightning_nas.data.images import PictureDataModule
from lightning_nas.data.pictures import Pictures, Splits
from lightning_nas.data.split import split_indices

__all__ = ["DigitsDataModule"]

_SIDE = 8
_LEVELS = 16
_TEST_PICTURES = 360
_TEST_SEED = 20  # of the test split, whatever the seed of a run
_AUGMENT = Augment(crop=1)


class DigitsDataModule(PictureDataModule):
    """1,797 grey pictures of handwritten digits, 8x8 pixels: 1,257 to train on, 180 to validate, 360 to test.

    The test pictures are the same for every seed. All parts have the classes of the whole.

    E. Alpaydin and C. Kaynak, "Cascading Classifiers", 1998 (test part of their optical digits).

    Args:
        batch_size: Pictures in a training batch.
        val_fraction: Part of the 1,437 training pictures held out for validation, 0 for none.
        image_size: Side in pixels, a multiple of 8; the pictures are enlarged to it.
        interpolation: How they are enlarged.
        augment: What is drawn at random for each training picture.
        seed: Seed of the validation split, the order of batches and the augmentation.
        eval_batch_size: Pictures in a validation or test batch.
        mean: Mean in units of ``[0, 1]``; None measures it.
        std: Deviation in units of ``[0, 1]``; None measures it.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> data = DigitsDataModule(batch_size=32)
        >>> x, y = next(iter(data.train_dataloader()))
        >>> x.shape, y.shape, len(data.test_labels)
        (torch.Size([32, 1, 8, 8]), torch.Size([32]), 360)
    """

    num_classes = 10
    in_channels = 1

    def __init__(
        self,
        batch_size: int = 64,
        val_fraction: float = 0.125,
        image_size: int = 8,
        interpolation: Literal["bilinear", "nearest"] = "bilinear",
        augment: Augment = _AUGMENT,
        seed: int = 0,
        eval_batch_size: int = 256,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(batch_size, float(val_fraction), augment, seed, eval_batch_size, mean, std)
        if image_size < _SIDE or image_size % _SIDE:
            raise ValueError(f"image_size={image_size} must be a multiple of {_SIDE}, the side of the digits")
        if interpolation not in ("bilinear", "nearest"):
            raise ValueError(f"interpolation={interpolation!r} must be bilinear or nearest")
        self._image_size, self.interpolation = image_size, interpolation

    @property
    def image_size(self) -> int:
        """Height and width in pixels."""
        return self._image_size

    def read(self) -> Splits:
        """Read the digits from scikit-learn and set the test pictures apart."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.as_tensor(digits.images, dtype=torch.float32).unsqueeze(1) * (255 / _LEVELS)
        if self.image_size != _SIDE:
            images = F.interpolate(images, size=self.image_size, mode=self.interpolation)
        images = images.round().clamp(0, 255).to(torch.uint8)
        labels = torch.as_tensor(digits.target, dtype=torch.int64)
        train, test = split_indices(len(labels), _TEST_PICTURES, _TEST_SEED, labels)
        return Splits(train=Pictures(images[train], labels[train]), test=Pictures(images[test], labels[test]))
