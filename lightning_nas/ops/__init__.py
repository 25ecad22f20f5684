"""Candidate operations. `OPS` is the registry: a name and a function from an `OpSpec` to a module."""

from lightning_nas.ops.blocks import ConvBN, FactorizedReduce, ReLUConvBN, ResidualBlock
from lightning_nas.ops.candidates import OPS, ConvBNReLU, Noise, OpSpec, Zero, make_op

__all__ = [
    "OPS",
    "ConvBN",
    "ConvBNReLU",
    "FactorizedReduce",
    "Noise",
    "OpSpec",
    "ReLUConvBN",
    "ResidualBlock",
    "Zero",
    "make_op",
]
