"""The published file of TransNAS-Bench-101, as it was recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from lightning_nas.arch import Genotype
from lightning_nas.benchmarks.unpickle import load_torch
from lightning_nas.spaces.base import Space

__all__ = ["TRANSNAS_FILE", "TransNASFile", "read_transnas"]

TRANSNAS_FILE = "transnas-bench_v10141024.pth"
"""The name of the released file."""
_KEYS = ("metrics_dict", "info_names", "task_list", "data")


@dataclass(frozen=True)
class TransNASFile:
    """What the file has of one of the benchmark's two spaces.

    Args:
        path: The file.
        space: The space of its architectures.
        names: Task -> names of what was recorded after each epoch.
        epochs: Task -> epochs of its trainings.
        trainings: Architecture -> task -> its ``metrics``, ``model_info`` and ``total_epochs``.
    """

    path: Path
    space: Space
    names: Mapping[str, tuple[str, ...]]
    epochs: Mapping[str, int]
    trainings: Mapping[Genotype, Mapping[str, Mapping[str, Any]]]

    def training(self, genotype: Genotype, task: str) -> Mapping[str, Any]:
        """The training of an architecture on a task.

        Raises:
            ValueError: If there is none.
        """
        found = self.trainings.get(genotype, {}).get(task)
        if found is None:
            text = self.space.format(self.space.check(genotype))
            raise ValueError(
                f"{self.path} has no training of {text} on {task}; it has {len(self.trainings)} architectures"
            )
        return found

    def values(self, genotype: Genotype, task: str, name: str) -> tuple[float, ...]:
        """What was recorded after each epoch: numbers, NaN where one is missing; times in seconds.

        Raises:
            ValueError: If there is no such training, or it lacks these values.
        """
        training = self.training(genotype, task)
        listed, epochs = training["metrics"].get(name), training["total_epochs"]
        if not isinstance(listed, Sequence) or len(listed) != epochs or epochs != self.epochs[task]:
            text = self.space.format(genotype)
            raise ValueError(
                f"{self.path}: {name} of {text} is no list of {self.epochs[task]} epochs; get the release's file"
            )
        return tuple(map(_number, listed))

    def seconds(self, genotype: Genotype, task: str, epochs: int) -> float:
        """Seconds of a training until the end of an epoch; NaN where the file has no times.

        Times that ascend count from the start of the training, others are those of each epoch.

        Raises:
            ValueError: If there is no such training.
        """
        if "time_elapsed" not in self.training(genotype, task)["metrics"]:
            return float("nan")
        times = self.values(genotype, task, "time_elapsed")
        ascend = all(earlier < later for earlier, later in pairwise(times))
        return times[epochs - 1] if ascend else sum(times[:epochs])


def read_transnas(path: Path, search_space: str, space: Space) -> TransNASFile:
    """Read one of the two spaces of the published file. Only containers and numbers are read from it.

    Args:
        path: The file.
        search_space: ``"micro"`` or ``"macro"``.
        space: The space that reads its texts.

    Raises:
        ValueError: If it is not such a file, or has nothing of the space.
    """
    loaded, make = load_torch(path), f"get the release's {TRANSNAS_FILE}"
    lacking = [key for key in _KEYS if not isinstance(loaded, Mapping) or key not in loaded]
    if lacking:
        raise ValueError(f"{path} is not the file of TransNAS-Bench-101: it lacks {', '.join(lacking)}; {make}")
    if not loaded["data"].get(search_space):
        raise ValueError(f"{path} has no architecture of {search_space!r}, but {list(loaded['data'])}; {make}")
    try:
        tasks = loaded["task_list"]
        names = {task: tuple(loaded["metrics_dict"][task]) for task in tasks}
        trainings = {space.parse(arch): by_task for arch, by_task in loaded["data"][search_space].items()}
        first = next(iter(trainings.values()))
        epochs = {task: int(first[task]["total_epochs"]) for task in tasks}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not as published ({type(error).__name__} {error}); {make}") from None
    return TransNASFile(path, space, names, epochs, trainings)


def _number(value: Any) -> float:
    """A number, or seconds from a text ``hh:mm:ss``; NaN for what is missing."""
    if isinstance(value, str) and value.count(":") == 2:
        hours, minutes, seconds = map(float, value.split(":"))
        return 3600 * hours + 60 * minutes + seconds
    return float("nan") if value is None else float(value)
