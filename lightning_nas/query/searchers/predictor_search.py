"""Search with a learned model of the score: learn, propose, try, repeat."""

from __future__ import annotations

import random
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_nas.arch import Genotype
from lightning_nas.query.acquisition import Acquisition, Mean
from lightning_nas.query.encoders.base import Encoder
from lightning_nas.query.enumeration import all_members
from lightning_nas.query.predictors.base import Predictor, check_pair
from lightning_nas.query.proposals import Proposal, RandomPool, canonical
from lightning_nas.query.searcher import Searcher
from lightning_nas.query.trial import Result, Trial

__all__ = ["Choice", "PredictorSearch", "Top", "TopAndRandom"]


class Choice(ABC):
    """Which of the rated candidates are tried."""

    @abstractmethod
    def __call__(self, ratings: Tensor, k: int, turn: int, rng: random.Random) -> list[int]:
        """Choose.

        Args:
            ratings: Ratings of the candidates ``(n,)``, the larger the better.
            k: How many to choose; all if there are fewer.
            turn: Number of the turn, from 1.
            rng: Source of randomness.
        """


class Top(Choice):
    """The best rated.

    Example:
        >>> Top()(torch.tensor([0.1, 0.9, 0.5]), 2, 1, random.Random(0))
        [1, 2]
    """

    def __call__(self, ratings: Tensor, k: int, turn: int, rng: random.Random) -> list[int]:
        """The numbers of the `k` best, best first; of equals the first."""
        return torch.sort(ratings, descending=True, stable=True).indices[:k].tolist()


class TopAndRandom(Choice):
    """Some of the best rated, the others at random from the upper part, which halves turn by turn.

    Reference: Dudziak et al., "BRP-NAS: Prediction-based NAS using GCNs", NeurIPS 2020.

    Args:
        top: Share of those that are simply the best.
        shrink: By what factor the upper part shrinks: in turn `i` it is ``shrink ** i`` of the candidates.

    Raises:
        ValueError: If a number is not in [0, 1].

    Example:
        >>> chosen = TopAndRandom()(torch.arange(16.0), 4, 2, random.Random(0))
        >>> chosen[:2], all(k >= 10 for k in chosen[2:])  # two of the upper quarter that is left
        ([15, 14], True)
    """

    def __init__(self, top: float = 0.5, shrink: float = 0.5) -> None:
        if not 0 <= top <= 1 or not 0 < shrink <= 1:
            raise ValueError(f"top={top}, shrink={shrink}: both are shares from 0 to 1")
        self.top, self.shrink = top, shrink

    def __call__(self, ratings: Tensor, k: int, turn: int, rng: random.Random) -> list[int]:
        """The numbers of the best, best first, then of the others."""
        order = Top()(ratings, len(ratings), turn, rng)
        best = order[: min(len(order), max(0, round(self.top * k)))]
        upper = order[len(best) :][: max(k - len(best), round(self.shrink**turn * len(order)))]
        return best + rng.sample(upper, min(k - len(best), len(upper)))


