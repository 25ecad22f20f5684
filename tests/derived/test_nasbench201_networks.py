"""The networks of NAS-Bench-201 against the closed form of their sizes.

With `n1` and `n3` convolutions of 1x1 and 3x3 in the cell, the benchmark's tables follow for CIFAR-10
``73306 + 28000 n1 + 243040 n3`` parameters and ``7.78305M + 3.93216M n1 + 35.38944M n3`` operations. They count the
ten additions of the classifier's bias among the multiply-adds.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import combinations_with_replacement, product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lightning_nas.arch import Genotype
from lightning_nas.derived import DerivedNetwork
from lightning_nas.flops import count_macs, count_parameters
from lightning_nas.spaces import NB201_OPS, NASBench201Space

SPACE = NASBench201Space()
BIAS = 10


def genotype_of(ops: Iterable[int]) -> Genotype:
    return SPACE.from_rows({"cell": dict(enumerate(ops))})


def closed_form(ops: Iterable[int]) -> tuple[int, int]:
    names = [NB201_OPS[op] for op in ops]
    n1, n3 = names.count("nor_conv_1x1"), names.count("nor_conv_3x3")
    return 73_306 + 28_000 * n1 + 243_040 * n3, 7_783_050 + 3_932_160 * n1 + 35_389_440 * n3


def measured(ops: Iterable[int]) -> tuple[int, int]:
    with torch.device("meta"):
        network = DerivedNetwork(genotype_of(ops), space=SPACE)
    parameters = count_parameters(network)
    for part in list(network.modules()):  # norms have no multiply-adds to count, and are slow on the meta device
        for child, layer in list(part.named_children()):
            if isinstance(layer, nn.BatchNorm2d):
                setattr(part, child, nn.Identity())
    return parameters, count_macs(network, (3, 32, 32)) + BIAS


@pytest.mark.parametrize("edge", range(6))
@pytest.mark.parametrize("op", range(5))
def test_every_operation_on_every_edge(op: int, edge: int) -> None:
    ops = [1] * 6
    ops[edge] = op
    assert measured(ops) == closed_form(ops)


def test_every_mixture_of_operations_in_one_arrangement() -> None:
    """All 210 ways to fill six edges with five operations, each on edges drawn at random."""
    rng = random.Random(0)
    for ops in combinations_with_replacement(range(5), 6):
        placed = rng.sample(ops, 6)
        assert measured(placed) == closed_form(placed)


@pytest.mark.parametrize(("op", "parameters", "macs"), [(3, 1.531546, 220.12), (1, 0.073306, 7.78)])
def test_the_largest_and_the_smallest_cell(op: int, parameters: float, macs: float) -> None:
    found = measured([op] * 6)
    assert found[0] == round(parameters * 1e6)
    assert round(found[1] / 1e6, 2) == macs


def test_the_closed_form_is_that_of_the_benchmark(benchmark_data: Path) -> None:
    table = benchmark_data / "nb201.npz"
    if not table.is_file():
        pytest.skip(f"no benchmark table {table}; set LIGHTNING_NAS_DATA to a folder with it")
    with np.load(table, allow_pickle=False) as data:
        ops, params, flops = data["ops"].tolist(), data["params_m"], data["flops_m"]
    expected = np.array([closed_form(row) for row in ops]) / 1e6
    np.testing.assert_allclose(params, expected[:, 0], rtol=1e-6)
    np.testing.assert_allclose(flops, expected[:, 1], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_all_15625_networks() -> None:
    wrong = [ops for ops in product(range(5), repeat=6) if measured(ops) != closed_form(ops)]
    assert not wrong, f"{len(wrong)} networks differ, the first {wrong[:3]}"
