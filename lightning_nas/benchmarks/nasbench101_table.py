"""The table of NAS-Bench-101: read from the official release, from a compact file, or from a part of it."""

from __future__ import annotations

import base64
import json
import math
import os
import zipfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from lightning_nas.benchmarks.tfrecord import RECORD_FRAME, payloads, wire_fields
from lightning_nas.reports.artifacts import require_writable
from lightning_nas.reports.files import write_whole
from lightning_nas.spaces.module_hash import NB101_OPS, Matrix, module_hash, op_labels, prune

__all__ = ["Table101", "convert101", "read_table"]

Ints = NDArray[np.int64]
Module = tuple[Matrix, tuple[str, ...]]


_STEP = 1000  # records after which the bar moves


@dataclass(frozen=True)
class Table101:
    """Trained modules of NAS-Bench-101.

    Args:
        hashes: Key of each module, ``(n,)``, 32 ASCII bytes.
        matrices: Pruned adjacency matrices, ``(n, 7, 7)``; one of fewer vertices fills the upper left corner.
        ops: Operations of the inner vertices, ``(n, 5)``, indices into `NB101_OPS`; -1 where there is no vertex.
        budgets: Epochs of the trainings, ascending, ``(b,)``.
        metrics: ``(n, b, runs, 2, 4)``: halfway through a training and at its end the accuracies on training,
            validation and test pictures (fractions) and the seconds trained; NaN where they are unknown.
        parameters: Trainable parameters, ``(n,)``; -1 where they are unknown.
    """

    hashes: NDArray[np.bytes_]
    matrices: NDArray[np.uint8]
    ops: NDArray[np.int8]
    budgets: NDArray[np.int64]
    metrics: NDArray[np.floating[Any]]
    parameters: NDArray[np.int64]

    def module(self, row: int) -> tuple[list[list[int]], tuple[str, ...]]:
        """The matrix and the operations of a module, input and output included."""
        inner = [NB101_OPS[label] for label in self.ops[row] if label >= 0]
        size = len(inner) + 2
        return self.matrices[row, :size, :size].tolist(), ("input", *inner, "output")


def convert101(official: str | os.PathLike[str], out: str | os.PathLike[str], check_payloads: bool = False) -> Table101:
    """Write the official release as a compact file, which is read in a second, and print its path and its rows.

    Args:
        official: ``nasbench_only108.tfrecord`` or ``nasbench_full.tfrecord``; reading it takes minutes.
        out: The compact file to write, for example ``nasbench101.npz``; its folder is made if there is none. It is
            written whole or not at all.
        check_payloads: Whether to compare the checksums of all records, which takes minutes more.

    Returns:
        The table that was written.

    Raises:
        ValueError: If `out` does not end in ``.npz``, or the release is cut off, broken, or another file.
        OSError: If the folder of `out` cannot be written, which is tried before anything is read.
    """
    path = Path(out)
    if path.suffix != ".npz":
        raise ValueError(f"out={os.fspath(out)!r} does not end in .npz; give the name of the table to write")
    if not Path(official).is_file():
        raise ValueError(f"there is no file {os.fspath(official)!r}; give the release's .tfrecord")
    require_writable(path.parent)
    table = _from_release(official, check_payloads)
    columns = {f.name: getattr(table, f.name) for f in fields(table)}
    write_whole(path, lambda temporary: np.savez_compressed(temporary, allow_pickle=False, **columns))
    print(f"{path}\n{len(table.hashes)} architectures")
    return table


def read_table(path: str | os.PathLike[str]) -> Table101:
    """Read a table from what `convert101` wrote, from an official ``.tfrecord``, or from ``nb1shot1_ss12.npz``.

    Raises:
        ValueError: If the file is none of them.
    """
    if Path(path).suffix == ".tfrecord":
        return _from_release(path, False)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no table: {error}; give a .tfrecord of the release or an .npz") from None
    wanted = [f.name for f in fields(Table101)]
    if set(wanted) <= set(arrays):
        return Table101(*(arrays[name] for name in wanted))
    if {"adjacency", "ops", "op_names", "graph_id", "val_acc_108", "test_acc_108"} <= set(arrays):
        return _from_one_shot1(arrays)
    raise ValueError(f"{path} has the arrays {', '.join(sorted(arrays))[:80]}; a table has {', '.join(wanted)}")


