"""NASWOT: how differently the ReLUs of an untrained network answer to the pictures of a batch."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode

__all__ = ["code_score", "hamming_kernel", "kernel_score", "naswot"]

_RELUS = frozenset({F.relu, F.relu_, F.relu6, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_})
_EXACT = 2**24  # single precision counts up to here


def naswot(network: nn.Module, x: Tensor, y: Tensor | None = None) -> float:
    r"""Logarithm of the determinant of the kernel of activation codes, :math:`\log |\det K_H|`; to be large.

    A picture's code says for each unit of each ReLU whether it is on, and :math:`K_H` counts for two pictures the units
    that agree (`hamming_kernel`), over all ReLUs and ReLU6s of the network, modules and functions alike. ReLUs that the
    backward pass from the output does not reach, since nothing they compute arrives there, are left out. The network is
    scored in train mode, so batch normalisation goes by the batch. The score grows with the number of units: deep and
    wide networks score high, so compare those of one skeleton.

    Two pictures with the same code, or any code that depends on the others, make the determinant zero and the score
    minus infinity. So it is for a cell that does not connect input and output; an oracle reports it as a failed trial.

    All this happens on a copy: parameters, buffers, mode, hooks and gradients of the network stay as they are. Dropout
    draws from torch's generator.

    Reference: Mellor, Turner, Storkey and Crowley, "Neural Architecture Search without Training", ICML 2021.

    Args:
        network: The network.
        x: Pictures ``(N, C, H, W)``, or whatever it takes; 128 in the publication.
        y: Not looked at; scores without labels have it too.

    Raises:
        ValueError: If the network has no ReLU, or an activation is not finite.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1))
        >>> _ = nn.init.eye_(network[0].weight)
        >>> naswot(network, torch.tensor([[1.0, 1.0], [-1.0, 1.0]])) == math.log(3.0)  # 2 x 2 - 1 x 1
        True
    """
    probe = copy.deepcopy(network).train().requires_grad_()
    with torch.enable_grad(), _Codes() as codes:
        out = probe(x.detach().clone().requires_grad_() + 0)  # a sum, as a ReLU may work in place
    if not codes.kernels:
        raise ValueError(
            f"{type(network).__name__} has no ReLU; this score needs one, so take another score for such networks"
        )
    reached = _reached([t.grad_fn for t in _tensors(out)])
    kernels = [kernel for kernel, node in codes.kernels if node in reached]
    return kernel_score(torch.stack(kernels).sum(0)) if kernels else -math.inf


def hamming_kernel(codes: Tensor) -> Tensor:
    r"""For each two codes the number of places where they agree, :math:`K_{ij} = N - d(c_i, c_j)`.

    Args:
        codes: Binary codes ``(B, N)``.

    Returns:
        ``(B, B)``, double precision, exact integers, with `N` on the diagonal.

    Example:
        >>> hamming_kernel(torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 1]])).tolist()
        [[4.0, 2.0, 2.0], [2.0, 4.0, 2.0], [2.0, 2.0, 4.0]]
    """
    signs = codes.to(torch.float32).mul(2).sub(1)  # products are 1 where codes agree, -1 where not
    agree = torch.zeros(len(codes), len(codes), dtype=torch.float64, device=codes.device)
    for start in range(0, codes.shape[1], _EXACT):
        part = signs[:, start : start + _EXACT]
        agree += (part @ part.T).double()
    return (agree + codes.shape[1]) / 2


def kernel_score(kernel: Tensor) -> float:
    """Logarithm of the determinant of a positive semi-definite kernel ``(B, B)``; minus infinity if it is singular.

    It is singular if its smallest eigenvalue is zero within the rounding of double precision, relative to the largest.

    Args:
        kernel: The kernel, double precision.

    Example:
        >>> round(math.exp(kernel_score(torch.tensor([[4.0, 2.0], [2.0, 4.0]], dtype=torch.float64))), 6)
        12.0
        >>> kernel_score(torch.ones(2, 2, dtype=torch.float64))
        -inf
    """
    values = torch.linalg.eigvalsh(kernel)
    smallest = len(kernel) * torch.finfo(kernel.dtype).eps * float(values[-1])
    return float(values.log().sum()) if float(values[0]) > smallest else -math.inf


def code_score(codes: Tensor) -> float:
    """The score of binary codes ``(B, N)``, one of each picture; minus infinity if two are equal.

    Args:
        codes: The codes.

    Example:
        >>> round(math.exp(code_score(torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 1]]))), 6)
        32.0
    """
    return kernel_score(hamming_kernel(codes))


class _Codes(TorchFunctionMode):
    """While it is entered, keeps for each ReLU its kernel and its node of the autograd graph."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[tuple[Tensor, Node | None]] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _RELUS and not (func is F.hardtanh and kwargs.get("min_val") == 0):  # nn.ReLU6 is a hardtanh
            return func(*args, **kwargs)
        before = (args[0] if args else kwargs["input"]).detach()
        if not bool(torch.isfinite(before).all()):
            raise ValueError("an activation is not finite; score a network whose weights and pictures are finite")
        kernel = hamming_kernel(before.flatten(1) > 0)
        after = func(*args, **kwargs)
        self.kernels.append((kernel, after.grad_fn))
        return after


def _tensors(out: Any) -> list[Tensor]:
    """The tensors that a network returns, alone or several."""
    if isinstance(out, Tensor):
        return [out]
    several = out.values() if isinstance(out, Mapping) else out if isinstance(out, (list, tuple)) else ()
    return [tensor for part in several for tensor in _tensors(part)]


def _reached(starts: Iterable[Node | None]) -> set[Node | None]:
    """The nodes of the autograd graph that a backward pass visits."""
    found: set[Node | None] = set()
    stack = [node for node in starts if node is not None]
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack += [parent for parent, _ in node.next_functions if parent is not None]
    return found
