"""What the methods of the study search in: a table, its space, and what a trial costs."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from lightning_nas.arch import Genotype
from lightning_nas.benchmarks import NASBench101, NASBench201
from lightning_nas.benchmarks.base import Benchmark, data_file
from lightning_nas.oracles import FunctionOracle, RoutedOracle, TableOracle
from lightning_nas.query import Oracle
from lightning_nas.query.proposals import WholeSpace
from lightning_nas.spaces import Space
from lightning_nas.spaces.restricted import RestrictedSpace

__all__ = ["World", "world"]


@dataclass(frozen=True)
class World:
    """A benchmark as the study asks it.

    Args:
        name: Name of the table.
        table: The table.
        space: The space in which methods search.
        full: Epochs of full training.
        short: Epochs of the short training that the table has; ``None`` if it has none.
        zero_cost: Genotype -> score without training; ``None`` where there is none.
        folder: Where a pretrained encoder is kept; ``None`` to pretrain it each time.
    """

    name: str
    table: Benchmark
    space: Space
    full: int
    short: int | None
    zero_cost: Callable[[Genotype], float] | None = None
    folder: Path | None = None

    def oracle(self, dataset: str, seed: int) -> Oracle:
        """Validation accuracy of one run drawn at random (of the mean, where a table has no single runs).

        A trial of no epochs gets the score without training, where there is one.
        """
        table = TableOracle(self.table, dataset, seed=seed)
        if self.zero_cost is None:
            return table
        return RoutedOracle([FunctionOracle(self.space, self.zero_cost), table], up_to=[0])

    def members(self) -> Sequence[Genotype]:
        """One of each kind of equal architectures."""
        return WholeSpace()(self.space, [], random.Random(0))  # noqa: S311

    def test(self, genotype: Genotype, dataset: str) -> float:
        """Mean test accuracy after full training."""
        found = self.table.query(genotype, dataset).test
        return float("nan") if found is None else found


class _Scores:
    """Scores of untrained networks, read from a file; of equal architectures that of one."""

    def __init__(self, path: Path, space: Space) -> None:
        with np.load(path, allow_pickle=False) as file:
            self.scores = dict(zip(file["genotype"].tolist(), file["score"].tolist(), strict=True))
        self.path, self.space = path, space

    def __call__(self, genotype: Genotype) -> float:
        text = self.space.format(self.space.canonical(genotype))
        if text not in self.scores:
            raise ValueError(
                f"the scores in {self.path} lack {text}; make them for {self.space.name} (benchmark scores)"
            )
        return float(self.scores[text])


@lru_cache(maxsize=4)
def world(name: str, scores: str | None = None, folder: str | None = None) -> World:
    """The world of a table, read once a process.

    Args:
        name: ``"nasbench201"`` or ``"nasbench101"`` (the graphs of ``nb1shot1_ss12.npz``).
        scores: File of scores without training, as `write_scores` makes it; ``None`` for none.
        folder: Where a pretrained encoder is kept.

    Raises:
        ValueError: If there is no such world or table.
    """
    kept = None if folder is None else Path(folder)
    if name == "nasbench201":
        table = NASBench201()
        zero = None if scores is None else _Scores(Path(scores), table.space)
        return World(name, table, table.space, 200, 12, zero, kept)
    if name == "nasbench101":
        part = NASBench101(data_file(None, "nb1shot1_ss12.npz", "put it into the folder LIGHTNING_NAS_DATA"))
        space = RestrictedSpace(part.space, part.genotypes(), within=2)
        zero = None if scores is None else _Scores(Path(scores), space)
        return World(name, part, space, 108, None, zero, kept)
    raise ValueError(f"no table {name!r}; give 'nasbench201' or 'nasbench101'")
