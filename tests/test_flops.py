"""Counts of parameters and multiply-adds, against hooks that compute them from shapes and against closed forms."""

from __future__ import annotations

import random

import pytest
import torch
from loops import loop_supernet
from torch import Tensor, nn

from lightning_nas.arch import Sample
from lightning_nas.derived import DerivedNetwork
from lightning_nas.flops import count_macs, count_parameters
from lightning_nas.spaces import get_space
from lightning_nas.supernet import build_supernet


def by_hooks(module: nn.Module, image_shape: tuple[int, int, int], *args: object) -> int:
    """Multiply-adds from the shapes that each convolution and linear layer sees."""
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            height, width = layer.kernel_size
            total += output.numel() * height * width * layer.in_channels // layer.groups
        elif isinstance(layer, nn.Linear):
            total += output.numel() * layer.in_features

    handles = [layer.register_forward_hook(count) for layer in module.modules()]
    with torch.no_grad():
        module.eval()(torch.zeros(1, *image_shape), *args)
    for handle in handles:
        handle.remove()
    return total


@pytest.mark.parametrize(
    ("layer", "macs"),
    [
        (nn.Conv2d(4, 8, 3, padding=1), 8 * 4 * 9 * 16 * 16),
        (nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=False), 8 * 4 * 9 * 8 * 8),
        (nn.Conv2d(4, 4, 5, padding=2, groups=4), 4 * 25 * 16 * 16),
        (nn.Conv2d(4, 8, 3, padding=2, dilation=2, groups=2), 8 * 2 * 9 * 16 * 16),
        (nn.Sequential(nn.Flatten(), nn.Linear(4 * 16 * 16, 7)), 4 * 16 * 16 * 7),
        (nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.AvgPool2d(2)), 0),
    ],
)
def test_macs_of_single_layers(layer: nn.Module, macs: int) -> None:
    assert count_macs(layer, (4, 16, 16)) == macs


@pytest.mark.parametrize(
    "text", ["darts_v2", "gdas_v1", "|nor_conv_3x3~0|+|avg_pool_3x3~0|none~1|+|none~0|none~1|nor_conv_1x1~2|"]
)
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_macs_of_networks_against_hooks(text: str, stem: str) -> None:
    network = DerivedNetwork(text, channels=4, cells=3, stem=stem, auxiliary=True)
    assert count_macs(network, (3, 64, 64)) == by_hooks(network, (3, 64, 64))


@pytest.mark.parametrize("name", ["darts", "nasbench201"])
def test_macs_of_a_supernet_are_those_of_the_path_it_is_given(name: str) -> None:
    space = get_space(name)
    supernet = build_supernet(space, channels=4, cells=1)
    loop = loop_supernet(space, channels=4, cells=1)  # each candidate is a call of its own, with a hook
    vertex = space.vertex(space.sample(random.Random(1)))
    dense = Sample(vertex.weights)
    path = count_macs(supernet, (3, 16, 16), vertex)
    assert path == by_hooks(loop, (3, 16, 16), vertex)
    all_of_it, convolved = count_macs(supernet, (3, 16, 16), dense), by_hooks(loop, (3, 16, 16), dense)
    assert path < convolved <= all_of_it < 1.03 * convolved  # weighted sums of poolings are matrix products, and small


def test_counting_leaves_the_module_and_the_generators_as_they_were() -> None:
    network = DerivedNetwork("darts_v2", channels=4, cells=3, drop_path=0.5, drop_rate=0.5).train()
    network.body.stem.eval()
    modes = [part.training for part in network.modules()]
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    generator = torch.get_rng_state()
    count_macs(network, (3, 32, 32))
    with pytest.raises(ValueError, match="multiples of 4"):
        count_macs(network, (3, 30, 30))
    assert [part.training for part in network.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert not any(p.is_meta or p.grad is not None for p in network.parameters())


class Looks(nn.Module):
    """Reads a value of its input, which the meta device does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out if out.sum().item() < 1e9 else out * 2


def test_what_cannot_run_without_values_runs_with_them() -> None:
    assert count_macs(Looks(), (3, 4, 4)) == 3 * 2 * 16
    with torch.device("meta"):
        without_values = Looks()
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        count_macs(without_values, (3, 4, 4))


def test_errors_of_the_module_are_its_own() -> None:
    with pytest.raises(RuntimeError, match="expected input"):
        count_macs(nn.Conv2d(4, 8, 3), (3, 16, 16))


@pytest.mark.parametrize("shape", [(3, 32), (3, 0, 32), (1, 3, 32, 32)])
def test_shapes_are_three_positive_numbers(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be .channels, height, width."):
        count_macs(nn.Identity(), shape)  # type: ignore[arg-type]


def test_parameters_are_counted_once_and_parts_can_be_left_out() -> None:
    shared = nn.Linear(3, 3)
    module = nn.ModuleDict(
        {"a": nn.Sequential(nn.Linear(2, 3), shared), "ab": shared, "c": nn.Linear(3, 1, bias=False)}
    )
    assert count_parameters(module) == 9 + 12 + 3
    assert count_parameters(module, ("c",)) == 21
    assert count_parameters(module, ("a.0", "c.weight")) == 12
    assert count_parameters(module, ("a", "ab", "c")) == 0


def test_a_part_that_is_not_there_cannot_be_left_out() -> None:
    network = DerivedNetwork("darts_v2", channels=4, cells=3)
    assert count_parameters(network, ("auxiliary",)) == count_parameters(network)  # there is none, but there could be
    with pytest.raises(ValueError, match="DerivedNetwork has no 'auxilary' to leave out"):
        count_parameters(network, ("auxilary",))
