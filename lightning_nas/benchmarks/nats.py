"""The size space of NATS-Bench as a table."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from lightning_nas.arch import Genotype
from lightning_nas.benchmarks.base import Array
from lightning_nas.benchmarks.nats_table import NATSTable
from lightning_nas.spaces.nats_size import NATSSizeSpace

__all__ = ["NATSSize"]


class NATSSize(NATSTable):
    """NATS-Bench's size space: 32,768 networks of other widths, trained for 1, 12 and 90 epochs.

    Reference: Dong, Liu, Musial and Gabrys, "NATS-Bench: Benchmarking NAS Algorithms for Architecture Topology and
    Size", TPAMI 2021.

    Args:
        path: The table that ``lightning-nas benchmark convert`` makes of the published folder, or the folder of
            ``nats_size.npz``; ``None`` for the folder that ``LIGHTNING_NAS_DATA`` names.
        training: 1, 12 or 90, the training that answers for all budgets up to its own; ``None`` for one of their own
            for 1, 12 and 90 epochs, and that of 90 for those in between.

    Raises:
        ValueError: If there is no such table or training.

    Example:
        >>> import tempfile, numpy
        >>> columns = {f"{d}_{part}_90": [70.0] for d in ("c10", "c100", "in16") for part in ("val", "test")}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     columns |= {"widths": [[8, 16, 64, 8, 32]], "train_time_s_c10val_90": [180.0]}
        ...     numpy.savez(f"{folder}/nats_size.npz", **columns)
        ...     table = NATSSize(folder)
        >>> table.query(table.space.parse("8:16:64:8:32"))
        Record(val=70.0, test=70.0, seconds=180.0, epochs=90)
    """

    name = "nats_size"
    budgets = (1, 12, 90)
    file = "nats_size.npz"
    archs = "widths"
    space: NATSSizeSpace

    def __init__(self, path: str | os.PathLike[str] | None = None, training: int | None = None) -> None:
        super().__init__(path, NATSSizeSpace(), training)

    def read_archs(self, table: Mapping[str, Array]) -> Iterator[Genotype]:
        """The genotypes of the table's rows."""
        return map(self.space.from_widths, table["widths"].tolist())
