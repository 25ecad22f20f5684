"""Networks of genotypes, their training, and their entries in timm's registry (importing this registers them)."""

from lightning_nas.derived import timm_entry
from lightning_nas.derived.auxiliary import AuxiliaryHead
from lightning_nas.derived.blocks import DiscreteBlock
from lightning_nas.derived.cells import DiscreteCell
from lightning_nas.derived.module import DerivedTraining
from lightning_nas.derived.network import DerivedNetwork

__all__ = ["AuxiliaryHead", "DerivedNetwork", "DerivedTraining", "DiscreteBlock", "DiscreteCell", "timm_entry"]
