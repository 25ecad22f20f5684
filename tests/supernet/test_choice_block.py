"""The choice-block cell against its formula in plain loops, and what it executes."""

from __future__ import annotations

import random
import re
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.arch import Sample
from lightning_nas.relaxations import Softmax
from lightning_nas.spaces import CellNetwork, CellPlace, NASBench1Shot1Space, NetworkSize
from lightning_nas.supernet.choice_block import ChoiceBlockCell

C_IN, C = 5, 4
numbers = pytest.mark.parametrize("number", [1, 2, 3])


def make(number: int, seed: int = 0) -> tuple[NASBench1Shot1Space, ChoiceBlockCell, Tensor]:
    torch.manual_seed(seed)
    space = NASBench1Shot1Space(number)
    cell = ChoiceBlockCell(space, CellPlace("cell", 0, (C_IN,), C)).double()
    for parameter in cell.parameters():
        nn.init.normal_(parameter)
    return space, cell, torch.randn(3, C_IN, 6, 6, dtype=torch.float64)


def conv_bn_relu(x: Tensor, module: nn.Module) -> Tensor:
    weight, scale, shift = module.parameters()
    x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)
    x = (x - mean) / (var + 1e-5).sqrt()
    return (x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)).clamp(min=0)


def reference(
    space: NASBench1Shot1Space, cell: ChoiceBlockCell, x: Tensor, ops: Tensor, inputs: dict[int, Tensor], output: Tensor
) -> Tensor:
    """The published forward pass: dense sums, with a zero for whatever is not taken.

    Args:
        ops: ``(blocks, 3)``.
        inputs: Block -> a weight for each of the nodes before it.
        output: A weight for the input and for each block.
    """
    states: list[Tensor] = []
    for block in range(1, space.blocks + 1):
        before = [conv_bn_relu(x, cell.projections[block - 1]), *states]
        total = torch.stack([a * h for a, h in zip(inputs[block], before, strict=True)]).sum(0)
        pool, conv3, conv1 = cell.blocks[block - 1]  # type: ignore[misc]
        assert not list(pool.parameters())
        assert [next(conv.parameters()).shape[-1] for conv in (conv3, conv1)] == [3, 1]
        candidates = [F.max_pool2d(total, 3, 1, 1), conv_bn_relu(total, conv3), conv_bn_relu(total, conv1)]
        states.append(sum(p * o for p, o in zip(ops[block - 1], candidates, strict=True)))  # type: ignore[arg-type]
    beside = torch.cat([b * h for b, h in zip(output[1:], states, strict=True)], dim=1)
    return output[0] * conv_bn_relu(x, cell.output_projection) + beside


def spread(space: NASBench1Shot1Space, sample: Sample) -> tuple[Tensor, dict[int, Tensor], Tensor]:
    """The weights of a sample as the reference takes them: zero where a choice is not active, one without weights."""
    dense: dict[str, list[Tensor]] = {}
    for group, rows in space.decisions.items():
        dense[group] = []
        for index, row in enumerate(rows):
            n = len(row.choices)
            weight = torch.ones(n, dtype=torch.float64)
            if group in sample.weights:
                weight = sample.weights[group][index, :n]
            is_open = sample.open(group)
            mask = [1.0 if is_open is None or k in is_open[index] else 0.0 for k in range(n)]
            dense[group].append(weight * torch.tensor(mask, dtype=torch.float64))
    inputs = {block: torch.ones(block, dtype=torch.float64) for block in range(1, space.blocks + 1)}
    for row, weight in zip(space.decisions["inputs"], dense["inputs"], strict=True):
        inputs[int(row.name.split("/")[1])] = weight
    return torch.stack(dense["ops"]), inputs, dense["output"][0]


def random_weights(space: NASBench1Shot1Space, groups: tuple[str, ...] = ("ops", "inputs", "output")) -> Sample:
    relaxation = Softmax(space.decisions, groups, init_std=1.0).double()
    return relaxation()


