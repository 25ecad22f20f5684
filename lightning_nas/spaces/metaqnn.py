"""The space of MetaQNN (Baker et al., "Designing Neural Network Architectures using Reinforcement Learning", 2017)."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from lightning_nas.arch import Decision, Genotype
from lightning_nas.spaces.base import CellGraph
from lightning_nas.spaces.sequential import Picks, SequentialSpace
from lightning_nas.spaces.skeleton import StemName

__all__ = ["META_QNN_LAYERS", "MetaQNNSpace"]

META_QNN_LAYERS = (
    *(f"conv_{filters}_{size}x{size}" for filters in (64, 128, 256, 512) for size in (1, 3, 5)),
    "pool_5_3",
    "pool_3_2",
    "pool_2_2",
    "fc_512",
    "fc_256",
    "fc_128",
    "terminate",
)
"""Choices of a layer: filters and size of a convolution, size and stride of a max pooling, units, or the end."""

_KINDS = tuple(name.split("_")[0] for name in META_QNN_LAYERS)
_POOLS = {k: tuple(map(int, name.split("_")[1:])) for k, name in enumerate(META_QNN_LAYERS) if _KINDS[k] == "pool"}
_END = META_QNN_LAYERS.index("terminate")


class _Front(NamedTuple):
    """Where a network stands: the last layer's choice, the representation size, fully connected layers in a row."""

    last: int | None
    size: int
    dense: int


class MetaQNNSpace(SequentialSpace):
    """Chains of convolutions, max poolings and fully connected layers.

    The only group is ``"layers"`` with a decision ``"layers/{i}"`` for each layer; behind `terminate` none applies. A
    pooling is not the first layer, does not follow another and fits into the representation. There are at most two
    fully connected layers, which come last, and only where the representation size is in the bucket 4 (4 to 7) or 1 (up
    to 3). Convolutions keep the size, poolings are not padded.

    `DerivedNetwork` builds the networks of its genotypes; they have no stem.

    Args:
        layers: Largest number of layers.
        size: Height and width of the pictures.

    Raises:
        ValueError: If a number is not positive.

    Example:
        >>> space = MetaQNNSpace()
        >>> genotype = space.parse("conv_64_3x3 pool_5_3 conv_128_3x3 pool_3_2 fc_128 terminate")
        >>> space.sizes(genotype)
        (32, 10, 10, 4, 4)
        >>> space.state("layers/4", {f"layers/{i}": genotype.picks[f"layers/{i}"] for i in range(4)})
        'pool_3_2 depth=4 size=4 dense=0'
    """

    default_stem: ClassVar[StemName] = "cifar"
    derived_cells: ClassVar[int] = 1
    derived_channels: ClassVar[int] = 64  # of a layer with 64 filters; others, and units, are in proportion

    def __init__(self, layers: int = 18, size: int = 32) -> None:
        if layers < 1 or size < 1:
            raise ValueError(f"layers={layers}, size={size}: both must be positive")
        self.layers, self.size = layers, size
        name = "metaqnn" if (layers, size) == (18, 32) else f"metaqnn_{layers}_{size}"
        super().__init__(name, {"layers": tuple(Decision(f"layers/{i}", META_QNN_LAYERS) for i in range(layers))})

    @staticmethod
    def bucket(size: int) -> int:
        """The bucket of a representation size: 8 from 8 on, 4 from 4 to 7, 1 up to 3."""
        return 8 if size > 7 else 4 if size > 3 else 1

    def _front(self, picks: Picks, layers: int) -> _Front:
        """Where a network stands after its first layers."""
        front = _Front(None, self.size, 0)
        for i in range(layers):
            last = picks[f"layers/{i}"][0] if f"layers/{i}" in picks else _END
            size = front.size
            if last in _POOLS:
                kernel, stride = _POOLS[last]
                size = (size - kernel) // stride + 1
            front = _Front(last, size, front.dense + 1 if _KINDS[last] == "fc" else 0)
        return front

    def allowed(self, name: str, picks: Picks) -> tuple[int, ...]:
        """The layers that may follow."""
        front = self._front(picks, int(name.partition("/")[2]))
        if front.last == _END:
            return ()
        dense = front.dense < 2 and self.bucket(front.size) <= 4
        after = "start" if front.last is None else _KINDS[front.last]
        fits = {
            "conv": after != "fc",
            "fc": dense,
            "terminate": after != "start",
        }
        pools = after == "conv"
        return tuple(
            k
            for k, kind in enumerate(_KINDS)
            if (pools and _POOLS[k][0] <= front.size if kind == "pool" else fits[kind])
        )

    def state(self, name: str, picks: Picks) -> str:
        """The last layer, its depth, the bucket of the representation size, and the fully connected layers in a row."""
        depth = int(name.partition("/")[2])
        front = self._front(picks, depth)
        last = "start" if front.last is None else META_QNN_LAYERS[front.last]
        return f"{last} depth={depth} size={self.bucket(front.size)} dense={front.dense}"

    def network_layers(self, genotype: Genotype) -> tuple[str, ...]:
        """The layers, without the end."""
        return tuple(word for word in self.words(genotype) if word != "terminate")

    def sizes(self, genotype: Genotype) -> tuple[int, ...]:
        """The representation size behind each layer; fully connected layers leave it as it was."""
        count = len(self.network_layers(genotype))
        return tuple(self._front(genotype.picks, layers).size for layers in range(1, count + 1))

    def canonical(self, genotype: Genotype) -> Genotype:
        """The genotype itself: no two build the same network."""
        return self.check(genotype)

    def graphs(self, genotype: Genotype) -> dict[str, CellGraph]:
        """The chain, with layers on its edges."""
        layers = self.network_layers(genotype)
        nodes = ("input", *map(str, range(1, len(layers))), "output")
        return {"network": CellGraph(nodes, tuple((k, k + 1, layer) for k, layer in enumerate(layers)))}