class PredictorSearch(Searcher):
    """Label a few architectures, learn to predict the score, try those that are worth most, and so on.

    After `initial` random architectures, turn by turn: the predictor learns from all labels, the proposal makes
    candidates, those that were tried before are left out (of equal architectures all), the acquisition rates the
    predictions, and the choice takes the next `batch`. A turn waits for the results of the one before. What a turn
    does depends on the labels and its seed alone, so a search goes on after a stop as if there had been none.
    Failed trials are not learned from, and not tried again. No architecture is tried twice: a search is at its end when
    a space of up to 20,000 has none left, or 101 random ones of a larger space were all tried.

    Reference: Wen et al., "Neural Predictor for Neural Architecture Search", ECCV 2020; White, Neiswanger and Savani,
    "BANANAS", AAAI 2021.

    Args:
        encoder: Turns genotypes of its space into what the predictor takes.
        predictor: Learns scores.
        acquisition: Rates candidates; the prediction itself by default.
        proposal: Makes candidates; 1,000 random ones by default.
        initial: Random architectures at the start.
        batch: Architectures of a turn.
        choice: Which of the candidates are tried; the best rated by default.
        budget: Epochs of each trial; ``None`` for full training.
        equal: Whether architectures that compute the same (`Space.canonical`) count as one.
        seed: Seed of all random choices.

    Raises:
        ValueError: If a number is not positive, or the predictor does not learn from what the encoder makes.

    Example:
        >>> from lightning_nas.query.encoders import AdjacencyEncoder
        >>> from lightning_nas.query.predictors import NearestNeighbor
        >>> searcher = PredictorSearch(AdjacencyEncoder("nasbench201"), NearestNeighbor(), initial=5, batch=5)
        >>> for _ in range(20):
        ...     trial = searcher.ask()[0]
        ...     searcher.tell([Result(trial, score=sum(k for k, in trial.genotype.picks.values()))])
        >>> searcher.turn, len(searcher.labels)
        (3, 20)
    """

    def __init__(
        self,
        encoder: Encoder,
        predictor: Predictor,
        acquisition: Acquisition | None = None,
        proposal: Proposal | None = None,
        initial: int = 10,
        batch: int = 10,
        choice: Choice | None = None,
        budget: float | None = None,
        equal: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(encoder.space, seed)
        if initial < 1 or batch < 1:
            raise ValueError(f"initial={initial}, batch={batch}: both must be at least 1")
        check_pair(encoder, predictor)
        self.encoder, self.predictor = encoder, predictor
        self.acquisition = Mean() if acquisition is None else acquisition
        self.proposal = RandomPool() if proposal is None else proposal
        self.choice = Top() if choice is None else choice
        self.initial, self.batch, self.budget, self.equal = initial, batch, budget, equal
        self.labels: list[tuple[Genotype, float]] = []
        self.tried: set[Genotype] = set()
        self.queue: list[Genotype] = []
        self.turn = 0

    def propose(self) -> Trial | None:
        """A random architecture at the start, then those of the turn; ``None`` while it waits, or with none left."""
        genotype = None
        if self.asked < self.initial:
            genotype = self._fresh()
        elif self.queue or (not self.pending and self._next_turn()):
            genotype = self.queue.pop(0)
        if genotype is None:
            return None
        self.tried.add(self.key(genotype))
        return self.trial(genotype, self.budget, turn=self.turn)

    def key(self, genotype: Genotype) -> Genotype:
        """What all equal architectures share."""
        return canonical(self.space, genotype) if self.equal else genotype

    def _fresh(self) -> Genotype | None:
        """A random architecture that was not tried; of a small space any that is left, ``None`` if none is found."""
        for _ in range(101):
            genotype = self.space.sample(self.rng)
            if self.key(genotype) not in self.tried:
                return genotype
        left = [genotype for genotype in all_members(self.space) if self.key(genotype) not in self.tried]
        return self.rng.choice(left) if left else None

    def _next_turn(self) -> bool:
        """Choose the next batch; whether there is any."""
        self.turn += 1
        self.queue = self.chosen(self.batch) if self.labels else self._one_fresh()
        return bool(self.queue)

    def _one_fresh(self) -> list[Genotype]:
        """One random architecture, or none where none is left."""
        return [] if (genotype := self._fresh()) is None else [genotype]

    def chosen(self, count: int) -> list[Genotype]:
        """Learn from the labels, rate candidates, and choose.

        Args:
            count: How many to choose.
        """
        self.learn()
        candidates = self.candidates()
        if not candidates:
            return []
        return [candidates[k] for k in self.choice(self.rate(candidates), count, self.turn, self.rng)]

    def candidates(self) -> list[Genotype]:
        """What the proposal makes, less what was tried, one of each kind of equal ones."""
        new: dict[Genotype, Genotype] = {}
        for genotype in self.proposal(self.space, self.labels, self.rng):
            key = self.key(genotype)
            if key not in self.tried:
                new.setdefault(key, genotype)
        return list(new.values()) or self._one_fresh()

    def learn(self) -> None:
        """Let the predictor learn from all labels."""
        genotypes, scores = zip(*self.labels, strict=True)
        seed = zlib.crc32(f"{self.seed}/{self.turn}".encode())
        self.predictor.fit(self.encoder(genotypes), torch.tensor(scores, dtype=torch.float64), seed)

    def rate(self, candidates: Sequence[Genotype]) -> Tensor:
        """Predict and rate: ``(n,)``."""
        rng = torch.Generator().manual_seed(self.rng.getrandbits(63))
        with torch.no_grad():
            prediction = self.predictor.predict(self.encoder(candidates))
            return self.acquisition(prediction, max(score for _, score in self.labels), rng)

    def observe(self, result: Result) -> None:
        """One more label."""
        self.labels.append((result.trial.genotype, result.score))

    def state(self) -> dict[str, Any]:  # noqa: D102
        text = self.space.format
        return {
            "seed": self.seed,
            "labels": [[text(genotype), score] for genotype, score in self.labels],
            "tried": sorted(map(text, self.tried)),
            "queue": list(map(text, self.queue)),
            "turn": self.turn,
        }

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        parse = self.space.parse
        self.seed = state["seed"]
        self.labels = [(parse(text), score) for text, score in state["labels"]]
        self.tried = set(map(parse, state["tried"]))
        self.queue, self.turn = list(map(parse, state["queue"])), state["turn"]
