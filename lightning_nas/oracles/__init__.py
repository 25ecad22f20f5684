"""Oracles: whatever tells how good a genotype is, from a table, a training, a supernet or a score without training."""

from lightning_nas.oracles.batches import give_data
from lightning_nas.oracles.function import FunctionOracle
from lightning_nas.oracles.own_table import OwnTable, TableSpace
from lightning_nas.oracles.routed import RoutedOracle
from lightning_nas.oracles.supernet import SupernetOracle
from lightning_nas.oracles.tabular import TableOracle
from lightning_nas.oracles.training import TrainingOracle
from lightning_nas.oracles.zero_cost import ZeroCostOracle

__all__ = [
    "FunctionOracle",
    "OwnTable",
    "RoutedOracle",
    "SupernetOracle",
    "TableOracle",
    "TableSpace",
    "TrainingOracle",
    "ZeroCostOracle",
    "give_data",
]
