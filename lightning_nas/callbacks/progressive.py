"""Fewer operations on more channels, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch

from lightning_nas import strategy
from lightning_nas.callbacks.perturbation_selection import groups_of
from lightning_nas.callbacks.schedule import EpochSchedule, Search
from lightning_nas.callbacks.warmup import is_resting
from lightning_nas.supernet import widen

__all__ = ["ChannelStage", "ProgressiveChannelPruning"]


@dataclass(frozen=True)
class ChannelStage:
    """What a stage begins with.

    Args:
        epoch: Its first epoch.
        keep: Operations that each edge keeps; ``None`` for all that are open.
        partial: The new ``k`` of partial channels, smaller than before; ``None`` for no change.

    Raises:
        ValueError: If a number is out of range.
    """

    epoch: int
    keep: int | None = None
    partial: int | None = None

    def __post_init__(self) -> None:
        if self.epoch < 0 or any(number is not None and number < 1 for number in (self.keep, self.partial)):
            raise ValueError(f"{self}: epoch must not be negative, keep and partial must be positive or None")


class ProgressiveChannelPruning(EpochSchedule):
    """Keeps the best operations of each edge and widens the partial channels at the beginning of stages (DrNAS).

    The operations with the largest expected weight stay, by edits of the Support, equal in all processes; an edge never
    keeps only what the space never derives. Channels are widened by `widen`, which needs a supernet that was built with
    `start_partial`. No tensor changes its shape, so optimisers, their momentum and the schedule go on.

    Reference: Chen, Wang, Cheng, Tang and Hsieh, "DrNAS: Dirichlet Neural Architecture Search", ICLR 2021: on CIFAR-10
    ``[ChannelStage(25, keep=4, partial=4)]`` after a first stage of seven operations and ``k = 6``.

    Args:
        stages: The stages after the first, or mappings with the arguments of `ChannelStage`.
        warmup: Epochs at the beginning of every stage, the first included, in which the architecture parameters rest;
            0 leaves them to others, for example `ArchitectureWarmup`.
        seed: Seed of the filters that are copied.

    Raises:
        ValueError: If stages are not in the order of their epochs, or `warmup` is negative.

    Example:
        >>> stages = ProgressiveChannelPruning([{"epoch": 25, "keep": 4, "partial": 4}], warmup=10)
        >>> stages.stages[0].keep
        4
    """

    def __init__(self, stages: Sequence[ChannelStage | Mapping[str, Any]], warmup: int = 0, seed: int = 0) -> None:
        self.stages = tuple(stage if isinstance(stage, ChannelStage) else ChannelStage(**stage) for stage in stages)
        begins = [stage.epoch for stage in self.stages]
        if begins != sorted(set(begins)):
            raise ValueError(f"stages begin at epochs {begins}; give each epoch once, in order")
        if warmup < 0:
            raise ValueError(f"warmup={warmup} must not be negative")
        self.warmup, self.begun = warmup, 0
        self.generator = torch.Generator().manual_seed(seed)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check that the strategy allows closed operations."""
        if stage == "fit":
            strategy.require_unused_parameters(trainer, True, type(self).__name__)

    def at_epoch(self, trainer: L.Trainer, search: Search, epoch: int, epochs: int | None) -> None:
        """Begin the stages whose time has come."""
        if self.warmup:
            search.theta_frozen = is_resting(epoch, self.warmup, (0, *(stage.epoch for stage in self.stages)))
        while self.begun < len(self.stages) and self.stages[self.begun].epoch <= epoch:
            stage = self.stages[self.begun]
            if stage.keep is not None:
                keep_best(search, stage.keep)
            if stage.partial is not None:
                widen(search.supernet, stage.partial, self.generator, trainer.optimizers[0])
            self.begun += 1

    def state_dict(self) -> dict[str, Any]:
        """How many stages have begun, and the state of the generator."""
        return {"begun": self.begun, "generator": self.generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them."""
        self.begun = state_dict["begun"]
        self.generator.set_state(state_dict["generator"].cpu())


def keep_best(search: Search, keep: int) -> None:
    """Close all but the operations of largest expected weight on each edge; of equals the first stay."""
    support, means = search.relaxation.support, search.relaxation.mean()
    never: Sequence[str] = getattr(search.space, "exclude", ())
    for group in groups_of(search.space)[0]:
        table = search.agreed(means[group]).tolist()
        for row, decision in enumerate(support.decisions[group]):
            ranked = sorted(support.open(group)[row], key=lambda k, row=row: -table[row][k])  # type: ignore[misc]
            useful = [k for k in ranked if decision.choices[k] not in never]
            kept = ranked[:keep]
            if useful and useful[0] not in kept:
                kept[-1] = useful[0]
            support.set_row(group, row, sorted(kept))
