"""NAS-Bench-201: all 15,625 cells of its space, trained on three data sets."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from lightning_nas.arch import Genotype
from lightning_nas.benchmarks.base import Array, read_npz
from lightning_nas.benchmarks.nats_table import NATSTable
from lightning_nas.spaces.nasbench201 import NASBench201Space

__all__ = ["NASBench201"]


class NASBench201(NATSTable):
    """The topology space of NAS-Bench-201 and NATS-Bench, trained for 12 and for 200 epochs.

    The training of 12 epochs is one of its own, with its own learning rates: not the first 12 epochs of the other.
    With ``training=12`` its curve answers for 1 to 11 epochs too, as the published BOHB has them; tables converted from
    the published files have that curve on all three data sets. On
    CIFAR-10 the validation accuracy is that of a training on half of the training pictures, the test accuracy that of
    a training on all of them. The best validation and the best test accuracy need not be those of one cell.

    A query costs the seconds of the training, for CIFAR-10 that on half of the training pictures, and of one
    validation where the table has its time: tables converted from the published files do, others may not.

    Reference: Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search",
    ICLR 2020; Dong, Liu, Musial and Gabrys, "NATS-Bench", TPAMI 2021.

    Args:
        path: The table that ``lightning-nas benchmark convert`` makes of the published files, or the folder of
            ``nb201.npz``; ``None`` for the folder that ``LIGHTNING_NAS_DATA`` names.
        runs: A table of single runs; ``None`` for ``nb201_runs.npz`` beside the table, if it is there.
        latency: A table of milliseconds on devices, an ``.npz`` with a column for each; ``None`` for
            ``nb201_latency_ms.npz`` beside the table, if it is there. A column ``arch`` of architectures as text says
            which row is whose; without it the rows must be those of the table, in the official order.
        training: 12 or 200, the training that answers for all budgets up to its own; ``None`` for one of their own for
            12 and 200 epochs, and that of 200 for those in between.

    Raises:
        ValueError: If there is no such table or training, or the tables do not belong together.

    Example:
        >>> import tempfile, numpy
        >>> columns = {f"{d}_{part}_200": [90.0] for d in ("c10", "c100", "in16") for part in ("val", "test")}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     names = numpy.array(["skip_connect", "nor_conv_3x3"])
        ...     numpy.savez(f"{folder}/nb201.npz", ops=[[0, 1, 0, 1, 0, 0]], op_names=names, **columns)
        ...     table = NASBench201(folder)
        >>> [table.space.format(genotype) for genotype in table.genotypes()]
        ['|skip_connect~0|+|nor_conv_3x3~0|skip_connect~1|+|nor_conv_3x3~0|skip_connect~1|skip_connect~2|']
        >>> table.best("cifar100")
        (90.0, 90.0)
    """

    name = "nasbench201"
    budgets = (12, 200)
    file = "nb201.npz"
    archs = "ops"
    space: NASBench201Space

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        runs: str | os.PathLike[str] | None = None,
        latency: str | os.PathLike[str] | None = None,
        training: int | None = None,
    ) -> None:
        super().__init__(path, NASBench201Space(), training)
        self._beside = tuple(None if path is None else Path(path).absolute() for path in (runs, latency))
        if runs is not None or self._correct is None:
            self._take_runs(self._table_beside(runs, "nb201_runs.npz"))
        milliseconds = self._by_arch(self._table_beside(latency, "nb201_latency_ms.npz"))
        self._metrics.update({f"latency_{device}_ms": values for device, values in milliseconds.items()})

    def read_archs(self, table: Mapping[str, Array]) -> Iterator[Genotype]:
        """The genotypes of the table's rows."""
        names = [str(name) for name in table.get("op_names", self.space.ops)]
        unknown = sorted(set(names) - set(self.space.ops))
        if unknown or table["ops"].ndim != 2 or table["ops"].shape[1] != 6:
            raise ValueError(f"{self.path} is no table of cells with six of {self.space.ops}; get or make it again")
        index = [self.space.ops.index(name) for name in names]
        rows = [row.name for row in self.space.decisions["cell"]]
        for ops in table["ops"].tolist():
            yield Genotype(self.space.name, {name: (index[op],) for name, op in zip(rows, ops, strict=True)})

    def metrics(self, genotype: Genotype) -> dict[str, float]:
        """What the table knows of a network besides its training.

        Returns:
            ``params_m`` and ``flops_m``, parameters and multiply-adds of the CIFAR-10 network in millions, and for each
            device of the latency table ``latency_<device>_ms``, milliseconds.

        Raises:
            ValueError: If the table has no such architecture.
        """
        return super().metrics(genotype)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.path, *self._beside, self.training)

    def _take_runs(self, single: Mapping[str, Array]) -> None:
        if not single:
            return
        lacking = sorted({"n_runs", "c10_val_correct_of_25000"} - set(single))
        if lacking or (self._n_runs is not None and (self._n_runs != single["n_runs"]).any()):
            raise ValueError(f"the table of single runs is not that of {self.path}; leave it out, or take its own")
        self._correct, self._n_runs = single["c10_val_correct_of_25000"], single["n_runs"]

    def _table_beside(self, path: str | os.PathLike[str] | None, name: str) -> dict[str, Array]:
        found = self.path.with_name(name) if path is None else Path(path)
        if not found.is_file():
            if path is None:
                return {}
            raise ValueError(f"there is no file {os.fspath(path)!r}; leave it out, or give the path of {name}")
        table = read_npz(found)
        if "arch" not in table and any(len(values) != len(self) for values in table.values()):
            raise ValueError(f"{found} has not the {len(self)} rows of {self.path}; leave it out, or take its own")
        return table

    def _by_arch(self, columns: dict[str, Array]) -> dict[str, Array]:
        """The columns in the order of this table, where they have texts of architectures; NaN for the others."""
        if (texts := columns.pop("arch", None)) is None:
            return columns
        try:
            rows = np.array([self._row(self.space.parse(str(text))) for text in texts], dtype=np.int64)
        except ValueError as error:
            raise ValueError(f"the table of latencies does not fit: {error}; leave it out, or take its own") from None
        if len(set(rows.tolist())) < len(rows) or any(len(values) != len(rows) for values in columns.values()):
            raise ValueError(
                f"the table of latencies has {len(rows)} architectures, some of them twice or with columns of another"
                " length; give each one row"
            )
        joined = {name: np.full(len(self), np.nan) for name in columns}
        for name, values in columns.items():
            joined[name][rows] = values
        return joined
