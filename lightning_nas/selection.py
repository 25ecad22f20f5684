"""Selection: how a genotype is read off a relaxation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from lightning_nas.arch import Genotype, Support
from lightning_nas.relaxations import Relaxation
from lightning_nas.spaces import Space

__all__ = ["Magnitude", "Selection", "SkipRestriction", "Threshold", "fix_support", "open_scores"]


@runtime_checkable
class Selection(Protocol):
    """A rule that turns architecture parameters into a genotype."""

    def pick(self, space: Space, relaxation: Relaxation) -> Genotype:
        """The genotype that the relaxation stands for now."""


@dataclass(frozen=True)
class Magnitude:
    """Keep what has the largest expected weight, by the space's rule (DARTS: two inputs a node, never `none`).

    Args:
        exclude: Operations that are never chosen; ``None`` for those of the space.

    Example:
        >>> from lightning_nas.relaxations import Softmax
        >>> from lightning_nas.spaces import get_space
        >>> space = get_space("nasbench201")
        >>> relaxation = Softmax(space.decisions, space.relaxed, init_std=0.0)
        >>> space.format(Magnitude().pick(space, relaxation))
        '|none~0|+|none~0|none~1|+|none~0|none~1|none~2|'
    """

    exclude: tuple[str, ...] | None = None

    def pick(self, space: Space, relaxation: Relaxation) -> Genotype:
        """The genotype of the largest weights among the open choices."""
        return space.discretize(open_scores(relaxation), self.exclude)


@dataclass(frozen=True)
class Threshold:
    """Keep what has the largest expected weight, where it reaches a threshold; below it, an edge takes `none`.

    As published, a node keeps at most two edges whose best weight reaches the threshold, so it may keep fewer. A
    genotype of DARTS names two inputs for every node: the best two are kept, and those below the threshold become
    `none`, which computes nothing. In a space without `none` they stay as they are, as does an edge whose `none` is
    closed.

    Reference: Chu, Zhou, Zhang and Li, "Fair DARTS: Eliminating Unfair Advantages in Differentiable Architecture
    Search", ECCV 2020.

    Args:
        threshold: The least expected weight of an operation.
        exclude: Operations that are never chosen for their weight; ``None`` for those of the space.

    Raises:
        ValueError: If the threshold is not between zero and one.

    Example:
        >>> from lightning_nas.relaxations import Sigmoid
        >>> from lightning_nas.spaces import get_space
        >>> space = get_space("nasbench201")
        >>> relaxation = Sigmoid(space.decisions)
        >>> relaxation.theta["cell"].data[0, 1] = 3.0
        >>> space.format(Threshold().pick(space, relaxation))
        '|skip_connect~0|+|none~0|none~1|+|none~0|none~1|none~2|'
    """

    threshold: float = 0.85
    exclude: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold={self.threshold} must lie between 0 and 1, as the weights do")

    def pick(self, space: Space, relaxation: Relaxation) -> Genotype:
        """The genotype of the largest weights, without those below the threshold."""
        scores = open_scores(relaxation)
        picks = dict(space.discretize(scores, self.exclude).picks)
        for group, weights in scores.items():
            for row, decision in enumerate(space.decisions[group]):
                is_open = relaxation.support.open(group)[row]
                none = decision.choices.index("none") if "none" in decision.choices else -1
                if (
                    decision.name in picks
                    and none in is_open
                    and weights[row, picks[decision.name][0]] < self.threshold
                ):
                    picks[decision.name] = (none,)
        return space.check(Genotype(space.name, picks))


@dataclass(frozen=True)
class SkipRestriction:
    """Keep what has the largest expected weight, with a limited number of skips in the normal cell.

    While the cell keeps more skips, the weight of the weakest of them becomes zero, and operations and edges are chosen
    again. In a space without normal cells all groups are restricted. A skip stays where an edge has nothing else open.

    Reference: Chen, Xie, Wu and Tian, "Progressive Differentiable Architecture Search", ICCV 2019.

    Args:
        max_skips: How many skips may be kept.
        exclude: Operations that are never chosen; ``None`` for those of the space.

    Raises:
        ValueError: If the number is negative.

    Example:
        >>> from lightning_nas.relaxations import Softmax
        >>> from lightning_nas.spaces import get_space
        >>> space = get_space("nasbench201")
        >>> relaxation = Softmax(space.decisions, init_std=0.0)
        >>> relaxation.theta["cell"].data[:, 1] = torch.arange(1.0, 7.0)
        >>> space.format(SkipRestriction(2).pick(space, relaxation))
        '|none~0|+|none~0|none~1|+|none~0|skip_connect~1|skip_connect~2|'
    """

    max_skips: int = 2
    exclude: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.max_skips < 0:
            raise ValueError(f"max_skips={self.max_skips} must not be negative")

    def pick(self, space: Space, relaxation: Relaxation) -> Genotype:
        """The genotype of the largest weights with no more skips than allowed."""
        scores = open_scores(relaxation)
        groups = ("normal",) if "normal" in scores else tuple(scores)
        while True:
            genotype = space.discretize(scores, self.exclude)
            skips = [
                (float(scores[group][row, k]), group, row, k)
                for group in groups
                for row, decision in enumerate(space.decisions[group])
                for k in genotype.picks.get(decision.name, ())
                if decision.choices[k] == "skip_connect"
            ]
            left = [skip for skip in skips if skip[0] > 0]
            if len(skips) <= self.max_skips or not left:
                return genotype
            _, group, row, k = min(left)
            scores[group][row, k] = 0.0


def open_scores(relaxation: Relaxation) -> dict[str, Tensor]:
    """Group -> expected weights ``(rows, choices)``, closed choices at ``-inf``.

    Groups without weights are there only if they have been narrowed; then their open choices have one.
    """
    support, scores = relaxation.support, {}
    for group, weights in relaxation.mean().items():
        scores[group] = weights.masked_fill(~support.mask(group), -torch.inf)
    for group in set(support.active() or {}) - set(scores):
        scores[group] = torch.where(support.mask(group), 1.0, -torch.inf)
    return scores


def fix_support(support: Support, space: Space, genotype: Genotype) -> None:
    """Close all choices but those of a genotype, inputs of nodes included.

    What the genotype says nothing of (the operation of an edge that is not kept) keeps its first open choice, one that
    the space does not exclude if there is one. The support is then resolved, and `Magnitude` gives this genotype,
    whatever the weights (with ``exclude=()`` also one that has an operation which the space excludes).

    Args:
        support: The support, of this space.
        space: The space.
        genotype: An architecture of this space.

    Raises:
        ValueError: If the genotype is of another space, or one of its choices is closed; then nothing is changed.

    Example:
        >>> import random
        >>> from lightning_nas.spaces import get_space
        >>> space = get_space("darts")
        >>> support = Support(space.decisions)
        >>> fix_support(support, space, space.sample(random.Random(0)))
        >>> support.resolved
        True
    """
    picks, never = space.check(genotype).picks, getattr(space, "exclude", ())
    for group, row, decision in support.rows():
        is_open = support.open(group)[row]
        if not set(picks.get(decision.name, ())) <= set(is_open):
            names = [decision.choices[k] for k in picks[decision.name]]
            raise ValueError(
                f"{decision.name!r} of the genotype keeps {names}, which is not open any more; open are"
                f" {[decision.choices[k] for k in is_open]}"
            )
    for group, row, decision in list(support.rows()):
        ranked = sorted(support.open(group)[row], key=lambda k, names=decision.choices: names[k] in never)  # type: ignore[misc]
        support.fix(group, row, *picks.get(decision.name, ranked[: decision.keep]))
