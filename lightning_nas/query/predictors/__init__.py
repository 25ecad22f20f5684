"""Predictors: models of the score of an architecture, learned from few labels."""

from lightning_nas.query.predictors.base import Prediction, Predictor, Scale
from lightning_nas.query.predictors.boosting import Boosting
from lightning_nas.query.predictors.correlation import Correlation, Matern
from lightning_nas.query.predictors.dngo import DNGO
from lightning_nas.query.predictors.gates import GATES
from lightning_nas.query.predictors.gaussian_process import GaussianProcess
from lightning_nas.query.predictors.gcn import GIN, DirectedGCN, GlobalGCN
from lightning_nas.query.predictors.linear import BayesianLinear
from lightning_nas.query.predictors.lstm import LSTMPredictor
from lightning_nas.query.predictors.mlp import MLPEnsemble
from lightning_nas.query.predictors.nao import NAOPredictor, SemiNASPredictor
from lightning_nas.query.predictors.neighbor import NearestNeighbor
from lightning_nas.query.predictors.neural import NeuralPredictor
from lightning_nas.query.predictors.otmann import OTMANN
from lightning_nas.query.predictors.pairwise import BinaryRelation
from lightning_nas.query.predictors.ranker import Ranker
from lightning_nas.query.predictors.weisfeiler_lehman import WeisfeilerLehman
from lightning_nas.query.predictors.zero_cost import ZeroCost

__all__ = [
    "DNGO",
    "GATES",
    "GIN",
    "OTMANN",
    "BayesianLinear",
    "BinaryRelation",
    "Boosting",
    "Correlation",
    "DirectedGCN",
    "GaussianProcess",
    "GlobalGCN",
    "LSTMPredictor",
    "MLPEnsemble",
    "Matern",
    "NAOPredictor",
    "NearestNeighbor",
    "NeuralPredictor",
    "Prediction",
    "Predictor",
    "Ranker",
    "Scale",
    "SemiNASPredictor",
    "WeisfeilerLehman",
    "ZeroCost",
]
