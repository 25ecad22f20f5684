"""The convolutional space of NAS-RL (Zoph and Le, "Neural Architecture Search with Reinforcement Learning", 2017)."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from lightning_nas.arch import Decision, Genotype
from lightning_nas.spaces.base import CellGraph
from lightning_nas.spaces.sequential import Picks, SequentialSpace
from lightning_nas.spaces.skeleton import StemName

__all__ = ["NASRLSpace", "Wiring"]

_KERNELS, _FILTERS, _STRIDES = ("1", "3", "5", "7"), ("24", "36", "48", "64"), ("1", "2", "3")


class Wiring(NamedTuple):
    """Who feeds whom after the repair rules.

    Args:
        inputs: For each layer, what is concatenated before it: earlier layers, and -1 for the picture.
        outputs: The layers that are concatenated before the classifier.
    """

    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[int, ...]


class NASRLSpace(SequentialSpace):
    """Whole networks: each layer is a convolution of any height, width and number of filters on any earlier layers.

    Layers are numbered from 0. The groups are ``"depth"`` (one row), ``"height"``, ``"width"`` and ``"filters"`` (a row
    for each layer), with `strides` also ``"stride_height"`` and ``"stride_width"``, and ``"skips"``, a row for each
    pair of a layer and an earlier one. Decisions of layers beyond the depth do not apply.

    What does not fit is repaired as published: a layer that nothing feeds takes the picture, all outputs that feed
    nobody are concatenated before the classifier, and inputs of different sizes are padded with zeros to the largest.

    `DerivedNetwork` builds the networks of its genotypes; they have no stem.

    Args:
        layers: Largest number of layers.
        start: Smallest number of layers; between them the depth grows by 2.
        strides: Whether strides are searched; they are 1 otherwise.

    Raises:
        ValueError: If `layers` is less than `start`, if their difference is odd, or if there are no layers.

    Example:
        >>> space = NASRLSpace(layers=2, start=2)
        >>> genotype = space.parse("nas_rl_2: 2  3 3 24  5 7 36 no")
        >>> space.wiring(genotype)
        Wiring(inputs=((-1,), (-1,)), outputs=(0, 1))
    """

    default_stem: ClassVar[StemName] = "cifar"
    derived_cells: ClassVar[int] = 1
    derived_channels: ClassVar[int] = 64  # of a layer with 64 filters; others are in proportion

    def __init__(self, layers: int = 14, start: int = 6, strides: bool = False) -> None:
        if start < 1 or layers < start or (layers - start) % 2:
            raise ValueError(f"layers={layers}, start={start}: give 1 <= start <= layers, an even number apart")
        self.layers, self.start, self.strides = layers, start, strides
        rows: dict[str, tuple[Decision, ...]] = {}
        rows["depth"] = (Decision("depth", tuple(map(str, range(start, layers + 1, 2)))),)
        parts: dict[str, tuple[str, ...]] = {"height": _KERNELS, "width": _KERNELS}
        if strides:
            parts |= {"stride_height": _STRIDES, "stride_width": _STRIDES}
        parts["filters"] = _FILTERS
        for part, choices in parts.items():
            rows[part] = tuple(Decision(f"{part}/{i}", choices) for i in range(layers))
        pairs = [(i, j) for i in range(layers) for j in range(i)]
        rows["skips"] = tuple(Decision(f"skips/{i}<-{j}", ("no", "yes")) for i, j in pairs)
        self._layer = {f"{part}/{i}": i for i in range(layers) for part in parts}
        self._layer |= {f"skips/{i}<-{j}": i for i, j in pairs}
        of_layers = sorted(self._layer, key=self._layer.__getitem__)  # stable: a layer's skips come last
        name = "nas_rl" if (layers, start) == (14, 6) else f"nas_rl_{layers}"
        super().__init__(f"{name}_strides" if strides else name, rows, ("depth", *of_layers))

    def allowed(self, name: str, picks: Picks) -> tuple[int, ...]:
        """Everything in the layers that the network has."""
        if name != "depth" and self._layer[name] >= self.depth(picks):
            return ()
        return super().allowed(name, picks)

    def depth(self, picks: Picks) -> int:
        """The number of layers."""
        return self.start + 2 * picks["depth"][0]

    def wiring(self, genotype: Genotype) -> Wiring:
        """The network's connections after the repair rules."""
        picks = self.check(genotype).picks
        layers = range(self.depth(picks))
        skips = [tuple(j for j in range(i) if picks[f"skips/{i}<-{j}"] == (1,)) for i in layers]
        taken = {j for into in skips for j in into}
        return Wiring(tuple(into or (-1,) for into in skips), tuple(i for i in layers if i not in taken))

    def graphs(self, genotype: Genotype) -> dict[str, CellGraph]:
        """The network with convolutions as nodes (``"1: 3x5, 36"``) and plain wires."""
        wiring, picks = self.wiring(genotype), genotype.picks
        labels = []
        for i in range(len(wiring.inputs)):
            height, width, filters = (self.choice(f"{part}/{i}", picks) for part in ("height", "width", "filters"))
            stride = f" /{self.choice(f'stride_height/{i}', picks)}x{self.choice(f'stride_width/{i}', picks)}"
            labels.append(f"{i}: {height}x{width}, {filters}" + stride * self.strides)
        edges = [(j + 1, i + 1, "") for i, into in enumerate(wiring.inputs) for j in into]
        edges += [(i + 1, len(labels) + 1, "") for i in wiring.outputs]
        return {"network": CellGraph(("input", *labels, "output"), tuple(edges))}
