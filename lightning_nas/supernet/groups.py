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
from lightning_nas.supernet.depthwise import depthwise

__all__ = ["Form", "form_of", "run_chain", "run_reduction"]

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
    parts = list(op) if isinstance(op, nn.Sequential) else [op]
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


def run_chain(ops: Sequence[nn.Module], activated: Tensor, scale: Tensor | None) -> Tensor:
    """Run chains of one form that share their input.

    Args:
        ops: The chain of each of ``E`` edges.
        activated: ``(N, C, H, W)``, the source after its ReLU.
        scale: ``(E * C,)``, the weight of each candidate repeated over its channels; ``None`` for one.

    Returns:
        ``(N, E * C, H', W')``: the outputs side by side, each times its weight. The weight is the scale of the last
        batch normalisation, so it costs no pass of its own and has the right gradient.
    """
    sequences = [op for op in ops if isinstance(op, nn.Sequential)]
    stages = _stages(sequences[0])
    out, shared = activated, True
    for number, stage in enumerate(stages):
        out = F.relu_(out) if number else out
        for position in stage.convs:
            out, shared = _convolve([sequence[position] for sequence in sequences], out, shared), False
        last = number == len(stages) - 1
        out = _normalise(out, sequences[0][stage.norm], scale if last else None)
    return out


def _convolve(convs: Sequence[nn.Module], x: Tensor, shared: bool) -> Tensor:
    """One convolution per edge, of one input for all or of its own channels for each."""
    conv = convs[0]
    assert isinstance(conv, nn.Conv2d)  # noqa: S101  (for the type checker)
    edges, weights = len(convs), [c.weight for c in convs if isinstance(c, nn.Conv2d)]
    weight = torch.cat(weights) if edges > 1 else weights[0]
    stride, padding, dilation = int(conv.stride[0]), int(conv.padding[0]), int(conv.dilation[0])
    if conv.groups > 1:
        x = torch.cat([x] * edges, dim=1) if shared and edges > 1 else x
        return depthwise(x, weight, stride, padding, dilation)
    return F.conv2d(x, weight, None, stride, padding, dilation, 1 if shared else edges)


def run_reduction(ops: Sequence[nn.Module], activated: Tensor, scale: Tensor | None) -> Tensor:
    """Run factorized reductions that share their input; arguments and result as for `run_chain`.

    Both shifted 1x1 convolutions of all edges are one convolution of the two sub-images side by side.
    """
    reductions = [op for op in ops if isinstance(op, FactorizedReduce)]
    if any(side % 2 for side in activated.shape[-2:]):
        raise ValueError(f"a factorized reduction needs an even height and width, got {tuple(activated.shape[-2:])}")
    channels = activated.shape[1]
    both = torch.cat([activated[:, :, ::2, ::2], activated[:, :, 1::2, 1::2]], dim=1)
    upper = torch.stack([op.conv_1.weight for op in reductions])
    lower = torch.stack([op.conv_2.weight for op in reductions])
    beside = (0, 0, 0, 0, 0, channels), (0, 0, 0, 0, channels, 0)
    weight = torch.cat([F.pad(upper, beside[0]), F.pad(lower, beside[1])], dim=1).flatten(0, 1)
    return _normalise(F.conv2d(both, weight), reductions[0].bn, scale)


def _normalise(x: Tensor, norm: nn.Module, scale: Tensor | None) -> Tensor:
    eps = norm.eps if isinstance(norm, nn.BatchNorm2d) else 0.0
    return F.batch_norm(x, None, None, scale, None, True, 0.0, eps)
