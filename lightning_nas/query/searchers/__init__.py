"""Searchers: whatever proposes architectures by ask and tell."""

from lightning_nas.query.searchers.asha import ASHA
from lightning_nas.query.searchers.blockqnn import BlockQNN
from lightning_nas.query.searchers.bohb import BOHB, KDESampler
from lightning_nas.query.searchers.cgp import CGP
from lightning_nas.query.searchers.evolution import RegularizedEvolution
from lightning_nas.query.searchers.extrapolation import CurveExtrapolation
from lightning_nas.query.searchers.genetic import GeneticCNN
from lightning_nas.query.searchers.halving import SuccessiveHalving
from lightning_nas.query.searchers.hierarchical import HierarchicalEvolution
from lightning_nas.query.searchers.hyperband import Hyperband
from lightning_nas.query.searchers.local_search import LocalSearch
from lightning_nas.query.searchers.metaqnn import MetaQNN
from lightning_nas.query.searchers.nas_rl import NASRL
from lightning_nas.query.searchers.nasnet import NASNetPPO
from lightning_nas.query.searchers.nsga import NSGA2
from lightning_nas.query.searchers.q_learning import QLearning
from lightning_nas.query.searchers.random_search import RandomSearch
from lightning_nas.query.searchers.reinforce import Reinforce
from lightning_nas.query.searchers.rungs import brackets
from lightning_nas.query.searchers.tournament import TournamentEvolution

__all__ = [
    "ASHA",
    "BOHB",
    "CGP",
    "NASRL",
    "NSGA2",
    "BlockQNN",
    "CurveExtrapolation",
    "GeneticCNN",
    "HierarchicalEvolution",
    "Hyperband",
    "KDESampler",
    "LocalSearch",
    "MetaQNN",
    "NASNetPPO",
    "QLearning",
    "RandomSearch",
    "RegularizedEvolution",
    "Reinforce",
    "SuccessiveHalving",
    "TournamentEvolution",
    "brackets",
]
