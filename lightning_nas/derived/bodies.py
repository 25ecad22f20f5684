"""From what a user calls a genotype to the body of its network, for each kind of space."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from lightning_nas.arch import Genotype
from lightning_nas.derived.blocks import DiscreteBlock
from lightning_nas.derived.cells import DiscreteCell
from lightning_nas.derived.enas import discrete_part
from lightning_nas.spaces import (
    CellNetwork,
    CellSpace,
    ChainSpace,
    DARTSSpace,
    NetworkSize,
    Space,
    get_space,
    load_genotype,
)
from lightning_nas.spaces.enas import ENASSpace
from lightning_nas.spaces.skeleton import StemName

__all__ = ["Built", "body_of", "own_stem", "published_size", "read"]

Built = CellSpace | ChainSpace | ENASSpace
"""The spaces whose genotypes become networks."""
_IMAGENET_CHANNELS, _IMAGENET_CELLS = 48, 14  # of the DARTS space, for at most 600M multiply-adds at 224x224


def read(genotype: str | Path | Genotype, space: Space | None) -> tuple[Built, Genotype]:
    """The space and the genotype of whatever was given."""
    if isinstance(genotype, Genotype):
        found = get_space(genotype.space) if space is None else space
    else:
        found, genotype = load_genotype(genotype)
        found = found if space is None else space
    if not isinstance(found, (CellSpace, ChainSpace, ENASSpace)):
        raise ValueError(f"{found.name!r} is no cell space; build the network of its genotypes yourself")
    return found, found.check(genotype)


def own_stem(space: Built) -> StemName:
    """The stem of the space's supernet."""
    return space.default_stem if isinstance(space, ChainSpace) else "cifar"


def body_of(space: Built, genotype: Genotype, size: NetworkSize) -> CellNetwork:
    """Stem, the discrete parts of the genotype, classifier."""
    if isinstance(space, ChainSpace):
        return space.network(partial(DiscreteBlock, space, genotype), size)
    if isinstance(space, ENASSpace):
        return space.network(partial(discrete_part, space, genotype), size)
    return space.network(partial(DiscreteCell, space, genotype), size)


def published_size(space: Built, stem: str) -> tuple[int, int]:
    """Channels and cells of the published network."""
    if stem == "imagenet" and isinstance(space, DARTSSpace):
        return _IMAGENET_CHANNELS, _IMAGENET_CELLS
    return space.derived_channels, space.derived_cells
