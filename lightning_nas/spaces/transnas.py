"""The two spaces of TransNAS-Bench-101: cells, and skeletons (Duan et al., "TransNAS-Bench-101", CVPR 2021)."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import product

from lightning_nas.arch import Decision, Genotype
from lightning_nas.spaces.base import CellGraph
from lightning_nas.spaces.nasbench201 import NASBench201Space
from lightning_nas.spaces.sequential import SequentialSpace

__all__ = ["TRANSNAS_MODULES", "TRANSNAS_OPS", "TransNASMacroSpace", "TransNASMicroSpace"]

TRANSNAS_OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3")
"""The operations of a cell; the benchmark writes each as its place in this list, a digit from 0 to 3."""
TRANSNAS_MODULES = {"1": "plain", "2": "channels x2", "3": "resolution /2", "4": "channels x2, resolution /2"}
"""The benchmark's digit -> what a module of the skeleton does."""
_MICRO, _MACRO = "64-41414-", ("64-", "-basic")
_END = "end"


class TransNASMicroSpace(NASBench201Space):
    """The cells of TransNAS-Bench-101: the topology of NAS-Bench-201 with four operations, 4,096 cells.

    The text is ``64-41414-1_02_333``: channels, skeleton and cell. The part behind the last hyphen has the operations
    into the nodes 1, 2 and 3, each a digit from 0 to 3 for `TRANSNAS_OPS`, by the node that they come from. The first
    two parts are the same for all cells: five modules of two cells, of which the first, third and fifth halve the
    resolution and double the channels in their first cell.

    The supernet and the derived network here have the skeleton of NAS-Bench-201, not that of the benchmark.

    Example:
        >>> space = TransNASMicroSpace()
        >>> genotype = space.parse("64-41414-1_02_333")
        >>> genotype.picks["cell/2<-1"], space.format(genotype)
        ((2,), '64-41414-1_02_333')
    """

    def __init__(self, name: str = "transnas_micro") -> None:
        super().__init__(name, TRANSNAS_OPS)

    def canonical(self, genotype: Genotype) -> Genotype:
        """The first genotype (by `index`) with the same `expression`."""
        return self.from_rows({"cell": dict(enumerate(_first_of_class()[self.expression(genotype)]))})

    def expression(self, genotype: Genotype) -> str:
        """The cell as an expression of its input ``0``, where ``#`` is nothing; equal for cells of the same network.

        `none`, and every operation on a node that nothing reaches, is nothing; sums are unordered. `skip_connect`
        passes on the nodes 1 and 2, but counts as an operation on the input: where a cell halves the resolution it is
        a convolution there.
        """
        return _expression(tuple(choice for _, choice in sorted(self.kept_rows(self.check(genotype), "cell").items())))

    def format(self, genotype: Genotype) -> str:
        """The benchmark's text: ``64-41414-1_02_333``."""
        kept = self.kept_rows(self.check(genotype), "cell")
        into = ("".join(str(kept[row]) for row in self.topology.rows_into(node)) for node in range(1, 4))
        return _MICRO + "_".join(into)

    def parse(self, text: str) -> Genotype:
        """Read the benchmark's text, or JSON.

        Raises:
            ValueError: If it is not a cell of this space.
        """
        text = text.strip()
        if text.startswith("{"):
            return self.from_json(text)
        match = re.fullmatch(rf"{_MICRO}([0-3])_([0-3]{{2}})_([0-3]{{3}})", text)
        if match is None:
            raise ValueError(
                f"not a cell of TransNAS-Bench-101: {text[:60]!r}; expected {_MICRO}1_02_333, with one, two and three"
                " digits from 0 to 3 for the operations into the nodes"
            )
        return self.from_rows({"cell": dict(enumerate(map(int, "".join(match.groups()))))})


