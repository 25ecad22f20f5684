"""The table of a micro-benchmark: true accuracies of every cell of a small space."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from lightning_nas.arch import Genotype
from lightning_nas.micro.setting import MicroSetting
from lightning_nas.reports import write_whole

__all__ = ["MicroTable", "write_table"]


def write_table(path: Path, setting: MicroSetting, records: Iterable[Mapping[str, Any]]) -> None:
    """Write a table: a comment line with the setting, then a row for each cell with the accuracies of all seeds.

    Args:
        path: The file.
        setting: In which the cells were trained.
        records: What `train_cell` returns; the seeds of a cell in any order.
    """
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for record in sorted(records, key=lambda r: (r["cell"], r["seed"])):
        rows.setdefault(record["cell"], []).append(record)
    seeds = min((len(runs) for runs in rows.values()), default=0)
    text = io.StringIO()
    text.write(f"# {json.dumps(asdict(setting))}\n")
    writer = csv.writer(text, lineterminator="\n")
    parts = [f"{part}_{seed}" for part in ("val", "test") for seed in range(seeds)]
    writer.writerow(["cell", "parameters", "seconds", *parts])
    for cell, runs in rows.items():
        values = [run[part] for part in ("val", "test") for run in runs[:seeds]]
        seconds = sum(run["seconds"] for run in runs[:seeds]) / max(seeds, 1)
        writer.writerow([cell, runs[0]["parameters"], round(seconds, 1), *values])
    write_whole(path, lambda new: new.write_text(text.getvalue(), encoding="utf-8"))


@dataclass(frozen=True)
class MicroTable:
    """True accuracies of all cells of a small space, each trained from scratch with several seeds.

    Args:
        setting: In which the cells were trained.
        val: Cell (its canonical form) -> validation accuracy of each seed, in percent.
        test: The same on test pictures.
        parameters: Cell -> number of weights.
        seconds: Cell -> mean seconds of a training where the table was made.

    Example:
        >>> table = MicroTable.load("small_sep")
        >>> best = max(table.test, key=table.accuracy)
        >>> table.rank(best), table.regret(best)
        (1, 0.0)
    """

    setting: MicroSetting
    val: Mapping[Genotype, tuple[float, ...]]
    test: Mapping[Genotype, tuple[float, ...]]
    parameters: Mapping[Genotype, int]
    seconds: Mapping[Genotype, float]

    @classmethod
    def load(cls, source: str | Path) -> MicroTable:
        """Read a table that ships with the package, by the name of its space, or a file.

        Raises:
            ValueError: If there is none, or it is no such table.
        """
        shipped = files("lightning_nas.micro") / f"{source}.csv"
        if isinstance(source, str) and shipped.is_file():
            return cls.parse(shipped.read_text(encoding="utf-8"), str(source))
        if not Path(source).is_file():
            raise ValueError(f"there is no micro-benchmark {str(source)!r} and no such file; known are {_shipped()}")
        return cls.parse(Path(source).read_text(encoding="utf-8"), str(source))

    @classmethod
    def parse(cls, text: str, name: str = "the table") -> MicroTable:
        """Read the text of a table.

        Raises:
            ValueError: If it is not what `write_table` writes.
        """
        head, _, body = text.partition("\n")
        try:
            setting = MicroSetting(**json.loads(head.removeprefix("# ")))
            space = setting.network_space
            rows = {space.parse(row["cell"]): row for row in csv.DictReader(io.StringIO(body))}
            values = {
                part: {
                    cell: tuple(100 * float(v) for k, v in row.items() if k.startswith(f"{part}_"))
                    for cell, row in rows.items()
                }
                for part in ("val", "test")
            }
            parameters = {cell: int(row["parameters"]) for cell, row in rows.items()}
            seconds = {cell: float(row["seconds"]) for cell, row in rows.items()}
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{name} is no table of a micro-benchmark ({error}); make one by `build_micro`") from None
        return cls(setting, values["val"], values["test"], parameters, seconds)

    @cached_property
    def _means(self) -> dict[Genotype, float]:
        """Every genotype, in each of its forms -> mean test accuracy over the seeds."""
        space = self.setting.network_space
        forms = [(cell, space.canonical(cell)) for cell in space.cells()]
        return {cell: float(np.mean(self.test[known])) for cell, known in forms if known in self.test}

    def accuracy(self, genotype: Genotype) -> float:
        """Mean test accuracy over the seeds, in percent."""
        return self._means[self.setting.network_space.check(genotype)]

    def regret(self, genotype: Genotype) -> float:
        """How many points the best cell is above this one."""
        return max(self._means.values()) - self.accuracy(genotype)

    def rank(self, genotype: Genotype) -> int:
        """The place of a cell by mean test accuracy; 1 is the best."""
        own = self.accuracy(genotype)
        return 1 + sum(self.accuracy(cell) > own for cell in self.test)

    @property
    def spread(self) -> float:
        """Points between the best and the worst cell, by mean test accuracy."""
        return max(self._means.values()) - min(self._means.values())

    @property
    def deviation(self) -> float:
        """Standard deviation of one training over its seeds, pooled over the cells, in points."""
        return float(np.sqrt(np.mean([np.var(runs, ddof=1) for runs in self.test.values()])))


def _shipped() -> str:
    names = (file.name for file in files("lightning_nas.micro").iterdir())
    return ", ".join(sorted(name.removesuffix(".csv") for name in names if name.endswith(".csv")))
