"""SynFlow: conservation, a sum over paths by hand, and a network that stays as it is."""

from __future__ import annotations

import copy
import itertools
import math
import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.derived import DerivedNetwork
from lightning_nas.proxies import synaptic_flow, synflow
from lightning_nas.spaces import get_space


def chain(*widths: int, seed: int = 0) -> nn.Sequential:
    """Linear layers without biases, a ReLU behind each but the last."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b, bias=False), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def test_the_flow_is_conserved() -> None:
    """In a chain without biases each layer's sum is R, and the total L x R."""
    net = chain(6, 9, 4, 7, 3)
    expected = torch.ones(6, dtype=torch.float64)
    for layer in net[::2]:
        expected = layer.weight.detach().double().abs() @ expected
    flow = synaptic_flow(net, torch.randn(5, 6))
    assert list(flow) == ["0", "2", "4", "6"]
    assert all(value == pytest.approx(float(expected.sum()), rel=1e-12) for value in flow.values())
    assert synflow(net, torch.randn(5, 6), log=False) == pytest.approx(4 * float(expected.sum()), rel=1e-12)
    assert synflow(net, torch.randn(5, 6)) == pytest.approx(math.log(4 * float(expected.sum())), abs=1e-12)


def test_the_flow_is_conserved_through_convolutions_and_batch_normalisation() -> None:
    torch.manual_seed(0)
    convs = [nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.Conv2d(4, 4, 3, stride=2, groups=2, bias=False)]
    norm = nn.BatchNorm2d(4)
    norm.weight.data, norm.bias.data = torch.randn(4), torch.randn(4)
    norm.running_mean, norm.running_var = torch.randn(4), torch.rand(4)
    net = nn.Sequential(convs[0], norm, nn.ReLU(), convs[1], nn.Flatten(), nn.Linear(36, 3, bias=False))
    flow = synaptic_flow(net, torch.zeros(8, 2, 8, 8))
    plain = synaptic_flow(nn.Sequential(*[part for part in net if part is not norm]), torch.zeros(8, 2, 8, 8))
    assert list(flow.values()) == pytest.approx([flow["0"]] * 3, rel=1e-12)
    assert list(flow.values()) == list(plain.values())


def test_a_sum_over_paths() -> None:
    """R is the sum over all paths from an input to an output of the product of the weights' magnitudes."""
    net = chain(2, 3, 2, seed=4)
    first, last = (net[k].weight.detach().abs().double() for k in (0, 2))
    paths = sum(float(last[k, j] * first[j, i]) for i, j, k in itertools.product(range(2), range(3), range(2)))
    assert synaptic_flow(net, torch.zeros(1, 2)) == pytest.approx({"0": paths, "2": paths}, rel=1e-12)


class Skipping(nn.Module):
    """Two layers, a skip around the second, one layer unused, batch normalisation as a function, a bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second, self.unused = (nn.Linear(3, 3) for _ in range(3))
        self.drop = nn.Dropout(0.9)

    def forward(self, x: Tensor) -> Tensor:
        h = F.batch_norm(self.first(x), None, None, training=True)
        return h + self.second(self.drop(h))  # type: ignore[no-any-return]


def test_biases_skips_and_unused_layers() -> None:
    net = Skipping()
    w1, b1, w2 = (t.detach().abs().double() for t in (net.first.weight, net.first.bias, net.second.weight))
    one = torch.ones(3, dtype=torch.float64)
    h = w1 @ one + b1
    expected = {"first": float((one + w2.T @ one) @ (w1 @ one)), "second": float(one @ w2 @ h), "unused": 0.0}
    assert synaptic_flow(net, torch.zeros(4, 3)) == pytest.approx(expected, rel=1e-12)


def test_what_does_not_matter() -> None:
    net = chain(6, 9, 4)
    score = synflow(net, torch.randn(5, 6))
    flipped = copy.deepcopy(net)
    flipped[0].weight.data.neg_()
    assert synflow(flipped, torch.randn(2, 6), torch.zeros(2)) == score
    assert synflow(copy.deepcopy(net), torch.zeros(1, 6)) == score
    with torch.no_grad():
        assert synflow(net.requires_grad_(False), torch.zeros(1, 6)) == score
    doubled = copy.deepcopy(net)
    doubled[2].weight.data.mul_(2)
    assert synflow(doubled, torch.zeros(1, 6)) == pytest.approx(score + math.log(2))


def test_deep_networks_stay_finite() -> None:
    net = nn.Sequential(*[nn.Linear(64, 64, bias=False) for _ in range(40)])
    for layer in net:
        nn.init.constant_(layer.weight, 1.0)
    assert synflow(net, torch.zeros(1, 64), log=False) == pytest.approx(40 * 64.0**41, rel=1e-9)  # 1e75
    assert synflow(net, torch.zeros(1, 64)) == pytest.approx(math.log(40) + 41 * math.log(64))


def test_no_flow() -> None:
    class Cut(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).detach()  # type: ignore[no-any-return]

    for net in (Cut(*chain(2, 3, 2)), nn.Sequential(nn.Linear(2, 2))):
        for parameter in net.parameters():
            parameter.data.zero_()
        assert synflow(net, torch.zeros(1, 2), log=False) == 0.0
        assert synflow(net, torch.zeros(1, 2)) == -math.inf


def test_the_network_is_untouched() -> None:
    network = DerivedNetwork(get_space("nasbench201").sample(random.Random(0)), channels=4, cells=1).train()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    score = synflow(network, torch.randn(3, 3, 16, 16))
    assert all(m.training for m in network.modules())
    assert all(value.dtype == state[name].dtype for name, value in network.state_dict().items())
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert not any("forward" in vars(m) for m in network.modules())
    assert synflow(network.eval(), torch.zeros(1, 3, 16, 16)) == score


def test_a_wider_cell_has_more_flow() -> None:
    torch.manual_seed(0)
    cell = get_space("nasbench201").sample(random.Random(0))
    few, many = (DerivedNetwork(cell, channels=channels, cells=1) for channels in (4, 16))
    assert synflow(few, torch.zeros(1, 3, 16, 16)) < synflow(many, torch.zeros(1, 3, 16, 16))
