"""Genotypes as strings of tokens, and strings as genotypes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_nas.arch import Genotype
from lightning_nas.query.encoders.base import Encoder
from lightning_nas.spaces import CellSpace, NASBench101Space, Space
from lightning_nas.spaces.independent import IndependentSpace
from lightning_nas.spaces.restricted import RestrictedSpace, unrestricted
from lightning_nas.spaces.sequential import SequentialSpace

__all__ = ["ABSENT", "TokenEncoder"]

ABSENT = "absent"

Words = Sequence[str]


class TokenEncoder(Encoder):
    """A string of tokens for each genotype, as many for all, for recurrent predictors; it can be read back.

    Each decision gives a token for each choice that it keeps, which is the choice's name; in the order of the space's
    decisions. Token 0 stands for a decision that does not apply. Two kinds of space have the published forms:

    * cells whose nodes keep some of their inputs (DARTS): for each node the pairs (input, operation) in rising order of
      the inputs, 32 tokens for two cells of four nodes;
    * NAS-Bench-101: for each vertex but the first a token ``"0"`` or ``"1"`` for each earlier vertex, then its
      operation, ``"output"`` at the end; 27 tokens, 7 words.

    Reference: Luo, Tian, Qin, Chen and Liu, "Neural Architecture Optimization", NeurIPS 2018; Luo et al.,
    "Semi-Supervised Neural Architecture Search", NeurIPS 2020 (NAS-Bench-101).

    Args:
        space: Name of a search space, or a space.

    Attributes:
        vocabulary: The words; a token is the number of one of them.
        length: Tokens of a string.
        allowed: ``(length, words)`` booleans: which words may stand in each place of a string.

    Example:
        >>> encoder = TokenEncoder("nasbench201")
        >>> text = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|nor_conv_1x1~2|"
        >>> tokens = encoder([encoder.space.parse(text)])
        >>> tokens
        tensor([[4, 1, 2, 1, 1, 3]])
        >>> encoder.vocabulary[4], encoder.space.format(encoder.decode(tokens[0])) == text
        ('nor_conv_3x3', True)
    """

    makes = "tokens"

    def __init__(self, space: str | Space = "nasbench201") -> None:
        super().__init__(space)
        self._members = frozenset(self.space.members) if isinstance(self.space, RestrictedSpace) else None
        base = unrestricted(self.space)
        self._form = _form(base)
        slots = self._form.slots
        words = dict.fromkeys(word for slot in slots for word in slot if word != ABSENT)
        self.vocabulary: tuple[str, ...] = (ABSENT, *words)
        self.length = len(slots)
        self._number = {word: number for number, word in enumerate(self.vocabulary)}
        never = base.exclude if isinstance(base, CellSpace) else ()
        self.allowed = torch.tensor(
            [[word in slot and (word not in never or len(slot) == 1) for word in self.vocabulary] for slot in slots]
        )

    def encode(self, genotypes: Sequence[Genotype]) -> Tensor:
        """``(n, length)`` integers."""
        strings = [[self._number[word] for word in self._form.words(genotype)] for genotype in genotypes]
        return torch.tensor(strings, dtype=torch.long)

    def decode(self, tokens: Sequence[int] | Tensor) -> Genotype | None:
        """The genotype that a string stands for; ``None`` if it is none of the space.

        Args:
            tokens: ``(length,)``; the choices that one decision keeps may stand in any order.

        Raises:
            ValueError: If it has another length, or a token is not in the vocabulary.
        """
        numbers = [int(token) for token in tokens]
        if len(numbers) != self.length or not all(0 <= number < len(self.vocabulary) for number in numbers):
            raise ValueError(
                f"a string of {self.space.name!r} has {self.length} tokens from 0 to {len(self.vocabulary) - 1},"
                f" not {str(numbers)[:80]}"
            )
        words = [self.vocabulary[number] for number in numbers]
        if any(word not in slot for word, slot in zip(words, self._form.slots, strict=True)):
            return None
        try:
            genotype = self._form.genotype(words)
        except ValueError:  # each word may stand in its place, but together they make no architecture
            return None
        return genotype if self._members is None or genotype in self._members else None


class _Form(ABC):
    """How the genotypes of a space are written; `slots` has the words that may stand in each place."""

    slots: list[tuple[str, ...]]

    @abstractmethod
    def words(self, genotype: Genotype) -> list[str]: ...

    @abstractmethod
    def genotype(self, words: Words) -> Genotype: ...


def _form(space: Space) -> _Form:
    if isinstance(space, NASBench101Space):
        return _Module(space)
    if isinstance(space, CellSpace) and space.keep_inputs is not None:
        return _Pairs(space)
    return _Decisions(space)


class _Decisions(_Form):
    """One decision after the other."""

    def __init__(self, space: Space) -> None:
        self.space = space
        rows = {row.name: row for rows in space.decisions.values() for row in rows}
        order = space.order if isinstance(space, (IndependentSpace, SequentialSpace)) else tuple(rows)
        self.rows = [rows[name] for name in order]
        absent = () if isinstance(space, (IndependentSpace, CellSpace)) else (ABSENT,)
        self.slots = [(*absent, *row.choices) for row in self.rows for _ in range(row.keep)]

    def words(self, genotype: Genotype) -> list[str]:
        found = []
        for row in self.rows:
            kept = genotype.picks.get(row.name)
            found += [ABSENT] * row.keep if kept is None else [row.choices[k] for k in kept]
        return found

    def genotype(self, words: Words) -> Genotype:
        picks: dict[str, tuple[int, ...]] = {}
        at = 0
        for row in self.rows:
            kept = [word for word in words[at : at + row.keep] if word != ABSENT]
            at += row.keep
            if kept:
                picks[row.name] = tuple(row.choices.index(word) for word in kept)
        return self.space.check(Genotype(self.space.name, picks))


class _Pairs(_Form):
    """Node by node the inputs that it keeps, each with its operation."""

    def __init__(self, space: CellSpace) -> None:
        self.space, first = space, space.topology.inputs
        self.places: list[tuple[str, int]] = []
        self.slots = []
        for kind in space.kinds:
            for node in range(first, first + space.topology.nodes):
                choices = [space.decisions[kind][row].choices for row in space.topology.rows_into(node)]
                ops = tuple(dict.fromkeys(op for row in choices for op in row))
                for _ in range(min(space.keep_inputs or node, node)):
                    self.places.append((kind, node))
                    self.slots += [tuple(map(str, range(node))), ops]

    def words(self, genotype: Genotype) -> list[str]:
        found = []
        for kind in self.space.kinds:
            for row, choice in sorted(self.space.kept_rows(genotype, kind).items()):
                found += [str(self.space.topology.edges[row][1]), self.space.op_name(kind, row, choice)]
        return found

    def genotype(self, words: Words) -> Genotype:
        rows: dict[str, dict[int, int]] = {kind: {} for kind in self.space.kinds}
        for (kind, node), source, op in zip(self.places, words[::2], words[1::2], strict=True):
            row = self.space.topology.rows_into(node)[int(source)]
            rows[kind][row] = self.space.decisions[kind][row].choices.index(op)
        return self.space.from_rows(rows)  # an input taken twice leaves a node with too few


class _Module(_Form):
    """Vertex by vertex the edges into it, then its operation."""

    def __init__(self, space: NASBench101Space) -> None:
        self.space = space
        rows = {row.name: row for rows in space.decisions.values() for row in rows}
        last = 1 + len(space.decisions["ops"])
        names = [[*(f"edges/{v}<-{source}" for source in range(v)), f"ops/{v}"] for v in range(1, last + 1)]
        self.rows = [rows.get(name) for vertex in names for name in vertex]  # the output has no row of its own
        self.slots = [("output",) if row is None else row.choices for row in self.rows]

    def words(self, genotype: Genotype) -> list[str]:
        return ["output" if row is None else row.choices[genotype.picks[row.name][0]] for row in self.rows]

    def genotype(self, words: Words) -> Genotype:
        pairs = [(row, word) for row, word in zip(self.rows, words, strict=True) if row is not None]
        return self.space.check(Genotype(self.space.name, {row.name: (row.choices.index(w),) for row, w in pairs}))
