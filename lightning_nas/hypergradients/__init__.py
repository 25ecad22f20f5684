"""Hypergradients: how the upper loss says which way the architecture parameters go."""

from lightning_nas.hypergradients.first_order import FirstOrder, Hypergradient

__all__ = ["FirstOrder", "Hypergradient"]
