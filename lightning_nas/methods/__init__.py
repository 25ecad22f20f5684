"""Search methods: LightningModules that any Trainer fits."""

from lightning_nas.methods.base import SearchModule
from lightning_nas.methods.beta_darts import BetaDARTS
from lightning_nas.methods.darts import DARTS
from lightning_nas.methods.darts_minus import DARTSMinus
from lightning_nas.methods.darts_pt import DARTSPT
from lightning_nas.methods.differentiable import DifferentiableSearch
from lightning_nas.methods.drnas import DrNAS
from lightning_nas.methods.dsnas import DSNAS
from lightning_nas.methods.enas import ENAS
from lightning_nas.methods.fair_darts import FairDARTS
from lightning_nas.methods.fbnet import FBNet
from lightning_nas.methods.few_shot import FewShotNAS
from lightning_nas.methods.gaea import GAEA
from lightning_nas.methods.gdas import GDAS
from lightning_nas.methods.nasp import NASP
from lightning_nas.methods.oles import OLESDARTS
from lightning_nas.methods.p_darts import PDARTS
from lightning_nas.methods.pc_darts import PCDARTS
from lightning_nas.methods.proxyless import ProxylessNAS
from lightning_nas.methods.query import QuerySearch
from lightning_nas.methods.random_ws import RandomSearchWS
from lightning_nas.methods.robust_darts import RobustDARTS
from lightning_nas.methods.sdarts import SDARTS
from lightning_nas.methods.snas import SNAS
from lightning_nas.methods.spos import SPOS
from lightning_nas.optimizers import AdamTheta, ExponentiatedGradient, SGDCosine

__all__ = [
    "DARTS",
    "DARTSPT",
    "DSNAS",
    "ENAS",
    "GAEA",
    "GDAS",
    "NASP",
    "OLESDARTS",
    "PCDARTS",
    "PDARTS",
    "SDARTS",
    "SNAS",
    "SPOS",
    "AdamTheta",
    "BetaDARTS",
    "DARTSMinus",
    "DifferentiableSearch",
    "DrNAS",
    "ExponentiatedGradient",
    "FBNet",
    "FairDARTS",
    "FewShotNAS",
    "ProxylessNAS",
    "QuerySearch",
    "RandomSearchWS",
    "RobustDARTS",
    "SGDCosine",
    "SearchModule",
]
