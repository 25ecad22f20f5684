"""Search methods: LightningModules that any Trainer fits."""

from lightning_nas.methods.base import SearchModule
from lightning_nas.methods.darts import DARTS
from lightning_nas.methods.differentiable import DifferentiableSearch
from lightning_nas.training import AdamTheta, SGDCosine

__all__ = ["DARTS", "AdamTheta", "DifferentiableSearch", "SGDCosine", "SearchModule"]
