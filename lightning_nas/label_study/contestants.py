"""Who takes part: the presets, with their own defaults except for RANK-NOSH, and baselines."""

from __future__ import annotations

from collections.abc import Callable

from lightning_nas.label_study.worlds import World
from lightning_nas.query import RandomSearch, RegularizedEvolution, Searcher
from lightning_nas.query.encoders import GraphEncoder
from lightning_nas.query.predictors.gcn import GIN
from lightning_nas.query.predictors.ranker import Ranker
from lightning_nas.query.proposals import WholeSpace
from lightning_nas.query.searchers.arch2vec_bo import Arch2VecBO
from lightning_nas.query.searchers.bananas import BANANAS
from lightning_nas.query.searchers.brp_nas import BRPNAS
from lightning_nas.query.searchers.gates import GATESSearch
from lightning_nas.query.searchers.nao import NAO
from lightning_nas.query.searchers.nas_bowl import NASBOWL
from lightning_nas.query.searchers.nasbot import NASBOT
from lightning_nas.query.searchers.neural_predictor import NeuralPredictorSearch
from lightning_nas.query.searchers.predictor_search import PredictorSearch
from lightning_nas.query.searchers.rank_nosh import RankNOSH

__all__ = ["CONTESTANTS", "able"]


def _order() -> Ranker:
    """The ranker of RANK-NOSH; the paused trainings of its pyramid are many, so the steps of a fit have a limit."""
    return Ranker(GIN, "bce", steps=400)


def _nosh(of: World, seed: int, scored: bool = False) -> Searcher:
    """RANK-NOSH over the trainings that the table has, with a level 0 of scores without training if asked."""
    if scored and of.zero_cost is None:
        raise ValueError(f"no scores without training of {of.name} were given; make them by benchmark scores")
    levels = [0.0] * scored + [float(e) for e in (of.short, of.full) if e is not None]
    if len(levels) < 2:
        raise ValueError(f"{of.name} has one level of training; leave RANK-NOSH out, or give it a level 0")
    ratio = [0.5] * scored + [0.25] * (len(levels) - 1 - scored)
    first = 160 if scored else 80
    parts = {"encoder": GraphEncoder(of.space), "predictor": _order()}
    return RankNOSH(of.space, levels, ratio, first, first, 100_000, proposal=WholeSpace(), seed=seed, **parts)  # type: ignore[arg-type]


def _ranker(of: World, seed: int) -> Searcher:
    """The ranker of RANK-NOSH, every proposal trained in full; a round trains as many in full as one of `_nosh`."""
    parts = {"proposal": WholeSpace(), "initial": 20, "batch": 20}
    return PredictorSearch(GraphEncoder(of.space), _order(), seed=seed, **parts)  # type: ignore[arg-type]


CONTESTANTS: dict[str, Callable[[World, int], Searcher]] = {
    "random": lambda of, seed: RandomSearch(of.space, unique=True, seed=seed),
    "REA": lambda of, seed: RegularizedEvolution(of.space, population=30, sample=10, seed=seed),
    "BANANAS": lambda of, seed: BANANAS(of.space, seed=seed),
    "NASBOT": lambda of, seed: NASBOT(of.space, seed=seed),
    "NAS-BOWL": lambda of, seed: NASBOWL(of.space, seed=seed),
    "Neural Predictor": lambda of, seed: NeuralPredictorSearch(of.space, seed=seed),
    "BRP-NAS": lambda of, seed: BRPNAS(of.space, seed=seed),
    "GATES": lambda of, seed: GATESSearch(of.space, seed=seed),
    "NAO": lambda of, seed: NAO(of.space, seed=seed),
    "arch2vec-BO": lambda of, seed: Arch2VecBO(
        of.space, file=None if of.folder is None else of.folder / f"arch2vec-{of.name}.pt", seed=seed
    ),
    "ranker": _ranker,
    "RANK-NOSH": _nosh,
    "RANK-NOSH, level 0": lambda of, seed: _nosh(of, seed, scored=True),
}
"""Name -> searcher for a world and a seed, with the defaults of its preset; RANK-NOSH and its ranker are set here."""


def able(of: World) -> list[str]:
    """Who can take part in a world: not RANK-NOSH without levels to go through.

    Args:
        of: The world.
    """
    missing = {"RANK-NOSH": of.short is None, "RANK-NOSH, level 0": of.zero_cost is None}
    return [name for name in CONTESTANTS if not missing.get(name, False)]
