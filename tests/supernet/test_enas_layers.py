"""The searched layers of the macro space of ENAS against their formula in plain loops, and what they execute."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toys import one_line

from lightning_nas.arch import Sample
from lightning_nas.relaxations import Softmax
from lightning_nas.spaces import CellPlace, ENASMacroSpace, get_space
from lightning_nas.supernet import build_supernet
from lightning_nas.supernet.enas_layers import ENASLayers

C = 4
sizes = pytest.mark.parametrize("layers", [3, 5, 7])


def make(layers: int) -> tuple[ENASMacroSpace, ENASLayers, Tensor]:
    torch.manual_seed(0)
    space = ENASMacroSpace(layers)
    body = ENASLayers(space, CellPlace("network", 0, (C,), C)).double()
    for parameter in body.parameters():
        nn.init.normal_(parameter)
    return space, body, torch.randn(3, C, 16, 16, dtype=torch.float64)


def norm(x: Tensor) -> Tensor:
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)
    return (x - mean) / (var + 1e-5).sqrt()


def operation(x: Tensor, op: nn.Module, name: str) -> Tensor:
    first, *rest = op.parameters()
    x = norm(F.conv2d(x, first)).clamp(min=0)
    kernel = int(name[-1])
    if "pool" in name:
        assert not rest
        windows = F.unfold(F.pad(x, (1, 1, 1, 1), value=torch.nan), 3).view(*x.shape[:2], 9, *x.shape[2:])
        return windows.nanmean(2) if "avg" in name else windows.nan_to_num(-torch.inf).amax(2)
    assert rest[0].shape == (C, 1 if "sep" in name else C, kernel, kernel)
    x = F.conv2d(x, rest[0], padding=kernel // 2, groups=C if "sep" in name else 1)
    for point in rest[1:]:
        x = F.conv2d(x, point)
    return norm(x).clamp(min=0)


def reference(body: ENASLayers, x: Tensor, p: Tensor, s: dict[tuple[int, int], Tensor]) -> Tensor:
    """All operations and all skips, with a zero for what is not taken; at each third every map is halved.

    Args:
        p: ``(layers, 6)``.
        s: The weight of each skip.
    """
    names = ("conv_3x3", "sep_conv_3x3", "conv_5x5", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3")
    count = len(p)
    maps: list[Tensor] = []
    for layer in range(count):
        if layer in (count // 3, 2 * (count // 3)):
            at = 0 if layer == count // 3 else 1
            halved = []
            for module, h in zip(body.reductions[at], maps, strict=True):  # type: ignore[call-overload]
                one, other = module.parameters()
                h = h.clamp(min=0)
                halved.append(
                    norm(torch.cat([F.conv2d(h[..., ::2, ::2], one), F.conv2d(h[..., 1::2, 1::2], other)], 1))
                )
            maps = halved
        source = maps[-1] if layer else x
        outs = [operation(source, op, name) for op, name in zip(body.ops[layer], names, strict=True)]  # type: ignore[arg-type]
        own = sum(weight * out for weight, out in zip(p[layer], outs, strict=True))
        if layer:
            joined = torch.cat([*[s[layer, j] * h for j, h in enumerate(maps)], own], dim=1)  # type: ignore[list-item]
            kernel = torch.cat([conv.weight for conv in body.joins[layer]], dim=1)  # type: ignore[union-attr]
            own = norm(F.conv2d(joined, kernel)).clamp(min=0)
        maps.append(own)  # type: ignore[arg-type]
    return maps[-1]


def spread(space: ENASMacroSpace, sample: Sample) -> tuple[Tensor, dict[tuple[int, int], Tensor]]:
    """What the reference takes: zero where a choice is not active, one where a group has no weights."""
    dense = {}
    for group, rows in space.decisions.items():
        width = len(rows[0].choices)
        is_open = sample.open(group) or [range(width)] * len(rows)
        mask = torch.tensor([[float(k in kept) for k in range(width)] for kept in is_open], dtype=torch.float64)
        dense[group] = mask * sample.weights.get(group, torch.ones_like(mask))
    return dense["ops"], {pair: dense["skips"][row, 1] for row, pair in enumerate(space.pairs)}


def samples(space: ENASMacroSpace) -> list[Sample]:
    dense = Softmax(space.decisions, init_std=1.0).double()()
    vertices = [space.vertex(space.sample(random.Random(seed))) for seed in range(4)]
    none = space.parse(" ".join("0" for _ in space.order))
    out = [
        dense,
        Softmax(space.decisions, ("ops",), init_std=1.0).double()(),
        Softmax(space.decisions, ("skips",), init_std=1.0).double()(),
        Sample({}),
        *[Sample({k: w.double() for k, w in v.weights.items()}, v.active) for v in (*vertices, space.vertex(none))],
        Sample({}, vertices[0].active),
        Sample(dense.weights, vertices[1].active),
        Sample(dense.weights, {"ops": ((), *[(0, 5)] * (space.layers - 1))}),  # a layer with nothing but its skips
    ]
    for seed in range(3):
        narrowed, rng = Softmax(space.decisions, init_std=1.0, seed=seed).double(), random.Random(seed)
        for group, row, _ in list(narrowed.support.rows()):
            while len(narrowed.support.open(group)[row]) > 1 and rng.random() < 0.5:
                narrowed.support.drop(group, row, rng.choice(narrowed.support.open(group)[row]))
        out.append(narrowed())
    return out


@sizes
def test_values_and_gradients_are_those_of_the_formula(layers: int) -> None:
    space, body, x = make(layers)
    for sample in samples(space):
        weights = {group: w.detach().requires_grad_() for group, w in sample.weights.items()}
        leaf, sample = x.clone().requires_grad_(), Sample(weights, sample.active)
        wanted = reference(body, leaf, *spread(space, sample))
        found = body((leaf,), sample)
        assert found.shape == (3, C, 4, 4)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
        above, with_respect_to = torch.randn_like(found), [leaf, *body.parameters(), *weights.values()]
        grads = [
            torch.autograd.grad(out, with_respect_to, above, allow_unused=True, materialize_grads=True)
            for out in (found, wanted)
        ]
        for one, other in zip(*grads, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7)


def test_only_what_a_vertex_keeps_gets_a_gradient() -> None:
    space, body, x = make(7)
    for seed in range(5):
        genotype = space.sample(random.Random(seed))
        body.zero_grad(set_to_none=True)
        body((x,), space.vertex(genotype)).square().sum().backward()
        kept = set()
        for layer, (op, skips) in enumerate(space.chain(genotype)):
            kept |= {f"ops.{layer}.{op}."} | ({f"joins.{layer}.{j}." for j in (*skips, layer)} if layer else set())
            for read in {*skips, layer - 1} - {-1}:
                kept |= {f"reductions.{k}.{read}." for k in range(space.third(read), space.third(layer))}
        for path, p in body.named_parameters():
            assert (p.grad is not None) == path.startswith(tuple(kept)), path


def test_a_closed_choice_is_as_if_it_were_not_there() -> None:
    space, body, x = make(3)
    relaxation = Softmax(space.decisions, init_std=1.0).double()
    relaxation.support.drop("ops", 1, 2)
    relaxation.support.drop("skips", space.skip_row(2, 0), 1)
    before = body((x,), relaxation())
    for module in (body.ops[1][2], body.joins[2][0], body.reductions[1][0]):  # type: ignore[index]
        for p in module.parameters():
            p.data.fill_(torch.nan)
    assert torch.equal(body((x,), relaxation()), before)


@pytest.mark.parametrize("side", [16, 32])
def test_the_published_depth_runs_on_small_pictures(side: int) -> None:
    space = get_space("enas_macro")
    supernet = build_supernet(space, channels=4)
    vertex = space.vertex(space.sample(random.Random(0)))
    assert supernet.forward_features(torch.randn(2, 3, side, side), vertex).shape == (2, 4, side // 4, side // 4)
    assert supernet(torch.randn(2, 3, side, side), vertex).shape == (2, 10)


def test_sizes_and_options_that_the_space_does_not_have_are_refused() -> None:
    for options, words in (
        ({"cells": 8}, ("cells=8", "12 layers", "leave cells out")),
        ({"partial": 2}, ("partial=2", "'enas_macro'", "leave them at 1")),
    ):
        with pytest.raises(ValueError) as caught:
            build_supernet(get_space("enas_macro"), channels=4, **options)  # type: ignore[arg-type]
        one_line(caught.value, *words)
