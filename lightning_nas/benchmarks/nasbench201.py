"""NAS-Bench-201: all 15,625 cells of its space, trained on three data sets."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from lightning_nas.arch import Genotype
from lightning_nas.benchmarks.base import Array, read_npz
from lightning_nas.benchmarks.nats import NATSTable
from lightning_nas.spaces.nasbench201 import NASBench201Space

__all__ = ["NASBench201"]


class NASBench201(NATSTable):
    """The topology space of NAS-Bench-201 and NATS-Bench, trained for 12 and for 200 epochs.

    The training of 12 epochs is one of its own, with its own learning rates: not the first 12 epochs of the other. On
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
        latency: A table of milliseconds on devices; ``None`` for ``nb201_latency_ms.npz`` beside the table, if it is
            there.

    Raises:
        ValueError: If there is no such table, or the tables do not belong together.

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
    ) -> None:
        super().__init__(path, NASBench201Space())
        self._beside = tuple(None if path is None else Path(path).absolute() for path in (runs, latency))
        if runs is not None or self._correct is None:
            self._take_runs(self._table_beside(runs, "nb201_runs.npz"))
        milliseconds = self._table_beside(latency, "nb201_latency_ms.npz")
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
        return type(self), (self.path, *self._beside)

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
        if any(len(values) != len(self) for values in table.values()):
            raise ValueError(f"{found} has not the {len(self)} rows of {self.path}; leave it out, or take its own")
        return table
