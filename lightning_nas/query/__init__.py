"""Query-based search: searchers propose, oracles answer, an evaluator brings them together and loses nothing."""

from lightning_nas.query.evaluator import Evaluator
from lightning_nas.query.executors import Processes, RayExecutor
from lightning_nas.query.history import History
from lightning_nas.query.searcher import Searcher
from lightning_nas.query.searchers import (
    ASHA,
    BOHB,
    CGP,
    NASRL,
    NSGA2,
    BlockQNN,
    CurveExtrapolation,
    GeneticCNN,
    HierarchicalEvolution,
    Hyperband,
    LocalSearch,
    MetaQNN,
    NASNetPPO,
    QLearning,
    RandomSearch,
    RegularizedEvolution,
    Reinforce,
    SuccessiveHalving,
    TournamentEvolution,
)
from lightning_nas.query.trial import Oracle, Result, Trial

__all__ = [
    "ASHA",
    "BOHB",
    "CGP",
    "NASRL",
    "NSGA2",
    "BlockQNN",
    "CurveExtrapolation",
    "Evaluator",
    "GeneticCNN",
    "HierarchicalEvolution",
    "History",
    "Hyperband",
    "LocalSearch",
    "MetaQNN",
    "NASNetPPO",
    "Oracle",
    "Processes",
    "QLearning",
    "RandomSearch",
    "RayExecutor",
    "RegularizedEvolution",
    "Reinforce",
    "Result",
    "Searcher",
    "SuccessiveHalving",
    "TournamentEvolution",
    "Trial",
]
