"""Relaxations: how architecture parameters become a `Sample`."""

from lightning_nas.relaxations.base import Relaxation
from lightning_nas.relaxations.controller import Controller
from lightning_nas.relaxations.dirichlet import Dirichlet, sample_dirichlet
from lightning_nas.relaxations.gates import BinaryGates
from lightning_nas.relaxations.gumbel import Gumbel, concrete_log_prob
from lightning_nas.relaxations.proximal import Proximal
from lightning_nas.relaxations.score_path import ScorePath
from lightning_nas.relaxations.sigmoid import Sigmoid
from lightning_nas.relaxations.simplex import Simplex
from lightning_nas.relaxations.softmax import Softmax, masked_softmax
from lightning_nas.relaxations.uniform import UniformPath

__all__ = [
    "BinaryGates",
    "Controller",
    "Dirichlet",
    "Gumbel",
    "Proximal",
    "Relaxation",
    "ScorePath",
    "Sigmoid",
    "Simplex",
    "Softmax",
    "UniformPath",
    "concrete_log_prob",
    "masked_softmax",
    "sample_dirichlet",
]