def narrowed(space: NASBench1Shot1Space, seed: int) -> Sample:
    relaxation, rng = Softmax(space.decisions, init_std=1.0, seed=seed).double(), random.Random(seed)
    for group, row, decision in list(relaxation.support.rows()):
        while len(relaxation.support.open(group)[row]) > decision.keep and rng.random() < 0.6:
            relaxation.support.drop(group, row, rng.choice(relaxation.support.open(group)[row]))
    return relaxation()


def samples(space: NASBench1Shot1Space) -> list[Sample]:
    dense = random_weights(space)
    vertices = [space.vertex(space.sample(random.Random(seed))) for seed in range(4)]
    path = {group: tuple((index % len(row.choices),) for index, row in enumerate(rows))
            for group, rows in space.decisions.items()}  # fmt: skip
    return [
        dense,
        random_weights(space, ("ops",)),
        random_weights(space, ("inputs", "output")),
        Sample({}),
        *[Sample({k: w.double() for k, w in v.weights.items()}, v.active) for v in vertices],
        Sample({}, vertices[0].active),
        Sample(dense.weights, vertices[1].active),  # weights that are not zero where a choice is not active
        Sample(dense.weights, {"output": ((0,),)}),
        Sample(dense.weights, path),
        *[narrowed(space, seed) for seed in range(4)],
    ]


@numbers
def test_values_and_gradients_are_those_of_the_formula(number: int) -> None:
    space, cell, x = make(number)
    for sample in samples(space):
        weights = {group: w.detach().requires_grad_() for group, w in sample.weights.items()}
        leaf, sample = x.clone().requires_grad_(), Sample(weights, sample.active)
        wanted = reference(space, cell, leaf, *spread(space, sample))
        found = cell((leaf,), sample)
        torch.testing.assert_close(found, wanted)
        above, with_respect_to = torch.randn_like(found), [leaf, *cell.parameters(), *weights.values()]
        grads = [
            torch.autograd.grad(out, with_respect_to, above, allow_unused=True, materialize_grads=True)
            for out in (found, wanted)
        ]
        for one, other in zip(*grads, strict=True):
            torch.testing.assert_close(one, other)


@numbers
def test_a_vertex_executes_what_leads_to_the_output_and_nothing_else(number: int) -> None:
    space, cell, x = make(number)
    ran: set[str] = set()
    for name, module in cell.named_modules():
        if re.fullmatch(r"blocks\.\d\.\d", name):
            module.register_forward_hook(lambda *_, name=name: ran.add(name))
    loose = 0
    for seed in range(12):
        genotype = space.sample(random.Random(seed))
        parents, ops = space.cell(genotype)
        reached = space.reached(genotype)
        loose += len(reached) < space.blocks
        ran.clear()
        out = cell((x,), space.vertex(genotype))
        expected = {f"blocks.{block - 1}.{ops[block - 1]}" for block in reached}
        assert ran == expected
        projected = {f"projections.{block - 1}" for block in reached if 0 in parents[block - 1]}
        projected |= {"output_projection"} if 0 in parents[-1] else set()
        cell.zero_grad()
        out.sum().backward()
        reaches = {name for name, p in cell.named_parameters() if p.grad is not None and "proj" in name}
        assert {re.sub(r"\.\d\.\w+$", "", name) for name in reaches} == projected
        if 0 not in parents[-1]:
            for block, part in enumerate(out.chunk(space.blocks, dim=1), start=1):
                assert block in parents[-1] or not bool(part.any())
    assert loose


