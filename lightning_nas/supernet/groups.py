"""Groups: the candidates of one form on all edges that leave a node, executed by one call per layer.

A candidate is recognised by its modules, so that a project's own candidates are grouped too where they have one of the
known forms: a chain of ReLU, convolutions and batch normalisation without scale (separable, dilated and plain
convolutions of any size), a factorized reduction, or a parameter-free map (identity, pooling with or without batch
normalisation). All else runs edge by edge as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.ops import FactorizedReduce, Zero
from lightning_nas.ops.blocks import convolve, require_even
from lightning_nas.supernet.depthwise import Taps, depthwise, fan

__all__ = ["Form", "Stage", "form_of", "run_chains", "run_reduction", "stages_of"]

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
    return "chain" if isinstance(op, nn.Sequential) and stages_of(op) else "other"


def _plain_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm2d) and not module.affine and not module.track_running_stats


@dataclass(frozen=True)
class Conv:
    """A convolution of a chain: its position in the sequence and how its kernel is laid."""

    at: int
    taps: Taps
    depthwise: bool


@dataclass(frozen=True)
class Stage:
    """ReLU, convolutions, batch normalisation."""

    convs: tuple[Conv, ...]
    eps: float


def stages_of(op: nn.Module) -> tuple[Stage, ...]:
    """The stages of a chain; none if it is no chain."""
    stages: list[Stage] = []
    parts, at = list(op) if isinstance(op, nn.Sequential) else [], 0
    while at < len(parts):
        convs: list[Conv] = []
        last = at + 1
        while last < len(parts) and _simple_conv(parts[last]):
            conv = cast(nn.Conv2d, parts[last])
            taps = Taps(int(conv.stride[0]), int(conv.padding[0]), int(conv.dilation[0]))
            convs.append(Conv(last, taps, conv.groups > 1))
            last += 1
        if not (isinstance(parts[at], nn.ReLU) and convs and last < len(parts) and _plain_norm(parts[last])):
            return ()
        stages.append(Stage(tuple(convs), _eps(parts[last])))
        at = last + 1
    return tuple(stages)


def _simple_conv(module: nn.Module) -> bool:
    """Whether it is a square dense or depthwise convolution without bias and with zeros around."""
    if not isinstance(module, nn.Conv2d) or module.bias is not None or module.padding_mode != "zeros":
        return False
    pairs = (module.kernel_size, module.stride, module.padding, module.dilation)
    square = all(isinstance(pair, tuple) and pair[0] == pair[1] for pair in pairs)
    return square and module.groups in (1, module.in_channels) and module.in_channels == module.out_channels


def run_chains(
    groups: Sequence[tuple[Sequence[nn.Module], Sequence[Stage], Tensor | None]], activated: Tensor
) -> list[Tensor]:
    """Run groups of chains that share their input.

    Args:
        groups: For each group the chains of one form of its ``E`` edges, their stages, and ``(E * C,)``, the weight of
            each candidate repeated over its channels (``None`` for one).
        activated: ``(N, C, H, W)``, the source after its ReLU. Candidates that are wider run on the first `C` of their
            channels.

    Returns:
        For each group ``(N, E * C, H', W')``: the outputs side by side, each times its weight. The weight is the scale
        of the last batch normalisation, so it costs no pass of its own and has the right gradient.
    """
    channels = activated.shape[1]
    firsts = [(stages[0].convs[0], _stacked(chains, stages[0].convs[0], channels)) for chains, stages, _ in groups]
    deep = [k for k, (conv, _) in enumerate(firsts) if conv.depthwise]
    fanned = fan(activated, [firsts[k][1] for k in deep], [firsts[k][0].taps for k in deep]) if deep else []
    begun = dict(zip(deep, fanned, strict=True))
    outs = []
    for k, (chains, stages, scale) in enumerate(groups):
        conv, weight = firsts[k]
        out = begun.pop(k) if k in begun else convolve(activated, weight, *conv.taps)
        for number, stage in enumerate(stages):
            out = F.relu_(out) if number else out
            for later in stage.convs[0 if number else 1 :]:
                out = _convolve(chains, later, out, channels)
            out = _normalise(out, stage.eps, scale if number == len(stages) - 1 else None)
        outs.append(out)
    return outs


def _stacked(chains: Sequence[nn.Module], conv: Conv, channels: int) -> Tensor:
    """The weights of a convolution of all chains side by side."""
    convs = [cast(nn.Conv2d, cast(nn.Sequential, chain)[conv.at]) for chain in chains]
    weights = [_narrow(conv.weight, channels, channels) for conv in convs]
    return torch.cat(weights) if len(weights) > 1 else weights[0]


def _narrow(weight: Tensor, outputs: int, inputs: int) -> Tensor:
    """The part of a kernel for the first outputs and inputs; a depthwise kernel has one input."""
    return weight if weight.shape[0] == outputs else weight[:outputs, :inputs]


def _convolve(chains: Sequence[nn.Module], conv: Conv, x: Tensor, channels: int) -> Tensor:
    """One convolution per edge, each of its own channels."""
    weight = _stacked(chains, conv, channels)
    return depthwise(x, weight, *conv.taps) if conv.depthwise else convolve(x, weight, *conv.taps, len(chains))


def run_reduction(ops: Sequence[nn.Module], activated: Tensor, scale: Tensor | None) -> Tensor:
    """Run factorized reductions that share their input; arguments and result as for one group of `run_chains`.

    The first convolutions of all edges are one, and so are the second.
    """
    reductions = [op for op in ops if isinstance(op, FactorizedReduce)]
    require_even(activated)
    c = activated.shape[1]
    weights = [[_narrow(conv.weight, c // 2, c) for conv in (op.conv_1, op.conv_2)] for op in reductions]
    shifted = (activated[:, :, ::2, ::2], activated[:, :, 1::2, 1::2])
    first, second = (F.conv2d(x, torch.cat(side)) for x, side in zip(shifted, zip(*weights, strict=True), strict=True))
    halves = [torch.unflatten(half.permute(0, 2, 3, 1), 3, (len(reductions), -1)) for half in (first, second)]
    joined = torch.stack(halves, dim=4).flatten(3).permute(0, 3, 1, 2)  # edge by edge, its first half first
    return _normalise(joined, _eps(reductions[0].bn), scale)


def _eps(norm: nn.Module) -> float:
    return norm.eps if isinstance(norm, nn.BatchNorm2d) else 0.0


def _normalise(x: Tensor, eps: float, scale: Tensor | None) -> Tensor:
    return F.batch_norm(x, None, None, scale, None, True, 0.0, eps)
