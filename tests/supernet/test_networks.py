"""Supernets of the spaces: vertices, batch statistics, gradients, shapes."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from toys import one_line

from lightning_nas.arch import Genotype, Sample
from lightning_nas.relaxations import Softmax
from lightning_nas.spaces import CellNetwork, CellSpace, Space, get_space
from lightning_nas.supernet import MixedCell, build_supernet

SPACES = ["darts", "darts_no_none", "nasbench201"]
everywhere = pytest.mark.parametrize("name", SPACES)


def supernet_of(name: str, **size: int) -> tuple[CellSpace, CellNetwork]:
    space = get_space(name)
    assert isinstance(space, CellSpace)
    torch.manual_seed(0)
    return space, build_supernet(space, **{"channels": 4, "cells": 1 if name == "nasbench201" else 3} | size)


def pictures(count: int = 4, side: int = 8) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def genotypes(space: Space, count: int) -> list[Genotype]:
    rng = random.Random(0)
    return [space.sample(rng) for _ in range(count)]


@everywhere
def test_a_vertex_equals_the_same_weights_with_everything_executed(name: str) -> None:
    space, supernet = supernet_of(name)
    supernet.double()
    outputs = []
    for genotype in genotypes(space, 4):
        vertex = space.vertex(genotype)
        assert vertex.active is not None
        outputs.append(supernet(pictures(), vertex))
        torch.testing.assert_close(outputs[-1], supernet(pictures(), Sample(vertex.weights)), rtol=0, atol=1e-12)
        torch.testing.assert_close(outputs[-1], supernet(pictures(), Sample({}, vertex.active)), rtol=0, atol=1e-12)
    assert not torch.allclose(outputs[0], outputs[1])


@everywhere
def test_a_resolved_support_equals_the_vertex(name: str) -> None:
    """Narrowed to one architecture, a relaxation of any parameters is that architecture."""
    space, supernet = supernet_of(name)
    supernet.double()
    relaxation = Softmax(space.decisions, space.relaxed, init_std=1.0).double()
    (genotype,) = genotypes(space, 1)
    for group, row, decision in list(relaxation.support.rows()):
        relaxation.support.set_row(group, row, genotype.picks.get(decision.name, (0,)))
    torch.testing.assert_close(
        supernet(pictures(), relaxation()), supernet(pictures(), space.vertex(genotype)), rtol=0, atol=1e-12
    )


@everywhere
def test_a_closed_choice_is_as_if_it_were_not_there(name: str) -> None:
    """Its weights may be anything, NaN included."""
    space, supernet = supernet_of(name)
    relaxation = Softmax(space.decisions, space.relaxed)
    kind, ops = space.kinds[0], space.decisions[space.kinds[0]][0].choices
    conv = next(k for k, op in enumerate(ops) if "conv" in op)
    relaxation.support.drop(kind, 0, conv)
    before = supernet(pictures().float(), relaxation())
    for block in supernet.blocks:
        if isinstance(block, MixedCell) and block.kind == kind:
            for p in block.edges[0][conv].parameters():  # type: ignore[index]
                p.data.fill_(torch.nan)
    assert torch.equal(supernet(pictures().float(), relaxation()), before)


@pytest.mark.parametrize("relax_inputs", [False, True], ids=["edges", "edges and inputs"])
@everywhere
def test_a_dense_sample_reaches_every_weight(name: str, relax_inputs: bool) -> None:
    space, supernet = supernet_of(name)
    supernet.double()
    relaxation = Softmax(space.decisions, None if relax_inputs else space.relaxed, init_std=1.0).double()
    F.cross_entropy(supernet(pictures(), relaxation()), torch.tensor([0, 1, 2, 3])).backward()
    for path, p in supernet.named_parameters():
        assert p.grad is not None, path
        assert bool(p.grad.isfinite().all()), path
        if p.dim() > 1:
            assert bool(p.grad.abs().sum() > 0), path
    for theta in relaxation.theta.values():
        assert theta.grad is not None
        assert bool((theta.grad.abs().sum(-1) > 0).all())


@everywhere
def test_evaluation_uses_the_statistics_of_the_batch_as_training_does(name: str) -> None:
    space, supernet = supernet_of(name)
    supernet.double()
    assert list(supernet.buffers()) == []
    sample = space.vertex(genotypes(space, 1)[0])
    state = {key: value.clone() for key, value in supernet.state_dict().items()}
    training, evaluation = supernet.train()(pictures(), sample), supernet.eval()(pictures(), sample)
    assert torch.equal(training, evaluation)
    alone = supernet(pictures()[:2], sample)
    assert not torch.allclose(alone, evaluation[:2])  # so the other pictures of a batch do matter
    assert all(torch.equal(value, state[key]) for key, value in supernet.state_dict().items())


@pytest.mark.parametrize(
    ("name", "kinds", "features", "side"),
    [
        ("darts", ["normal", "reduce", "reduce"], 64, 4),
        ("darts_no_none", ["normal", "reduce", "reduce"], 64, 4),
        ("nasbench201", ["cell", "cell", "cell"], 16, 4),
    ],
)
def test_shapes(name: str, kinds: list[str], features: int, side: int) -> None:
    space, supernet = supernet_of(name, num_classes=7, in_channels=1)
    assert [block.kind for block in supernet.blocks if isinstance(block, MixedCell)] == kinds
    sample = Softmax(space.decisions, space.relaxed)()
    x = torch.randn(2, 1, 16, 16)
    assert supernet.forward_features(x, sample).shape == (2, features, side, side)
    assert supernet(x, sample).shape == (2, 7)
    assert supernet.reductions == 2


def test_the_published_sizes_are_the_defaults() -> None:
    with torch.device("meta"):
        darts, nasbench = (build_supernet(get_space(name)) for name in ("darts", "nasbench201"))
    assert [block.kind[0] for block in darts.blocks] == list("nnrnnrnn")  # type: ignore[union-attr]
    assert sum(isinstance(block, MixedCell) for block in nasbench.blocks) == 15
    assert darts.classifier.out_features == nasbench.classifier.out_features == 10


@everywhere
def test_pictures_that_cannot_be_halved_are_refused(name: str) -> None:
    space, supernet = supernet_of(name)
    with pytest.raises(ValueError) as caught:
        supernet(torch.zeros(2, 3, 8, 10), space.vertex(genotypes(space, 1)[0]))
    one_line(caught.value, "8x10", "halved 2 times", "multiples of 4", "resize or pad")


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ({"channels": 3}, ("channels=3", "even")),
        ({"channels": 0}, ("channels=0", "at least 2")),
        ({"cells": 0}, ("cells=0", "at least 1")),
        ({"in_channels": 0}, ("in_channels=0", "at least 1")),
        ({"num_classes": -1}, ("num_classes=-1", "at least 0")),
    ],
)
@everywhere
def test_sizes_that_are_not_allowed_are_refused(name: str, size: dict[str, int], words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as caught:
        supernet_of(name, **size)
    one_line(caught.value, *words)
