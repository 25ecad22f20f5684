"""Augmentation of whole batches of pictures, with an own draw for each picture and no loop over them.

All functions are pure: they return new tensors and draw from the generator they are given, nothing else. The order of
`Augment` is the one the field trains with (pad and crop, flip, scale and normalise, cut out), so that the border of a
padded crop is black and a cut-out square is zero *after* normalisation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Augment", "cutout", "normalize", "random_crop", "random_flip"]


def random_crop(x: Tensor, pad: int, generator: torch.Generator) -> Tensor:
    """Shift each picture by a uniform offset of up to `pad` pixels in both directions; what moves in is 0.

    The same as padding with zeros on all sides and cropping at a uniform place: each of the ``(2 * pad + 1) ** 2``
    places has the same probability.

    Args:
        x: Pictures ``(B, C, H, W)`` before normalisation, uint8 or floating point.
        pad: Pixels of padding on each side, less than the height and the width.
        generator: Where the offsets are drawn.

    Returns:
        Tensor of the same shape and dtype.

    Raises:
        ValueError: If `x` is not a batch of pictures or `pad` is out of range.

    Example:
        >>> x = torch.ones(2, 1, 4, 4)
        >>> random_crop(x, 1, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 1, 4, 4])
    """
    batch, _, height, width = _batch_shape(x)
    _whole("crop padding", pad)
    if pad >= min(height, width):
        raise ValueError(f"crop padding {pad} can push a {height}x{width} picture out of sight; use less than its side")
    if pad == 0:
        return x.clone()
    top, left = _integers(2 * pad + 1, (2, batch), x.device, generator)
    windows = F.pad(x, (pad, pad, pad, pad)).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(batch, device=x.device), :, top, left]


def random_flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each picture left to right with probability one half.

    Args:
        x: Pictures ``(B, C, H, W)``.
        generator: Where the decisions are drawn.

    Returns:
        Tensor of the same shape and dtype.

    Raises:
        ValueError: If `x` is not a batch of pictures.

    Example:
        >>> x = torch.arange(4.0).reshape(1, 1, 1, 4).expand(3, 1, 1, 4)
        >>> random_flip(x, torch.Generator().manual_seed(2))[:, 0, 0, 0]
        tensor([0., 3., 3.])
    """
    batch = _batch_shape(x)[0]
    mirrored = _integers(2, (batch, 1, 1, 1), x.device, generator).bool()
    return torch.where(mirrored, x.flip(-1), x)


def cutout(x: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """Set one square of each picture to zero, its centre uniform over the picture, clipped at the borders.

    The square covers ``length`` pixels from ``centre - length // 2`` on. As its centre may lie on the border, as little
    as a quarter of it can be visible. Apply it after normalisation, where 0 is the mean colour.

    T. DeVries and G. W. Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017.

    Args:
        x: Pictures ``(B, C, H, W)``.
        length: Side of the square in pixels; 0 cuts nothing.
        generator: Where the centres are drawn.

    Returns:
        Tensor of the same shape and dtype.

    Raises:
        ValueError: If `x` is not a batch of pictures or `length` is out of range.

    Example:
        >>> x = torch.ones(1, 1, 4, 4)
        >>> cutout(x, 2, torch.Generator().manual_seed(0))[0, 0]
        tensor([[1., 1., 0., 0.],
                [1., 1., 1., 1.],
                [1., 1., 1., 1.],
                [1., 1., 1., 1.]])
    """
    batch, _, height, width = _batch_shape(x)
    _whole("cutout length", length)
    if length > max(height, width):
        raise ValueError(
            f"cutout length {length} is more than the side of a {height}x{width} picture; use a shorter one"
        )
    if length == 0:
        return x.clone()
    rows = _inside(height, length, batch, x.device, generator)
    columns = _inside(width, length, batch, x.device, generator)
    return x.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0)


