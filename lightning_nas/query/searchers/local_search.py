"""Local search."""

from __future__ import annotations

from typing import Any

from lightning_nas.arch import Genotype
from lightning_nas.query.searcher import Searcher
from lightning_nas.query.trial import Result, Trial
from lightning_nas.spaces import Space

__all__ = ["LocalSearch"]


class LocalSearch(Searcher):
    """Hill climbing: try all neighbors of where we stand, step to the best, start anew where none is better.

    A climb starts at the best of `initial` random genotypes. The neighbors are tried in random order; what was tried
    before in this search is not asked again, and its result counts. Trials under way when a climb has stepped on count
    for what is known and for nothing else. A neighbor whose trial fails is taken for worse.

    Reference: White, Nolen and Savani, "Exploring the Loss Landscape in Neural Architecture Search", UAI 2021;
    Den Ottelander, Dushatskiy, Virgolin and Bosman, "Local Search is a Remarkably Strong Baseline for Neural
    Architecture Search", EMO 2021.

    Args:
        space: Name of a search space, or a space.
        initial: Random genotypes at the start of a climb.
        first: Whether to step to the first neighbor that is better, and not to the best of all.
        budget: Epochs of each trial; ``None`` for full training.
        seed: Seed of all draws.

    Raises:
        ValueError: If `initial` is not positive.

    Example:
        >>> searcher = LocalSearch("nasbench201")
        >>> for _ in range(150):
        ...     trial = searcher.ask()[0]
        ...     searcher.tell([Result(trial, score=sum(k for k, in trial.genotype.picks.values()))])
        >>> searcher.best.score  # all six choices are the last of five
        24
    """

    def __init__(
        self,
        space: str | Space = "nasbench201",
        initial: int = 1,
        first: bool = False,
        budget: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(space, seed)
        if initial < 1:
            raise ValueError(f"initial={initial}: a climb starts at a random genotype; give at least 1")
        self.initial, self.first, self.budget = initial, first, budget
        self.known: dict[Genotype, float] = {}
        self.climbs = 0
        self._begin()

    def _begin(self) -> None:
        """Start a climb somewhere else."""
        self.here: Genotype | None = None
        self.score = -float("inf")
        self.best_here: Genotype | None = None  # of the round: the random genotypes, or the neighbors of `here`
        self.left: list[Genotype] = []
        self.starts = self.initial
        self.waiting: set[int] = set()
        self.climbs += 1

    def propose(self) -> Trial | None:
        """A random genotype at the start of a climb, then neighbors; ``None`` while the round waits for its last."""
        if self.starts:
            self.starts -= 1
            trial = self.trial(self._new(), self.budget, climb=self.climbs)
        elif self.left:
            trial = self.trial(self.left.pop(), self.budget, climb=self.climbs)
        else:
            return None
        self.waiting.add(trial.number)
        return trial

    def _new(self) -> Genotype:
        """A random genotype, one that was not tried if there is one soon."""
        genotype = self.space.sample(self.rng)
        for _ in range(100):
            if genotype not in self.known:
                break
            genotype = self.space.sample(self.rng)
        return genotype

    def observe(self, result: Result) -> None:
        """Compare with the best of the round, and step on if the round is over."""
        self._told(result.trial, result.score)

    def observe_failure(self, result: Result) -> None:
        """The trial counts as worst."""
        super().observe_failure(result)
        self._told(result.trial, -float("inf"))

    def _told(self, trial: Trial, score: float) -> None:
        self.known[trial.genotype] = score
        if trial.number in self.waiting:
            self.waiting.remove(trial.number)
            self._compare(trial.genotype, score)
            self._step_on()

    def _compare(self, genotype: Genotype, score: float) -> None:
        if score > self.score:
            self.best_here, self.score = genotype, score

    def _step_on(self) -> None:
        """Step as long as rounds are over: everything told, or a better neighbor found where one is enough."""
        while True:
            hasty = self.first and self.here is not None and self.best_here is not None
            if not hasty and (self.left or self.waiting or self.starts):
                return
            if self.best_here is None:
                self._begin()
                return
            self._open(self.best_here)

    def _open(self, genotype: Genotype) -> None:
        """Stand on a genotype: its neighbors that are known are compared at once, the others are left to be tried."""
        self.here, self.best_here, self.starts = genotype, None, 0
        self.waiting = set()
        self.left = []
        under_way = {trial.genotype: number for number, trial in self.pending.items()}
        for neighbor in self.space.neighbors(genotype):
            if neighbor in self.known:
                self._compare(neighbor, self.known[neighbor])
            elif neighbor in under_way:
                self.waiting.add(under_way[neighbor])
            else:
                self.left.append(neighbor)
        self.rng.shuffle(self.left)

    def state(self) -> dict[str, Any]:  # noqa: D102
        text = self.space.format
        return {
            "known": [[text(genotype), score] for genotype, score in self.known.items()],
            "climbs": self.climbs,
            "here": None if self.here is None else text(self.here),
            "best_here": None if self.best_here is None else text(self.best_here),
            "score": self.score,
            "left": list(map(text, self.left)),
            "starts": self.starts,
            "waiting": sorted(self.waiting),
        }

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        parse = self.space.parse
        self.known = {parse(text): score for text, score in state["known"]}
        self.here = None if state["here"] is None else parse(state["here"])
        self.best_here = None if state["best_here"] is None else parse(state["best_here"])
        self.climbs, self.score, self.starts = state["climbs"], state["score"], state["starts"]
        self.left, self.waiting = list(map(parse, state["left"])), set(state["waiting"])