def _from_release(path: str | os.PathLike[str], check: bool) -> Table101:
    """Group the records of a release, one a training, by module, budget and run."""
    rows: dict[str, int] = {}
    modules: list[Module] = []
    parameters, row_of, epochs_of, values = array("q"), array("q"), array("q"), array("f")
    for number, payload in enumerate(_shown(payloads(path, check), path)):
        try:
            key, epochs, matrix, ops, coded = json.loads(payload)
            size, measured = _measured(base64.b64decode(coded, validate=True))
            if key not in rows:
                modules.append(_read_module(key, matrix, ops, check=not rows))
                rows[key] = len(rows)
                parameters.append(size)
            row_of.append(rows[key])
            epochs_of.append(epochs)
            values.extend(measured)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}, record {number} is none of NAS-Bench-101: {str(error)[:200]}") from None
    if not rows:
        raise ValueError(f"{path} has no records; it is no release of NAS-Bench-101")
    budgets, metrics = _grouped(np.array(row_of), np.array(epochs_of), np.array(values, np.float32))
    return _table(list(rows), modules, budgets, metrics, np.array(parameters))


def _shown(found: Iterator[bytes], path: str | os.PathLike[str]) -> Iterator[bytes]:
    """The payloads, with a bar in the terminal that tells how much of the file has been read."""
    with Progress(transient=True) as bar:
        task, done = bar.add_task(f"reading {Path(path).name}", total=max(Path(path).stat().st_size, 1)), 0
        for number, payload in enumerate(found, start=1):
            done += len(payload) + RECORD_FRAME
            if number % _STEP == 0:
                bar.update(task, completed=done)
            yield payload


def _read_module(key: str, matrix: str, ops: str, check: bool) -> Module:
    """A module from the release's texts: all entries of its matrix, and its operations with commas between."""
    size = math.isqrt(len(matrix))
    module = prune([matrix[at : at + size] for at in range(0, len(matrix), size)], ops.split(","))
    if check and module_hash(*module) != key:
        raise ValueError(f"its key {key[:40]!r} is not the hash of its module")
    return module


def _measured(message: bytes) -> tuple[int, list[float]]:
    """Parameters, and training, validation and test accuracy and seconds, halfway and at the end of a training."""
    parameters, moments = -1, []
    for number, value in wire_fields(message):
        if number == 1 and isinstance(value, bytes):
            moment = dict(wire_fields(value))
            moments.append([float(moment.get(field, 0.0)) for field in (3, 4, 5, 2)])
        elif number == 2:
            parameters = int(value)
    if len(moments) != 3:
        raise ValueError(f"a training is measured {len(moments)} times and not at its start, middle and end")
    return parameters, moments[1] + moments[2]


def _grouped(rows: Ints, epochs: Ints, values: NDArray[np.float32]) -> tuple[Ints, NDArray[np.float32]]:
    """The budgets, and the values ``(trainings * 8,)`` by module, budget and run in the order of the file."""
    budgets, budget = np.unique(epochs, return_inverse=True)
    group = rows * len(budgets) + budget
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group, minlength=(rows.max() + 1) * len(budgets))
    first = np.cumsum(sizes) - sizes
    run = np.arange(len(group)) - first[group[order]]
    metrics = np.full((rows.max() + 1, len(budgets), sizes.max(), 2, 4), np.nan, np.float32)
    metrics[rows[order], budget[order], run] = values.reshape(-1, 2, 4)[order]
    return budgets, metrics


def _from_one_shot1(arrays: dict[str, NDArray[Any]]) -> Table101:
    """The distinct modules of rows with adjacency, operations and percentages of three runs of 108 epochs."""
    _, firsts = np.unique(arrays["graph_id"], return_index=True)
    firsts.sort()
    names = [str(name) for name in arrays["op_names"]]
    modules = [prune(arrays["adjacency"][row], [names[k] for k in arrays["ops"][row]]) for row in firsts]
    runs = arrays["val_acc_108"].shape[1]
    metrics = np.full((len(firsts), 1, runs, 2, 4), np.nan)
    for place, name in ((1, "val_acc_108"), (2, "test_acc_108")):
        metrics[:, 0, :, 1, place] = arrays[name][firsts].astype(float) / 100
    keys = [module_hash(*module) for module in modules]
    return _table(keys, modules, np.array([108]), metrics, np.full(len(keys), -1))


def _table(
    keys: list[str], modules: list[Module], budgets: Ints, metrics: NDArray[np.floating[Any]], parameters: Ints
) -> Table101:
    matrices = np.zeros((len(keys), 7, 7), np.uint8)
    ops = np.full((len(keys), 5), -1, np.int8)
    for row, (matrix, names) in enumerate(modules):
        if len(names) > 7:
            raise ValueError(f"module {keys[row]} has {len(names)} vertices; NAS-Bench-101 has at most 7")
        matrices[row, : len(names), : len(names)] = matrix
        ops[row, : len(names) - 2] = op_labels(names)
    return Table101(np.array(keys, "S32"), matrices, ops, budgets, metrics, parameters)
