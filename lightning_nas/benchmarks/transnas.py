"""TransNAS-Bench-101: 7,352 networks, each trained on seven tasks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from lightning_nas.arch import Genotype
from lightning_nas.benchmarks.base import Benchmark, Record, data_file
from lightning_nas.benchmarks.transnas_file import TRANSNAS_FILE, read_transnas
from lightning_nas.spaces.transnas import TransNASMacroSpace, TransNASMicroSpace

__all__ = ["TRANSNAS_METRICS", "TransNASBench101"]

TRANSNAS_METRICS = {
    "class_scene": "top1",
    "class_object": "top1",
    "room_layout": "neg_loss",
    "jigsaw": "top1",
    "segmentsemantic": "mIoU",
    "normal": "ssim",
    "autoencoder": "ssim",
}
"""Task -> the metric that answers for it, which the file has as ``valid_<metric>`` and ``test_<metric>``."""
_SPACES: dict[str, type[TransNASMicroSpace | TransNASMacroSpace]] = {
    "micro": TransNASMicroSpace,
    "macro": TransNASMacroSpace,
}


class TransNASBench101(Benchmark):
    """One of the two spaces of TransNAS-Bench-101, trained on seven tasks: its 4,096 cells or its 3,256 skeletons.

    The tasks are the `datasets`. A record has the task's metric on the validation and on the test pictures, each the
    larger the better: ``top1`` (percent) for class_object, class_scene and jigsaw, ``mIoU`` (percent) for
    segmentsemantic, ``ssim`` (at most 1) for normal and autoencoder, ``neg_loss`` (the negative loss, at most 0) for
    room_layout. So it is not in percent for all tasks, and values of two tasks cannot be compared.

    The values are those after the last epoch that was asked for. The published interface has a mode "best" that is the
    maximum over the epochs of whatever metric: for a loss that is its worst epoch, and for a test metric it selects
    the epoch by the test pictures. With `take` ``"best"`` here both values are those of one epoch, the one with the
    best validation value so far.

    All budgets are answered from one training, stopped early, which has 10 epochs for jigsaw, 25 for the
    classifications and room_layout, and 30 for the others; its learning rate is then still high. Each architecture was
    trained once. The seconds include the evaluation on validation and test pictures in each epoch.

    Reference: Duan et al., "TransNAS-Bench-101: Improving Transferability and Generalizability of Cross-Task Neural
    Architecture Search", CVPR 2021, arXiv 2105.11871.

    Args:
        path: The published ``.pth``, or its folder; ``None`` for the folder that ``LIGHTNING_NAS_DATA`` names. It is
            read as a whole, and only containers and numbers in it are.
        search_space: ``"micro"`` for the cells or ``"macro"`` for the skeletons.
        metrics: Task -> metric instead of that of `TRANSNAS_METRICS`, for example ``{"segmentsemantic": "acc"}``.
        take: ``"last"`` for the values of the last epoch, ``"best"`` for those of the best epoch up to it.

    Raises:
        ValueError: If there is no such file, or it lacks the space or a metric.

    Example:
        >>> import tempfile, torch
        >>> values = {"valid_top1": [30.0, 42.0, 41.0], "test_top1": [29.0, 40.0, 41.5], "time_elapsed": [60, 120, 180]}
        >>> training = {"metrics": values, "model_info": {"model_params": 1.5}, "total_epochs": 3}
        >>> whole = {"metrics_dict": {"jigsaw": list(values)}, "info_names": ["model_params"], "task_list": ["jigsaw"]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     whole["data"] = {"micro": {"64-41414-1_02_333": {"jigsaw": training}}}
        ...     torch.save(whole, f"{folder}/small.pth")
        ...     table = TransNASBench101(f"{folder}/small.pth")
        >>> cell = table.space.parse("64-41414-1_02_333")
        >>> table.query(cell, "jigsaw")
        Record(val=41.0, test=41.5, seconds=180.0, epochs=3)
        >>> table.query(cell, "jigsaw", epochs=1).val
        30.0
    """

    name = "transnasbench101"
    space: TransNASMicroSpace | TransNASMacroSpace

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        search_space: Literal["micro", "macro"] = "micro",
        metrics: Mapping[str, str] | None = None,
        take: Literal["last", "best"] = "last",
    ) -> None:
        if search_space not in _SPACES:
            raise ValueError(f"search_space={search_space!r}; give one of {', '.join(map(repr, _SPACES))}")
        if take not in ("last", "best"):
            raise ValueError(f"take={take!r}; give 'last' or 'best'")
        self.path = data_file(path, TRANSNAS_FILE, f"get the release's {TRANSNAS_FILE}").absolute()
        self.search_space, self.take, self.space = search_space, take, _SPACES[search_space]()
        self._file = read_transnas(self.path, search_space, self.space)
        self.datasets = tuple(self._file.names)
        self.budgets = tuple(range(1, max(self._file.epochs.values()) + 1))
        unknown = sorted(set(metrics or {}) - set(self.datasets))
        if unknown:
            raise ValueError(f"metrics names the tasks {unknown}; {self.name} has {', '.join(self.datasets)}")
        self._chosen = dict(metrics or {})
        self._answers = {task: self._answer(task) for task in self.datasets}

    def _answer(self, task: str) -> tuple[str, str]:
        """The names of the metrics that answer for a task."""
        metric = self._chosen.get(task, TRANSNAS_METRICS.get(task, "top1"))
        valid, test = f"valid_{metric}", f"test_{metric}"
        if valid not in self._file.names[task] or test not in self._file.names[task]:
            raise ValueError(f"{task!r} has no metric {metric!r}; {self.path} has {', '.join(self._file.names[task])}")
        if metric.endswith("loss") and not metric.endswith("neg_loss"):
            raise ValueError(
                f"{metric!r} of {task!r} is the better the smaller, and a search takes the largest; choose another"
                " metric, and read this one with values()"
            )
        return valid, test

    def metric_names(self, dataset: str | None = None) -> tuple[str, ...]:
        """The names of all that was recorded after each epoch of a task.

        Raises:
            ValueError: If the benchmark has no such task.
        """
        return self._file.names[self.choose(dataset, None)[0]]

    def values(self, genotype: Genotype, metric: str, dataset: str | None = None) -> tuple[float, ...]:
        """A metric after every epoch, as the file has it; times are turned into seconds.

        Args:
            genotype: An architecture of the space.
            metric: One of `metric_names`, such as ``"train_loss"``.
            dataset: A task; ``None`` for the first.

        Raises:
            ValueError: If the file has no such values.
        """
        task, _ = self.choose(dataset, None)
        if metric not in self._file.names[task]:
            raise ValueError(f"{task!r} has no metric {metric!r}; it has {', '.join(self._file.names[task])}")
        return self._file.values(genotype, task, metric)

    def query(
        self, genotype: Genotype, dataset: str | None = None, epochs: int | None = None, run: int | None = None
    ) -> Record:
        """What the training of an architecture on a task came to; seconds are NaN where the file has none.

        Args:
            genotype: An architecture of the space.
            dataset: A task; ``None`` for the first.
            epochs: Epochs, from 1 to `total_epochs` of the task; ``None`` for all.
            run: Any number; there is one run.

        Raises:
            ValueError: If the benchmark has no such entry.
        """
        task, budget = self.choose(dataset, epochs)
        point = self._point(genotype, task, budget)
        if point is None:
            text = self.space.format(genotype)
            raise ValueError(f"{self.path} has no {self._answers[task][0]} of {text} after {budget} epochs of {task}")
        val, test = point
        return Record(val, test if test == test else None, self._file.seconds(genotype, task, budget), budget)

    def _point(self, genotype: Genotype, task: str, budget: int) -> tuple[float, float] | None:
        """The validation and the test value that answer for a budget; nothing where there is no validation value."""
        val, test = (self._file.values(genotype, task, name)[:budget] for name in self._answers[task])
        epochs = range(budget) if self.take == "best" else [budget - 1]
        known = [epoch for epoch in epochs if val[epoch] == val[epoch]]
        if not known:
            return None
        at = max(known, key=val.__getitem__)
        return val[at], test[at]

    def runs(self, genotype: Genotype, dataset: str | None = None, epochs: int | None = None) -> int:
        """One.

        Raises:
            ValueError: If the benchmark has no such entry.
        """
        self._file.training(genotype, self.choose(dataset, epochs)[0])
        return 1

    def continues(self, shorter: int, longer: int | None = None, dataset: str | None = None) -> bool:
        """Always: each architecture has one training of a task, stopped early."""
        return True

    def genotypes(self) -> Iterator[Genotype]:  # noqa: D102
        return iter(self._file.trainings)

    def best(self, dataset: str | None = None) -> tuple[float, float]:
        """The best validation and the best test value that a query for all epochs of a task answers.

        They are separate maxima, each over all architectures, and need not be the values of one of them.

        Raises:
            ValueError: If the benchmark has no such task.
        """
        task, budget = self.choose(dataset, None)
        points = [point for genotype in self.genotypes() if (point := self._point(genotype, task, budget))]
        val, test = ([point[side] for point in points if point[side] == point[side]] for side in (0, 1))
        return max(val, default=float("nan")), max(test, default=float("nan"))

    def metrics(self, genotype: Genotype) -> dict[str, float]:
        """The figures of an architecture's networks: ``model_params_jigsaw`` and so on, in the units of the file.

        Raises:
            ValueError: If the benchmark has no such architecture.
        """
        infos = {task: self._file.training(genotype, task)["model_info"] for task in self.datasets}
        return {f"{key}_{task}": float(value) for task, info in infos.items() for key, value in info.items()}

    def total_epochs(self, dataset: str | None = None) -> int:
        """The epochs of a task's training.

        Raises:
            ValueError: If the benchmark has no such task.
        """
        return self.choose(dataset, None)[1]

    def choose(self, dataset: str | None, epochs: int | None) -> tuple[str, int]:
        """The task and the epochs of a question; without epochs, those of the task's training.

        Raises:
            ValueError: If the benchmark has no such task, or it was not trained for so long.
        """
        task, budget = super().choose(dataset, epochs)
        longest = self._file.epochs[task]
        budget = longest if epochs is None else budget
        if budget != int(budget) or budget > longest:
            raise ValueError(f"epochs={epochs!r} is no budget of {task!r}; give a whole number from 1 to {longest}")
        return task, int(budget)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.search_space, self._chosen, self.take)

    def __len__(self) -> int:
        return len(self._file.trainings)
