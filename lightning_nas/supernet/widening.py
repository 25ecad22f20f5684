"""Widening of partial channels: what becomes of the weights that were not in use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_nas.ops import FactorizedReduce
from lightning_nas.supernet.cells import MixedCell

__all__ = ["widen"]

Pick = Callable[[int, int], Tensor]
"""For each of so many channels, from an old number to a new one, the old channel it becomes a copy of."""


@torch.no_grad()
def widen(supernet: nn.Module, partial: int, generator: torch.Generator, optimizer: Optimizer | None = None) -> None:
    """Let the candidates of all cells see more channels, by copies of what is trained.

    As in DrNAS (Chen et al., ICLR 2021): each new filter is a copy of one drawn at random from those of its
    convolution, and each new input of a filter a copy of one of its inputs; the layers of a chain that follow each
    other share their draws. The copies are not divided by their number, so the network computes something else
    afterwards. No tensor changes its shape or its identity. Nothing happens if `partial` is the present ``k``.

    Args:
        supernet: A network of cells built with `start_partial`.
        partial: The new ``k`` of partial channels.
        generator: Where the draws come from, in the order of the cells, edges and candidates.
        optimizer: Its state is copied along with the weights (the momentum of SGD, the moments of Adam).

    Raises:
        ValueError: If there are no such cells, or `partial` is no divisor of their channels, narrower than the present
            width or wider than the weights that there are. Nothing has changed then.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> from lightning_nas.supernet import build_supernet
        >>> supernet = build_supernet(get_space("nasbench201"), channels=8, cells=1, partial=2, start_partial=4)
        >>> widen(supernet, 2, torch.Generator().manual_seed(0))
        >>> supernet.blocks[0].width.partial
        2
    """
    cells = [cell for cell in supernet.modules() if isinstance(cell, MixedCell)]
    if not cells:
        raise ValueError("the supernet has no cells with partial channels; build it from a cell space")
    targets = [_target(cell, partial) for cell in cells]

    def pick(old: int, new: int) -> Tensor:
        return torch.randint(old, (new - old,), generator=generator, device=generator.device)

    state = {} if optimizer is None else optimizer.state
    for cell, new in zip(cells, targets, strict=True):
        old = cell.width.channels
        for edge in cell.edges if new > old else ():
            for op in cast(nn.ModuleList, edge):
                for weight, outputs, inputs in _growth(op, old, new, pick):
                    moments = [t for t in state.get(weight, {}).values() if torch.is_tensor(t)]
                    for tensor in (weight, *(t for t in moments if t.shape == weight.shape)):
                        _copy(tensor, outputs, inputs, weight.shape[1] > 1)
        if new > old:
            cell.width.set(partial)


def _target(cell: MixedCell, partial: int) -> int:
    width = cell.width
    new = width.of(partial)
    if width.active is None:
        raise ValueError(f"partial={partial}: {width.where} has a fixed width; build the supernet with start_partial")
    if new < width.channels:
        raise ValueError(
            f"partial={partial} is narrower than the present partial={width.partial} of {width.where};"
            " give a smaller number"
        )
    return new


Drawn = tuple[int, Tensor]
"""The number of old channels, and what the new ones are copies of."""


def _growth(op: nn.Module, old: int, new: int, pick: Pick) -> Iterator[tuple[Tensor, Drawn, Drawn]]:
    """The weights of a candidate in turn, with the copies of their outputs and of their inputs."""
    convs = [module for module in op.modules() if isinstance(module, nn.Conv2d)]
    if not convs:
        return
    inputs = (old, pick(old, new))
    if isinstance(op, FactorizedReduce):
        for conv in convs:
            yield conv.weight, (old // 2, pick(old // 2, new // 2)), inputs
        return
    for conv in convs:
        outputs = inputs if conv.groups > 1 else (old, pick(old, new))
        yield conv.weight, outputs, inputs
        inputs = outputs


def _copy(weight: Tensor, outputs: Drawn, inputs: Drawn, dense: bool) -> None:
    (old_out, out), (old_in, of) = outputs, inputs
    new_out, new_in = old_out + len(out), old_in + len(of)
    if dense:
        weight[:old_out, old_in:new_in] = weight[:old_out, of.to(weight.device)]
        weight[old_out:new_out, :new_in] = weight[out.to(weight.device), :new_in]
    else:
        weight[old_out:new_out] = weight[out.to(weight.device)]
