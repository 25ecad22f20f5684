"""NAS-Bench-101, and its part that is NAS-Bench-1Shot1, as tables that answer queries."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property
from itertools import combinations, product

import numpy as np

from lightning_nas.arch import Genotype
from lightning_nas.benchmarks.base import Benchmark, Record, data_file
from lightning_nas.benchmarks.nasbench101_table import Table101, convert101, read_table
from lightning_nas.spaces.module_hash import Matrix, module_hash
from lightning_nas.spaces.nasbench101 import NASBench101Space, one_shot1_module
from lightning_nas.spaces.one_shot1 import NASBench1Shot1Space

__all__ = ["NASBench1Shot1", "NASBench101", "convert101"]

_MAKE = "give the release's .tfrecord, or the .npz that convert101 makes of it"
_VAL, _TEST, _SECONDS = 1, 2, 3


class _Modules(Benchmark):
    """Answers for modules, whatever the space that writes them."""

    datasets = ("cifar10",)

    def __init__(self, table: Table101) -> None:
        self.table = table
        self.budgets = tuple(int(budget) for budget in table.budgets)
        self._order = np.argsort(table.hashes)
        self._sorted = table.hashes[self._order]

    @abstractmethod
    def module(self, genotype: Genotype) -> tuple[Matrix, tuple[str, ...]]:
        """The matrix and the operations of a genotype."""

    def row(self, genotype: Genotype) -> int:
        """Where the table has an architecture.

        Raises:
            ValueError: If the genotype is of another space, or the table does not have it.
        """
        key = module_hash(*self.module(genotype))
        found = self._find(key)
        if found is None:
            raise ValueError(
                f"{self.name} lacks the cell {key}, it has {len(self._sorted)}; ask for one of genotypes()"
            )
        return found

    def _find(self, key: str) -> int | None:
        place = int(np.searchsorted(self._sorted, key.encode()))
        if place == len(self._sorted) or self._sorted[place] != key.encode():
            return None
        return int(self._order[place])

    def _all_runs(self, genotype: Genotype, dataset: str | None, epochs: int | None) -> tuple[int, np.ndarray]:
        """The budget, and what was measured in each run that there is, ``(runs, 2, 4)``."""
        _, budget = self.choose(dataset, epochs)
        if budget not in self.budgets:
            raise ValueError(f"epochs={budget} is no budget of {self.name}; it has {self.budgets}")
        measured = self.table.metrics[self.row(genotype), self.budgets.index(budget)].astype(np.float64)
        measured = measured[np.isfinite(measured[:, 1, _VAL])]
        if not len(measured):
            raise ValueError(f"{self.name} has no run of {budget} epochs of this architecture; ask for another budget")
        return budget, measured

    def query(
        self, genotype: Genotype, dataset: str | None = None, epochs: int | None = None, run: int | None = None
    ) -> Record:
        """What the training of an architecture came to; seconds are NaN where the file has none.

        The architecture is looked up by the hash of its pruned module, so isomorphic cells have the same entry.

        Args:
            genotype: An architecture of `space`.
            dataset: ``"cifar10"``, the only one.
            epochs: One of `budgets`; ``None`` for the largest.
            run: Number of one run, modulo the number that `runs` says; ``None`` for the mean over all runs.

        Raises:
            ValueError: If the benchmark has no such entry.
        """
        return self._record(genotype, dataset, epochs, run, 1)

    def halfway(self, genotype: Genotype, epochs: int | None = None, run: int | None = None) -> Record:
        """What was measured in the middle of a training, at half its epochs and a learning rate that is still high.

        Args:
            genotype: An architecture of `space`.
            epochs: The training's budget, one of `budgets`; ``None`` for the largest.
            run: Number of one run; ``None`` for the mean.

        Raises:
            ValueError: If the benchmark has no such entry, or was not measured halfway.
        """
        record = self._record(genotype, None, epochs, run, 0)
        if not np.isfinite(record.val):
            raise ValueError(f"this file of {self.name} has nothing measured halfway; convert the release")
        return record

    def _record(
        self, genotype: Genotype, dataset: str | None, epochs: int | None, run: int | None, moment: int
    ) -> Record:
        budget, measured = self._all_runs(genotype, dataset, epochs)
        chosen = measured.mean(axis=0) if run is None else measured[run % len(measured)]
        val, test, seconds = (float(chosen[moment, place]) for place in (_VAL, _TEST, _SECONDS))
        return Record(100 * val, 100 * test, seconds, budget if moment else budget / 2)

    def runs(self, genotype: Genotype, dataset: str | None = None, epochs: int | None = None) -> int:
        """How many runs of an architecture there are: three in the release.

        Raises:
            ValueError: If the benchmark has no such entry.
        """
        return len(self._all_runs(genotype, dataset, epochs)[1])

    def parameters(self, genotype: Genotype) -> int:
        """The recorded number of trainable parameters; that of the cell as it was trained, isomorphic ones may differ.

        Raises:
            ValueError: If the benchmark has no such architecture, or its file no such numbers.
        """
        number = int(self.table.parameters[self.row(genotype)])
        if number < 0:
            raise ValueError(f"this file of {self.name} has no numbers of parameters; count those of a DerivedNetwork")
        return number

    def _best(self, rows: np.ndarray | slice) -> tuple[float, float]:
        final = np.ma.masked_invalid(self.table.metrics[rows, -1, :, 1].astype(np.float64)).mean(axis=1)
        return 100 * float(final[:, _VAL].max()), 100 * float(final[:, _TEST].max())


class NASBench101(_Modules):
    """423,624 cells, each trained three times on CIFAR-10 for 4, 12, 36 and 108 epochs.

    All numbers of a search should come from the runs it saw, and its result be reported as a mean over runs: the best
    single run is not the best architecture. Of the whole table the best mean validation accuracy is 95.05542 % and the
    best mean test accuracy 94.31758 %.

    Args:
        path: The official ``.tfrecord`` (read anew each time, which takes minutes), a file of `convert101`, or
            ``nb1shot1_ss12.npz``, which has 5,385 of the cells at 108 epochs without times; ``None`` for
            ``nasbench101.npz`` in the folder that the environment variable ``LIGHTNING_NAS_DATA`` names.

    Raises:
        ValueError: If there is no such file or it is none of these.

    Reference:
        Ying et al., "NAS-Bench-101: Towards Reproducible Neural Architecture Search", ICML 2019.
    """

    name = "nasbench101"

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        super().__init__(read_table(data_file(path, "nasbench101.npz", _MAKE)))
        self.space: NASBench101Space = NASBench101Space()

    def module(self, genotype: Genotype) -> tuple[Matrix, tuple[str, ...]]:
        """The matrix and the operations of a genotype."""
        return self.space.cell(genotype)

    def genotypes(self) -> Iterator[Genotype]:
        """All architectures, in the order of the file."""
        for row in range(len(self.table.hashes)):
            yield self.space.from_cell(*self.table.module(row))

    def best(self, dataset: str | None = None) -> tuple[float, float]:
        """The best mean validation and the best mean test accuracy in percent at the largest budget, of all cells.

        Raises:
            ValueError: If the benchmark has no such data set.
        """
        self.choose(dataset, None)
        return self._best(slice(None))


class NASBench1Shot1(_Modules):
    """A space of NAS-Bench-1Shot1, each genotype with the entry of the NAS-Bench-101 cell that it is.

    Args:
        number: 1, 2 or 3.
        path: A file as `NASBench101` takes it. ``nb1shot1_ss12.npz``, which ``None`` looks for in the folder
            ``LIGHTNING_NAS_DATA``, has only the architectures that the publication of spaces 1 and 2 enumerates as
            those without loose ends; the whole NAS-Bench-101 has all of all three.

    Raises:
        ValueError: If there is no such space or file.

    Reference:
        Zela, Siems and Hutter, "NAS-Bench-1Shot1: Benchmarking and Dissecting One-shot Neural Architecture Search",
        ICLR 2020.
    """

    def __init__(self, number: int = 1, path: str | os.PathLike[str] | None = None) -> None:
        self.space: NASBench1Shot1Space = NASBench1Shot1Space(number)
        self.name = self.space.name
        super().__init__(read_table(data_file(path, "nb1shot1_ss12.npz", _MAKE)))

    def module(self, genotype: Genotype) -> tuple[Matrix, tuple[str, ...]]:
        """The matrix and the operations of the NAS-Bench-101 cell that a genotype is."""
        return one_shot1_module(self.space, genotype)

    def genotypes(self) -> Iterator[Genotype]:
        """All genotypes of the space that the table has; several may be one graph."""
        return (genotype for genotype, _ in self._entries())

    def _entries(self) -> Iterator[tuple[Genotype, int]]:
        """Every genotype that the table has, and its row."""
        decisions = [decision for group in self.space.decisions.values() for decision in group]
        kept = (combinations(range(len(decision.choices)), decision.keep) for decision in decisions)
        for picks in product(*kept):
            named = {decision.name: pick for decision, pick in zip(decisions, picks, strict=True)}
            genotype = Genotype(self.name, named)
            row = self._find(module_hash(*self.module(genotype)))
            if row is not None:
                yield genotype, row

    @cached_property
    def _rows(self) -> np.ndarray:
        return np.array(sorted({row for _, row in self._entries()}))

    def best(self, dataset: str | None = None) -> tuple[float, float]:
        """The best mean validation and the best mean test accuracy in percent at the largest budget, of this space.

        The first call goes through the space, which takes seconds (minutes for space 3).

        Raises:
            ValueError: If the benchmark has no such data set.
        """
        self.choose(dataset, None)
        return self._best(self._rows)
