"""Relaxations: how architecture parameters become a `Sample`."""

from lightning_nas.relaxations.base import Relaxation
from lightning_nas.relaxations.softmax import Softmax

__all__ = ["Relaxation", "Softmax"]
