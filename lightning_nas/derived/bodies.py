"""From what a user calls a genotype to the body of its network, for each kind of space."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from lightning_nas.arch import Genotype
from lightning_nas.derived.blocks import DiscreteBlock
from lightning_nas.derived.cells import DiscreteCell
from lightning_nas.derived.enas import discrete_part
from lightning_nas.derived.evolved import EvolvedSpace, evolved_network
from lightning_nas.derived.nasbench101 import NASBench101Cell
from lightning_nas.derived.nasnet import nasnet_network
from lightning_nas.derived.sequential import LayerSpace, layer_network
from lightning_nas.spaces import (
    CellNetwork,
    CellSpace,
    ChainSpace,
    DARTSSpace,
    NASBench1Shot1Space,
    NetworkSize,
    Space,
    get_space,
    load_genotype,
)
from lightning_nas.spaces.enas import ENASSpace
from lightning_nas.spaces.nasbench101 import NASBench101Space, to_nasbench101
from lightning_nas.spaces.nasnet import NASNetSpace
from lightning_nas.spaces.skeleton import StemName

__all__ = ["Built", "body_of", "published_size", "published_stem", "read"]

Built = (
    CellSpace
    | ChainSpace
    | ENASSpace
    | EvolvedSpace
    | LayerSpace
    | NASBench101Space
    | NASBench1Shot1Space
    | NASNetSpace
)
"""The spaces whose genotypes become networks."""
_IMAGENET_CHANNELS, _IMAGENET_CELLS = 48, 14  # of the DARTS space, for at most 600M multiply-adds at 224x224


def read(genotype: str | Path | Genotype, space: Space | None) -> tuple[Built, Genotype]:
    """The space and the genotype of whatever was given."""
    if isinstance(genotype, Genotype):
        found = get_space(genotype.space) if space is None else space
    else:
        found, genotype = load_genotype(genotype)
        found = found if space is None else space
    if not isinstance(found, Built):
        raise ValueError(f"{found.name!r} is no cell space; build the network of its genotypes yourself")
    return found, found.check(genotype)


def body_of(space: Built, genotype: Genotype, size: NetworkSize) -> CellNetwork:
    """Stem, the discrete parts of the genotype, classifier."""
    if isinstance(space, NASBench1Shot1Space):  # their cells were trained as cells of NAS-Bench-101
        return body_of(NASBench101Space(), to_nasbench101(space, genotype), size)
    if isinstance(space, NASBench101Space):
        return space.network(partial(NASBench101Cell, space, genotype), size)
    if isinstance(space, EvolvedSpace):
        return evolved_network(space, genotype, size)
    if isinstance(space, LayerSpace):
        return layer_network(space, genotype, size)
    if isinstance(space, NASNetSpace):
        return nasnet_network(space, genotype, size)
    if isinstance(space, ChainSpace):
        return space.network(partial(DiscreteBlock, space, genotype), size)
    if isinstance(space, ENASSpace):
        return space.network(partial(discrete_part, space, genotype), size)
    return space.network(partial(DiscreteCell, space, genotype), size)


def published_size(space: Built, stem: str) -> tuple[int, int]:
    """Channels and cells of the published network."""
    if stem == "imagenet" and isinstance(space, DARTSSpace):
        return _IMAGENET_CHANNELS, _IMAGENET_CELLS
    if isinstance(space, NASBench1Shot1Space):
        return NASBench101Space.derived_channels, NASBench101Space.derived_cells
    return space.derived_channels, space.derived_cells


def published_stem(space: Built) -> StemName:
    """The stem of the space's supernet, or of its networks."""
    return "cifar" if isinstance(space, NASBench1Shot1Space) else space.default_stem
