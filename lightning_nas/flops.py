"""Parameters and multiply-adds of a module."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["count_macs", "count_parameters"]


def count_parameters(module: nn.Module, exclude: Collection[str] = ()) -> int:
    """Number of parameters, shared ones once.

    Args:
        module: The module.
        exclude: Names of submodules or parameters to leave out, with all below them, for example ``("auxiliary",)``.

    Raises:
        ValueError: If the module has nothing of an excluded name that could be left out (``None`` included).

    Example:
        >>> count_parameters(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), exclude=("1",))
        9
    """
    for name in exclude:
        _require_attribute(module, name)
    prefixes = tuple(f"{name}." for name in exclude)
    return sum(p.numel() for name, p in module.named_parameters() if not f"{name}.".startswith(prefixes or ("\0",)))


def count_macs(module: nn.Module, image_shape: tuple[int, int, int], *args: Any) -> int:
    """Multiply-adds of convolutions and matrix products for one picture, in evaluation mode.

    The forward pass runs on the meta device, which computes shapes only, so that large networks cost neither memory nor
    time; where an operation cannot do that, it runs as usual. The module is left as it was.

    Args:
        module: The module; ``module(pictures, *args)`` is called.
        image_shape: ``(C, H, W)`` of the picture.
        *args: Further arguments of `forward`, for example a supernet's sample; tensors in tuples, lists and mappings
            are moved along.

    Returns:
        Half the floating point operations, since papers count a multiplication and an addition as one.

    Raises:
        ValueError: If the shape is not three positive numbers.

    Example:
        >>> count_macs(nn.Conv2d(3, 8, 3, padding=1), (3, 32, 32)) == 3 * 8 * 3 * 3 * 32 * 32
        True
    """
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ValueError(f"image_shape={tuple(image_shape)} must be (channels, height, width), all at least 1")
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        return _count(module, image_shape, args)
    finally:
        for part, training in modes.items():
            part.training = training


@torch.no_grad()
def _count(module: nn.Module, image_shape: tuple[int, int, int], args: tuple[Any, ...]) -> int:
    state = {name: t.to("meta") for name, t in chain(module.named_parameters(), module.named_buffers())}
    pictures = torch.empty(1, *image_shape, device="meta")
    counter = FlopCounterMode(display=False)
    try:
        with counter:
            functional_call(module, state, (pictures, *(_to_meta(arg) for arg in args)))
    except (NotImplementedError, RuntimeError):
        real = next((t for t in chain(module.parameters(), module.buffers()) if not t.is_meta), None)
        if real is None:
            raise
        counter = FlopCounterMode(display=False)
        with counter:
            module(torch.zeros(1, *image_shape, device=real.device), *args)
    return counter.get_total_flops() // 2


def _to_meta(value: Any) -> Any:
    """The value with its tensors on the meta device."""
    if isinstance(value, Tensor):
        return value.to("meta")
    if isinstance(value, Mapping):
        return {name: _to_meta(part) for name, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_to_meta, value))
    if isinstance(value, (tuple, list)):
        return type(value)(map(_to_meta, value))
    return value


def _require_attribute(module: nn.Module, name: str) -> None:
    """Check that a dotted name leads somewhere."""
    found: object = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{type(module).__name__} has no {name!r} to leave out of the count")
        found = getattr(found, part)
