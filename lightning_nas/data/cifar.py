"""CIFAR-10 and CIFAR-100 as torchvision stores them."""

from collections.abc import Sequence
from typing import Any, ClassVar

from lightning_nas.data.augment import Augment
from lightning_nas.data.images import PictureDataModule
from lightning_nas.data.pictures import Pictures, Splits, as_pictures

__all__ = ["CIFAR10DataModule", "CIFAR100DataModule"]

_AUGMENT = Augment(crop=4, flip=True)
_MEAN = (0.4914, 0.4822, 0.4465)
_STD = (0.2470, 0.2435, 0.2616)


class CIFAR10DataModule(PictureDataModule):
    """CIFAR-10: 50,000 training and 10,000 test pictures, 32x32 pixels, 10 classes.

    A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.

    Args:
        root: Folder of the data set, as torchvision keeps it.
        download: Fetch the data set to `root` where it is missing.
        batch_size: Pictures in a training batch.
        val_size: Training pictures held out for validation, 0 for none.
        augment: What is drawn at random for each training picture; add ``cutout=16`` for final training.
        seed: Seed of the validation split, the order of batches and the augmentation.
        eval_batch_size: Pictures in a validation or test batch.
        mean: Mean per channel in units of ``[0, 1]``.
        std: Deviation per channel in units of ``[0, 1]``.

    Raises:
        ValueError: If a number is out of range or the data set is not at `root`.

    Example:
        >>> data = CIFAR10DataModule(root="data", batch_size=96)
        >>> data.num_classes, data.in_channels, data.image_size
        (10, 3, 32)
    """

    source: ClassVar[str] = "CIFAR10"
    num_classes = 10
    in_channels = 3
    image_size = 32

    def __init__(
        self,
        root: str = "data",
        download: bool = False,
        batch_size: int = 64,
        val_size: int = 5000,
        augment: Augment = _AUGMENT,
        seed: int = 0,
        eval_batch_size: int = 256,
        mean: Sequence[float] = _MEAN,
        std: Sequence[float] = _STD,
    ) -> None:
        super().__init__(batch_size, int(val_size), augment, seed, eval_batch_size, mean, std)
        self.root, self.download = root, download

    def prepare_data(self) -> None:
        """Fetch the data set, where `download` allows it."""
        if self.download:
            self._dataset(train=True, download=True)

    def read(self) -> Splits:
        """Read both parts from `root`."""
        return Splits(train=self._part(train=True), test=self._part(train=False))

    def _part(self, train: bool) -> Pictures:
        dataset = self._dataset(train, download=False)
        return as_pictures(dataset.data, dataset.targets, self.num_classes, "train" if train else "test", "NHWC")

    def _dataset(self, train: bool, download: bool) -> Any:
        from torchvision import datasets

        try:
            return getattr(datasets, self.source)(self.root, train=train, download=download)
        except (RuntimeError, OSError) as error:
            remedy = "check the network and the folder" if download else "set download=true or give another root"
            raise ValueError(
                f"cannot read {self.source} at root={self.root!r} (download={download}); {remedy}"
            ) from error


class CIFAR100DataModule(CIFAR10DataModule):
    """CIFAR-100: 50,000 training and 10,000 test pictures, 32x32 pixels, 100 classes.

    Normalised as the published architecture searches do it, by the values of CIFAR-10. Arguments, errors and reference
    are those of `CIFAR10DataModule`.

    Example:
        >>> CIFAR100DataModule(val_size=0).num_classes
        100
    """

    source = "CIFAR100"
    num_classes = 100
