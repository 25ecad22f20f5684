"""The macro skeletons: where reductions stand, what passes between blocks, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from lightning_nas.spaces import CellPlace, DARTSSpace, NASBench201Space, NetworkSize, get_space
from lightning_nas.spaces.base import CellTopology
from lightning_nas.spaces.cell_space import CellSpace


class Fake(nn.Module):
    """A cell that remembers the shapes of its inputs and returns zeros of the shape it has to give."""

    def __init__(self, place: CellPlace, multiplier: int) -> None:
        super().__init__()
        self.place, self.multiplier, self.seen = place, multiplier, []

    def forward(self, states: tuple[Tensor, ...], sample: object = None) -> Tensor:
        self.seen.append([tuple(state.shape[1:]) for state in states])
        n, _, height, width = states[-1].shape
        step = 2 if self.place.reduction else 1
        return torch.zeros(n, self.multiplier * self.place.channels, height // step, width // step)


@pytest.mark.parametrize(
    ("cells", "at"),
    [(8, (2, 5)), (20, (6, 13)), (14, (4, 9)), (5, (1, 3)), (11, (3, 7)), (17, (5, 11)), (2, (0, 1)), (1, (0,))],
)
def test_darts_reduces_at_thirds_of_the_depth(cells: int, at: tuple[int, ...]) -> None:
    places: list[CellPlace] = []
    network = DARTSSpace().network(lambda p: places.append(p) or Fake(p, 4), NetworkSize(4, cells))
    assert tuple(p.index for p in places if p.reduction) == at
    assert all((p.kind == "reduce") == p.reduction for p in places)
    assert [p.reduced_before for p in places] == [False, *(p.reduction for p in places[:-1])]
    assert network.reductions == len(at)
    assert places[-1].channels == 4 * 2 ** len(at)
    assert network.num_features == 4 * places[-1].channels


@pytest.mark.parametrize(("stem", "first"), [("cifar", (12, 64)), ("imagenet", (4, 8))])
def test_darts_cells_receive_what_they_were_told(stem: str, first: tuple[int, int]) -> None:
    size = replace(NetworkSize(4, 8), stem=stem)
    network = DARTSSpace().network(lambda place: Fake(place, 4), size)
    network(torch.zeros(1, 3, 64, 64))
    for block in network.blocks:
        (before, last), place = block.seen[0], block.place
        assert (before[0], last[0]) == place.in_channels
        assert before[1] == last[1] * (2 if place.reduced_before else 1)
    assert network.blocks[0].seen[0][1] == (first[0], first[1], first[1])


def test_nasbench201_has_three_stages() -> None:
    places: list[CellPlace] = []
    network = NASBench201Space().network(lambda p: places.append(p) or Fake(p, 1), NetworkSize(16, 5))
    assert [p.channels for p in places] == [16] * 5 + [32] * 5 + [64] * 5
    assert [p.index for p in places] == list(range(15))
    assert len(network.blocks) == 17
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert network.blocks[-1].seen[0] == [(64, 8, 8)]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"channels": 5}, "channels=5: reductions halve them; give an even number"),
        ({"channels": 0}, "channels=0"),
        ({"cells": 0}, "cells=0"),
        ({"num_classes": -1}, "num_classes=-1"),
        ({"in_channels": 0}, "in_channels=0"),
        ({"stem": "mnist"}, "unknown stem 'mnist'; allowed are 'cifar' and 'imagenet'"),
    ],
)
def test_sizes_that_cannot_be_are_refused(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(NetworkSize(4, 8), **wrong)


@pytest.mark.parametrize(
    ("space", "stem", "factor"),
    [("darts", "cifar", 4), ("darts", "imagenet", 32), ("nasbench201", "cifar", 4), ("nasbench201", "imagenet", 16)],
)
def test_pictures_must_be_divisible_as_often_as_the_network_halves_them(space: str, stem: str, factor: int) -> None:
    cell_space = get_space(space)
    assert isinstance(cell_space, CellSpace)
    multiplier = 4 if space == "darts" else 1
    network = cell_space.network(lambda p: Fake(p, multiplier), replace(NetworkSize(4, 3), stem=stem))
    assert network(torch.zeros(1, 3, factor, 2 * factor)).shape == (1, 10)
    for shape in ((factor + 1, factor), (factor, factor + factor // 2)):
        with pytest.raises(ValueError, match=f"must be multiples of {factor}: resize or pad"):
            network(torch.zeros(1, 3, *shape))


def test_no_classes_leave_pooled_features() -> None:
    network = DARTSSpace().network(lambda p: Fake(p, 4), NetworkSize(4, 3, num_classes=0))
    assert network(torch.zeros(2, 3, 8, 8)).shape == (2, network.num_features)


def test_without_statistics_evaluation_uses_those_of_the_batch() -> None:
    network = DARTSSpace().network(lambda p: Fake(p, 4), NetworkSize(4, 3, track_stats=False))
    x = torch.randn(16, 3, 8, 8) * 5 + 3
    stem = network.eval().stem(x)[0]
    assert torch.allclose(stem.mean((0, 2, 3)), torch.zeros(12), atol=1e-5)
    assert not list(network.stem.buffers())


def test_a_topology_lists_its_edges_target_by_target() -> None:
    topology = CellTopology(2, 4)
    assert len(topology.edges) == 14
    assert [topology.rows_into(node).start for node in range(2, 6)] == [0, 2, 5, 9]
    for node in range(2, 6):
        assert [topology.edges[row] for row in topology.rows_into(node)] == [(node, source) for source in range(node)]


def test_a_space_refuses_unknown_operations() -> None:
    with pytest.raises(ValueError, match="unknown operation 'warp'; known are"):
        DARTSSpace("mine", ("none", "warp"))


@pytest.mark.parametrize(
    ("ops", "words"),
    [
        ({"normal": (("none",),) * 14}, r"ops\['reduce'\] has 0 lists; give one for each of the 14 edges"),
        ({"normal": (("none",),) * 13, "reduce": (("none",),) * 14}, r"ops\['normal'\] has 13 lists"),
        ({"normal": (("none",),) * 14, "reduce": (("warp",),) * 14}, "unknown operation 'warp'"),
    ],
)
def test_lists_must_fit_the_edges(ops: dict[str, tuple[tuple[str, ...], ...]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DARTSSpace("mine", ops)
