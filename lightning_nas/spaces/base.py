"""What every search space offers."""

from __future__ import annotations

import json
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_nas.arch import Decisions, Genotype, Sample

__all__ = ["CellGraph", "CellTopology", "Space"]


@dataclass(frozen=True)
class CellGraph:
    """A cell as a labelled graph, for drawing and for encodings.

    Encoders and predictors on graphs go by the labels of the nodes, so they must be these: ``"input"``, or
    ``"c_{k-2}"`` and ``"c_{k-1}"`` for the outputs of the last but one cell and of the last; ``"output"``; a number
    (``"3"``) for a node that only adds or concatenates what reaches it; a number and an operation
    (``"3: conv_3x3"``) for one that computes something. `operation_graph` refuses a cell without an input or an output.

    Args:
        nodes: Labels; the inputs first, the output last.
        edges: ``(source, target, label)`` with indices into `nodes`, from the earlier node to the later; an empty label
            is a plain wire.

    Example:
        >>> cell = CellGraph(("input", "1", "output"), ((0, 1, "conv_3x3"), (1, 2, "conv_3x3"), (0, 2, "skip_connect")))
    """

    nodes: tuple[str, ...]
    edges: tuple[tuple[int, int, str], ...]


@dataclass(frozen=True)
class CellTopology:
    """The edges that a cell may have: nodes ``0..inputs-1`` are its inputs, the others sum what reaches them.

    Args:
        inputs: Number of inputs.
        nodes: Number of intermediate nodes.
        output: ``"concat"`` of all intermediate nodes, or the ``"last"`` one.

    Example:
        >>> CellTopology(2, 4, "concat").edges[:5]
        ((2, 0), (2, 1), (3, 0), (3, 1), (3, 2))
    """

    inputs: int
    nodes: int
    output: str = "concat"

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """``(target, source)`` of every edge, target by target; the index is the edge's row."""
        return tuple((j, i) for j in range(self.inputs, self.inputs + self.nodes) for i in range(j))

    def rows_into(self, node: int) -> range:
        """The rows of the edges that end in an intermediate node."""
        start = sum(range(self.inputs, node))
        return range(start, start + node)


class Space(ABC):
    """A search space: its decisions, and how their outcomes are written, drawn, varied and built.

    Attributes:
        name: The space's name, stored in its genotypes.
        decisions: Its decisions by group; the rows of a group share one matrix of architecture parameters.
        relaxed: The groups that carry architecture parameters unless a method says otherwise.
    """

    name: str
    decisions: Decisions
    relaxed: tuple[str, ...]

    @abstractmethod
    def sample(self, rng: random.Random) -> Genotype:
        """Draw a genotype uniformly over the decisions."""

    @abstractmethod
    def mutate(self, genotype: Genotype, rng: random.Random) -> Genotype:
        """Change one decision at random."""

    @abstractmethod
    def neighbors(self, genotype: Genotype) -> Iterator[Genotype]:
        """All genotypes that differ in one decision."""

    @abstractmethod
    def canonical(self, genotype: Genotype) -> Genotype:
        """The representative of all genotypes that build the same network."""

    @abstractmethod
    def check(self, genotype: Genotype) -> Genotype:
        """Return the genotype unchanged, or raise ValueError if it is not of this space."""

    @abstractmethod
    def discretize(self, scores: Mapping[str, Tensor], exclude: tuple[str, ...] | None = None) -> Genotype:
        """The genotype that scores ``group -> (rows, choices)`` select (closed choices score ``-inf``)."""

    def vertex(self, genotype: Genotype) -> Sample:
        """The sample under which the supernet computes exactly this architecture, executing nothing else.

        Weight one for each choice kept; nothing is active in a decision that does not apply.
        """
        picks = self.check(genotype).picks
        weights, active = {}, {}
        for group, rows in self.decisions.items():
            active[group] = tuple(picks.get(row.name, ()) for row in rows)
            weights[group] = torch.zeros(len(rows), max(len(row.choices) for row in rows))
            for index, kept in enumerate(active[group]):
                weights[group][index, list(kept)] = 1.0
        return Sample(weights, active)

    @abstractmethod
    def format(self, genotype: Genotype) -> str:
        """The field's own text for a genotype."""

    @abstractmethod
    def parse(self, text: str) -> Genotype:
        """Read the field's own text, or the JSON of `to_json`.

        Raises:
            ValueError: If the text is not a genotype of this space.
        """

    @abstractmethod
    def graphs(self, genotype: Genotype) -> dict[str, CellGraph]:
        """Its cells as graphs, by kind."""

    def to_json(self, genotype: Genotype) -> str:
        """JSON with the names of everything kept, and the field's own text beside it."""
        names = {d.name: d.choices for rows in self.decisions.values() for d in rows}
        picks = {name: [names[name][k] for k in kept] for name, kept in self.check(genotype).picks.items()}
        return json.dumps({"space": self.name, "text": self.format(genotype), "picks": picks}, indent=2)

    def from_json(self, text: str) -> Genotype:
        """Read what `to_json` wrote.

        Raises:
            ValueError: If it is no such JSON, of another space, or names an unknown decision or choice.
        """
        try:
            data = json.loads(text)
            space, picks = data["space"], dict(data["picks"])
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"not a genotype in JSON ({error}); expected the keys 'space' and 'picks'") from None
        if space != self.name:
            raise ValueError(f"a genotype of space {space!r} was given to space {self.name!r}; load it with its own")
        choices = {d.name: d.choices for rows in self.decisions.values() for d in rows}
        indices = {}
        for name, kept in picks.items():
            unknown = name not in choices or not isinstance(kept, list) or not all(k in choices[name] for k in kept)
            if unknown:
                raise ValueError(f"{name!r}: {kept!r} is no decision of {self.name!r} with choices {choices.get(name)}")
            indices[name] = tuple(choices[name].index(k) for k in kept)
        return self.check(Genotype(self.name, indices))
