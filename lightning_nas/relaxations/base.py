"""The protocol of relaxations, and the state that all of them keep."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from lightning_nas.arch import Decisions, Sample, Support

__all__ = ["Relaxation"]


class Relaxation(nn.Module, ABC):
    """Owns the architecture parameters `theta` and the `Support`; `forward()` draws a `Sample`.

    A subclass writes `forward` and, if they differ from the defaults, `mean` and `project_`, and declares facts that
    the conformance tests verify.

    Args:
        decisions: The space's decisions, by group.
        groups: The groups that get architecture parameters; ``None`` for all.
        init_std: Standard deviation of the normal distribution from which `theta` starts.
        seed: Seed of the start and of all draws.

    Attributes:
        theta: Group -> parameter of shape ``(rows, choices)``.
        support: The open choices of every group, also of those without parameters.
        generator: The generator of all draws; its state travels in the `state_dict`, so that a resumed run draws the
            same samples, and it lives on the CPU, so that every process draws the same.
        stochastic: Whether two calls of `forward` differ.
        needs_unused_parameters: Whether a weight step may leave supernet weights without a gradient while the whole
            support is open.

    Raises:
        ValueError: If a group is unknown.
    """

    stochastic: ClassVar[bool] = False
    needs_unused_parameters: ClassVar[bool] = False

    def __init__(
        self, decisions: Decisions, groups: Sequence[str] | None = None, *, init_std: float = 1e-3, seed: int = 0
    ) -> None:
        super().__init__()
        self.groups = tuple(decisions if groups is None else groups)
        unknown = set(self.groups) - set(decisions)
        if unknown:
            raise ValueError(f"unknown groups {sorted(unknown)}; the space has {sorted(decisions)}")
        self.support = Support(decisions)
        self.generator = torch.Generator().manual_seed(seed)
        self.theta = nn.ParameterDict(
            {
                group: nn.Parameter(init_std * torch.randn(self.support.mask(group).shape, generator=self.generator))
                for group in self.groups
            }
        )

    @abstractmethod
    def forward(self) -> Sample:
        """Draw a sample; differentiable in `theta`."""

    @abstractmethod
    def mean(self) -> Mapping[str, Tensor]:
        """Group -> the expected weights ``(rows, choices)``, closed choices at zero; draws nothing."""

    def redraw(self, state: Tensor) -> Sample:
        """Repeat the draw that began at a state of the generator, with a graph of its own; the generator stays."""
        now = self.generator.get_state()
        self.generator.set_state(state)
        sample: Sample = self()
        self.generator.set_state(now)
        return sample

    @torch.no_grad()
    def project_(self) -> None:
        """Bring `theta` back to its set after a step of the architecture optimiser; by default it has none."""

    def mean_sample(self) -> Sample:
        """The expected weights as a sample, for validation."""
        return Sample(self.mean(), self.support.active())

    def get_extra_state(self) -> Tensor:
        """The state of the generator."""
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the state of the generator."""
        self.generator.set_state(state.cpu())
