"""Searchers: whatever proposes architectures by ask and tell."""

from lightning_nas.query.searchers.arch2vec_bo import Arch2VecBO
from lightning_nas.query.searchers.asha import ASHA
from lightning_nas.query.searchers.bananas import BANANAS
from lightning_nas.query.searchers.blockqnn import BlockQNN
from lightning_nas.query.searchers.bohb import BOHB, KDESampler
from lightning_nas.query.searchers.brp_nas import BRPNAS
from lightning_nas.query.searchers.cgp import CGP
from lightning_nas.query.searchers.evolution import RegularizedEvolution
from lightning_nas.query.searchers.extrapolation import CurveExtrapolation
from lightning_nas.query.searchers.gates import GATESSearch
from lightning_nas.query.searchers.genetic import GeneticCNN
from lightning_nas.query.searchers.halving import SuccessiveHalving
from lightning_nas.query.searchers.hierarchical import HierarchicalEvolution
from lightning_nas.query.searchers.hyperband import Hyperband
from lightning_nas.query.searchers.local_search import LocalSearch
from lightning_nas.query.searchers.metaqnn import MetaQNN
from lightning_nas.query.searchers.nao import NAO, SemiNAS
from lightning_nas.query.searchers.nas_bowl import NASBOWL
from lightning_nas.query.searchers.nas_rl import NASRL
from lightning_nas.query.searchers.nasbot import NASBOT
from lightning_nas.query.searchers.nasnet import NASNetPPO
from lightning_nas.query.searchers.neural_predictor import NeuralPredictorSearch
from lightning_nas.query.searchers.nsga import NSGA2
from lightning_nas.query.searchers.pnas import PNAS
from lightning_nas.query.searchers.predictor_search import PredictorSearch, Top, TopAndRandom
from lightning_nas.query.searchers.q_learning import QLearning
from lightning_nas.query.searchers.random_search import RandomSearch
from lightning_nas.query.searchers.rank_nosh import RankNOSH
from lightning_nas.query.searchers.reinforce import Reinforce
from lightning_nas.query.searchers.rungs import brackets
from lightning_nas.query.searchers.tournament import TournamentEvolution

__all__ = [
    "ASHA",
    "BANANAS",
    "BOHB",
    "BRPNAS",
    "CGP",
    "NAO",
    "NASBOT",
    "NASBOWL",
    "NASRL",
    "NSGA2",
    "PNAS",
    "Arch2VecBO",
    "BlockQNN",
    "CurveExtrapolation",
    "GATESSearch",
    "GeneticCNN",
    "HierarchicalEvolution",
    "Hyperband",
    "KDESampler",
    "LocalSearch",
    "MetaQNN",
    "NASNetPPO",
    "NeuralPredictorSearch",
    "PredictorSearch",
    "QLearning",
    "RandomSearch",
    "RankNOSH",
    "RegularizedEvolution",
    "Reinforce",
    "SemiNAS",
    "SuccessiveHalving",
    "Top",
    "TopAndRandom",
    "TournamentEvolution",
    "brackets",
]
