"""Steps of search methods against the published way on the same supernet: ``python tests/benchmarks/bench_steps.py``.

The reference runs the plain loop over edges and candidates, in the memory format of the pictures, as the published
codes do. Both sides have the same weights, samples and batches, and take turns; medians and their ratio are printed.

- ``second``: one step of second-order DARTS by finite difference, weight step included;
- ``exact``: ours by automatic differentiation, against the published finite difference;
- ``drnas``: one step of DrNAS, its sampling included;
- ``pt``: one decision of perturbation-based selection, every operation of an edge left out in turn.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from cases import compared, run_cases
from loops import loop_supernet

from lightning_nas.arch import Sample
from lightning_nas.hypergradients import FiniteDifference, FirstOrder, Unrolled
from lightning_nas.methods import DifferentiableSearch
from lightning_nas.methods.alone import alone
from lightning_nas.relaxations import Dirichlet, Softmax
from lightning_nas.spaces.darts import DARTSSpace
from lightning_nas.supernet import build_supernet, evaluate_samples

Step = Callable[[], object]


def batch_of(size: int, side: int) -> dict[str, tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(1)
    return {
        part: (torch.randn(size, 3, side, side, generator=draw), torch.arange(size) % 10) for part in ("w", "theta")
    }


def stepper(looped: bool, relaxation: Any, hypergradient: Any, given: argparse.Namespace) -> Step:
    """A step of a search, with our supernet or with the loop."""
    space = DARTSSpace(nodes=given.nodes)
    torch.manual_seed(0)
    supernet = (loop_supernet if looped else build_supernet)(space, given.channels, given.cells)
    search = alone(DifferentiableSearch(space, relaxation, hypergradient, supernet=supernet))
    batch = batch_of(given.batch, given.side)
    return lambda: search.training_step(batch, 0)


def decision(looped: bool, given: argparse.Namespace) -> Step:
    """The accuracy of the supernet without each operation of one edge; gives the operation whose loss hurts most."""
    space = DARTSSpace(nodes=given.nodes)
    torch.manual_seed(0)
    supernet = (loop_supernet if looped else build_supernet)(space, given.channels, given.cells)
    mixture = Softmax(space.decisions, space.relaxed).mean_sample()
    samples = []
    for choice in range(1, 8):
        weights = {group: rows.clone() for group, rows in mixture.weights.items()}
        weights["normal"][2, choice] = 0.0
        active = tuple(tuple(k for k in range(8) if (row, k) != (2, choice)) for row in range(len(weights["normal"])))
        samples.append(Sample(weights, None if looped else {"normal": active}))
    x = batch_of(given.batch, given.side)["theta"][0]

    def ours() -> Tensor:
        return evaluate_samples(supernet, x, samples)

    def published() -> Tensor:
        with torch.no_grad():
            return torch.stack([supernet(x, sample) for sample in samples])

    return published if looped else ours


CASES: dict[str, Callable[[argparse.Namespace], tuple[Step, Step]]] = {
    "second": lambda a: (
        stepper(False, Softmax, FiniteDifference(), a),
        stepper(True, Softmax, FiniteDifference(), a),
    ),
    "exact": lambda a: (stepper(False, Softmax, Unrolled(), a), stepper(True, Softmax, FiniteDifference(), a)),
    "drnas": lambda a: (stepper(False, Dirichlet, FirstOrder(), a), stepper(True, Dirichlet, FirstOrder(), a)),
    "pt": lambda a: (decision(False, a), decision(True, a)),
}


def measure(pair: tuple[Step, Step], repeats: int) -> dict[str, Any]:
    """Medians over interleaved runs, after one of each that does not count."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats + 1):
        for step, kept in zip(pair, times, strict=True):
            start = time.perf_counter()
            step()
            if turn:
                kept.append(time.perf_counter() - start)
    return compared(*times)


def sizes(given: argparse.Namespace) -> None:
    numbers = (4, 3, 8, 4, 2) if given.small else (16, 8, 32, 16, 4)
    given.channels, given.cells, given.side, given.batch, given.nodes = numbers


def main(argv: list[str] | None = None) -> None:
    run_cases(__doc__, CASES, measure, sizes, argv)


if __name__ == "__main__":
    main()
