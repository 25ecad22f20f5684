"""Readers of tabular benchmarks: architectures that were trained once, and what their trainings came to."""

from __future__ import annotations

from lightning_nas.benchmarks.base import Benchmark, Record
from lightning_nas.benchmarks.nasbench101 import NASBench1Shot1, NASBench101, convert101
from lightning_nas.benchmarks.nasbench201 import NASBench201
from lightning_nas.benchmarks.nasbench301 import NASBench301Logs
from lightning_nas.benchmarks.nats import NATSSize
from lightning_nas.benchmarks.official import OfficialTable, Training, open_official
from lightning_nas.benchmarks.transnas import TransNASBench101
from lightning_nas.benchmarks.unpickle import load_pickle

__all__ = [
    "Benchmark",
    "NASBench1Shot1",
    "NASBench101",
    "NASBench201",
    "NASBench301Logs",
    "NATSSize",
    "OfficialTable",
    "Record",
    "Training",
    "TransNASBench101",
    "convert101",
    "load_pickle",
    "open_official",
]
