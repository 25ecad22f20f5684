"""Callbacks: schedules and interventions, each composes with every method."""

from lightning_nas.callbacks.diagnosis import CollapseRules
from lightning_nas.callbacks.ema import ExponentialMovingAverage
from lightning_nas.callbacks.few_shot_split import FewShotSplit
from lightning_nas.callbacks.genotype_logger import GenotypeLogger
from lightning_nas.callbacks.oles import OLES
from lightning_nas.callbacks.perturbation_regularization import PerturbationRegularization
from lightning_nas.callbacks.perturbation_selection import PerturbationSelection, epochs_needed
from lightning_nas.callbacks.progressive import ChannelStage, ProgressiveChannelPruning
from lightning_nas.callbacks.schedule import Annealing, AuxiliarySkipAnnealing, EpochSchedule, PenaltyAnnealing
from lightning_nas.callbacks.search_doctor import SearchDoctor
from lightning_nas.callbacks.sharpness_monitor import SharpnessMonitor
from lightning_nas.callbacks.skip_dropout import SkipDropout
from lightning_nas.callbacks.supernet_selection import SupernetSelection
from lightning_nas.callbacks.temperature import TemperatureAnnealing
from lightning_nas.callbacks.warmup import ArchitectureWarmup

__all__ = [
    "OLES",
    "Annealing",
    "ArchitectureWarmup",
    "AuxiliarySkipAnnealing",
    "ChannelStage",
    "CollapseRules",
    "EpochSchedule",
    "ExponentialMovingAverage",
    "FewShotSplit",
    "GenotypeLogger",
    "PenaltyAnnealing",
    "PerturbationRegularization",
    "PerturbationSelection",
    "ProgressiveChannelPruning",
    "SearchDoctor",
    "SharpnessMonitor",
    "SkipDropout",
    "SupernetSelection",
    "TemperatureAnnealing",
    "epochs_needed",
]
