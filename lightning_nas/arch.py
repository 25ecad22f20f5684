"""The vocabulary: an architecture is a point in a product of simplices, a genotype one of its vertices.

`Sample` is the only value that travels between a relaxation and a supernet; `Support` is the set of choices that are
still open; `Bilevel` is what a hypergradient sees of a training step. This module knows no layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Bilevel", "Decision", "Decisions", "Genotype", "Outcome", "Sample", "Support"]


@dataclass(frozen=True)
class Decision:
    """One choice that a search has to make: keep `keep` of `choices`.

    Args:
        name: Unique name within its space, for example ``"normal/3<-1"``.
        choices: Names of the candidates.
        keep: How many of them a genotype keeps.

    Raises:
        ValueError: If there are no choices, a choice is repeated, or `keep` is not in ``1..len(choices)``.

    Example:
        >>> Decision("normal/3<-1", ("skip_connect", "sep_conv_3x3")).keep
        1
    """

    name: str
    choices: tuple[str, ...]
    keep: int = 1

    def __post_init__(self) -> None:
        if len(set(self.choices)) != len(self.choices):
            raise ValueError(f"decision {self.name!r} repeats a choice: {self.choices}; give each candidate once")
        if not 1 <= self.keep <= len(self.choices):
            raise ValueError(
                f"decision {self.name!r} keeps {self.keep} of {len(self.choices)} choices; keep must be at least 1"
                " and at most the number of choices"
            )


Decisions = Mapping[str, tuple[Decision, ...]]
"""Group name -> the decisions that share one matrix, a row each (shorter rows are padded and masked)."""


@dataclass(frozen=True)
class Genotype:
    """A discrete architecture: for each decision taken, the indices of the choices kept.

    A decision that does not apply (the operation of an edge that was not kept) is absent. A genotype is hashable and
    can be pickled; its space checks, prints and parses it.

    Args:
        space: Name of the search space.
        picks: Decision name -> indices of the choices kept.

    Example:
        >>> a = Genotype("toy", {"edge": (1,)})
        >>> b = Genotype("toy", {"edge": (1,)})
        >>> a == b, len({a, b}), a.picks["edge"]
        (True, 1, (1,))
    """

    space: str
    picks: Mapping[str, tuple[int, ...]]

    def __post_init__(self) -> None:
        picks = {name: tuple(sorted(int(i) for i in kept)) for name, kept in sorted(self.picks.items())}
        object.__setattr__(self, "picks", MappingProxyType(picks))

    def __hash__(self) -> int:
        return hash((self.space, tuple(self.picks.items())))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Genotype):
            return NotImplemented
        return self.space == other.space and dict(self.picks) == dict(other.picks)

    def __reduce__(self) -> tuple[type[Genotype], tuple[str, dict[str, tuple[int, ...]]]]:
        return Genotype, (self.space, dict(self.picks))


class Sample(NamedTuple):
    """What a relaxation hands to a supernet: how much of each candidate, and which of them to execute.

    Args:
        weights: Group -> tensor of shape ``(rows, choices)``. A group that is absent is not relaxed: each of its
            active choices counts with weight one.
        active: Group -> for each row the choices to execute, as Python integers. ``None``, or an absent group, means
            all. It is explicit and never inferred from zero weights: a straight-through weight is zero with a
            non-zero gradient, and comparing a tensor with zero waits for the device.
        log_prob: Log-probability of the draw, for score-function estimators; scalar or ``(rows,)`` tensors.

    Example:
        >>> sample = Sample({"cell": torch.ones(2, 3, requires_grad=True)})
        >>> sample.detach().weights["cell"].requires_grad
        False
    """

    weights: Mapping[str, Tensor]
    active: Mapping[str, tuple[tuple[int, ...], ...]] | None = None
    log_prob: Tensor | None = None

    def detach(self) -> Sample:
        """The same sample, cut from the graph, so that a weight step computes no architecture gradient."""
        log_prob = None if self.log_prob is None else self.log_prob.detach()
        return Sample({name: weight.detach() for name, weight in self.weights.items()}, self.active, log_prob)

    def open(self, group: str) -> tuple[tuple[int, ...], ...] | None:
        """The active choices of a group, row by row, or ``None`` for all."""
        return None if self.active is None else self.active.get(group)


class Support(nn.Module):
    """The choices that are still open: one boolean buffer of shape ``(rows, choices)`` per group.

    Pruning, operation selection and few-shot splitting all shrink it; its shapes never change, so checkpoints,
    optimisers and distributed wrappers stay valid. Rows with fewer candidates than the widest are padded with closed
    entries.

    Args:
        decisions: The space's decisions, by group.

    Example:
        >>> support = Support({"cell": (Decision("a", ("skip", "conv", "pool")), Decision("b", ("skip", "conv")))})
        >>> support.mask("cell").tolist()
        [[True, True, True], [True, True, False]]
        >>> support.drop("cell", 0, 2)
        >>> support.fix("cell", 1, 1)
        >>> support.open("cell"), support.resolved
        (((0, 1), (1,)), False)
    """

    def __init__(self, decisions: Decisions) -> None:
        super().__init__()
        self.decisions: Decisions = dict(decisions)
        self._open: dict[str, tuple[tuple[int, ...], ...]] = {}
        for group, rows in self.decisions.items():
            mask = torch.zeros(len(rows), max(len(row.choices) for row in rows), dtype=torch.bool)
            for index, row in enumerate(rows):
                mask[index, : len(row.choices)] = True
            self.register_buffer(self._buffer(group), mask)

    @staticmethod
    def _buffer(group: str) -> str:
        return f"mask[{group}]"

    def mask(self, group: str) -> Tensor:
        """Boolean ``(rows, choices)``: which choices of the group are open."""
        return self.get_buffer(self._buffer(group))

    def open(self, group: str) -> tuple[tuple[int, ...], ...]:
        """The open choices of each row as Python integers (kept, so that reading them never waits for a device)."""
        if group not in self._open:
            rows = self.mask(group).tolist()
            self._open[group] = tuple(tuple(k for k, is_open in enumerate(row) if is_open) for row in rows)
        return self._open[group]

    def active(self) -> dict[str, tuple[tuple[int, ...], ...]] | None:
        """Group -> open choices for the groups that have been narrowed; ``None`` while everything is open."""
        narrowed = {}
        for group, rows in self.decisions.items():
            if self.open(group) != tuple(tuple(range(len(row.choices))) for row in rows):
                narrowed[group] = self.open(group)
        return narrowed or None

    def drop(self, group: str, row: int, choice: int) -> None:
        """Close one choice.

        Raises:
            ValueError: If it is closed already, or if fewer choices than the decision keeps would remain.
        """
        decision, is_open = self.decisions[group][row], self.open(group)[row]
        if choice not in is_open:
            raise ValueError(f"choice {choice} of {decision.name!r} is not open; open are {is_open}")
        if len(is_open) <= decision.keep:
            raise ValueError(f"{decision.name!r} keeps {decision.keep} choices and has only {is_open} left to drop")
        self.set_row(group, row, [k for k in is_open if k != choice])

    def fix(self, group: str, row: int, *choices: int) -> None:
        """Close every choice of a row but the given ones.

        Raises:
            ValueError: If a given choice is closed, or if their number is not what the decision keeps.
        """
        decision, is_open = self.decisions[group][row], self.open(group)[row]
        if not set(choices) <= set(is_open) or len(set(choices)) != decision.keep:
            raise ValueError(f"{decision.name!r} keeps {decision.keep} of the open {is_open}, not {choices}")
        self.set_row(group, row, choices)

    def set_row(self, group: str, row: int, choices: Sequence[int]) -> None:
        """Open exactly the given choices of a row."""
        mask = self.mask(group)
        mask[row] = False
        mask[row, list(choices)] = True
        self._open.pop(group, None)

    @property
    def resolved(self) -> bool:
        """Whether every decision has come down to the number of choices that it keeps."""
        return all(
            len(is_open) == row.keep
            for group, rows in self.decisions.items()
            for row, is_open in zip(rows, self.open(group), strict=True)
        )

    def rows(self) -> Iterator[tuple[str, int, Decision]]:
        """All decisions with the group and the row where they stand."""
        for group, rows in self.decisions.items():
            for index, row in enumerate(rows):
                yield group, index, row

    def genotype(self, space: str) -> Genotype:
        """The vertex that a resolved support has come down to.

        Raises:
            ValueError: If a decision is still open.
        """
        if not self.resolved:
            left = [d.name for g, r, d in self.rows() if len(self.open(g)[r]) != d.keep]
            raise ValueError(f"{len(left)} decisions are still open ({', '.join(left[:3])}, ...); resolve them first")
        return Genotype(space, {d.name: self.open(g)[r] for g, r, d in self.rows()})

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._open.clear()


class Outcome(NamedTuple):
    """What a draw of the relaxation came to on a batch, for score-function estimators.

    Args:
        loss: Its loss, without a graph.
        accuracy: Its accuracy, a fraction, without a graph.
        log_prob: Its log-probability, differentiable in the architecture parameters.
    """

    loss: Tensor
    accuracy: Tensor
    log_prob: Tensor


@dataclass
class Bilevel:
    r"""A bilevel problem at one step: minimise :math:`L_{val}(w^*(\theta), \theta)`, `w*` minimising the lower loss.

    Args:
        train_loss: Weights (``None`` for the live ones) -> scalar lower-level loss on the training batch.
        val_loss: The same for the upper level, on the validation batch, regularizers included.
        w: The supernet's weights.
        theta: The architecture parameters.
        lr: Current learning rate of `w`, for a virtual step.
        momentum: Momentum of `w`.
        weight_decay: Weight decay of `w`.
        momentum_buffers: The optimiser's buffers, ``None`` where there is none yet.
        outcome: A fresh draw of the relaxation, tried on the validation batch.
        penalty: The regularizers alone, for estimators that do not differentiate `val_loss`.

    Example:
        >>> w, theta = torch.tensor([3.0], requires_grad=True), torch.tensor([2.0], requires_grad=True)
        >>> problem = Bilevel(lambda _: (w - theta).square().sum(), lambda _: (w * theta).sum(), [w], [theta])
        >>> torch.autograd.grad(problem.val_loss(None), problem.theta)[0].item()
        3.0
    """

    train_loss: Callable[[Sequence[Tensor] | None], Tensor]
    val_loss: Callable[[Sequence[Tensor] | None], Tensor]
    w: Sequence[Tensor]
    theta: Sequence[Tensor]
    lr: float = 0.0
    momentum: float = 0.0
    weight_decay: float = 0.0
    momentum_buffers: Sequence[Tensor | None] = field(default_factory=list)
    outcome: Callable[[], Outcome] | None = None
    penalty: Callable[[], Tensor | None] | None = None
