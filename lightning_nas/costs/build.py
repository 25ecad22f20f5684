"""Tables of multiply-adds, parameters and latencies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from lightning_nas.costs.latency_file import read_latencies
from lightning_nas.costs.layout import Candidate, Layout, Operation, lay_out
from lightning_nas.costs.table import CostTable, Gate
from lightning_nas.flops import count_macs, count_parameters
from lightning_nas.ops import Zero
from lightning_nas.spaces import CellSpace, NetworkSize, Space

__all__ = ["CostName", "cost_table", "is_free"]

CostName = Literal["macs", "params", "latency"]
Latencies = Mapping[Operation, float]
UNITS: dict[str, str] = {"macs": "MACs", "params": "parameters", "latency": "ms"}


def cost_table(
    space: Space,
    size: NetworkSize,
    image_size: int | None = None,
    cost: CostName = "macs",
    latencies: Latencies | str | PathLike[str] | None = None,
) -> CostTable:
    """The cost of every choice of a space, in networks of a size.

    Multiply-adds and parameters of a genotype are exactly those of its derived network. Latencies add up only as far as
    operations run one after another without influence on each other; see `compare_latencies`.

    Args:
        space: A space of cells, or of a chain of blocks.
        size: The size of the network.
        image_size: Height and width of the pictures; parameters do not need it.
        cost: ``"macs"``, ``"params"``, or ``"latency"`` in milliseconds.
        latencies: Milliseconds of each operation, or a file with them, see `read_latencies`. The skeleton counts if
            it is among them. What computes nothing (identity, `none`) needs no entry.

    Raises:
        ValueError: If the cost is unknown, the space has no table, the pictures do not fit, or latencies are missing.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> space = get_space("nasbench201")
        >>> table = cost_table(space, NetworkSize(16, 5), 32)
        >>> table.of(space.parse("|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+" + "|nor_conv_3x3~0"
        ...     "|nor_conv_3x3~1|nor_conv_3x3~2|"))
        220119680.0
    """
    if cost not in UNITS:
        raise ValueError(f"unknown cost {cost!r}; allowed are {', '.join(UNITS)}")
    if image_size is None and cost != "params":
        raise ValueError(f"cost={cost!r} depends on the pictures; give image_size, their height and width")
    layout = lay_out(space, size, image_size)
    if cost == "latency":
        price, fixed = _latency_price(layout, latencies, _command(space, size, image_size))
    elif cost == "macs":
        price = _macs
        fixed = float(count_macs(layout.skeleton, _shape(layout.operation)))
    else:
        price, fixed = _parameters, float(count_parameters(layout.skeleton))
    rows = {group: torch.zeros(*_table_shape(space, group), dtype=torch.float64) for group in _groups(space)}
    known: dict[tuple[Operation, bool], float] = {}
    for c in layout.candidates:
        key = c.operation, c.shortcut
        if key not in known:
            known[key] = price(c)
        rows[c.group][c.row, c.choice] += known[key]
    return CostTable(space.decisions, rows, fixed, UNITS[cost], _gates(space))


def is_free(candidate: Candidate) -> bool:
    """Whether a candidate computes nothing: an identity, or `none`."""
    with torch.device("meta"):
        return isinstance(candidate.build(), (nn.Identity, Zero))


def _macs(candidate: Candidate) -> float:
    with torch.device("meta"):
        return float(count_macs(candidate.build(), _shape(candidate.operation)))


def _parameters(candidate: Candidate) -> float:
    with torch.device("meta"):
        return float(count_parameters(candidate.build()))


def _latency_price(
    layout: Layout, latencies: Latencies | str | PathLike[str] | None, command: str
) -> tuple[Callable[[Candidate], float], float]:
    """The look-up of a latency, and that of the skeleton, if everything is there."""
    if latencies is None:
        raise ValueError(f"cost='latency' needs a file of latencies; measure them: {command}")
    if not isinstance(latencies, Mapping) and not Path(latencies).is_file():
        raise ValueError(f"no file of latencies at {latencies}; measure them: {command} --out {latencies}")
    source = "the given latencies" if isinstance(latencies, Mapping) else str(latencies)
    known = latencies if isinstance(latencies, Mapping) else read_latencies(latencies)
    unknown = {c.operation: c for c in layout.candidates if c.operation not in known}
    missing = [operation for operation, c in unknown.items() if not is_free(c)]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise ValueError(f"no latency of {missing[0]}{more} in {source}; measure them: {command}")
    return lambda c: known.get(c.operation, 0.0), known.get(layout.operation, 0.0)


def _command(space: Space, size: NetworkSize, image_size: int | None) -> str:
    options = {"space": space.name, "channels": size.channels, "cells": size.cells, "image_size": image_size}
    options |= {"num_classes": size.num_classes, "in_channels": size.in_channels, "stem": size.stem}
    return "lightning-nas latency " + " ".join(f"--{name} {value}" for name, value in options.items())


def _shape(operation: Operation) -> tuple[int, int, int]:
    return operation.in_channels, operation.height, operation.width


def _groups(space: Space) -> tuple[str, ...]:
    """The groups of decisions among operations."""
    return space.kinds if isinstance(space, CellSpace) else tuple(space.decisions)


def _table_shape(space: Space, group: str) -> tuple[int, int]:
    decisions = space.decisions[group]
    return len(decisions), max(len(d.choices) for d in decisions)


def _gates(space: Space) -> dict[str, tuple[Gate, ...]]:
    """For each edge the decision whether its end takes it, where nodes choose among their inputs."""
    if not isinstance(space, CellSpace) or space.keep_inputs is None:
        return {}
    first = space.topology.inputs
    return {
        kind: tuple((space.input_group(kind), target - first, source) for target, source in space.topology.edges)
        for kind in space.kinds
    }
