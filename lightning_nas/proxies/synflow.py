"""SynFlow: how much of the output of an untrained network hangs on its weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

__all__ = ["synaptic_flow", "synflow"]


def synflow(network: nn.Module, x: Tensor, y: Tensor | None = None, log: bool = True) -> float:
    r"""Sum over all weights of convolutions and linear layers of :math:`|\theta\, \partial R / \partial \theta|`.

    `R` is the sum of the outputs for one input of ones, with all parameters and buffers replaced by their absolute
    values and without batch normalisation (`synaptic_flow`). Neither pictures nor labels matter, only the pictures'
    shape. To be large.

    The sum is a product of the sums of all layers, and reaches 1e60 in deep networks. So its natural logarithm is
    returned, which leaves the order as it is; of the publications that report values, most have the sum itself. A
    network whose output does not hang on its input's weights has the sum 0 and the logarithm minus infinity, which an
    oracle reports as a failed trial.

    Reference: Tanaka, Kunin, Yamins and Ganguli, "Pruning Neural Networks without Any Data by Iteratively Conserving
    Synaptic Flow", NeurIPS 2020; as a score, Abdelfattah, Mehrotra, Dudziak and Lane, "Zero-Cost Proxies for
    Lightweight NAS", ICLR 2021.

    Args:
        network: The network; it stays as it is.
        x: Pictures ``(N, C, H, W)``.
        y: Not looked at; scores without labels have it too.
        log: Whether the logarithm is returned.

    Example:
        >>> network = nn.Linear(2, 1, bias=False)
        >>> _ = nn.init.constant_(network.weight, -3.0)
        >>> synflow(network, torch.zeros(5, 2), log=False)  # |-3| x 1 + |-3| x 1
        6.0
    """
    total = math.fsum(synaptic_flow(network, x).values())
    if not log:
        return total
    return math.log(total) if total > 0 else -math.inf


def synaptic_flow(network: nn.Module, x: Tensor) -> dict[str, float]:
    r"""For each convolution and linear layer the sum of :math:`|\theta\, \partial R / \partial \theta|` of its weight.

    In a chain of layers without biases each sum is `R` itself. Everything happens on a copy in double precision, in
    evaluation mode, so that nothing is dropped.

    Args:
        network: The network; it stays as it is.
        x: Pictures ``(N, C, H, W)``; their shape alone matters.

    Returns:
        Name of the layer -> sum; 0 for one that the output does not hang on.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
        >>> _ = nn.init.ones_(network[0].weight), nn.init.constant_(network[2].weight, -2.0)
        >>> synaptic_flow(network, torch.zeros(3, 2))  # R = 2 x (1 + 1) x 2
        {'0': 8.0, '2': 8.0}
    """
    probe = copy.deepcopy(network).double().eval().requires_grad_()
    with torch.no_grad():
        for tensor in probe.state_dict().values():
            if tensor.is_floating_point():
                tensor.abs_()
    weights = {name: m.weight for name, m in probe.named_modules() if isinstance(m, (_ConvNd, nn.Linear))}
    with torch.enable_grad(), _NoBatchNorm():
        out: Tensor = probe(torch.ones(1, *x.shape[1:], dtype=torch.float64, device=x.device)).sum()
    if not out.requires_grad:
        return dict.fromkeys(weights, 0.0)
    grads = torch.autograd.grad(out, list(weights.values()), allow_unused=True)
    flows = [
        0.0 if g is None else float((w * g).detach().abs().sum()) for w, g in zip(weights.values(), grads, strict=True)
    ]
    return dict(zip(weights, flows, strict=True))


class _NoBatchNorm(TorchFunctionMode):
    """While it is entered, batch normalisation returns its input, wherever it is called."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in (F.batch_norm, torch.batch_norm):
            return args[0] if args else kwargs["input"]
        return func(*args, **kwargs)