class TransNASMacroSpace(SequentialSpace):
    """The skeletons of TransNAS-Bench-101: four to six modules, 3,256 of them; the cell is a residual block.

    A module is plain (1), doubles the channels (2), halves the resolution (3) or does both (4). One to four modules
    halve the resolution, and one to three double the channels. The text is ``64-1234-basic``: channels, modules, cell.

    It serves searches that ask a table; no network is built from its genotypes here.

    Example:
        >>> space = TransNASMacroSpace()
        >>> space.modules(space.parse("64-1234-basic"))
        ('1', '2', '3', '4')
        >>> len(list(space.members()))
        3256
    """

    def __init__(self, name: str = "transnas_macro") -> None:
        types = tuple(TRANSNAS_MODULES)
        rows = (Decision(f"module/{place}", types if place < 4 else (*types, _END)) for place in range(6))
        super().__init__(name, {"modules": tuple(rows)})

    def allowed(self, name: str, picks: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
        """The types that leave a way to a skeleton of the space, and from the fifth module on its end."""
        before = [self.choice(earlier, picks) for earlier in self.order[: self.order.index(name)]]
        if _END in before:
            return ()
        choices = self.decisions["modules"][len(before)].choices
        return tuple(k for k, word in enumerate(choices) if _possible("".join(filter(None, (*before, word)))))

    def modules(self, genotype: Genotype) -> tuple[str, ...]:
        """The types of the modules, each a digit from 1 to 4."""
        return tuple(word for word in self.words(genotype) if word != _END)

    def from_modules(self, modules: str) -> Genotype:
        """The genotype with these modules, a digit for each.

        Raises:
            ValueError: If there is no such skeleton in the space.
        """
        if not re.fullmatch("[1-4]{4,6}", modules) or not _possible(modules + _END):
            raise ValueError(
                f"not a skeleton of TransNAS-Bench-101: {modules[:60]!r}; it has 4 to 6 digits from 1 to 4, of them one"
                " to four 3 or 4 (half the resolution) and one to three 2 or 4 (twice the channels)"
            )
        words = [*modules, _END][:6]
        rows = self.decisions["modules"]
        picks = {row.name: (row.choices.index(word),) for row, word in zip(rows, words, strict=False)}
        return self.check(Genotype(self.name, picks))

    def members(self) -> Iterator[Genotype]:
        """All 3,256 skeletons, the short ones first."""
        return map(self.from_modules, _all_modules())

    def sample(self, rng: random.Random) -> Genotype:
        """Draw one of all skeletons, each with the same probability."""
        return self.from_modules(rng.choice(_all_modules()))

    def format(self, genotype: Genotype) -> str:
        """The benchmark's text: ``64-1234-basic``."""
        return "".join(self.modules(genotype)).join(_MACRO)

    def parse(self, text: str) -> Genotype:
        """Read the benchmark's text, or JSON.

        Raises:
            ValueError: If it is not a skeleton of this space.
        """
        text = text.strip()
        if text.startswith("{"):
            return self.from_json(text)
        first, last = _MACRO
        if not (text.startswith(first) and text.endswith(last)):
            raise ValueError(f"not a skeleton of TransNAS-Bench-101: {text[:60]!r}; expected {first}1234{last}")
        return self.from_modules(text[len(first) : -len(last)])

    def graphs(self, genotype: Genotype) -> dict[str, CellGraph]:
        """A chain with what the modules do on its edges."""
        does = [TRANSNAS_MODULES[module] for module in self.modules(genotype)]
        nodes = ("input", *map(str, range(1, len(does))), "output")
        return {"network": CellGraph(nodes, tuple((k, k + 1, label) for k, label in enumerate(does)))}


def _possible(modules: str) -> bool:
    """Whether modules can be the first of a skeleton, or with `_END` behind them a whole one."""
    types = modules.removesuffix(_END)
    halved, doubled = (sum(map(types.count, kinds)) for kinds in ("34", "24"))
    whole = modules.endswith(_END) or len(types) == 6
    return halved <= 4 and doubled <= 3 and (not whole or min(halved, doubled) > 0)


@lru_cache(maxsize=1)
def _all_modules() -> tuple[str, ...]:
    every = ("".join(types) for depth in (4, 5, 6) for types in product(TRANSNAS_MODULES, repeat=depth))
    return tuple(modules for modules in every if _possible(modules + _END))


def _expression(choices: tuple[int, ...]) -> str:
    nodes, row = ["0"], iter(choices)
    for node in range(1, 4):
        terms = []
        for source in range(node):
            op = TRANSNAS_OPS[next(row)]
            if op != "none" and nodes[source] != "#":
                passes = op == "skip_connect" and source > 0
                terms.append(nodes[source] if passes else f"({nodes[source]})@{op}")
        nodes.append("+".join(sorted(terms)) or "#")
    return nodes[-1]


@lru_cache(maxsize=1)
def _first_of_class() -> dict[str, tuple[int, ...]]:
    first: dict[str, tuple[int, ...]] = {}
    for choices in product(range(len(TRANSNAS_OPS)), repeat=6):
        first.setdefault(_expression(choices), choices)
    return first
