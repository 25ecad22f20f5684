"""RANK-NOSH: a ranker proposes, a pyramid of paused trainings decides who is trained further."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from lightning_nas.arch import Genotype
from lightning_nas.query.acquisition import Acquisition
from lightning_nas.query.encoders.base import Encoder
from lightning_nas.query.encoders.graph import GraphEncoder
from lightning_nas.query.predictors.base import Predictor
from lightning_nas.query.predictors.gcn import GIN
from lightning_nas.query.predictors.ranker import Ranker
from lightning_nas.query.proposals import Proposal
from lightning_nas.query.searchers.halving import Finisher
from lightning_nas.query.searchers.predictor_search import PredictorSearch
from lightning_nas.query.searchers.pyramid import ordinal_targets, pyramid_counts, shares, whole
from lightning_nas.query.trial import Result, Trial
from lightning_nas.spaces import Space, get_space

__all__ = ["RankNOSH"]


class RankNOSH(PredictorSearch):
    r"""Non-uniform successive halving whose new architectures a ranker proposes.

    Level `i` of the pyramid are architectures trained for :math:`e_i` epochs and paused. In the first round `initial`
    random architectures, in each later one the `batch` best that the ranker proposes start on the lowest level. Then
    level by level the best *of all members* of a level go on to the next, those of earlier rounds too, so that
    :math:`\lfloor m r_1 \cdots r_{i-1} \rfloor` of the `m` architectures so far have come to level `i`. Nobody is
    discarded: who stays behind may go on later. A level starts when the one below has been told. With `pool`
    architectures the search ends; `pyramid_epochs` says what it trains.

    The ranker learns from all trained architectures by `ordinal_targets`: of two on different levels the higher wins,
    of two on one level the better score at that level. Predictors that are no rankers learn the place in that order.

    If the lowest level has 0 epochs, its trials have budget 0, which a `RoutedOracle` answers by a score without
    training. It works as the other levels do, but its members, whom a score alone has judged, are not learned from.
    `initial`, `batch` and `pool` then count those that are scored.

    The publication says that the GIN of its ranker may be pretrained without labels, as in arch2vec; here it is not.

    A trial `continues` the one below, so an oracle that trains pays the increment alone. The tables of NAS-Bench-201
    have for 12 epochs a training of its own, with its own learning rates, so there a `TableOracle` charges the 200
    epochs that follow in full; the publication counts 188. A failed trial is not promoted; its place is lost, what
    it reached before stays known. Notes of a trial: level and turn.

    Reference: Wang, Feng, Zhang and Fu, "RANK-NOSH: Efficient Predictor-Based Architecture Search via Non-Uniform
    Successive Halving", ICCV 2021.

    Args:
        space: Name of a search space, or a space.
        levels: Epochs of the levels, ascending; the first may be 0.
        ratio: Share of a level that goes on to the next; one for all, or one for each step.
        initial: Architectures of the first round.
        batch: Those of each later round.
        pool: Those of all rounds.
        encoder: Turns genotypes into what the predictor takes; graphs by default.
        predictor: Learns the order; by default a GIN with a score whose differences have a hinge loss.
        acquisition: Rates candidates; the prediction itself by default.
        proposal: Makes candidates; 1,000 random ones by default.
        equal: Whether architectures that compute the same count as one.
        seed: Seed of all random choices.

    Raises:
        ValueError: If a number is not positive, levels or ratios are wrong, or none would reach the top.

    Example:
        >>> from lightning_nas.query.encoders import AdjacencyEncoder
        >>> from lightning_nas.query.predictors import NearestNeighbor
        >>> parts = {"encoder": AdjacencyEncoder("nasbench201"), "predictor": NearestNeighbor()}
        >>> searcher = RankNOSH("nasbench201", (1, 4, 12), initial=4, batch=4, pool=8, **parts)
        >>> while trials := searcher.ask(8):
        ...     searcher.tell([Result(trial, score=sum(k for k, in trial.genotype.picks.values())) for trial in trials])
        >>> searcher.entered, searcher.best.trial.budget
        ([8, 4, 2], 12.0)
    """

    def __init__(
        self,
        space: str | Space = "nasbench201",
        levels: Sequence[float] = (1, 4, 12),
        ratio: float | Sequence[float] = 0.5,
        initial: int = 20,
        batch: int = 10,
        pool: int = 100,
        encoder: Encoder | None = None,
        predictor: Predictor | None = None,
        acquisition: Acquisition | None = None,
        proposal: Proposal | None = None,
        equal: bool = True,
        seed: int = 0,
    ) -> None:
        encoder = GraphEncoder(space) if encoder is None else encoder
        predictor = Ranker(GIN) if predictor is None else predictor
        super().__init__(encoder, predictor, acquisition, proposal, initial, batch, equal=equal, seed=seed)
        if get_space(space).name != self.space.name or initial > pool:
            raise ValueError(
                f"space={get_space(space).name!r}, initial={initial}, pool={pool}: the encoder's space is"
                f" {self.space.name!r}, and the pool at least as large as the first round; give them so"
            )
        pyramid_counts(pool, levels, ratio)
        self.levels, self.shares, self.pool = tuple(map(float, levels)), shares(levels, ratio), pool
        self.level = len(self.levels) - 1  # which is filled at present; a round ends with the highest
        self.entered = [0] * len(self.levels)  # architectures that have come to each level
        self.rising: deque[Finisher] = deque()  # who is to start on the present level, best first
        self.waiting: list[list[Finisher]] = [[] for _ in self.levels]  # members of each level that may go on
        self.reached: dict[Genotype, tuple[int, float]] = {}  # highest level and the score there

    def propose(self) -> Trial | None:
        """The next to start on the present level; ``None`` while it waits for results, or at the end."""
        while not self.queue and not self.rising:
            if self.pending or not self._advance():
                return None
        note = {"level": self.level, "turn": self.turn}
        self.entered[self.level] += 1
        if self.queue:
            return self.trial(self.queue.pop(0), self.levels[0], **note)
        below = self.rising.popleft()
        trained = self.levels[self.level - 1] > 0
        return self.trial(below.genotype, self.levels[self.level], below.number if trained else None, **note)

    def _advance(self) -> bool:
        """Go to the next level, or begin a new round; whether the search goes on."""
        if self.level + 1 < len(self.levels):
            self.level += 1
            places = whole(self.shares[self.level] * self.entered[0]) - self.entered[self.level]
            ranked = sorted(self.waiting[self.level - 1], key=lambda finisher: finisher.order)
            self.rising.extend(ranked[:places])
            self.waiting[self.level - 1] = ranked[places:]
            return True
        self.level = 0
        count = min(self.batch if self.entered[0] else self.initial, self.pool - self.entered[0])
        self.queue = self._newcomers(count) if count > 0 else []
        return bool(self.queue)

    def _newcomers(self, count: int) -> list[Genotype]:
        """Who starts in a new round; random architectures while there is nothing to learn from."""
        if self.entered[0]:
            self.turn += 1
        self.labels = self._targets()
        if not self.labels:
            return self._random(count)
        chosen = self.chosen(count)
        self.tried.update(map(self.key, chosen))
        return chosen

    def _random(self, count: int) -> list[Genotype]:
        """Random architectures; fewer where the space has no more."""
        chosen: list[Genotype] = []
        while len(chosen) < count and (genotype := self._fresh()) is not None:
            self.tried.add(self.key(genotype))
            chosen.append(genotype)
        return chosen

    def _targets(self) -> list[tuple[Genotype, float]]:
        """All trained architectures with their place in the order."""
        trained = {genotype: at for genotype, at in self.reached.items() if self.levels[at[0]] > 0}
        return list(zip(trained, ordinal_targets(list(trained.values())), strict=True))

    def observe(self, result: Result) -> None:
        """A new member of its level."""
        level = int(result.trial.note["level"])
        self.reached[result.trial.genotype] = level, result.score
        self.waiting[level].append(Finisher.of(result))

    def state(self) -> dict[str, Any]:  # noqa: D102
        waiting = [[finisher.to_plain(self.space) for finisher in members] for members in self.waiting]
        return super().state() | {
            "level": self.level,
            "entered": list(self.entered),
            "rising": [finisher.to_plain(self.space) for finisher in self.rising],
            "waiting": waiting,
            "reached": [[self.space.format(genotype), *at] for genotype, at in self.reached.items()],
        }

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        super().load_state(state)
        self.level, self.entered = state["level"], list(state["entered"])
        self.rising = deque(Finisher.from_plain(plain, self.space) for plain in state["rising"])
        self.waiting = [[Finisher.from_plain(plain, self.space) for plain in rows] for rows in state["waiting"]]
        self.reached = {self.space.parse(text): (level, score) for text, level, score in state["reached"]}
