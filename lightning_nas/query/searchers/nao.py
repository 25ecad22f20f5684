"""Neural architecture optimization: gradient steps in a continuous space of architectures, read back as strings."""

from __future__ import annotations

import random

from lightning_nas.arch import Genotype
from lightning_nas.query.encoders.tokens import TokenEncoder
from lightning_nas.query.predictors.nao import NAOPredictor, SemiNASPredictor
from lightning_nas.query.proposals import Labels, Proposal, best_of, canonical
from lightning_nas.query.searchers.predictor_search import PredictorSearch
from lightning_nas.spaces import Space

__all__ = ["NAO", "GradientSteps", "SemiNAS"]


class GradientSteps(Proposal):
    """What a predictor writes when the best architectures are moved along the gradient of its score.

    The step grows, 1, 2, 3 and so on, until there are `size` architectures that are equal to none so far; random ones
    fill up what is missing then.

    Args:
        encoder: Writes and reads strings.
        predictor: The predictor that learns from these strings; whoever asks lets it learn first.
        size: How many.
        seeds: Number of the best that are moved.
        steps: Largest step.

    Raises:
        ValueError: If a number is not positive.

    Example:
        >>> import torch
        >>> encoder = TokenEncoder("nasbench201")
        >>> space, rng = encoder.space, random.Random(0)
        >>> some = [space.sample(rng) for _ in range(6)]
        >>> predictor = NAOPredictor(len(encoder.vocabulary), hidden=8, passes=2).fit(encoder(some), torch.arange(6.0))
        >>> found = GradientSteps(encoder, predictor, size=4, steps=5)(space, [(g, 90.0) for g in some], rng)
        >>> len(found), set(found) & set(some)
        (4, set())
    """

    def __init__(
        self, encoder: TokenEncoder, predictor: NAOPredictor, size: int = 100, seeds: int = 100, steps: int = 100
    ) -> None:
        if size < 1 or seeds < 1 or steps < 1:
            raise ValueError(f"size={size}, seeds={seeds}, steps={steps}: all must be positive")
        self.encoder, self.predictor = encoder, predictor
        self.size, self.seeds, self.steps = size, seeds, steps

    def __call__(self, space: Space, labels: Labels, rng: random.Random) -> list[Genotype]:
        """New architectures, those of smaller steps first; all random before the first label."""
        known = {canonical(space, genotype) for genotype, _ in labels}
        found = self._written(space, labels, known) if labels else []
        tries = 0
        while len(found) < self.size and tries < 100 * self.size:
            genotype, tries = space.sample(rng), tries + 1
            if canonical(space, genotype) not in known:
                known.add(canonical(space, genotype))
                found.append(genotype)
        return found

    def _written(self, space: Space, labels: Labels, known: set[Genotype]) -> list[Genotype]:
        """What the gradient steps lead to; `known` grows by it."""
        x, found = self.encoder(best_of(labels, self.seeds)), list[Genotype]()
        for eta in range(1, self.steps + 1):
            for string in self.predictor.generate(x, eta, self.encoder.allowed):
                genotype = self.encoder.decode(string)
                if genotype is not None and canonical(space, genotype) not in known:
                    known.add(canonical(space, genotype))
                    found.append(genotype)
                if len(found) == self.size:
                    return found
        return found


