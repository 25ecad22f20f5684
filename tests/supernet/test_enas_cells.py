"""The searched cell of ENAS against its formula in plain loops, and what it executes."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toys import one_line

from lightning_nas.arch import Genotype, Sample
from lightning_nas.relaxations import Softmax
from lightning_nas.spaces import CellPlace, ENASMicroSpace, get_space
from lightning_nas.supernet import build_supernet
from lightning_nas.supernet.enas_cells import ENASCell

C = 4
PLACES = {
    "first": CellPlace("normal", 0, (6, 6), C),
    "normal": CellPlace("normal", 2, (C, C), C),
    "after a reduction": CellPlace("normal", 3, (6, C), C, reduced_before=True),
    "reduction": CellPlace("reduce", 4, (C, 6), C, reduction=True),
    "two reductions": CellPlace("reduce", 5, (6, C), C, reduction=True, reduced_before=True),
}
places = pytest.mark.parametrize("name", PLACES)


def make(name: str, blocks: int = 3) -> tuple[ENASMicroSpace, ENASCell, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    space, place = ENASMicroSpace(blocks), PLACES[name]
    cell = ENASCell(space, place).double()
    for parameter in cell.parameters():
        nn.init.normal_(parameter)
    sides = (16 if place.reduced_before else 8, 8)
    states = [
        torch.randn(3, c, side, side, dtype=torch.float64) for c, side in zip(place.in_channels, sides, strict=True)
    ]
    return space, cell, (states[0], states[1])


# --- the formula, with operations of its own


def norm(x: Tensor) -> Tensor:
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)
    return (x - mean) / (var + 1e-5).sqrt()


def separable(x: Tensor, op: nn.Module) -> Tensor:
    deep1, point1, deep2, point2 = op.parameters()
    for deep, point in ((deep1, point1), (deep2, point2)):
        x = F.conv2d(x.clamp(min=0), deep, padding=deep.shape[-1] // 2, groups=x.shape[1])
        x = norm(F.conv2d(x, point))
    return x


def pooled(x: Tensor, average: bool) -> Tensor:
    windows = F.unfold(F.pad(x, (1, 1, 1, 1), value=torch.nan), 3).view(*x.shape[:2], 9, *x.shape[2:])
    return windows.nanmean(2) if average else windows.nan_to_num(-torch.inf).amax(2)


def prepared(module: nn.Module, x: Tensor, halvings: int) -> Tensor:
    """The preparation of an input, by the weights it has."""
    weights = list(module.parameters())
    if halvings:
        for first, second in zip(weights[::2], weights[1::2], strict=True):
            x = x.clamp(min=0)
            x = norm(torch.cat([F.conv2d(x[..., ::2, ::2], first), F.conv2d(x[..., 1::2, 1::2], second)], dim=1))
        assert len(weights) == 2 * halvings
        return x
    return norm(F.conv2d(x.clamp(min=0), *weights)) if weights else x


def reference(
    place: CellPlace, cell: ENASCell, states: tuple[Tensor, Tensor], a: Tensor, taken: Tensor, p: Tensor
) -> Tensor:
    """Dense sums with a zero for whatever is not taken.

    Args:
        a: ``(rows, nodes)``, the weights of the inputs.
        taken: The same as they count for loose ends.
        p: ``(rows, 5)``, the weights of the operations.
    """
    halvings = (place.reduced_before + place.reduction, int(place.reduction))
    h = [prepared(m, x, times) for m, x, times in zip(cell.preprocess, states, halvings, strict=True)]
    for block in range(len(p) // 2):
        total = torch.zeros_like(h[0])
        for row in (2 * block, 2 * block + 1):
            for j, x in enumerate(h):
                sep3, sep5, *rest = cell.edges[row][j]  # type: ignore[index,misc]
                assert [next(op.parameters()).shape[-1] for op in (sep3, sep5)] == [3, 5]
                assert not [w for op in rest for w in op.parameters()]
                outs = [separable(x, sep3), separable(x, sep5), pooled(x, True), pooled(x, False), x]
                for weight, out in zip(p[row], outs, strict=True):
                    total = total + a[row, j] * weight * out
        h.append(total)
    joined = torch.zeros_like(h[0])
    for j, x in enumerate(h):
        loose = torch.stack([1 - taken[row, j] for row in range(len(p))]).prod()
        joined = joined + F.conv2d(loose * x.clamp(min=0), cell.combine[j].weight)  # type: ignore[arg-type]
    return norm(joined)


def spread(space: ENASMicroSpace, kind: str, sample: Sample) -> tuple[Tensor, Tensor, Tensor]:
    """What the reference takes: zero where a choice is not active, one where a group has no weights."""
    dense = []
    for group, width in ((f"{kind}/inputs", 2 + space.blocks), (f"{kind}/ops", 5)):
        rows = space.decisions[group]
        out = torch.zeros(len(rows), width, dtype=torch.float64)
        is_open = sample.open(group) or [range(len(row.choices)) for row in rows]
        mask = torch.zeros_like(out)
        for index, kept in enumerate(is_open):
            mask[index, list(kept)] = 1.0
        weight = torch.ones_like(out)
        if group in sample.weights:
            given = sample.weights[group]
            weight = F.pad(given, (0, width - given.shape[1]))
        dense.append((mask, mask * weight))
    (mask, a), (_, p) = dense
    alone = mask.sum(1, keepdim=True) == 1
    return a, torch.where(alone, mask, a), p


def samples(space: ENASMicroSpace, kind: str) -> list[Sample]:
    dense = Softmax(space.decisions, init_std=1.0).double()()
    vertices = [space.vertex(space.sample(random.Random(seed))) for seed in range(4)]
    out = [
        dense,
        Softmax(space.decisions, (f"{kind}/ops",), init_std=1.0).double()(),
        Softmax(space.decisions, (f"{kind}/inputs",), init_std=1.0).double()(),
        Sample({}),
        *[Sample({k: w.double() for k, w in v.weights.items()}, v.active) for v in vertices],
        Sample({}, vertices[0].active),
        Sample(dense.weights, vertices[1].active),  # weights that are not one where nothing else is active
        Sample(dense.weights, {f"{kind}/ops": ((), *[(0, 4)] * (2 * space.blocks - 1))}),  # a row with nothing
    ]
    for seed in range(4):
        narrowed, rng = Softmax(space.decisions, init_std=1.0, seed=seed).double(), random.Random(seed)
        for group, row, _ in list(narrowed.support.rows()):
            while len(narrowed.support.open(group)[row]) > 1 and rng.random() < 0.6:
                narrowed.support.drop(group, row, rng.choice(narrowed.support.open(group)[row]))
        out.append(narrowed())
    return out


@places
def test_values_and_gradients_are_those_of_the_formula(name: str) -> None:
    space, cell, states = make(name)
    place = PLACES[name]
    for sample in samples(space, place.kind):
        groups = (f"{place.kind}/inputs", f"{place.kind}/ops")
        weights = {g: w.detach().requires_grad_() for g, w in sample.weights.items() if g in groups}
        sample = Sample(weights, sample.active)
        leaves = (states[0].clone().requires_grad_(), states[1].clone().requires_grad_())
        wanted = reference(place, cell, leaves, *spread(space, place.kind, sample))
        found = cell(leaves, sample)
        assert found.shape == (3, C, *[4 if place.reduction else 8] * 2)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
        above, with_respect_to = torch.randn_like(found), [*leaves, *cell.parameters(), *weights.values()]
        grads = [
            torch.autograd.grad(out, with_respect_to, above, allow_unused=True, materialize_grads=True)
            for out in (found, wanted)
        ]
        for one, other in zip(*grads, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


def test_the_looseness_of_a_mixture_is_the_chance_of_a_draw() -> None:
    """Over all draws of inputs, the share in which a node is a loose end is its looseness."""
    space = ENASMicroSpace(2)
    weights = Softmax(space.decisions, init_std=1.0).double().mean()["normal/inputs"]
    a = F.pad(weights, (0, 1))
    for node in range(4):
        share = 0.0
        for first in range(2):
            for second in range(2):
                for third in range(3):
                    for fourth in range(3):
                        drawn = (first, second, third, fourth)
                        chance = torch.stack([a[row, j] for row, j in enumerate(drawn)]).prod()
                        share += float(chance) * (node not in drawn)
        assert share == pytest.approx(float((1 - a[:, node]).prod()), abs=1e-12)


def kept_parameters(space: ENASMicroSpace, genotype: Genotype, kind: str) -> set[str]:
    """The names of what a genotype needs: operations with weights, and slices for its loose ends."""
    sides = [side for block in space.cell(genotype, kind) for side in block]
    ops = {f"edges.{row}.{source}.{op}." for row, (source, op) in enumerate(sides) if op < 2}
    return ops | {f"combine.{node}." for node in space.loose_ends(genotype, kind)}


@places
def test_only_what_a_vertex_keeps_gets_a_gradient(name: str) -> None:
    space, cell, states = make(name, blocks=5)
    kind = PLACES[name].kind
    for seed in range(5):
        genotype = space.sample(random.Random(seed))
        cell.zero_grad(set_to_none=True)
        cell(states, space.vertex(genotype)).square().sum().backward()
        reached = {path for path, p in cell.named_parameters() if p.grad is not None and not path.startswith("prep")}
        kept = kept_parameters(space, genotype, kind)
        assert {next((k for k in kept if path.startswith(k)), path) for path in reached} == kept
        assert all(p.grad is not None for path, p in cell.named_parameters() if path.startswith(tuple(kept)))
        # inputs are always reached: what no block takes is a loose end
        assert all(p.grad is not None for p in cell.preprocess.parameters())


def test_a_closed_choice_is_as_if_it_were_not_there() -> None:
    """Its weights may be anything, NaN included."""
    space, cell, states = make("normal")
    relaxation = Softmax(space.decisions, init_std=1.0).double()
    relaxation.support.drop("normal/ops", 3, 0)
    relaxation.support.drop("normal/inputs", 4, 2)
    before = cell(states, relaxation())
    for module in (*[edge[0] for edge in cell.edges[3]], cell.edges[4][2]):  # type: ignore[union-attr,index]
        for p in module.parameters():
            p.data.fill_(torch.nan)
    assert torch.equal(cell(states, relaxation()), before)


def test_weights_are_of_each_row_and_input() -> None:
    """Per cell 2 (2 + 3 + 4 + 5 + 6) places with two separable convolutions each; seven slices of the last 1x1."""
    cell = ENASCell(ENASMicroSpace(), PLACES["normal"])
    separables = sum(2 * (k * k * C + C * C) for k in (3, 5))
    assert sum(p.numel() for p in cell.parameters()) == 40 * separables + 7 * C * C


def test_options_that_the_space_does_not_have_are_refused() -> None:
    for options, words in (
        ({"partial": 2}, ("partial=2", "'enas_micro'", "leave them at 1")),
        ({"checkpoint": True}, ("checkpoint=True", "'enas_micro'", "leave them")),
    ):
        with pytest.raises(ValueError) as caught:
            build_supernet(get_space("enas_micro"), channels=4, cells=1, **options)  # type: ignore[arg-type]
        one_line(caught.value, *words)
