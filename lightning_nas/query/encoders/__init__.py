"""Encoders: genotypes as features or graphs for a predictor."""

from lightning_nas.query.encoders.adjacency import AdjacencyEncoder
from lightning_nas.query.encoders.base import Encoded, Encoder, Graphs, join, select
from lightning_nas.query.encoders.graph import GraphEncoder
from lightning_nas.query.encoders.path import PathEncoder

__all__ = ["AdjacencyEncoder", "Encoded", "Encoder", "GraphEncoder", "Graphs", "PathEncoder", "join", "select"]
