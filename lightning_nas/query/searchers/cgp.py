"""The evolution strategy of CGP-CNN."""

from __future__ import annotations

from typing import Any

from lightning_nas.arch import Genotype
from lightning_nas.query.searchers.generational import Generational
from lightning_nas.query.trial import Result
from lightning_nas.spaces import Space, get_space
from lightning_nas.spaces.cgp import CGPSpace

__all__ = ["CGP"]


class CGP(Generational):
    """One parent and some children by forced mutation; a child that is better takes its place.

    If no child is strictly better, the parent stays, and its inactive genes drift by a neutral mutation. The parent is
    evaluated once.

    Reference: Suganuma, Shirakawa and Nagao, "A Genetic Programming Approach to Designing Convolutional Neural Network
    Architectures", GECCO 2017.

    Args:
        space: A grid, see `CGPSpace`; ``None`` for the published one of convolutions.
        children: Children of a generation.
        rate: Probability with which a mutation changes each gene.
        generations: Generations after the parent; ``None`` for no end.
        budget: Epochs of each trial; ``None`` for full training.
        seed: Seed of all draws.

    Attributes:
        parent: The parent as it is now.
        score: Its score.

    Raises:
        ValueError: If the space is no grid, there are no children, or the rate is not in ``(0, 1]``.

    Example:
        >>> searcher = CGP(CGPSpace(2, 3, 2), generations=4)
        >>> for _ in range(9):
        ...     searcher.tell([Result(t, score=len(searcher.space.layers(t.genotype))) for t in searcher.ask()])
        >>> searcher.ask(), searcher.best.score >= searcher.score
        ([], True)
    """

    space: CGPSpace

    def __init__(
        self,
        space: str | Space | None = None,
        children: int = 2,
        rate: float = 0.1,
        generations: int | None = 250,
        budget: float | None = None,
        seed: int = 0,
    ) -> None:
        grid = CGPSpace() if space is None else get_space(space)
        if not isinstance(grid, CGPSpace):
            raise ValueError(f"CGP searches in a grid, and {grid.name!r} is none; give a CGPSpace")
        if children < 1 or not 0 < rate <= 1:
            raise ValueError(f"children={children}, rate={rate}: give at least 1, and a rate in (0, 1]")
        super().__init__(grid, generations, budget, seed)
        self.children, self.rate = children, rate
        self.parent: Genotype | None = None
        self.score = -float("inf")

    def breed(self, told: list[Result]) -> list[Genotype]:
        """The better of parent and children, or the parent after drift; its children."""
        best = max(told, key=lambda result: result.score, default=None)
        if best is not None and best.score > self.score:
            self.parent, self.score = best.trial.genotype, best.score
        elif self.parent is not None:
            self.parent = self.space.neutral(self.parent, self.rng, self.rate)
        if self.parent is None:  # at the start, or if it failed
            return [self.space.sample(self.rng)]
        return [self.space.forced(self.parent, self.rng, self.rate) for _ in range(self.children)]

    def state(self) -> dict[str, Any]:  # noqa: D102
        parent = None if self.parent is None else self.space.format(self.parent)
        return super().state() | {"parent": parent, "score": self.score}

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        super().load_state(state)
        self.parent = None if state["parent"] is None else self.space.parse(state["parent"])
        self.score = state["score"]
