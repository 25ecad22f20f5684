"""The space of BlockQNN (Zhong et al., "Practical Block-wise Neural Network Architecture Generation", CVPR 2018)."""

from __future__ import annotations

from itertools import combinations
from typing import ClassVar

from lightning_nas.arch import Decision, Genotype
from lightning_nas.spaces.base import CellGraph
from lightning_nas.spaces.sequential import Picks, SequentialSpace
from lightning_nas.spaces.skeleton import StemName

__all__ = ["BlockQNNSpace"]

_ONE_INPUT = ("conv_1", "conv_3", "conv_5", "max_pool_1", "max_pool_3", "avg_pool_1", "avg_pool_3", "identity")
_TWO_INPUTS = ("add", "concat")
_END = "terminal"


class BlockQNNSpace(SequentialSpace):
    """A block as a sequence of layers, each written as its structure code: type, kernel, and one or two predecessors.

    The only group is ``"layers"`` with a decision ``"layers/{i}"`` for each of the layers 1 to `layers`; 0 is the
    block's input. A choice is a whole code without its index, ``"conv_3:0"`` or ``"add:1,2"``; behind `terminal` no
    decision applies. Outputs that no layer takes are concatenated.

    `DerivedNetwork` stacks blocks in three stages; ``cells`` are the blocks of a stage. Their number and the channels
    are free: the published networks differ in both.

    Args:
        layers: Largest number of layers.

    Raises:
        ValueError: If there are no layers.

    Example:
        >>> space = BlockQNNSpace(layers=4)
        >>> genotype = space.parse("conv_3:0 conv_5:0 add:1,2 terminal")
        >>> space.codes(genotype)
        (('conv_3', (0,)), ('conv_5', (0,)), ('add', (1, 2)))
        >>> space.loose_ends(genotype), round(space.density(genotype), 3)
        ((3,), 1.333)
    """

    default_stem: ClassVar[StemName] = "cifar"
    derived_cells: ClassVar[int] = 4
    derived_channels: ClassVar[int] = 32

    def __init__(self, layers: int = 23) -> None:
        if layers < 1:
            raise ValueError(f"layers={layers}: a block needs at least one")
        self.layers = layers
        rows = tuple(Decision(f"layers/{i}", _codes(i)) for i in range(1, layers + 1))
        self._end = {row.name: row.choices.index(_END) for row in rows[1:]}
        self._before = {f"layers/{i + 1}": f"layers/{i}" for i in range(1, layers)}
        super().__init__("blockqnn" if layers == 23 else f"blockqnn_{layers}", {"layers": rows})

    def allowed(self, name: str, picks: Picks) -> tuple[int, ...]:
        """Every layer on earlier ones while the block has not come to its end."""
        before = self._before.get(name)
        ended = before is not None and (before not in picks or picks[before] == (self._end.get(before),))
        return () if ended else super().allowed(name, picks)

    def state(self, name: str, picks: Picks) -> str:
        """The code of the layer before, with its index."""
        before = self._before.get(name)
        return "input" if before is None else f"{before.partition('/')[2]} {self.choice(before, picks)}"

    def codes(self, genotype: Genotype) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Type and predecessors of each layer, without the end."""
        parts = [word.partition(":") for word in self.words(genotype) if word != _END]
        return tuple((kind, tuple(map(int, sources.split(",")))) for kind, _, sources in parts)

    def loose_ends(self, genotype: Genotype) -> tuple[int, ...]:
        """The layers that no other takes, which are concatenated."""
        codes = self.codes(genotype)
        taken = {source for _, sources in codes for source in sources}
        return tuple(i for i in range(1, len(codes) + 1) if i not in taken)

    def density(self, genotype: Genotype) -> float:
        """Edges between layers, those from the input included, by layers."""
        codes = self.codes(genotype)
        return sum(len(sources) for _, sources in codes) / len(codes)

    def graphs(self, genotype: Genotype) -> dict[str, CellGraph]:
        """The block with its layers as nodes (``"1: conv_3"``) and plain wires."""
        codes = self.codes(genotype)
        nodes = ("input", *(f"{i}: {kind}" for i, (kind, _) in enumerate(codes, start=1)), "output")
        edges = [(source, i, "") for i, (_, sources) in enumerate(codes, start=1) for source in sources]
        edges += [(i, len(codes) + 1, "") for i in self.loose_ends(genotype)]
        return {"block": CellGraph(nodes, tuple(edges))}


def _codes(index: int) -> tuple[str, ...]:
    """All codes of a layer; a block does not end before its first."""
    single = [f"{kind}:{source}" for kind in _ONE_INPUT for source in range(index)]
    pairs = [f"{kind}:{i},{j}" for kind in _TWO_INPUTS for i, j in combinations(range(index), 2)]
    return (*single, *pairs, *([_END] if index > 1 else []))
