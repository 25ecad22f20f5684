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

    A subclass writes `forward` and `expected` and, if they differ from the defaults, the other methods, and declares
    facts that the conformance tests verify.

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
        simplex: Whether the rows of every sample have the same sum: one, or for discrete relaxations `keep`.
        discrete: Whether the weights of a sample are zeros and ones: whole choices, as many as the decision keeps.
        exact_mean: Whether `expected` is the average of the samples of weight steps.
        scalars: Names of the attributes, floats that callbacks set, that travel in the `state_dict` too.

    Raises:
        ValueError: If a group is unknown.
    """

    stochastic: bool = False
    needs_unused_parameters: bool = False
    simplex: bool = True
    discrete: bool = False
    exact_mean: bool = True
    scalars: ClassVar[tuple[str, ...]] = ()

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
    def expected(self) -> dict[str, Tensor]:
        """Group -> the expected weights ``(rows, choices)``, differentiable in `theta`, closed choices at zero.

        Draws nothing. Expected costs are taken of it, and selection goes by it.
        """

    @torch.no_grad()
    def mean(self) -> Mapping[str, Tensor]:
        """The same without a graph."""
        return self.expected()

    def weight_sample(self) -> Sample:
        """The sample of a weight step, without a graph; by default a draw like any other."""
        with torch.no_grad():
            sample: Sample = self()
        return sample.detach()

    def arch_parameters(self) -> list[nn.Parameter]:
        """What the architecture optimiser trains: by default `theta`."""
        return list(self.theta.values())

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
        """The state of the generator and, behind it, the bytes of the scalars: one tensor that can be broadcast."""
        scalars = torch.tensor([float(getattr(self, name)) for name in self.scalars], dtype=torch.float64)
        return torch.cat([self.generator.get_state(), scalars.view(torch.uint8)])

    def set_extra_state(self, state: Tensor) -> None:
        """Restore both."""
        size = self.generator.get_state().numel()
        self.generator.set_state(state[:size].cpu().clone())
        for name, value in zip(self.scalars, state[size:].cpu().clone().view(torch.float64).tolist(), strict=True):
            setattr(self, name, value)
