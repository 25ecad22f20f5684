"""Neural architecture search as parts that drop into a PyTorch Lightning Trainer.

Importing the package registers the published genotypes with timm: ``timm.create_model("nas_darts_v2")``.
"""

from lightning_nas import data, derived, methods, spaces
from lightning_nas.data import BilevelDataModule
from lightning_nas.derived import DerivedNetwork, DerivedTraining
from lightning_nas.methods import DARTS, DifferentiableSearch
from lightning_nas.spaces import get_space, load_genotype

__all__ = [
    "DARTS",
    "BilevelDataModule",
    "DerivedNetwork",
    "DerivedTraining",
    "DifferentiableSearch",
    "data",
    "derived",
    "get_space",
    "load_genotype",
    "methods",
    "spaces",
]
__version__ = "0.1.0"
