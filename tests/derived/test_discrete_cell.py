"""The discrete cell: which operations it holds, what it does without inputs, and drop-path."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from lightning_nas.derived import DerivedNetwork, DiscreteCell
from lightning_nas.ops import Zero
from lightning_nas.spaces import CellPlace, CellSpace, get_space, load_genotype

NONE = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"


def cell_of(text: str, kind: str = "normal", channels: int = 4, reduction: bool = False) -> DiscreteCell:
    space, genotype = load_genotype(text)
    assert isinstance(space, CellSpace)
    inputs = (channels,) * space.topology.inputs
    return DiscreteCell(space, genotype, CellPlace(kind, 0, inputs, channels, reduction))


def test_a_cell_holds_the_kept_edges_and_no_others() -> None:
    cell = cell_of("darts_v2")
    # node 2: 0, 1; node 3: 0, 1; node 4: 0, 1; node 5: 0, 2 -> rows at offsets 0, 2, 5, 9
    assert list(cell.edges) == ["0", "1", "2", "3", "5", "6", "9", "11"]
    kinds = {row: type(op).__name__ for row, op in cell.edges.items()}
    assert kinds["5"] == kinds["9"] == "Identity"  # the two skips of the normal cell
    assert [name for name, _ in cell.named_children()] == ["preprocess", "edges"]
    assert cell.out_channels == 16


def test_poolings_have_no_norm_and_others_have_a_scale() -> None:
    cell = cell_of("darts_v2", "reduce", reduction=True)
    assert type(cell.edges["0"]) is nn.MaxPool2d
    assert all(norm.affine for norm in cell.modules() if isinstance(norm, nn.BatchNorm2d))


def test_each_node_adds_what_its_operations_give() -> None:
    cell = cell_of("darts_v2").eval()
    x, y = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    h = [cell.preprocess[0](x), cell.preprocess[1](y)]
    for rows, sources in (((0, 1), (0, 1)), ((2, 3), (0, 1)), ((5, 6), (0, 1)), ((9, 11), (0, 2))):
        h.append(sum(cell.edges[str(row)](h[source]) for row, source in zip(rows, sources, strict=True)))
    torch.testing.assert_close(cell((x, y)), torch.cat(h[2:], dim=1))


@pytest.mark.parametrize("channels", [2, 6])
def test_a_node_that_receives_only_none_is_zero(channels: int) -> None:
    cell = cell_of(NONE, "cell", channels)
    x = torch.full((2, channels, 4, 6), torch.nan)
    assert torch.equal(cell((x,)), torch.zeros(2, channels, 4, 6))
    assert not list(cell.parameters())


def test_none_into_a_node_of_a_reduction_cell_has_its_resolution() -> None:
    space, genotype = load_genotype("darts_v2")
    assert isinstance(space, CellSpace)
    rows = {kind: space.kept_rows(genotype, kind) for kind in space.kinds}
    rows["reduce"] |= {row: 0 for row in rows["reduce"] if row in (0, 1, 9, 10, 11)}  # nodes 2 and 5
    nothing = space.from_rows(rows)
    cell = DiscreteCell(space, nothing, CellPlace("reduce", 0, (4, 4), 4, reduction=True))
    out = cell((torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)))
    assert out.shape == (2, 16, 4, 4)
    assert bool((out[:, :4] == 0).all())
    assert bool((out[:, 12:] == 0).all())
    assert bool((out[:, 4:12] != 0).any())
    assert all(isinstance(cell.edges[str(row)], Zero) for row in (0, 1))


def test_a_cell_refuses_a_genotype_of_another_space() -> None:
    space = get_space("darts")
    assert isinstance(space, CellSpace)
    with pytest.raises(ValueError, match="space 'nasbench201' was given to space 'darts'"):
        DiscreteCell(space, load_genotype(NONE)[1], CellPlace("normal", 0, (4, 4), 4))


# --- drop-path


class Ones(nn.Module):
    """An operation that gives ones."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones_like(x)


def cell_of_ones(probability: float) -> DiscreteCell:
    """A cell whose output is one operation of ones: 3 <- 0, all else nothing."""
    cell = cell_of("|none~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|", "cell")
    cell.edges["3"] = Ones()
    cell.drop_path = probability
    return cell


@pytest.mark.parametrize("probability", [0.1, 0.3, 0.8])
def test_drop_path_drops_whole_samples_and_scales_the_others(probability: float) -> None:
    cell, n = cell_of_ones(probability), 20000
    out = cell((torch.zeros(n, 4, 2, 2),))
    per_sample = out.flatten(1)
    assert bool((per_sample == per_sample[:, :1]).all())
    kept = per_sample[:, 0]
    torch.testing.assert_close(kept.unique(), torch.tensor([0.0, 1 / (1 - probability)]))
    share = float((kept == 0).double().mean())
    assert abs(share - probability) < 5 * (probability * (1 - probability) / n) ** 0.5
    assert abs(float(kept.mean()) - 1) < 5 * (probability / (1 - probability) / n) ** 0.5


def test_drop_path_rests_in_evaluation_and_at_zero() -> None:
    x = torch.zeros(100, 4, 2, 2)
    assert bool((cell_of_ones(0.9).eval()((x,)) == 1).all())
    undropped, state = cell_of_ones(0.0), torch.get_rng_state()
    assert bool((undropped((x,)) == 1).all())
    assert torch.equal(torch.get_rng_state(), state)


def test_identities_are_never_dropped() -> None:
    cell = cell_of("|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|", "cell")
    cell.drop_path = 0.99
    x = torch.randn(100, 4, 2, 2)
    assert torch.equal(cell((x,)), x)


def test_a_skip_that_halves_is_dropped_like_any_operation() -> None:
    cell = cell_of("darts_v2", "reduce", reduction=True)
    halving = cell_of("pc_darts_imagenet", "reduce", reduction=True)
    assert not any(isinstance(op, nn.Identity) for op in halving.edges.values())
    assert sum(isinstance(op, nn.Identity) for op in cell.edges.values()) == 3


def test_operations_are_dropped_independently() -> None:
    cell = cell_of("|none~0|+|none~0|none~1|+|nor_conv_1x1~0|nor_conv_1x1~1|nor_conv_1x1~2|", "cell")
    for power, row in enumerate((3, 4, 5)):
        cell.edges[str(row)] = nn.Sequential(Ones(), Scale(10.0**power))
    cell.drop_path = 0.5
    sums = (cell((torch.zeros(8000, 4, 1, 1),))[:, 0, 0, 0] / 2).round().int()
    possible = {sum(terms) for n in range(4) for terms in combinations((1, 10, 100), n)}
    counts = {value: int((sums == value).sum()) for value in possible}
    assert sum(counts.values()) == 8000
    assert all(abs(count - 1000) < 5 * (8000 * 7 / 64) ** 0.5 for count in counts.values())


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def test_the_network_sets_drop_path_of_every_cell() -> None:
    network = DerivedNetwork("darts_v2", channels=4, cells=3, drop_path=0.2)
    cells = [cell for cell in network.body.blocks if isinstance(cell, DiscreteCell)]
    assert [cell.drop_path for cell in cells] == [0.2] * 3
    network.set_drop_path(0.1)
    assert [cell.drop_path for cell in cells] == [0.1] * 3
    assert type(cells[0].drop_path) is float
    for wrong in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="must be at least 0 and less than 1"):
            network.set_drop_path(wrong)
