"""What networks cost: tables of multiply-adds, parameters and latencies, and the measurement of latencies."""

from lightning_nas.costs.build import CostName, cost_table
from lightning_nas.costs.latency_file import read_latencies, write_latencies
from lightning_nas.costs.layout import Operation, network_size
from lightning_nas.costs.table import CostTable, inclusion

__all__ = [
    "CostName",
    "CostTable",
    "Operation",
    "cost_table",
    "inclusion",
    "network_size",
    "read_latencies",
    "write_latencies",
]
