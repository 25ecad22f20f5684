"""Pictures with labels in memory, and the checks that they have to pass."""

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Pictures", "Splits", "as_images", "as_pictures", "channel_statistics"]

Array = np.ndarray[Any, np.dtype[Any]] | Tensor
Layout = Literal["auto", "NCHW", "NHWC"]


class Pictures(NamedTuple):
    """Pictures uint8 ``(N, C, H, W)`` and their classes int64 ``(N,)``."""

    images: Tensor
    labels: Tensor


class Splits(NamedTuple):
    """The parts of a data set; `val` and `test` are None where there are none."""

    train: Pictures
    val: Pictures | None = None
    test: Pictures | None = None


def as_images(array: Array, layout: Layout = "auto", name: str = "images") -> Tensor:
    """Bring pictures of the usual layouts to uint8 ``(N, C, H, W)``.

    Args:
        array: uint8, or floating point in ``[0, 1]`` (which is rounded to 256 steps), of shape ``(N, H, W)``,
            ``(N, H, W, C)`` or ``(N, C, H, W)``.
        layout: Order of four dimensions; "auto" takes the one dimension of size 1, 3 or 4 as the channels.
        name: What to call the array in an error.

    Returns:
        uint8 tensor ``(N, C, H, W)``.

    Raises:
        ValueError: If shape, type or values are others, or the layout cannot be told.

    Example:
        >>> as_images(np.ones((2, 8, 8, 3))).shape, as_images(np.ones((2, 8, 8)))[0, 0, 0, 0]
        (torch.Size([2, 3, 8, 8]), tensor(255, dtype=torch.uint8))
    """
    images = _tensor(array, name)
    if images.ndim not in (3, 4):
        raise ValueError(f"{name} has shape {tuple(images.shape)}; give (N, H, W), (N, H, W, C) or (N, C, H, W)")
    if images.numel() == 0:
        raise ValueError(f"{name} is empty, shape {tuple(images.shape)}; give at least one picture")
    if images.ndim == 3:
        images = images.unsqueeze(1)
    elif _channels_last(images, layout, name):
        images = images.permute(0, 3, 1, 2)
    if images.is_floating_point():
        if not bool(((images >= 0) & (images <= 1)).all()):  # NaN compares as false
            found = "NaN" if bool(images.isnan().any()) else f"{images.min():g} to {images.max():g}"
            raise ValueError(f"{name} holds {found}; floating point pictures must lie in 0..1, or give uint8")
        images = (images * 255).round().to(torch.uint8)
    if images.dtype != torch.uint8:
        raise ValueError(f"{name} is {images.dtype}; give uint8, or floating point in 0..1")
    return images.contiguous()


def as_pictures(
    images: Array, labels: Array, num_classes: int, name: str = "train", layout: Layout = "auto"
) -> Pictures:
    """Pictures and labels that fit together.

    Args:
        images: See `as_images`.
        labels: Whole numbers ``(N,)`` in ``0 .. num_classes - 1``.
        num_classes: How many classes there are.
        name: What to call this part in an error.
        layout: See `as_images`.

    Returns:
        The checked pair.

    Raises:
        ValueError: If the pictures are not as described, lengths differ, or a label is out of range.

    Example:
        >>> as_pictures(np.ones((2, 8, 8)), np.array([0, 1]), num_classes=2).labels
        tensor([0, 1])
    """
    pictures = as_images(images, layout, f"{name} pictures")
    classes = _tensor(labels, f"{name} labels")
    if classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool or classes.ndim != 1:
        raise ValueError(f"{name} labels are {classes.dtype} {tuple(classes.shape)}; give whole numbers (N,)")
    if len(classes) != len(pictures):
        raise ValueError(f"{len(pictures)} {name} pictures but {len(classes)} labels; give one label for each picture")
    classes = classes.to(torch.int64)
    lowest, highest = int(classes.min()), int(classes.max())
    if lowest < 0 or highest >= num_classes:
        raise ValueError(
            f"{name} labels go from {lowest} to {highest}; with {num_classes} classes, 0..{num_classes - 1}"
        )
    return Pictures(pictures, classes)


def channel_statistics(images: Tensor, chunk: int = 4096) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel over all pixels of all pictures.

    Args:
        images: uint8 ``(N, C, H, W)``.
        chunk: Pictures converted at a time.

    Returns:
        Mean and population deviation per channel, in units of ``[0, 1]``.

    Raises:
        ValueError: If a channel is constant.

    Example:
        >>> channel_statistics(torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1))
        ((0.5,), (0.5,))
    """
    pixels = images.shape[0] * images.shape[2] * images.shape[3]
    total = torch.zeros(images.shape[1], dtype=torch.float64)
    square = torch.zeros_like(total)
    for part in torch.split(images, chunk):
        scaled = part.to(torch.float64).div_(255)
        total += scaled.sum(dim=(0, 2, 3))
        square += scaled.square().sum(dim=(0, 2, 3))
    mean = total / pixels
    variance = square / pixels - mean.square()
    constant = (variance <= 1e-12).nonzero().flatten().tolist()
    if constant:
        raise ValueError(
            f"channel(s) {constant} have the same value in all pictures; leave them out or give mean and std"
        )
    return tuple(mean.tolist()), tuple(variance.sqrt().tolist())


def _tensor(array: Array, name: str) -> Tensor:
    try:
        return torch.as_tensor(array)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be an array of numbers, not {getattr(array, 'dtype', type(array))}") from error


def _channels_last(images: Tensor, layout: Layout, name: str) -> bool:
    if layout != "auto":
        return layout == "NHWC"
    first, last = images.shape[1] in (1, 3, 4), images.shape[3] in (1, 3, 4)
    if first == last:
        raise ValueError(
            f"{name} has shape {tuple(images.shape)}, in which the channels cannot be told; give layout NCHW or NHWC"
        )
    return last