@numbers
def test_all_projections_are_one_convolution_and_one_normalisation(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    space, cell, x = make(number)
    convolved: list[int] = []
    normalised: list[int] = []
    conv2d, batch_norm = F.conv2d, F.batch_norm

    def conv(x: Tensor, *args: Any) -> Tensor:
        convolved.append(x.shape[1])
        return conv2d(x, *args)

    def norm(x: Tensor, mean: None, var: None, scale: Tensor, *args: Any) -> Tensor:
        assert scale.is_contiguous()
        normalised.append(x.shape[1])
        return batch_norm(x, mean, var, scale, *args)

    monkeypatch.setattr(F, "conv2d", conv)
    monkeypatch.setattr(F, "batch_norm", norm)
    cell((x,), random_weights(space))
    assert convolved == [C_IN] + [C] * 2 * space.blocks
    assert normalised == [2 * space.blocks * C] + [C] * 2 * space.blocks


@numbers
def test_it_stays_in_the_memory_format_of_its_input(number: int) -> None:
    space, cell, x = make(number)
    formats: list[bool] = []
    for module in cell.blocks.modules():
        if isinstance(module, (nn.Conv2d, nn.MaxPool2d)):
            module.register_forward_hook(
                lambda _, args, out: formats.append(out.is_contiguous(memory_format=torch.channels_last))
            )
    for sample in samples(space):
        for layout in (torch.channels_last, torch.contiguous_format):
            formats.clear()
            out = cell((x.contiguous(memory_format=layout),), sample)
            assert set(formats) <= {layout == torch.channels_last}
            assert out.is_contiguous(memory_format=layout)


def test_an_empty_choice_gives_zeros() -> None:
    _, cell, x = make(1)
    nothing = Sample({}, {"output": ((),)})
    assert torch.equal(cell((x,), nothing), torch.zeros(3, 16, 6, 6, dtype=torch.float64))
    no_op = Sample({}, {"ops": ((),) * 4, "output": ((1, 2, 3, 4),)})
    assert not bool(cell((x,), no_op).any())


def test_one_state_only() -> None:
    space, cell, x = make(1)
    with pytest.raises(ValueError, match="unpack"):
        cell((x, x), space.vertex(space.sample(random.Random(0))))


def weights_of(number: int, c: int, cells: int) -> int:
    """Weights of the published supernet, counted from its description."""

    def conv_bn(c_in: int, c_out: int, kernel: int) -> int:
        return c_in * c_out * kernel**2 + 2 * c_out

    blocks = {1: 4, 2: 4, 3: 5}[number]
    total, width = conv_bn(3, c, 3), c
    for index in range(cells):
        c = 2 * c if index in (cells // 3, 2 * cells // 3) else c
        total += blocks * (conv_bn(width, c, 1) + conv_bn(c, c, 3) + conv_bn(c, c, 1)) + conv_bn(width, blocks * c, 1)
        width = blocks * c
    return total + width * c + c * 10 + 10


def supernet(number: int, c: int, cells: int) -> tuple[NASBench1Shot1Space, CellNetwork]:
    space = NASBench1Shot1Space(number)
    return space, space.network(partial(ChoiceBlockCell, space), NetworkSize(c, cells, track_stats=False))


@numbers
def test_number_of_weights(number: int) -> None:
    with torch.device("meta"):
        _, network = supernet(number, 16, 9)
    assert sum(p.numel() for p in network.parameters()) == weights_of(number, 16, 9)


@numbers
def test_a_network_of_cells_learns(number: int) -> None:
    """Every weight has a gradient under the mixture, statistics are those of the batch, and theta has one."""
    torch.manual_seed(0)
    space, network = supernet(number, 4, 3)
    relaxation = Softmax(space.decisions)
    assert not list(network.buffers())
    x = torch.randn(4, 3, 9, 9)
    out = network(x, relaxation())
    out.square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    assert all(bool(theta.grad[space_mask].all()) for theta, space_mask in masked(relaxation))
    assert torch.equal(network.eval()(x, relaxation()), out)


def masked(relaxation: Softmax) -> list[tuple[Tensor, Tensor]]:
    return [(theta, relaxation.support.mask(group)) for group, theta in relaxation.theta.items()]
