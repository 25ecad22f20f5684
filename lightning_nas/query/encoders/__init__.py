"""Encoders: genotypes as features or graphs for a predictor."""

from lightning_nas.query.encoders.adjacency import AdjacencyEncoder
from lightning_nas.query.encoders.arch2vec import Arch2Vec
from lightning_nas.query.encoders.base import Encoded, Encoder, Graphs, join, select
from lightning_nas.query.encoders.graph import GraphEncoder
from lightning_nas.query.encoders.path import PathEncoder
from lightning_nas.query.encoders.score import ScoreEncoder
from lightning_nas.query.encoders.tokens import TokenEncoder
from lightning_nas.query.encoders.weisfeiler_lehman import WLEncoder

__all__ = [
    "AdjacencyEncoder",
    "Arch2Vec",
    "Encoded",
    "Encoder",
    "GraphEncoder",
    "Graphs",
    "PathEncoder",
    "ScoreEncoder",
    "TokenEncoder",
    "WLEncoder",
    "join",
    "select",
]
