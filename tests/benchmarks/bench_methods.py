"""Parts of search methods against their published way of working: ``python tests/benchmarks/bench_methods.py``.

A case is a function that gives its rows, found by name in `CASES`. A row is measured as a whole and says what it found
as plain figures: ``ours_ms``, ``reference_ms``, their ``ratio`` (ours / reference: below one is better), and what else
makes the comparison fair.

- ``eigenvalue``: the dominant eigenvalue of the Hessian in the architecture parameters, of the DARTS supernet, by
  `dominant_eigenvalue` with its defaults; reference: the matrix by double backward, a product for each row, and its
  eigenvalues. Reference and ours differentiate the same supernet. `off` is the relative difference of the values. With
  ``--rows`` the time of the matrix is that of some rows in proportion, and there is no `off`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from lightning_nas.relaxations import Softmax
from lightning_nas.sharpness import dominant_eigenvalue, hessian_product
from lightning_nas.spaces.darts import DARTSSpace
from lightning_nas.supernet import build_supernet

Entry = dict[str, Any]
"""A row as plain figures."""


@dataclass(frozen=True)
class Given:
    """What the command line says."""

    small: bool
    repeats: int
    rows: int | None


@dataclass(frozen=True)
class Row:
    """A comparison."""

    case: str
    label: str
    against: str
    measure: Callable[[Given], Entry]


# --- eigenvalue


@dataclass(frozen=True)
class Supernet:
    """A DARTS supernet, its pictures, and how long its weights have been trained on them."""

    channels: int = 16
    cells: int = 8
    side: int = 32
    batch: int = 16
    nodes: int = 4
    steps: int = 2
    init_std: float = 1e-3

    def loss(self) -> tuple[Callable[[], Tensor], list[nn.Parameter]]:
        """The loss on the pictures, and the architecture parameters."""
        torch.manual_seed(0)
        space = DARTSSpace(nodes=self.nodes)
        network = build_supernet(space, self.channels, self.cells)
        relaxation = Softmax(space.decisions, space.relaxed, init_std=self.init_std)
        x, y = torch.randn(self.batch, 3, self.side, self.side), torch.arange(self.batch) % 10

        def loss() -> Tensor:
            return F.cross_entropy(network(x, relaxation()), y)

        optimizer = torch.optim.SGD(network.parameters(), lr=0.025, momentum=0.9)
        for _ in range(self.steps):
            optimizer.zero_grad()
            loss().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return loss, list(relaxation.theta.values())


def eigenvalue(setting: Supernet, given: Given) -> Entry:
    loss, theta = setting.loss()
    size = sum(parameter.numel() for parameter in theta)
    hessian_product(loss, theta)(torch.ones(size))  # code is loaded
    rows = size if given.rows is None else min(given.rows, size)
    started = time.perf_counter()
    product = hessian_product(loss, theta)
    recorded = time.perf_counter() - started
    matrix = torch.stack([product(row) for row in torch.eye(size)[:rows]])
    spent = time.perf_counter() - started - recorded
    exact = float(torch.linalg.eigvalsh((matrix + matrix.T) / 2)[-1]) if rows == size else math.nan
    dense = recorded + spent * size / rows
    del product
    times = []
    for _ in range(given.repeats):
        started = time.perf_counter()
        found = dominant_eigenvalue(loss, theta)
        times.append(time.perf_counter() - started)
    off = abs(found.value - exact) / abs(exact)
    figures = {"products": found.products, "value": found.value, "off": off, "rows": rows, "of_rows": size}
    return {"ours_ms": 1e3 * statistics.median(times), "reference_ms": 1e3 * dense, **figures}


def eigenvalues(small: bool) -> list[Row]:
    base = Supernet(4, 3, 8, 4, nodes=2) if small else Supernet()
    settings = [base, replace(base, init_std=0.5)]
    settings += [] if small else [replace(base, batch=64), replace(base, batch=4, side=16)]
    return [
        Row(
            "eigenvalue",
            f"{s.cells} cells, {s.channels} ch, {s.side}x{s.side}, batch {s.batch}, alpha std {s.init_std:g}",
            "dense double backward",
            lambda given, s=s: eigenvalue(s, given),  # type: ignore[misc]
        )
        for s in settings
    ]


# --- all cases


CASES: dict[str, Callable[[bool], list[Row]]] = {"eigenvalue": eigenvalues}
"""Name -> function that gives the rows, small ones for a test if asked to."""


def table(entries: Sequence[Entry]) -> Table:
    result = Table(title="ours / reference")
    for name in ("case", "of", "reference"):
        result.add_column(name)
    for name in ("ours ms", "ref. ms", "ratio", "more"):
        result.add_column(name, justify="right")
    known = {"case", "label", "reference", "ours_ms", "reference_ms", "ratio"}
    for e in entries:
        more = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in e.items() if k not in known)
        times = [f"{e['ours_ms']:.1f}", f"{e['reference_ms']:.1f}", f"{e['ratio']:.3f}"]
        result.add_row(e["case"], e["label"], e["reference"], *times, more)
    return result


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", default=",".join(CASES), help=f"some of {','.join(CASES)}")
    parser.add_argument("--threads", type=int, default=1, help="number of threads")
    parser.add_argument("--repeats", type=int, default=1, help="runs of which the median is taken")
    parser.add_argument("--rows", type=int, default=None, help="eigenvalue: rows of the matrix that are timed (all)")
    parser.add_argument("--only", type=int, default=None, help="only the row of this number of each case")
    parser.add_argument("--small", action="store_true", help="tiny networks")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    given = parser.parse_args(argv)
    given.cases = given.cases.split(",")
    unknown = set(given.cases) - set(CASES)
    if unknown:
        parser.error(f"unknown cases {sorted(unknown)}; known are {', '.join(CASES)}")
    return given


def main(argv: Sequence[str] | None = None) -> None:
    options, entries = arguments(argv), list[Entry]()
    torch.set_num_threads(options.threads)
    given = Given(options.small, options.repeats, options.rows)
    for case in options.cases:
        rows = CASES[case](options.small)
        for row in rows if options.only is None else rows[options.only : options.only + 1]:
            print(f"{row.case}: {row.label}", file=sys.stderr, flush=True)
            found = row.measure(given)
            about = {"case": row.case, "label": row.label, "reference": row.against}
            entries.append(about | found | {"ratio": found["ours_ms"] / found["reference_ms"]})
    Console(width=190).print(table(entries))
    about = {"torch": torch.__version__, "machine": platform.machine(), "cpus": os.cpu_count()}
    about |= {"threads": options.threads, "small": options.small}
    if options.json is not None:
        options.json.write_text(json.dumps(about | {"rows": entries}, indent=1))


if __name__ == "__main__":
    main()