def normalize(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Scale pictures to zero mean and unit deviation per channel: ``(x - mean) / std`` with `x` in ``[0, 1]``.

    Args:
        x: Pictures ``(B, C, H, W)``; uint8 is divided by 255 first, floating point is taken as it is.
        mean: A value per channel, in units of ``[0, 1]``.
        std: A positive value per channel, in units of ``[0, 1]``.

    Returns:
        float32 tensor ``(B, C, H, W)``.

    Raises:
        ValueError: If `x` is not a batch of pictures, or `mean` or `std` do not fit its channels.

    Example:
        >>> normalize(torch.full((1, 1, 1, 1), 255, dtype=torch.uint8), mean=[0.5], std=[0.5]).item()
        1.0
    """
    channels = _batch_shape(x)[1]
    check_statistics(mean, std, channels)
    scaled = x.to(torch.float32).div_(255) if x.dtype == torch.uint8 else x.to(torch.float32, copy=True)
    column = torch.tensor([list(mean), list(std)], dtype=torch.float32, device=x.device).reshape(2, channels, 1, 1)
    return scaled.sub_(column[0]).div_(column[1])


@dataclass(frozen=True)
class Augment:
    """Random crop, flip, normalisation and cutout of a batch, in this order; without arguments, normalisation only.

    Args:
        crop: Padding of the random crop in pixels, 0 for none.
        flip: Whether pictures are mirrored at random.
        cutout: Side of the cut-out square in pixels, 0 for none.

    Raises:
        ValueError: If a value is out of range.

    Example:
        >>> x = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
        >>> augment = Augment(crop=4, flip=True, cutout=16)
        >>> augment(x, [0.5] * 3, [0.25] * 3, torch.Generator().manual_seed(0)).unique()
        tensor([-2.,  0.])
    """

    crop: int = 0
    flip: bool = False
    cutout: int = 0

    def __post_init__(self) -> None:
        _whole("crop", self.crop)
        _whole("cutout", self.cutout)
        if not isinstance(self.flip, bool):
            raise ValueError(f"flip={self.flip!r} must be true or false")

    def __call__(
        self, x: Tensor, mean: Sequence[float], std: Sequence[float], generator: torch.Generator | None = None
    ) -> Tensor:
        """Augment and normalise one batch.

        Args:
            x: Pictures ``(B, C, H, W)``, uint8, or floating point in ``[0, 1]``.
            mean: Mean per channel in units of ``[0, 1]``.
            std: Deviation per channel in units of ``[0, 1]``.
            generator: Where all draws come from; needed only where something is random.

        Returns:
            float32 tensor ``(B, C, H, W)``.

        Raises:
            ValueError: If an argument does not fit the pictures, or the generator is missing.
        """
        if not self.random:
            return normalize(x, mean, std)
        if generator is None:
            raise ValueError(f"{self} draws at random; pass a torch.Generator")
        if self.crop:
            x = random_crop(x, self.crop, generator)
        if self.flip:
            x = random_flip(x, generator)
        x = normalize(x, mean, std)
        return cutout(x, self.cutout, generator) if self.cutout else x

    @property
    def random(self) -> bool:
        """Whether anything is drawn at all."""
        return bool(self.crop or self.flip or self.cutout)


def check_statistics(mean: Sequence[float], std: Sequence[float], channels: int) -> None:
    """Refuse a mean or deviation that does not fit the number of channels.

    Args:
        mean: A value per channel.
        std: A positive value per channel.
        channels: How many there must be.

    Raises:
        ValueError: If a length is wrong or a deviation is not positive.
    """
    if len(mean) != channels or len(std) != channels:
        raise ValueError(
            f"mean has {len(mean)} and std {len(std)} values, but the pictures have {channels} channels; give one each"
        )
    if not all(value > 0 for value in std):
        raise ValueError(f"std={tuple(std)} must be positive in every channel")


def _inside(size: int, length: int, batch: int, device: torch.device, generator: torch.Generator) -> Tensor:
    """For each picture, which of the `size` rows (or columns) its square covers: bool ``(batch, size)``."""
    start = _integers(size, (batch, 1), device, generator) - length // 2
    place = torch.arange(size, device=device)
    return (place >= start) & (place < start + length)


def _integers(high: int, shape: tuple[int, ...], device: torch.device, generator: torch.Generator) -> Tensor:
    """Uniform integers below `high`, drawn on the generator's device."""
    return torch.randint(high, shape, generator=generator, device=generator.device).to(device)


def _batch_shape(x: Tensor) -> tuple[int, int, int, int]:
    if x.ndim != 4 or not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise ValueError(f"pictures must be uint8 or floating point (B, C, H, W), not {x.dtype} {tuple(x.shape)}")
    batch, channels, height, width = x.shape
    return batch, channels, height, width


def _whole(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} {value!r} must be a whole number of pixels, 0 for none")
