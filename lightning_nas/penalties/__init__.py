"""Regularizers: terms that a method adds to the upper loss, or factors of it."""

from lightning_nas.penalties.base import Regularizer
from lightning_nas.penalties.cost import ExpectedCost
from lightning_nas.penalties.distribution import BetaDecay, DirichletKL, Entropy, ZeroOne, dirichlet_kl
from lightning_nas.penalties.size import SquaredSize

__all__ = [
    "BetaDecay",
    "DirichletKL",
    "Entropy",
    "ExpectedCost",
    "Regularizer",
    "SquaredSize",
    "ZeroOne",
    "dirichlet_kl",
]
