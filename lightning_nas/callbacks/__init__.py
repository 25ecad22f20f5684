"""Callbacks: schedules and interventions, each composes with every method."""

from lightning_nas.callbacks.ema import ExponentialMovingAverage
from lightning_nas.callbacks.genotype_logger import GenotypeLogger

__all__ = ["ExponentialMovingAverage", "GenotypeLogger"]
