"""Micro-benchmarks: small spaces of which every cell was trained from scratch."""

from lightning_nas.micro.build import build_micro, train_cell
from lightning_nas.micro.setting import MicroSetting
from lightning_nas.micro.study import run_study
from lightning_nas.micro.table import MicroTable, write_table

__all__ = ["MicroSetting", "MicroTable", "build_micro", "run_study", "train_cell", "write_table"]
