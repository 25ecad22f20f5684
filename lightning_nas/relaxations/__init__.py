"""Relaxations: how architecture parameters become a `Sample`."""

from lightning_nas.relaxations.base import Relaxation
from lightning_nas.relaxations.softmax import Softmax, masked_softmax

__all__ = ["Relaxation", "Softmax", "masked_softmax"]
