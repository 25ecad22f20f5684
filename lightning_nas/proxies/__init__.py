"""Zero-cost scores: functions of an untrained network and one batch, to be large for what will train well."""

from lightning_nas.proxies.naswot import code_score, hamming_kernel, kernel_score, naswot
from lightning_nas.proxies.synflow import synaptic_flow, synflow

__all__ = ["code_score", "hamming_kernel", "kernel_score", "naswot", "synaptic_flow", "synflow"]
