"""Hypergradients: how the upper loss says which way the architecture parameters go."""

from lightning_nas.hypergradients.finite_difference import FiniteDifference
from lightning_nas.hypergradients.first_order import FirstOrder, Hypergradient
from lightning_nas.hypergradients.score_function import ScoreFunction
from lightning_nas.hypergradients.single_level import SingleLevel
from lightning_nas.hypergradients.unrolled import Unrolled
from lightning_nas.hypergradients.virtual import virtual_weights

__all__ = [
    "FiniteDifference",
    "FirstOrder",
    "Hypergradient",
    "ScoreFunction",
    "SingleLevel",
    "Unrolled",
    "virtual_weights",
]
