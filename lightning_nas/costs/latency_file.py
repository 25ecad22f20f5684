"""Latencies of operations as a file that a person can read and write."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from os import PathLike
from pathlib import Path
from typing import Any

import yaml

from lightning_nas.costs.layout import Operation
from lightning_nas.reports.files import write_whole

__all__ = ["read_latencies", "require_suffix", "write_latencies"]

_COLUMNS = (*(f.name for f in fields(Operation)), "ms")
_EXAMPLE = "op,in_channels,out_channels,height,width,stride,ms and sep_conv_3x3,16,16,32,32,1,0.84"


def read_latencies(path: str | PathLike[str]) -> dict[Operation, float]:
    """Read milliseconds of operations from a file.

    A CSV file has a line with the names of the columns, ``op,in_channels,out_channels,height,width,stride,ms``, in any
    order, and a line for each operation; lines that begin with ``#`` are passed over. JSON and YAML files are lists of
    mappings with these keys.

    Args:
        path: A file whose name ends in ``.csv``, ``.json``, ``.yaml`` or ``.yml``.

    Raises:
        ValueError: If the file is of no such form; the message says what is wrong and where.
        OSError: If it cannot be read.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "phone.csv")
        >>> _ = write_latencies(file, {Operation("sep_conv_3x3", 16, 16, 32, 32, 1): 0.84})
        >>> print(file.read_text().strip())
        op,in_channels,out_channels,height,width,stride,ms
        sep_conv_3x3,16,16,32,32,1,0.84
        >>> read_latencies(file)[Operation("sep_conv_3x3", 16, 16, 32, 32, 1)]
        0.84
    """
    file = Path(path)
    require_suffix(file)
    if not file.is_file():
        raise ValueError(f"no file of latencies at {file}; measure them with 'lightning-nas latency --out {file}'")
    latencies: dict[Operation, float] = {}
    for number, entry in _entries(file):
        operation, ms = _read_entry(f"{file}, entry {number}", entry)
        if operation in latencies:
            raise ValueError(f"{file}, entry {number}: {operation} has an entry before; give one")
        latencies[operation] = ms
    if not latencies:
        raise ValueError(f"{file} holds no latencies; expected lines like {_EXAMPLE}")
    return latencies


def write_latencies(
    path: str | PathLike[str], latencies: Mapping[Operation, float], notes: Mapping[str, object] | None = None
) -> Path:
    """Write what `read_latencies` reads; notes become comments at the top of a CSV file.

    Raises:
        ValueError: If the name of the file ends in something else.
        OSError: If it cannot be written.
    """
    file, rows = Path(path), [asdict(op) | {"ms": ms} for op, ms in latencies.items()]
    require_suffix(file)
    if file.suffix == ".json":
        return write_whole(file, lambda new: new.write_text(json.dumps(rows, indent=1), encoding="utf-8"))
    if file.suffix in (".yaml", ".yml"):
        return write_whole(file, lambda new: new.write_text(yaml.safe_dump(rows, sort_keys=False), encoding="utf-8"))

    def write(new: Path) -> None:
        with new.open("w", encoding="utf-8", newline="") as out:
            out.writelines(f"# {name}: {note}\n" for name, note in (notes or {}).items())
            writer = csv.DictWriter(out, _COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    return write_whole(file, write)


def require_suffix(file: Path) -> None:
    """Refuse a file whose name does not say in which of the forms it is.

    Raises:
        ValueError: If it ends in something else.
    """
    if file.suffix not in (".csv", ".json", ".yaml", ".yml"):
        raise ValueError(f"{file}: latencies are kept in .csv, .json or .yaml files; give a name that ends so")


def _entries(file: Path) -> Iterable[tuple[int, Mapping[str, Any]]]:
    """The entries of a file with their numbers, the first being 1."""
    text = file.read_text(encoding="utf-8")
    if file.suffix in (".json", ".yaml", ".yml"):
        try:
            content = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
        except (ValueError, yaml.YAMLError) as error:
            raise ValueError(f"{file} cannot be read: {' '.join(str(error).split())}") from None
        if not isinstance(content, list) or not all(isinstance(entry, Mapping) for entry in content):
            raise ValueError(f"{file} must be a list of mappings with the keys {', '.join(_COLUMNS)}")
        return enumerate(content, start=1)
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return enumerate(csv.DictReader(lines, skipinitialspace=True), start=1)


def _read_entry(where: str, entry: Mapping[str, Any]) -> tuple[Operation, float]:
    lacking = [name for name in _COLUMNS if entry.get(name) in (None, "")]
    if lacking:
        raise ValueError(f"{where} lacks {', '.join(lacking)}; expected lines like {_EXAMPLE}")
    try:
        numbers = [int(entry[name]) for name in _COLUMNS[1:-1]]
        ms = float(entry["ms"])
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{where}: {error}; channels, height, width and stride are whole numbers, ms a number"
        ) from None
    if min(numbers) < 0 or not math.isfinite(ms) or ms < 0:
        raise ValueError(f"{where}: numbers must not be negative, and ms finite, not {ms}")
    return Operation(str(entry["op"]).strip(), *numbers), ms
