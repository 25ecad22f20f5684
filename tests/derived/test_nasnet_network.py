"""Networks of the NASNet space: cells by hand, operations in closed form, the skeleton."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.derived import DerivedNetwork
from lightning_nas.derived.nasnet import _OPERATIONS, NASNetCell
from lightning_nas.flops import count_parameters
from lightning_nas.spaces import CellPlace
from lightning_nas.spaces.nasnet import NASNET_OPS, NASNetSpace

SPACE = NASNetSpace()
OP = {name: k for k, name in enumerate(NASNET_OPS)}


def test_every_drawn_genotype_builds() -> None:
    rng = random.Random(0)
    for _ in range(50):
        network = DerivedNetwork(SPACE.sample(rng), space=SPACE, channels=2, cells=3, num_classes=5).eval()
        for side in (16, 32):
            with torch.no_grad():
                features = network.forward_features(torch.randn(1, 3, side, side))
            assert features.shape == (1, network.num_features, side // 4, side // 4)
            assert network.forward_head(features).shape == (1, 5)
        assert network.num_features % 8 == 0  # channels double twice


def test_gradients_reach_every_parameter() -> None:
    rng = random.Random(0)
    for blocks in (1, 2, 5):
        space = NASNetSpace(blocks)
        for cells in (1, 2, 4):
            network = DerivedNetwork(space.sample(rng), space=space, channels=2, cells=cells, in_channels=1)
            network(torch.randn(4, 1, 16, 16)).square().sum().backward()
            assert [path for path, weight in network.named_parameters() if weight.grad is None] == []


def test_the_number_of_parameters_of_each_operation() -> None:
    c = 6
    expected = dict.fromkeys(NASNET_OPS, 0) | {
        "conv_1x3_3x1": 6 * c * c + 2 * c,
        "conv_1x7_7x1": 14 * c * c + 2 * c,
        "dil_conv_3x3": 9 * c * c + 2 * c,
        "conv_1x1": c * c + 2 * c,
        "conv_3x3": 9 * c * c + 2 * c,
    }
    expected |= {f"sep_conv_{k}x{k}": 2 * (k * k * c + c * c + 2 * c) for k in (3, 5, 7)}
    assert {name: count_parameters(make(c, 1)) for name, make in _OPERATIONS.items()} == expected
    expected["identity"] = c * c + 2 * c
    assert {name: count_parameters(make(c, 2)) for name, make in _OPERATIONS.items()} == expected


@pytest.mark.parametrize("name", NASNET_OPS)
def test_operations_keep_or_halve_the_size_and_see_as_far_as_their_names_say(name: str) -> None:
    """The square of pixels that one output pixel depends on."""
    fields = {"identity": 1, "conv_1x1": 1, "conv_1x7_7x1": 7, "max_pool_5x5": 5, "max_pool_7x7": 7, "dil_conv_3x3": 5}
    fields |= {f"sep_conv_{k}x{k}": 2 * k - 1 for k in (3, 5, 7)}
    op = _OPERATIONS[name](2, 1).eval()
    assert _OPERATIONS[name](2, 2)(torch.randn(2, 2, 16, 16)).shape == (2, 2, 8, 8)
    for weight in op.parameters():
        weight.data.abs_()  # so that no ReLU is closed
    x = torch.rand(300, 2, 18, 18).requires_grad_()
    op(x)[:, :, 9, 9].sum().backward()
    assert x.grad is not None
    seen = (x.grad != 0).any(0).any(0)
    rows, columns = seen.any(1).nonzero().flatten(), seen.any(0).nonzero().flatten()
    field = fields.get(name, 3)
    assert (int(rows.min()), int(rows.max())) == (9 - field // 2, 9 + field // 2)
    assert (int(columns.min()), int(columns.max())) == (9 - field // 2, 9 + field // 2)


def test_a_normal_cell_by_hand() -> None:
    """Block 2 is a concatenation that block 3 takes, 4 one that nobody takes; input 0 is free."""
    space = NASNetSpace(3)
    blocks = (
        ("concat", ((1, OP["conv_1x1"]), (1, OP["max_pool_3x3"]))),
        ("add", ((2, OP["identity"]), (1, OP["avg_pool_3x3"]))),
        ("concat", ((2, OP["dil_conv_3x3"]), (1, OP["identity"]))),
    )
    genotype = space.from_cells({"normal": blocks, "reduce": blocks})
    cell = NASNetCell(space, genotype, CellPlace("normal", 0, (3, 5), 4)).eval()
    before, last = torch.randn(2, 3, 6, 6), torch.randn(2, 5, 6, 6)
    h0, h1 = cell.preprocess[0](before), cell.preprocess[1](last)
    raw = torch.cat([cell.ops["2/left"](h1), F.max_pool2d(h1, 3, 1, 1)], 1)
    h2 = cell.joints["2"](raw)
    h3 = h2 + F.avg_pool2d(h1, 3, 1, 1, count_include_pad=False)
    h4 = torch.cat([cell.ops["4/left"](h2), h1], 1)
    assert list(cell.joints) == ["2"]
    assert cell.out_channels == 16
    torch.testing.assert_close(cell((before, last)), torch.cat([h0, h3, h4], 1))


def test_a_reduction_cell_by_hand() -> None:
    """Operations on the inputs have stride 2, that on a block has not, and the free input is halved."""
    space = NASNetSpace(2)
    blocks = (("add", ((0, OP["conv_3x3"]), (0, OP["max_pool_5x5"]))), ("add", ((2, OP["sep_conv_3x3"]),) * 2))
    genotype = space.from_cells({"normal": blocks, "reduce": blocks})
    cell = NASNetCell(space, genotype, CellPlace("reduce", 1, (3, 5), 4, True, reduced_before=True)).eval()
    before, last = torch.randn(2, 3, 16, 16), torch.randn(2, 5, 8, 8)
    h0, h1 = cell.preprocess[0](before), cell.preprocess[1](last)
    assert h0.shape == h1.shape == (2, 4, 8, 8)
    h2 = cell.ops["2/left"](h0) + F.max_pool2d(h0, 5, 2, 2)
    h3 = cell.ops["3/left"](h2) + cell.ops["3/right"](h2)
    expected = torch.cat([cell.joints["1"](h1), h3], 1)
    assert expected.shape == (2, 8, 4, 4)
    torch.testing.assert_close(cell((before, last)), expected)


def test_the_skeleton_and_its_head() -> None:
    """Cells at one and two thirds halve; normal cells give two states of ``c``, reduction cells one of ``2 c``."""
    space = NASNetSpace(1)
    normal, reduce = ("add", ((0, OP["conv_1x1"]),) * 2), ("concat", ((0, OP["max_pool_3x3"]), (1, OP["identity"])))
    genotype = space.from_cells({"normal": (normal,), "reduce": (reduce,)})
    network = DerivedNetwork(genotype, space=space, channels=4, cells=5, num_classes=3).eval()
    x = torch.randn(2, 3, 16, 16)
    states: tuple[Tensor, ...] = network.body.stem(x)
    assert [state.shape[1] for state in states] == [12, 12]
    outputs = []
    for cell in network.body.blocks:
        outputs.append(cell(states))
        states = (states[1], outputs[-1])
    shapes = [tuple(out.shape[1:]) for out in outputs]
    assert shapes == [(8, 16, 16), (16, 8, 8), (16, 8, 8), (32, 4, 4), (32, 4, 4)]
    head = network.get_classifier()
    assert isinstance(head, nn.Linear)
    pooled = outputs[-1].relu().mean((2, 3))
    torch.testing.assert_close(network(x), pooled @ head.weight.T + head.bias)


def test_drop_path_the_auxiliary_head_and_the_other_stem() -> None:
    genotype = SPACE.sample(random.Random(3))
    network = DerivedNetwork(genotype, space=SPACE, channels=4, cells=5, stem="imagenet", auxiliary=True, drop_path=0.3)
    assert {cell.drop_path for cell in network.body.blocks} == {0.3}
    logits, auxiliary = network.forward_with_auxiliary(torch.randn(2, 3, 64, 64))
    assert logits.shape == auxiliary.shape == (2, 10)
    assert network.reductions == 5
    x = torch.randn(2, 3, 64, 64)
    kept = network.eval()(x)
    network.set_drop_path(0.0)
    torch.testing.assert_close(network(x), kept)
    published = DerivedNetwork(genotype, space=SPACE, num_classes=0)
    assert (len(published.body.blocks), published.size.channels) == (20, 32)


def test_drop_path_leaves_identities() -> None:
    space = NASNetSpace(1)
    block = ("concat", ((1, OP["identity"]), (1, OP["max_pool_3x3"])))
    genotype = space.from_cells({"normal": (block,), "reduce": (block,)})
    cell = NASNetCell(space, genotype, CellPlace("normal", 0, (4, 4), 4)).train()
    x = torch.randn(64, 4, 4, 4)
    cell.drop_path = 0.5
    out = cell((x, x))[:, 4:]  # behind input 0, which is free
    dropped = (out[:, 4:] == 0).flatten(1).all(1)
    assert 0.25 < float(dropped.float().mean()) < 0.75
    assert not bool((out[:, :4] == 0).flatten(1).all(1).any())
