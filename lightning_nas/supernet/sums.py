"""Weighted sums of the outputs of candidates, and the dropping of outputs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["add", "combine", "combine_dropped", "drop_paths", "repeated"]


def repeated(weight: Tensor, times: int) -> Tensor:
    """Each entry `times` times; contiguous, for the normalisation of a CPU reads a stride of zero past its end."""
    return weight.unsqueeze(1).expand(-1, times).reshape(-1).contiguous()


def combine(values: list[Tensor], edges: int, weight: Tensor | None) -> list[Tensor]:
    """Weighted sums of maps ``(N, C, H, W)``, one for each edge, with weights ``(edges * maps,)`` in that order."""
    if weight is None:
        return [add(values)] * edges
    if len(values) == edges == 1:
        return [values[0] * weight.to(values[0].dtype)]
    shape = values[0].shape
    together = torch.cat(values)
    last = together.is_contiguous(memory_format=torch.channels_last) and not together.is_contiguous()
    flat = (together.permute(0, 2, 3, 1) if last else together).reshape(len(values), -1)
    mixed = weight.to(flat.dtype).view(edges, -1) @ flat
    if last:
        n, c, h, w = shape
        return [part.view(n, h, w, c).permute(0, 3, 1, 2) for part in mixed.unbind(0)]
    return [part.view(shape) for part in mixed.unbind(0)]


def add(terms: list[Tensor]) -> Tensor:
    """The sum of one or more tensors."""
    if len(terms) == 1:
        return terms[0]
    total = terms[0] + terms[1]
    for term in terms[2:]:
        total = total.add_(term)
    return total


def drop_paths(out: Tensor, edges: int, rate: float) -> Tensor:
    """Drop the outputs of candidates by sample, and divide those that stay by the share that stays.

    Args:
        out: ``(N, edges * C, H, W)``, the outputs of as many candidates side by side; each has draws of its own.
        edges: How many candidates.
        rate: The probability to drop, from torch's global generator.

    Raises:
        ValueError: If `rate` is no probability below one.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"drop_path={rate}: give a probability from 0 to below 1")
    kept = out.new_empty(out.shape[0], edges).bernoulli_(1 - rate).div_(1 - rate)
    return out * kept.repeat_interleave(out.shape[1] // edges, dim=1)[:, :, None, None]


def combine_dropped(
    values: list[Tensor], skips: list[bool], edges: int, weight: Tensor | None, skip_dropout: float, drop_path: float
) -> list[Tensor]:
    """As `combine`, with dropout of the elements of `skips` and of whole samples of the others, on each edge anew."""
    found = []
    for edge in range(edges):
        terms = []
        for k, (value, skip) in enumerate(zip(values, skips, strict=True)):
            if skip:
                term = F.dropout(value, skip_dropout) if skip_dropout else value
            else:
                term = drop_paths(value, 1, drop_path) if drop_path else value
            terms.append(term if weight is None else term * weight[edge * len(values) + k].to(term.dtype))
        found.append(add(terms))
    return found
