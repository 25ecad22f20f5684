"""Checkpointed cells, many samples on one batch, and options that a space does not have."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from toys import one_line

from lightning_nas.arch import Sample
from lightning_nas.relaxations import Softmax
from lightning_nas.spaces import CellNetwork, CellSpace, get_space
from lightning_nas.supernet import MixedCell, build_supernet, evaluate_samples

everywhere = pytest.mark.parametrize("name", ["darts", "nasbench201", "nasbench1shot1_1"])


def supernet(name: str, **options: bool) -> CellNetwork:
    torch.manual_seed(0)
    return build_supernet(get_space(name), channels=4, cells=1 if name == "nasbench201" else 3, **options)


def batch(side: int = 8) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(2)
    return torch.randn(4, 3, side, side, generator=draw), torch.arange(4)


def gradients(network: nn.Module, state: dict[str, Tensor], theta: list[nn.Parameter], sample: Sample) -> list[Tensor]:
    x, y = batch()
    loss = F.cross_entropy(functional_call(network, state, (x, sample)), y)
    return list(torch.autograd.grad(loss, [*state.values(), *theta], allow_unused=True, materialize_grads=True))


@pytest.mark.parametrize("name", ["darts", "nasbench201"])
def test_checkpointed_cells_give_the_same_gradients_and_keep_less(name: str) -> None:
    plain, checkpointed = supernet(name), supernet(name, checkpoint=True)
    space = get_space(name)
    relaxation = Softmax(space.decisions, space.relaxed, init_std=1.0)
    theta = list(relaxation.theta.values())
    assert list(plain.state_dict()) == list(checkpointed.state_dict())
    kept = []
    for scale in (1.0, 1.5):  # live weights, and virtual ones, which are gone when the backward pass runs
        state = {key: (scale * p.detach()).requires_grad_() for key, p in plain.named_parameters()}
        found = []
        for network in (plain, checkpointed):
            saved: list[int] = []
            with torch.autograd.graph.saved_tensors_hooks(lambda t, s=saved: s.append(t.numel()) or t, lambda t: t):  # type: ignore[misc]
                functional_call(network, state, (batch()[0], relaxation()))
            kept.append(sum(saved))
            found.append(gradients(network, state, theta, relaxation()))
        for one, other in zip(*found, strict=True):
            assert torch.equal(one, other)
    assert kept[1] < kept[0] / 2
    assert kept[3] < kept[2] / 2


@everywhere
def test_many_samples_are_evaluated_as_one_by_one_and_without_a_graph(name: str) -> None:
    network, space, rng = supernet(name), get_space(name), random.Random(1)
    samples = [space.vertex(space.sample(rng)) for _ in range(3)]
    relaxation = Softmax(space.decisions, space.relaxed, init_std=1.0)
    samples.append(relaxation())
    x, _ = batch()
    logits = evaluate_samples(network, x, samples)
    assert not logits.requires_grad
    assert logits.shape == (4, 4, 10)
    for one, sample in zip(logits, samples, strict=True):
        torch.testing.assert_close(one, network(x, sample))
    assert not torch.allclose(logits[0], logits[3])


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError) as caught:
        evaluate_samples(supernet("darts"), batch()[0], [])
    one_line(caught.value, "no samples", "at least one")


@pytest.mark.parametrize(
    ("name", "partial", "words"),
    [
        ("darts", 3, ("partial=3", "4 channels", "divisor")),
        ("darts", 0, ("partial=0", "divisor")),
        ("nasbench1shot1_2", 2, ("partial=2", "nasbench1shot1_2", "leave it at 1")),
    ],
)
def test_partial_channels_that_are_not_possible_are_refused(name: str, partial: int, words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as caught:
        build_supernet(get_space(name), channels=4, cells=3, partial=partial)
    one_line(caught.value, *words)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*non-leaf Tensor.*:UserWarning")
@pytest.mark.parametrize("name", ["darts", "nasbench201"])
def test_compiled_cells_give_the_same_gradients(name: str) -> None:
    plain, compiled = supernet(name), supernet(name, compile=True)
    space = get_space(name)
    assert isinstance(space, CellSpace)
    assert any(isinstance(block, MixedCell) for block in compiled.blocks)
    relaxation = Softmax(space.decisions, space.relaxed, init_std=1.0)
    theta, (x, y) = list(relaxation.theta.values()), batch()
    found = []
    for network in (plain, compiled):
        loss = F.cross_entropy(network(x, relaxation()), y)
        found.append(torch.autograd.grad(loss, [*network.parameters(), *theta]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
