"""What every tabular benchmark offers: the accuracies and the training time of architectures that were trained once."""

from __future__ import annotations

import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_nas.arch import Genotype
from lightning_nas.spaces.base import Space

__all__ = ["Array", "Benchmark", "Record", "data_file", "read_npz"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Record:
    """One entry of a benchmark: accuracies in percent, seconds of training up to the budget plus one validation.

    Args:
        val: Validation accuracy in percent; what a search may look at.
        test: Test accuracy in percent; ``None`` where the benchmark has no test value at this budget.
        seconds: Recorded seconds of training up to the budget plus one validation.
        epochs: Epochs trained.
    """

    val: float
    test: float | None
    seconds: float
    epochs: float


class Benchmark(ABC):
    """A table of trained architectures: it is asked for an architecture and answers what its training came to.

    Select by the validation accuracy and report the test accuracy of what was selected: the best validation and the
    best test accuracy of a table need not be those of one architecture.

    Attributes:
        name: The benchmark's name.
        space: The space of its architectures.
        datasets: The data sets on which they were trained; the first is the default.
        budgets: Epochs of the trainings, ascending; the largest is the default.
    """

    name: str
    space: Space
    datasets: tuple[str, ...]
    budgets: tuple[int, ...]

    @abstractmethod
    def query(
        self, genotype: Genotype, dataset: str | None = None, epochs: int | None = None, run: int | None = None
    ) -> Record:
        """What the training of an architecture came to.

        Args:
            genotype: An architecture of `space`.
            dataset: One of `datasets`; ``None`` for the first.
            epochs: Budget of the training; ``None`` for the largest.
            run: Number of one run, modulo the number that `runs` says; ``None`` for the mean over all runs.

        Raises:
            ValueError: If the benchmark has no such entry.
        """

    @abstractmethod
    def runs(self, genotype: Genotype, dataset: str | None = None, epochs: int | None = None) -> int:
        """How many runs of an architecture can be asked for one by one; 1 where only their mean is known.

        Raises:
            ValueError: If the benchmark has no such entry.
        """

    @abstractmethod
    def genotypes(self) -> Iterator[Genotype]:
        """All architectures, in the benchmark's own order."""

    @abstractmethod
    def best(self, dataset: str | None = None) -> tuple[float, float]:
        """The best mean validation and the best mean test accuracy in percent at the largest budget.

        They are separate maxima, each over all architectures, and need not be the values of one of them.

        Raises:
            ValueError: If the benchmark has no such data set.
        """

    def continues(self, shorter: int, longer: int | None = None, dataset: str | None = None) -> bool:
        """Whether the training of a larger budget is that of a smaller one gone on, so that only the rest costs.

        Values of one training that was stopped early continue each other. Budgets that are trainings of their own,
        each with its own learning rates, do not, and what is promoted from one to the other is trained again in full:
        that is what a benchmark says unless it knows better.

        Args:
            shorter: Epochs of the smaller budget.
            longer: Epochs of the larger one; ``None`` for the largest.
            dataset: One of `datasets`; ``None`` for the first.
        """
        return False

    def metrics(self, genotype: Genotype) -> dict[str, float]:
        """What the benchmark knows of an architecture besides its training: parameters, latencies, by name.

        Raises:
            ValueError: If it knows nothing, or has no such architecture.
        """
        raise ValueError(f"{self.name} knows nothing but trainings; leave the further figures out")

    def choose(self, dataset: str | None, epochs: int | None) -> tuple[str, int]:
        """The data set and the budget of a question, the defaults filled in.

        Raises:
            ValueError: If the benchmark has no such data set, or a budget is not positive.
        """
        chosen = self.datasets[0] if dataset is None else dataset
        if chosen not in self.datasets:
            raise ValueError(f"{self.name} has no data set {dataset!r}; it has {', '.join(self.datasets)}")
        budget = self.budgets[-1] if epochs is None else epochs
        if budget < 1:
            raise ValueError(f"epochs={epochs!r} is no budget of {self.name}; it has {self.budgets}")
        return chosen, budget


def data_file(path: str | os.PathLike[str] | None, name: str, make: str) -> Path:
    """Find a benchmark's file: `path` itself or `name` in it, else `name` in the folder ``LIGHTNING_NAS_DATA``.

    Args:
        path: A file, or the folder that holds it; ``None`` for the folder that the environment names.
        name: The file's usual name.
        make: How to make or get the file, as the end of an error message.

    Raises:
        ValueError: If there is no such file.

    Example:
        >>> data_file("nowhere", "nb201.npz", "run this or that")
        Traceback (most recent call last):
        ValueError: no file nowhere; run this or that
    """
    folder = os.environ.get("LIGHTNING_NAS_DATA")
    if path is None and folder is None:
        raise ValueError(f"no path and no LIGHTNING_NAS_DATA (the folder of {name}) was given; {make}")
    found = Path(path if path is not None else str(folder))
    found = found / name if path is None or found.is_dir() else found
    if not found.is_file():
        raise ValueError(f"no file {found}; {make}")
    return found


def read_npz(path: Path) -> dict[str, Array]:
    """Read all arrays of an ``.npz`` file; nothing pickled is loaded.

    Raises:
        ValueError: If it is not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is no .npz file of plain arrays ({type(error).__name__}); make or get it again"
        ) from None
