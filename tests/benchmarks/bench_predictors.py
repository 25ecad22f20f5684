"""Predictors against the plain way of computing the same, and whole searches with them.

``python tests/benchmarks/bench_predictors.py``. Both sides run in one process, take turns, and give the same numbers;
medians and their ratio are printed.

- ``ensemble``: the published ensemble of BANANAS fitted as one batched model, against its members one after another,
  each a plain `nn.Sequential` in a fit of its own;
- ``encode``: path encodings of many cells, against a search for the paths of each cell by itself; both bring the cells
  to graphs first, which takes most of the time;
- ``paths``: the same without that;
- ``gcn``: scores of all 15,625 cells of NAS-Bench-201 by a graph convolution network in one pass, against one cell at a
  time, which is measured on every 25th cell and its time multiplied by 25.

Two more cases, ``bananas`` and ``brp_nas``, have one side only: the CPU time of one run of a preset to 150 labels of
NAS-Bench-201, whose table must be in the folder LIGHTNING_NAS_DATA.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import torch
from cases import compared, run_cases
from torch import Tensor, nn

from lightning_nas.arch import Genotype
from lightning_nas.benchmarks import NASBench201
from lightning_nas.oracles import TableOracle
from lightning_nas.query import Searcher
from lightning_nas.query.encoders import GraphEncoder, Graphs, PathEncoder, select
from lightning_nas.query.encoders.path import paths_of
from lightning_nas.query.predictors.fitting import Learner, fit_quietly
from lightning_nas.query.predictors.mlp import BatchedMLP, member_seeds
from lightning_nas.query.predictors.neural import NeuralPredictor
from lightning_nas.query.searchers import BANANAS, BRPNAS
from lightning_nas.spaces import get_space
from lightning_nas.spaces.operation_graph import INPUT, OUTPUT, OperationGraph, cell_graph

Side = Callable[[], Tensor]
SPACE = "nasbench101"


class Sides(NamedTuple):
    """Two ways to the same numbers; the second may compute every so many of them only, and is then scaled up."""

    ours: Side
    reference: Side
    every: int = 1


Run = Callable[[], dict[str, Any]]


class PlainMLP(Learner):
    """One member of a `BatchedMLP` as layers of torch, with its first weights and its order of rows."""

    def __init__(self, batched: BatchedMLP) -> None:
        super().__init__()
        self.x, self.y, self.order = batched.x, batched.y, batched.orders[0]
        layers: list[nn.Module] = []
        for weight in batched.weights:
            layer = nn.Linear(*weight.shape[1:])
            with torch.no_grad():
                layer.weight.copy_(weight[0].T)
                layer.bias.zero_()
            layers += [layer, nn.ReLU()]
        self.network = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x).squeeze(1)

    def loss(self, rows: Tensor) -> Tensor:
        own = self.order[rows]
        return (self(self.x[own]) - self.y[own]).abs().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01, betas=(0.9, 0.99), fused=True)


def ensemble(given: argparse.Namespace) -> Sides:
    rng = torch.Generator().manual_seed(0)
    x = (torch.rand(given.labels, 155, generator=rng) < 0.1).float()
    y, seeds = x[:, :20].sum(dim=1), member_seeds(0, 5)

    def fitted(model: Any) -> Tensor:
        return fit_quietly(model, len(x), 32, given.passes, seed=0)(x)

    def ours() -> Tensor:
        return fitted(BatchedMLP(x, y, seeds))

    def one_after_another() -> Tensor:
        return torch.stack([fitted(PlainMLP(BatchedMLP(x, y, [seed]))) for seed in seeds])

    return Sides(ours, one_after_another)


def ways(graph: OperationGraph, operations: tuple[str, ...]) -> list[int]:
    """The numbers of all paths of a cell, by a search in depth."""
    found, left = [], [(graph.labels.index(INPUT), 0, 1)]
    while left:
        vertex, number, power = left.pop()
        for source, target in graph.edges:
            if source == vertex and graph.labels[target] == OUTPUT:
                found.append(number)
            elif source == vertex:
                place = operations.index(graph.labels[target]) + 1
                left.append((target, number + power * place, power * len(operations)))
    return found


def encode(given: argparse.Namespace) -> Sides:
    space = get_space(SPACE)
    encoder, rng = PathEncoder(space), random.Random(0)
    genotypes = [space.sample(rng) for _ in range(given.cells)]

    def one_by_one() -> Tensor:
        features = torch.zeros(len(genotypes), encoder.block)
        for row, genotype in enumerate(genotypes):
            (cell,) = space.graphs(genotype).values()
            features[row, ways(cell_graph(cell), encoder.operations)] = 1.0
        return features

    return Sides(lambda: encoder.encode(genotypes), one_by_one)


def paths(given: argparse.Namespace) -> Sides:
    space = get_space(SPACE)
    encoder, rng = PathEncoder(space), random.Random(0)
    graphs = [cell_graph(cell) for _ in range(given.cells) for cell in space.graphs(space.sample(rng)).values()]
    base = len(encoder.operations)
    batch = Graphs.stack(graphs, (*encoder.operations, OUTPUT, INPUT))

    def ours() -> Tensor:
        numbers, there = paths_of(batch, base + 1, base, base)
        features = torch.zeros(len(graphs), encoder.block + 1)
        return features.scatter_(1, torch.where(there, numbers, encoder.block), 1.0)[:, :-1]

    def one_by_one() -> Tensor:
        features = torch.zeros(len(graphs), encoder.block)
        for row, graph in enumerate(graphs):
            features[row, ways(graph, encoder.operations)] = 1.0
        return features

    return Sides(ours, one_by_one)


def gcn(given: argparse.Namespace) -> Sides:
    encoder, every = GraphEncoder("nasbench201"), 25
    rows = encoder.space.decisions["cell"]
    choices = product(range(5), repeat=len(rows))
    cells = [Genotype("nasbench201", {row.name: (k,) for row, k in zip(rows, ops, strict=True)}) for ops in choices]
    graphs = encoder(random.Random(0).sample(cells, given.scored))
    predictor = NeuralPredictor(passes=1).fit(select(graphs, slice(0, 20)), torch.arange(20.0))
    some = [select(graphs, slice(k, k + 1)) for k in range(0, len(graphs), every)]

    def one_by_one() -> Tensor:
        return torch.cat([predictor.predict(graph).mean for graph in some])

    return Sides(lambda: predictor.predict(graphs).mean, one_by_one, every)


def whole_run(preset: Callable[..., Searcher], small: dict[str, int], given: argparse.Namespace) -> Run:
    """A search in the table, from its first label to its last; in the small form with such arguments."""

    def run() -> dict[str, Any]:
        try:
            table = NASBench201()
        except (ValueError, OSError) as error:
            return {"skipped": str(error)}
        oracle, start = TableOracle(table, "cifar10", seed=0), time.process_time()
        searcher = preset(table.space, **(small if given.small else {}))
        for _ in range(given.trials):
            searcher.tell([oracle(trial) for trial in searcher.ask()])
        return {"ours_s": time.process_time() - start, "labels": given.trials}

    return run


CASES: dict[str, Callable[[argparse.Namespace], Sides | Run]] = {
    "ensemble": ensemble,
    "encode": encode,
    "paths": paths,
    "gcn": gcn,
    "bananas": partial(whole_run, BANANAS, {"initial": 5, "batch": 5, "passes": 2}),
    "brp_nas": partial(whole_run, BRPNAS, {"initial": 5, "batch": 5, "passes": 2, "width": 8}),
}


def measure(case: Sides | Run, repeats: int) -> dict[str, Any]:
    """Medians over interleaved runs, after one of each that does not count, and how far the results are apart.

    A case of one side runs once.
    """
    if not isinstance(case, Sides):
        return case()
    times: tuple[list[float], list[float]] = ([], [])
    ours, reference = case.ours(), case.reference()
    for _ in range(repeats):
        for side, scale, kept in zip(case[:2], (1, case.every), times, strict=True):
            start = time.process_time()
            side()
            kept.append(scale * (time.process_time() - start))
    return compared(*times) | {"off": float((ours[:: case.every] - reference).abs().median())}


def sizes(given: argparse.Namespace) -> None:
    given.labels, given.passes, given.cells = (20, 3, 50) if given.small else (100, 150, 2000)
    given.scored, given.trials = (100, 12) if given.small else (15_625, 150)


def main(argv: list[str] | None = None) -> None:
    run_cases(__doc__, CASES, measure, sizes, argv)


if __name__ == "__main__":
    main()
