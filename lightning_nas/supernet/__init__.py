"""Supernets: every candidate of a space in one network with shared weights."""

from lightning_nas.supernet.cells import MixedCell
from lightning_nas.supernet.choice_block import ChoiceBlockCell
from lightning_nas.supernet.networks import build_supernet, evaluate_samples

__all__ = ["ChoiceBlockCell", "MixedCell", "build_supernet", "evaluate_samples"]
