"""Progressive neural architecture search: from cells of one block to whole cells."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from lightning_nas.arch import Genotype
from lightning_nas.query.encoders.tokens import TokenEncoder
from lightning_nas.query.predictors.base import Predictor
from lightning_nas.query.predictors.lstm import LSTMPredictor
from lightning_nas.query.searcher import Searcher
from lightning_nas.query.searchers.blocks import Block, growth_of
from lightning_nas.query.trial import Result, Trial
from lightning_nas.spaces import Space

__all__ = ["PNAS"]

Cell = tuple[int, ...]
"""For each block of a cell its number in the list of blocks at its place."""


class PNAS(Searcher):
    """Try all cells of one block, then of those with one more block the best predicted, and so on.

    A surrogate learns from all cells tried so far, whatever their size. It ranks every cell that one more block makes
    of a cell of the level before, and the `beam` best of them are the next level. After the last level the published
    search ends; this one goes on with those that come next in a new ranking, until there are none. Of cells that
    compute the same one is tried, but all grow, as what they grow to may differ.

    Architectures of one space have whole cells, so a cell of `b` blocks is one whose other blocks only pass on:

    * NAS-Bench-201 and its like: a block is a node with its incoming edges; further nodes take the last one built by a
      skip connection and nothing else, so it is the cell's output;
    * DARTS and its like: a block is a node; further ones add the two inputs of the cell by skip connections;
    * NASNet and the micro space of ENAS: further blocks add the one before to itself.

    All kinds of cell have the same blocks, as published. The surrogate reads the string of the blocks that are built.

    Reference: Liu et al., "Progressive Neural Architecture Search", ECCV 2018.

    Args:
        space: Name of a search space, or a space, see above.
        beam: Cells of each level but the first; 256 as published.
        first: Cells of the first level, at random; ``None`` for all, as published.
        surrogate: A predictor on tokens; ``None`` for the published `LSTMPredictor`.
        budget: Epochs of each trial, 20 as published; ``None`` for full training.
        seed: Seed of all random choices.

    Raises:
        ValueError: If the space has no cells that grow, or a number is not positive.

    Example:
        >>> searcher = PNAS("nasbench201", beam=4)
        >>> trials = searcher.ask(10)  # a level waits for the one before
        >>> len(trials), sorted(searcher.space.format(trial.genotype).split("+")[0] for trial in trials)[:2]
        (5, ['|avg_pool_3x3~0|', '|none~0|'])
    """

    def __init__(
        self,
        space: str | Space = "nasbench201",
        beam: int = 256,
        first: int | None = None,
        surrogate: Predictor | None = None,
        budget: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(space, seed)
        if beam < 1 or (first is not None and first < 1):
            raise ValueError(f"beam={beam}, first={first}: both must be at least 1")
        self.growth, self.encoder = growth_of(self.space), TokenEncoder(self.space)
        self.beam, self.first, self.budget = beam, first, budget
        self.surrogate = LSTMPredictor(len(self.encoder.vocabulary)) if surrogate is None else surrogate
        self.level = 0  # blocks of the cells that are tried at present
        self.parents: list[Cell] = [()]
        self.members: list[tuple[Cell, Cell]] = []  # of the level, each with the equal one that is tried
        self.queue: list[Cell] = []
        self.labels: dict[Cell, float] = {}
        self.tried: dict[Genotype, Cell] = {}
        self._cells: dict[int, Cell] = {}  # of pending trials
        self._blocks: dict[int, tuple[list[Block], Tensor]] = {}
        self._ends = [0, *accumulate(self.growth.tokens)]

    def propose(self) -> Trial | None:
        """The next cell of the level; ``None`` while the next level waits for results, and at the end."""
        if not self.queue and (self.pending or not self._next_level()):
            return None
        cell = self.queue.pop(0)
        trial = self.trial(self.genotype_of(cell), self.budget, blocks=len(cell))
        self._cells[trial.number] = cell
        return trial

    def genotype_of(self, cell: Cell) -> Genotype:
        """The architecture of a cell."""
        return self.growth.genotype([self.blocks(place)[0][number] for place, number in enumerate(cell)])

    def blocks(self, place: int) -> tuple[list[Block], Tensor]:
        """All blocks that a cell may have at a place, and their strings ``(n, tokens)``."""
        if place not in self._blocks:
            blocks = self.growth.blocks(place)
            before = [self.growth.blocks(earlier)[0] for earlier in range(place)]
            strings = self.encoder.encode([self.growth.genotype([*before, block]) for block in blocks])
            self._blocks[place] = blocks, strings[:, self._ends[place] : self._ends[place + 1]]
        return self._blocks[place]

    def strings(self, cells: list[Cell]) -> Tensor:
        """The strings of cells, ``(n, tokens of a whole cell)``; zero behind the blocks that are built."""
        found = torch.zeros(len(cells), self._ends[-1], dtype=torch.long)
        for place in range(max(map(len, cells))):
            rows = [row for row, cell in enumerate(cells) if len(cell) > place]
            numbers = [cells[row][place] for row in rows]
            found[rows, self._ends[place] : self._ends[place + 1]] = self.blocks(place)[1][numbers]
        return found

    def _next_level(self) -> bool:
        """Fill the queue; whether there is anything."""
        if self.level < len(self.growth.tokens):
            if self.level:
                grown = [cell for cell, equal in self.members if equal in self.labels]
                self.parents = grown or [cell for cell, _ in self.members]
            self.level, self.members = self.level + 1, []
        room = self.first if self.level == 1 and not self.members else self.beam
        for cell, key in self._ranked():
            if room is not None and len(self.queue) >= room:
                break
            if key not in self.tried:
                self.tried[key] = cell
                self.queue.append(cell)
            self.members.append((cell, self.tried[key]))
        return bool(self.queue)

    def _ranked(self) -> Iterator[tuple[Cell, Genotype]]:
        """The cells with one more block than the parents, best predicted first, with what equal ones share."""
        cells = [(*cell, number) for cell in self.parents for number in range(len(self.blocks(self.level - 1)[0]))]
        if self.labels:
            known, scores = list(self.labels), list(self.labels.values())
            targets = torch.tensor(scores, dtype=torch.float64)
            self.surrogate.fit(self.strings(known), targets, self.rng.getrandbits(32))
            predicted = self.surrogate.predict(self.strings(cells)).mean
            order = torch.sort(predicted, descending=True, stable=True).indices.tolist()
        else:
            order = self.rng.sample(range(len(cells)), len(cells))
        for row in order:
            yield cells[row], self.space.canonical(self.genotype_of(cells[row]))

    def observe(self, result: Result) -> None:
        """One more label."""
        self.labels[self._cells.pop(result.trial.number)] = result.score

    def observe_failure(self, result: Result) -> None:
        """The cell is not learned from."""
        super().observe_failure(result)
        self._cells.pop(result.trial.number)

    def state(self) -> dict[str, Any]:  # noqa: D102
        return {
            "level": self.level,
            "parents": [list(cell) for cell in self.parents],
            "members": [[list(cell), list(equal)] for cell, equal in self.members],
            "queue": [list(cell) for cell in self.queue],
            "labels": [[list(cell), score] for cell, score in self.labels.items()],
            "tried": [[self.space.format(key), list(cell)] for key, cell in self.tried.items()],
            "cells": [[number, list(cell)] for number, cell in self._cells.items()],
        }

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        self.level = state["level"]
        self.parents, self.queue = ([tuple(cell) for cell in state[name]] for name in ("parents", "queue"))
        self.members = [(tuple(cell), tuple(equal)) for cell, equal in state["members"]]
        self.labels = {tuple(cell): score for cell, score in state["labels"]}
        self.tried = {self.space.parse(text): tuple(cell) for text, cell in state["tried"]}
        self._cells = {number: tuple(cell) for number, cell in state["cells"]}
