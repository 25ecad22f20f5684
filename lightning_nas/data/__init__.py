"""The data room: pictures, augmentation of whole batches, resumable loaders, and bilevel pairs from any data module."""

from lightning_nas.data.arrays import ArrayDataModule
from lightning_nas.data.augment import Augment, cutout, normalize, random_crop, random_flip
from lightning_nas.data.bilevel import BilevelDataModule
from lightning_nas.data.cifar import CIFAR10DataModule, CIFAR100DataModule
from lightning_nas.data.digits import DigitsDataModule
from lightning_nas.data.images import PictureDataModule
from lightning_nas.data.loaders import PairLoader, TensorLoader
from lightning_nas.data.npz import NPZDataModule
from lightning_nas.data.order import EpochOrder, derive_seed, generator_from
from lightning_nas.data.pictures import Pictures, Splits, as_images, as_pictures, channel_statistics
from lightning_nas.data.resumable import ResumableLoader
from lightning_nas.data.split import split_indices
from lightning_nas.data.stateful import StatefulLoader

__all__ = [
    "ArrayDataModule",
    "Augment",
    "BilevelDataModule",
    "CIFAR10DataModule",
    "CIFAR100DataModule",
    "DigitsDataModule",
    "EpochOrder",
    "NPZDataModule",
    "PairLoader",
    "PictureDataModule",
    "Pictures",
    "ResumableLoader",
    "Splits",
    "StatefulLoader",
    "TensorLoader",
    "as_images",
    "as_pictures",
    "channel_statistics",
    "cutout",
    "derive_seed",
    "generator_from",
    "normalize",
    "random_crop",
    "random_flip",
    "split_indices",
]
