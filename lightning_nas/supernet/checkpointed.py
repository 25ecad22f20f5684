"""Parts of a supernet that may run again in the backward pass instead of keeping what it needs."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from lightning_nas.arch import Sample

__all__ = ["Checkpointed"]


class Checkpointed(nn.Module, ABC):
    """A cell or block whose memory may be traded for one more forward pass; a subclass says what it runs.

    Attributes:
        checkpoint: Whether only the inputs are kept for the backward pass, which then runs the part again.
    """

    checkpoint: bool = False

    def forward(self, states: tuple[Tensor, ...], sample: Sample) -> Tensor:
        """Compute the part for its inputs under a sample."""
        if not (self.checkpoint and torch.is_grad_enabled()):
            return self._run(states, sample)
        # the weights of this call, which may be virtual ones, must be those of the repetition too
        state = dict(self.named_parameters())
        out: Tensor = checkpoint(_again, self, state, states, sample, use_reentrant=False)
        return out

    @abstractmethod
    def _run(self, states: tuple[Tensor, ...], sample: Sample) -> Tensor:
        """The computation itself."""


def _again(part: Checkpointed, state: dict[str, Tensor], states: tuple[Tensor, ...], sample: Sample) -> Tensor:
    """Run a checkpointed part with given weights."""
    kept, part.checkpoint = part.checkpoint, False
    try:
        out: Tensor = functional_call(part, state, (states, sample))
    finally:
        part.checkpoint = kept
    return out