class NAO(PredictorSearch):
    """Neural architecture optimization: learn a continuous space of architectures, climb in it, read back.

    As published, all that the gradient steps lead to is tried, with no choice among them. There 600 architectures come
    first and 200 to 300 in each of two or three turns; here there are fewer, and fewer passes.
    The publication learns also from strings in which the two inputs of a node are swapped, and embeds an input together
    with its operation; here each architecture has one string, and each of its tokens an embedding of its own.

    Reference: Luo, Tian, Qin, Chen and Liu, "Neural Architecture Optimization", NeurIPS 2018.

    Args:
        space: Name of a search space, or a space.
        initial: Random architectures at the start.
        batch: Architectures of a turn.
        seeds: Number of the best from which the gradient steps start; 100 as published.
        steps: Largest step.
        pool: Architectures that are written in a turn, of which the best predicted `batch` are tried; ``None`` for as
            many as are tried.
        passes: Passes over the data; 1,000 as published.
        hidden, embedding, layers, width: Size of the predictor, see `NAOPredictor`.
        budget: Epochs of each trial; ``None`` for full training.
        seed: Seed of all random choices.

    Raises:
        ValueError: If a number is not positive, or `pool` is less than `batch`.

    Example:
        >>> searcher = NAO("nasbench201", initial=5, batch=5, passes=2)
        >>> [trial.genotype.space for trial in searcher.ask(2)]
        ['nasbench201', 'nasbench201']
    """

    def __init__(
        self,
        space: str | Space = "nasbench201",
        initial: int = 50,
        batch: int = 25,
        seeds: int = 20,
        steps: int = 100,
        pool: int | None = None,
        passes: int = 100,
        hidden: int = 96,
        embedding: int = 48,
        layers: int = 3,
        width: int = 200,
        budget: float | None = None,
        seed: int = 0,
    ) -> None:
        if pool is not None and pool < batch:
            raise ValueError(f"pool={pool}, batch={batch}: of the pool a batch is tried; give at least as large a pool")
        encoder = TokenEncoder(space)
        predictor = NAOPredictor(len(encoder.vocabulary), hidden, embedding, layers, width, passes=passes)
        proposal = GradientSteps(encoder, predictor, batch if pool is None else pool, seeds, steps)
        super().__init__(encoder, predictor, None, proposal, initial, batch, budget=budget, seed=seed)


class SemiNAS(PredictorSearch):
    """NAO whose predictor also learns from random architectures that it has given scores itself, new ones each turn.

    Published are 1,100 labelled and 10,000 unlabelled architectures, 1,000 and 500 passes, 300 architectures a turn.
    Scores are brought to [0, 1] here, and not standardised.

    Reference: Luo, Tan, Wang, Qin, Chen and Liu, "Semi-Supervised Neural Architecture Search", NeurIPS 2020.

    Args:
        space: Name of a search space, or a space.
        initial: Random architectures at the start.
        batch: Architectures of a turn.
        seeds: Number of the best from which the gradient steps start; 100 as published.
        steps: Largest step.
        unlabelled: Random architectures without labels.
        copies: How often each labelled architecture counts beside them.
        passes: Passes over the labelled architectures.
        more_passes: Passes over all of them.
        hidden: Units of the LSTMs.
        budget: Epochs of each trial; ``None`` for full training.
        seed: Seed of all random choices.

    Raises:
        ValueError: If a number is not positive.

    Example:
        >>> searcher = SemiNAS("nasbench201", initial=5, batch=5, passes=2)
        >>> len(searcher.ask(9))  # the rest waits for results
        5
    """

    def __init__(
        self,
        space: str | Space = "nasbench201",
        initial: int = 50,
        batch: int = 25,
        seeds: int = 20,
        steps: int = 100,
        unlabelled: int = 500,
        copies: int = 10,
        passes: int = 100,
        more_passes: int = 5,
        hidden: int = 64,
        budget: float | None = None,
        seed: int = 0,
    ) -> None:
        if unlabelled < 1:
            raise ValueError(f"unlabelled={unlabelled}: give at least one; without any it is NAO")
        self.strings, self.unlabelled = TokenEncoder(space), unlabelled
        words = len(self.strings.vocabulary)
        self.semi = SemiNASPredictor(words, None, copies, more_passes, hidden, passes=passes)
        proposal = GradientSteps(self.strings, self.semi, batch, seeds, steps)
        super().__init__(self.strings, self.semi, None, proposal, initial, batch, budget=budget, seed=seed)

    def learn(self) -> None:
        """Draw architectures without labels, then learn."""
        drawn = [self.space.sample(self.rng) for _ in range(self.unlabelled)]
        self.semi.unlabelled = self.strings.encode(drawn)
        super().learn()
