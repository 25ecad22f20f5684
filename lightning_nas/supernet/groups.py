"""Groups: the candidates of one form on all edges that leave a node, executed by one call per layer.

A candidate is recognised by its modules, so that a project's own candidates are grouped too where they have one of the
known forms: a chain of ReLU, convolutions and batch normalisation without scale (separable, dilated and plain
convolutions of any size), a factorized reduction, or a parameter-free map (identity, pooling with or without batch
normalisation). All else runs edge by edge as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.ops import FactorizedReduce, Zero
from lightning_nas.ops.blocks import require_even
from lightning_nas.supernet.depthwise import Taps, depthwise, fan

__all__ = ["Form", "form_of", "run_chains", "run_reduction"]

Form = Literal["zero", "map", "chain", "reduction", "other"]


def form_of(op: nn.Module) -> Form:
    """The form of a candidate.

    Example:
        >>> from lightning_nas.ops import OpSpec, make_op
        >>> spec = OpSpec(4, affine=False, track_stats=False)
        >>> [form_of(make_op(name, spec)) for name in ("none", "skip_connect", "avg_pool_3x3", "sep_conv_3x3")]
        ['zero', 'map', 'map', 'chain']
    """
    if isinstance(op, Zero):
        return "zero"
    if isinstance(op, nn.Sequential) and type(op).forward is not nn.Sequential.forward:
        return "other"
    parts = list(op) if isinstance(op, nn.Sequential) else [op]
    if not parts:
        return "other"
    if isinstance(parts[0], (nn.Identity, nn.MaxPool2d, nn.AvgPool2d)) and all(map(_plain_norm, parts[1:])):
        return "map"
    if isinstance(op, FactorizedReduce) and _plain_norm(op.bn):
        return "reduction"
    return "chain" if isinstance(op, nn.Sequential) and _stages(op) else "other"


def _plain_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm2d) and not module.affine and not module.track_running_stats


@dataclass(frozen=True)
class _Stage:
    """ReLU, the convolutions at these positions of the sequence, batch normalisation."""

    convs: tuple[int, ...]
    norm: int


def _stages(op: nn.Sequential) -> list[_Stage]:
    """The stages of a chain; none if it is no chain."""
    stages: list[_Stage] = []
    parts, at = list(op), 0
    while at < len(parts):
        first = at + 1
        last = first
        while last < len(parts) and _simple_conv(parts[last]):
            last += 1
        closed = last < len(parts) and _plain_norm(parts[last])
        if not (isinstance(parts[at], nn.ReLU) and last > first and closed):
            return []
        stages.append(_Stage(tuple(range(first, last)), last))
        at = last + 1
    return stages


def _simple_conv(module: nn.Module) -> bool:
    """Whether it is a square dense or depthwise convolution without bias and with zeros around."""
    if not isinstance(module, nn.Conv2d) or module.bias is not None or module.padding_mode != "zeros":
        return False
    pairs = (module.kernel_size, module.stride, module.padding, module.dilation)
    square = all(isinstance(pair, tuple) and pair[0] == pair[1] for pair in pairs)
    return square and module.groups in (1, module.in_channels) and module.in_channels == module.out_channels


def run_chains(
    groups: Sequence[Sequence[nn.Module]], activated: Tensor, scales: Sequence[Tensor | None]
) -> list[Tensor]:
    """Run groups of chains that share their input.

    Args:
        groups: For each group the chains of one form of its ``E`` edges.
        activated: ``(N, C, H, W)``, the source after its ReLU.
        scales: For each group ``(E * C,)``, the weight of each candidate repeated over its channels; ``None`` for one.

    Returns:
        For each group ``(N, E * C, H', W')``: the outputs side by side, each times its weight. The weight is the scale
        of the last batch normalisation, so it costs no pass of its own and has the right gradient.
    """
    chains = [[op for op in ops if isinstance(op, nn.Sequential)] for ops in groups]
    plans = [_stages(sequences[0]) for sequences in chains]
    firsts = [_stacked([sequence[1] for sequence in sequences]) for sequences in chains]
    deep = [k for k, (conv, _) in enumerate(firsts) if conv.groups > 1]
    fanned = fan(activated, [firsts[k][1] for k in deep], [_taps(firsts[k][0]) for k in deep]) if deep else []
    begun = dict(zip(deep, fanned, strict=True))
    outs = []
    for k, (sequences, stages, scale) in enumerate(zip(chains, plans, scales, strict=True)):
        conv, weight = firsts[k]
        out = begun.pop(k) if k in begun else F.conv2d(activated, weight, None, *_taps(conv))
        for number, stage in enumerate(stages):
            out = F.relu_(out) if number else out
            for position in stage.convs[0 if number else 1 :]:
                out = _convolve([sequence[position] for sequence in sequences], out)
            out = _normalise(out, sequences[0][stage.norm], scale if number == len(stages) - 1 else None)
        outs.append(out)
    return outs


def _stacked(convs: Sequence[nn.Module]) -> tuple[nn.Conv2d, Tensor]:
    """A convolution like all of them, and their weights side by side."""
    same = [conv for conv in convs if isinstance(conv, nn.Conv2d)]
    return same[0], torch.cat([conv.weight for conv in same]) if len(same) > 1 else same[0].weight


def _taps(conv: nn.Conv2d) -> Taps:
    return Taps(int(conv.stride[0]), int(conv.padding[0]), int(conv.dilation[0]))


def _convolve(convs: Sequence[nn.Module], x: Tensor) -> Tensor:
    """One convolution per edge, each of its own channels."""
    conv, weight = _stacked(convs)
    if conv.groups > 1:
        return depthwise(x, weight, *_taps(conv))
    return F.conv2d(x, weight, None, *_taps(conv), len(convs))


def run_reduction(ops: Sequence[nn.Module], activated: Tensor, scale: Tensor | None) -> Tensor:
    """Run factorized reductions that share their input; arguments and result as for one group of `run_chains`.

    The first convolutions of all edges are one, and so are the second.
    """
    reductions = [op for op in ops if isinstance(op, FactorizedReduce)]
    require_even(activated)
    first = F.conv2d(activated[:, :, ::2, ::2], torch.cat([op.conv_1.weight for op in reductions]))
    second = F.conv2d(activated[:, :, 1::2, 1::2], torch.cat([op.conv_2.weight for op in reductions]))
    halves = [torch.unflatten(half.permute(0, 2, 3, 1), 3, (len(reductions), -1)) for half in (first, second)]
    joined = torch.stack(halves, dim=4).flatten(3).permute(0, 3, 1, 2)  # edge by edge, its first half first
    return _normalise(joined, reductions[0].bn, scale)


def _normalise(x: Tensor, norm: nn.Module, scale: Tensor | None) -> Tensor:
    eps = norm.eps if isinstance(norm, nn.BatchNorm2d) else 0.0
    return F.batch_norm(x, None, None, scale, None, True, 0.0, eps)
