"""Search with GATES: a ranker that lets information flow through an architecture."""

from __future__ import annotations

from lightning_nas.query.encoders.graph import GraphEncoder
from lightning_nas.query.predictors.gates import GATES
from lightning_nas.query.proposals import WholeSpace
from lightning_nas.query.searchers.predictor_search import PredictorSearch
from lightning_nas.spaces import Space
from lightning_nas.spaces.operation_graph import OUTPUT, cell_kinds

__all__ = ["GATESSearch"]


class GATESSearch(PredictorSearch):
    """Learn the order of all labels by operations as gates, try the best predictions, and so on.

    The published search has five stages of 200 architectures, here they are 30 each, and a step learns from 16
    architectures instead of 128, or so few labels would make no more than a step for each pass. The candidates are the
    whole space, or a random pool of a large one, where the published search has a simulated annealing as well. In
    NAS-Bench-201 and its like each operation is a vertex here and gates what reaches it; published are gates on the
    edges between the nodes that sum.

    Reference: Ning et al., "A Generic Graph-based Neural Architecture Encoding Scheme for Predictor-based NAS",
    ECCV 2020.

    Args:
        space: Name of a search space, or a space.
        initial: Random architectures at the start.
        batch: Architectures of a turn.
        width: Features of a vertex.
        hidden: Units of the layers between the vector of an architecture and its score.
        passes: Passes over the labels.
        pool: Candidates in a large space.
        budget: Epochs of each trial; ``None`` for full training.
        seed: Seed of all random choices.

    Raises:
        ValueError: If not all genotypes of the space have the same cells.

    Example:
        >>> searcher = GATESSearch("nasbench201", initial=2)
        >>> len(searcher.ask(5))  # then it waits for their scores
        2
    """

    def __init__(
        self,
        space: str | Space = "nasbench201",
        initial: int = 30,
        batch: int = 30,
        width: int = 128,
        hidden: tuple[int, ...] = (300,) * 5,
        passes: int = 50,
        pool: int = 2_000,
        budget: float | None = None,
        seed: int = 0,
    ) -> None:
        encoder = GraphEncoder(space)
        cell_kinds(encoder.space)  # the predictor reads the outputs of all cells
        output = encoder.vocabulary.index(OUTPUT)
        super().__init__(
            encoder=encoder,
            predictor=GATES(output, width=width, hidden=hidden, batch=16, passes=passes),
            proposal=WholeSpace(pool=pool),
            initial=initial,
            batch=batch,
            budget=budget,
            seed=seed,
        )
