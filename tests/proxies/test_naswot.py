"""NASWOT: closed forms, what it does not depend on, which ReLUs count, and a network that stays as it is."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.derived import DerivedNetwork
from lightning_nas.proxies import code_score, hamming_kernel, naswot
from lightning_nas.spaces import get_space


def equidistant(batch: int, blocks: int, width: int) -> Tensor:
    """Codes of which each two differ in 2 x `width` places: each has a block of ones of its own."""
    codes = torch.zeros(batch, blocks * width, dtype=torch.bool)
    for k in range(batch):
        codes[k, k * width : (k + 1) * width] = True
    return codes


def relu_net(scale: float = 1.0, seed: int = 0) -> nn.Sequential:
    """Two layers without biases, so that a factor on a layer changes no sign."""
    rng = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Linear(5, 12, bias=False), nn.ReLU(), nn.Linear(12, 9, bias=False), nn.ReLU())
    net.append(nn.Linear(9, 2, bias=False))
    for part in net:
        if isinstance(part, nn.Linear):
            part.weight.data = scale * torch.randn(part.weight.shape, generator=rng)
    return net


def pictures(n: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


# --- closed forms


def test_codes_at_the_same_distance() -> None:
    """log det = (B - 1) ln d + ln(d + B (N - d))."""
    codes = equidistant(8, 8, 6)  # 48 places
    kernel = hamming_kernel(codes)
    assert torch.equal(kernel, 12 * torch.eye(8, dtype=torch.float64) + 36)
    assert code_score(codes) == pytest.approx(7 * math.log(12) + math.log(12 + 8 * 36))


def test_the_known_number() -> None:
    """40 places, each two of 8 codes 12 apart: rows of a Hadamard matrix, 4 apart, three times; the rest agrees."""
    signs = torch.tensor([[(-1) ** bin(i & j).count("1") for j in range(8)] for i in range(8)])
    hadamard = (signs[:, 1:] > 0).repeat(1, 3)  # 21 places, each two rows 12 apart
    codes = torch.cat([hadamard, torch.ones(8, 19, dtype=torch.bool)], dim=1)
    assert codes.shape == (8, 40)
    assert code_score(codes) == pytest.approx(22.858178, abs=1e-6)


def test_three_codes() -> None:
    codes = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 1]])
    assert torch.equal(hamming_kernel(codes), 2 * torch.eye(3, dtype=torch.float64) + 2)
    assert code_score(codes) == pytest.approx(math.log(32), abs=1e-12)


def test_the_kernel_is_the_definition() -> None:
    codes = pictures(7, 300) > 0.3
    plain = torch.tensor([[float((a == b).sum()) for b in codes] for a in codes], dtype=torch.float64)
    assert torch.equal(hamming_kernel(codes), plain)
    c = codes.double()
    assert torch.equal(hamming_kernel(codes), c @ c.T + (1 - c) @ (1 - c).T)
    assert code_score(codes) == pytest.approx(float(torch.linalg.slogdet(plain)[1]), abs=1e-9)


def test_singular_kernels() -> None:
    """Two equal codes; and four different ones of which two pairs have the same sum."""
    codes = pictures(128, 5000) > 0
    assert math.isfinite(code_score(codes))
    codes[77] = codes[3]
    assert code_score(codes) == -math.inf
    assert code_score(torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])) == -math.inf
    assert code_score(torch.tensor([[0, 0], [0, 1], [1, 0]])) == pytest.approx(math.log(4))


def test_a_network_by_hand() -> None:
    """The score of a network is that of its codes, of all its ReLUs side by side."""
    net, x = relu_net(), pictures(6, 5)
    first = net[0](x)
    second = net[2](first.relu())
    assert naswot(net, x) == pytest.approx(code_score(torch.cat([first, second], dim=1) > 0), abs=1e-9)


# --- what does not matter


def test_invariances() -> None:
    net, x = relu_net(), pictures(6, 5)
    score = naswot(net, x)
    assert math.isfinite(score)
    assert naswot(net, x[torch.randperm(6, generator=torch.Generator().manual_seed(1))]) == pytest.approx(score)
    assert naswot(relu_net(scale=7.3), x) == pytest.approx(score)
    assert naswot(copy.deepcopy(net), x) == score
    assert naswot(net, x, torch.zeros(6, dtype=torch.long)) == score
    units = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    other = relu_net()
    other[0].weight.data, other[2].weight.data = net[0].weight.data[units], net[2].weight.data[:, units]
    assert naswot(other, x) == pytest.approx(score)
    assert naswot(relu_net(seed=1), x) != pytest.approx(score)
    with torch.no_grad():
        assert naswot(net.requires_grad_(False), x) == score


def test_batch_normalisation_goes_by_the_batch() -> None:
    """In evaluation mode with fresh statistics the codes would be others."""
    net = nn.Sequential(nn.Linear(4, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 1)).eval()
    x = pictures(8, 4) + 5
    own = F.batch_norm(net[0](x), None, None, training=True) > 0
    assert naswot(net, x) == pytest.approx(code_score(own), abs=1e-9)
    assert naswot(net, x) != pytest.approx(code_score(net[0](x) > 0))


# --- which ReLUs count


class Styles(nn.Module):
    """One ReLU between two layers, called in some way, and one ReLU that goes nowhere."""

    def __init__(self, act: Callable[[Tensor], Tensor], dead: bool = False) -> None:
        super().__init__()
        self.first, self.last = relu_net()[0], nn.Linear(12, 2)
        self.act, self.dead = act, dead

    def forward(self, x: Tensor) -> Tensor:
        if self.dead:
            torch.relu(self.first(-2 * x + 1)).sum()
            torch.relu(x.detach())
            with torch.no_grad():
                torch.relu(self.first(x + 1))
        return self.last(self.act(self.first(x)))  # type: ignore[no-any-return]


STYLES: dict[str, Callable[[Tensor], Tensor]] = {
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "module with a bound": nn.ReLU6(),
    "functional": F.relu,
    "functional, in place": lambda x: F.relu(x, inplace=True),
    "functional, by name": lambda x: F.relu(input=x),
    "functional, with a bound": F.relu6,
    "torch": torch.relu,
    "torch, in place": torch.relu_,
    "method": lambda x: x.relu(),
    "method in place": lambda x: x.relu_(),
}


@pytest.mark.parametrize("act", STYLES.values(), ids=STYLES)
@pytest.mark.parametrize("dead", [False, True])
def test_each_relu_counts_once_and_those_that_go_nowhere_not(act: Callable[[Tensor], Tensor], dead: bool) -> None:
    net, x = Styles(act, dead), pictures(6, 5)
    assert naswot(net, x) == pytest.approx(code_score(relu_net()[0](x) > 0), abs=1e-9)


def test_a_network_that_begins_with_a_relu_in_place_leaves_its_pictures_alone() -> None:
    x = pictures(4, 9)
    before = x.clone()
    score = naswot(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(9, 1)), x)
    assert torch.equal(x, before)
    assert score == pytest.approx(code_score(before > 0))


def test_networks_without_a_score() -> None:
    with pytest.raises(ValueError, match=r"Linear has no ReLU; .* take another score"):
        naswot(nn.Linear(3, 2), pictures(4, 3))
    with pytest.raises(ValueError, match="an activation is not finite"):
        naswot(relu_net(), pictures(4, 5) * math.nan)
    cut = Styles(lambda h: h.relu().detach() * 0)
    assert naswot(cut, pictures(4, 5)) == -math.inf


def marked_by_hooks(network: nn.Module, x: Tensor) -> Tensor:
    """The kernel as the published code has it: hooks on modules, a first pass that marks, a second that counts."""
    network = copy.deepcopy(network).train()
    marked: set[nn.Module] = set()
    kernel = torch.zeros(len(x), len(x), dtype=torch.float64)

    def count(module: nn.Module, inputs: tuple[Tensor, ...], _: Any) -> None:
        codes = (inputs[0].detach().flatten(1) > 0).double()
        kernel.add_(codes @ codes.T + (1 - codes) @ (1 - codes).T)

    relus = [m for m in network.modules() if isinstance(m, nn.ReLU)]
    handles = [m.register_full_backward_hook(lambda module, *_: marked.add(module)) for m in relus]
    network(x.clone().requires_grad_()).sum().backward()
    for handle in handles:
        handle.remove()
    for module in marked:
        module.register_forward_hook(count)
    network(x)
    return kernel


DEAD_END = "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"


@pytest.mark.parametrize(("space", "text"), [("nasbench201", None), ("nasbench201", DEAD_END), ("nasbench101", None)])
def test_against_an_implementation_by_hooks(space: str, text: str | None) -> None:
    x, rng, known = pictures(5, 3, 8, 8), random.Random(3), get_space(space)
    for _ in range(2 if text is None else 1):
        genotype = known.sample(rng) if text is None else known.parse(text)
        network = DerivedNetwork(genotype, channels=4, cells=1)
        expected = float(torch.linalg.slogdet(marked_by_hooks(network, x))[1])
        assert naswot(network, x) == pytest.approx(expected, abs=1e-8)


def test_a_cell_without_a_path() -> None:
    cell = get_space("nasbench201").parse("|none~0|+|nor_conv_3x3~0|none~1|+|none~0|nor_conv_3x3~1|none~2|")
    assert naswot(DerivedNetwork(cell, channels=4, cells=1), pictures(4, 3, 8, 8)) == -math.inf


def test_more_units_score_higher() -> None:
    space, x = get_space("nasbench201"), pictures(8, 3, 8, 8)
    few, many = "|skip_connect~0|+|none~0|none~1|+|none~0|none~1|none~2|", "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|"
    cells = [few.replace("none~0|none~1|none~2|", "skip_connect~0|none~1|none~2|")]
    cells.append(many + "+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|")
    low, high = (naswot(DerivedNetwork(space.parse(cell), channels=4, cells=1), x) for cell in cells)
    assert low < high


# --- the network stays as it is


def test_the_network_is_untouched() -> None:
    network = DerivedNetwork("darts_v2", channels=4, cells=3, in_channels=1).double()
    network.eval()
    network.body.blocks[0].train()
    next(network.parameters()).grad = torch.ones_like(next(network.parameters()))
    state = {name: value.clone() for name, value in network.state_dict().items()}
    modes = [m.training for m in network.modules()]
    naswot(network, pictures(4, 1, 8, 8).double())
    assert [m.training for m in network.modules()] == modes
    assert all(value.dtype == state[name].dtype for name, value in network.state_dict().items())
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    grads = [p.grad for p in network.parameters()]
    assert torch.equal(grads[0], torch.ones_like(grads[0]))
    assert grads[1:] == [None] * (len(grads) - 1)
    assert not any(m._forward_hooks or m._backward_hooks for m in network.modules())
