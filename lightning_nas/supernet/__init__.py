"""Supernets: every candidate of a space in one network with shared weights."""

from lightning_nas.supernet.cells import MixedCell
from lightning_nas.supernet.chain import MixedBlock, chain_supernet
from lightning_nas.supernet.choice_block import ChoiceBlockCell
from lightning_nas.supernet.few_shot import FewShotSupernet
from lightning_nas.supernet.networks import build_supernet, evaluate_samples
from lightning_nas.supernet.widening import widen

__all__ = [
    "ChoiceBlockCell",
    "FewShotSupernet",
    "MixedBlock",
    "MixedCell",
    "build_supernet",
    "chain_supernet",
    "evaluate_samples",
    "widen",
]
