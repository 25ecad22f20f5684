"""The published files of NATS-Bench and NAS-Bench-201: every training of every architecture, as recorded."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning_nas.benchmarks.unpickle import load_pickle, load_torch

__all__ = ["DATASETS", "OfficialFile", "OfficialFolder", "OfficialTable", "Split", "Training", "open_official"]

_BUDGETS = {"less": "12", "full": "200"}
"""What the files of NAS-Bench-201 call the two trainings."""


class Training(NamedTuple):
    """One training of one architecture.

    Args:
        arch: Number of the architecture in the benchmark's own order.
        hp: The budget as the files write it: ``"12"`` and ``"200"`` epochs, or ``"01"``, ``"12"`` and ``"90"``.
        dataset: ``"cifar10-valid"`` (half of CIFAR-10's training pictures), ``"cifar10"``, ``"cifar100"`` or
            ``"ImageNet16-120"``.
        seed: Seed of the training.
        result: What was recorded: ``train_acc1es`` and ``train_times`` by epoch from 0, ``eval_acc1es`` and
            ``eval_times`` by ``"x-valid@11"``, ``params`` and ``flop`` in millions, and more.

    Example:
        >>> training = Training(0, "12", "cifar10-valid", 777, {"eval_acc1es": {"x-valid@11": 62.7}})
        >>> training.epochs, training.accuracy("x-valid"), training.accuracy("x-valid", 6)
        (12, 62.7, None)
    """

    arch: int
    hp: str
    dataset: str
    seed: int
    result: Mapping[str, Any]

    @property
    def epochs(self) -> int:
        """Epochs trained."""
        return int(self.hp)

    def accuracy(self, part: str, epochs: int | None = None) -> float | None:
        """Accuracy in percent on a part of the data after some epochs; ``None`` where the file has no such value.

        Args:
            part: ``"x-valid"``, ``"x-test"`` or ``"ori-test"`` (on CIFAR-100 and ImageNet16-120 the two together).
            epochs: Epochs trained, from 1; ``None`` for all.
        """
        return self._number("eval_acc1es", part, epochs)

    def evaluation_seconds(self, part: str) -> float | None:
        """Seconds of one evaluation on a part of the data after the last epoch; ``None`` where the file has none."""
        return self._number("eval_times", part, None)

    def train_seconds(self) -> float | None:
        """Seconds of the whole training; ``None`` where the file has none."""
        times = self.result.get("train_times")
        return float(sum(times.values())) if isinstance(times, Mapping) and len(times) == self.epochs else None

    def _number(self, table: str, part: str, epochs: int | None) -> float | None:
        values = self.result.get(table)
        value = (values or {}).get(f"{part}@{(epochs or self.epochs) - 1}")
        return None if value is None else float(value)


class Split(NamedTuple):
    """Where a data set's accuracies stand in the published files, and under which names in the compact form.

    Args:
        column: Its name in the compact form's accuracies.
        time: Its name in the compact form's times.
        val: Training and part of its validation accuracy.
        test: Training and part of its test accuracy.
    """

    column: str
    time: str
    val: tuple[str, str]
    test: tuple[str, str]


DATASETS = {
    "cifar10": Split("c10", "c10val", ("cifar10-valid", "x-valid"), ("cifar10", "ori-test")),
    "cifar100": Split("c100", "c100", ("cifar100", "x-valid"), ("cifar100", "x-test")),
    "ImageNet16-120": Split("in16", "in16", ("ImageNet16-120", "x-valid"), ("ImageNet16-120", "x-test")),
}
"""The benchmark's protocol. On CIFAR-10 the validation accuracy is that of a training on half of the training pictures,
the test accuracy that of a training on all of them."""


class OfficialTable(ABC):
    """The published records of a benchmark.

    Attributes:
        archs: The texts of the architectures, in the benchmark's own order.
    """

    archs: Sequence[str]

    @abstractmethod
    def info(self, index: int) -> Mapping[str, Any]:
        """Budget -> the records of an architecture at it.

        Raises:
            ValueError: If there are none.
        """

    def missing(self) -> list[int]:
        """The numbers of the architectures without records."""
        return []

    def trainings(self, index: int) -> Iterator[Training]:
        """All trainings of an architecture.

        Raises:
            ValueError: If it has no records, or they are not as published.
        """
        for hp, results in self.info(index).items():
            name = _BUDGETS.get(hp, hp)
            try:
                if results["arch_str"] != self.archs[index]:
                    raise ValueError(f"record {index} is of {results['arch_str']!r}, not of {self.archs[index]!r}")
                for (dataset, seed), result in results["all_results"].items():
                    yield Training(index, name, dataset, int(seed), result)
            except (KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"record {index} of budget {hp!r} lacks {error}; take the published file") from None


class OfficialFolder(OfficialTable):
    """A folder of NATS-Bench, such as ``NATS-tss-v1_0-3ffb9-simple``: an architecture is read when it is asked for.

    Args:
        path: The folder, with ``meta.pickle.pbz2`` and a file for each architecture.

    Raises:
        ValueError: If it has no list of architectures.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.archs = _archs(load_pickle(self.path / "meta.pickle.pbz2"), self.path)

    def info(self, index: int) -> Mapping[str, Any]:
        """Read the file of an architecture.

        Raises:
            ValueError: If there is none, or it is not as published.
        """
        loaded = load_pickle(self._file(index))
        if not isinstance(loaded, Mapping):
            raise ValueError(f"{self._file(index)} holds no records of an architecture; take the published folder")
        return loaded

    def missing(self) -> list[int]:
        """The numbers of the architectures without a file."""
        return [index for index in range(len(self.archs)) if not self._file(index).is_file()]

    def _file(self, index: int) -> Path:
        return self.path / f"{index:06d}.pickle.pbz2"


class OfficialFile(OfficialTable):
    """A benchmark in one file: ``NAS-Bench-201-v1_1-096897.pth``, or a ``.pickle.pbz2`` of NATS-Bench.

    The file is read as a whole and takes several times its size in memory; the folders of NATS-Bench take little.

    Args:
        path: The file.

    Raises:
        ValueError: If it is not such a file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        loaded = load_torch(path) if Path(path).suffix == ".pth" else load_pickle(path)
        self.archs = _archs(loaded, Path(path))
        self._infos: Mapping[int, Mapping[str, Any]] = loaded.get("arch2infos", {})

    def info(self, index: int) -> Mapping[str, Any]:
        """The records of an architecture.

        Raises:
            ValueError: If there are none.
        """
        if index not in self._infos:
            raise ValueError(f"there are no records of architecture {index}; take the published file")
        return self._infos[index]

    def missing(self) -> list[int]:
        """The numbers of the architectures without records."""
        return [index for index in range(len(self.archs)) if index not in self._infos]


def open_official(path: str | os.PathLike[str]) -> OfficialTable:
    """Open a published folder of NATS-Bench, or a published file of it or of NAS-Bench-201.

    Args:
        path: ``NATS-tss-v1_0-3ffb9-simple``, ``NATS-sss-v1_0-50262-simple``, ``NAS-Bench-201-v1_1-096897.pth`` or the
            like.

    Returns:
        Its records.

    Raises:
        ValueError: If it is neither.

    Example:
        >>> open_official("NATS-tss-v1_0-3ffb9-simple")
        Traceback (most recent call last):
        ValueError: there is no file 'NATS-tss-v1_0-3ffb9-simple'; give the path of a published benchmark file
    """
    return OfficialFolder(path) if Path(path).is_dir() else OfficialFile(path)


def _archs(loaded: Any, path: Path) -> tuple[str, ...]:
    archs = loaded.get("meta_archs") if isinstance(loaded, Mapping) else None
    if not isinstance(archs, (list, tuple)) or not archs or not all(isinstance(arch, str) for arch in archs):
        raise ValueError(f"{path} has no list 'meta_archs' of architectures; take the published folder or file")
    return tuple(archs)
