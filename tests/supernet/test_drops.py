"""Dropout of skips and drop-path in the supernet: expectation, independence, and where they apply."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from loops import LoopCell
from torch import Tensor, nn
from toys import one_line

from lightning_nas.arch import Sample
from lightning_nas.ops import OPS
from lightning_nas.spaces import CellPlace, CellSpace, CellTopology, DARTSSpace, NASBench201Space, get_space
from lightning_nas.supernet import MixedCell

SKIP, CONV1, CONV3, POOL = 1, 2, 3, 4  # in the cell of NAS-Bench-201
BIG = (4, 8, 16, 16)


class Fan(NASBench201Space):
    """One input and three nodes that only read it; the output is all of them side by side."""

    def __init__(self) -> None:
        ops = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
        CellSpace.__init__(self, "fan", ("cell",), CellTopology(1, 3, "concat"), ops)


ONLY_INPUT = {0, 1, 3}  # the rows of its edges from the input


def fan(skip_dropout: float = 0.0, drop_path: float = 0.0) -> MixedCell:
    torch.manual_seed(0)
    cell = MixedCell(Fan(), CellPlace("cell", 0, (8,), 8)).double()
    cell.skip_dropout, cell.drop_path = skip_dropout, drop_path
    return cell


def stateless(cell: MixedCell) -> MixedCell:
    """Without running statistics, as in a supernet."""
    for norm in cell.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.track_running_stats = False
            norm.running_mean = norm.running_var = None
    return cell


def choose(*choices: int, weights: Tensor | None = None) -> Sample:
    """These candidates on the edges that leave the input, `none` on all others."""
    active = tuple(choices if row in ONLY_INPUT else (0,) for row in range(6))
    return Sample({} if weights is None else {"cell": weights}, {"cell": active})


def run(cell: MixedCell, x: Tensor, sample: Sample) -> Tensor:
    """``(nodes, N, C, H, W)``."""
    return torch.stack(cell((x,), sample).chunk(3, dim=1))


def test_each_element_of_a_skip_is_dropped_with_this_probability_on_each_edge_anew() -> None:
    rate = 0.3
    out = run(fan(rate), torch.ones(64, 8, 16, 16, dtype=torch.float64), choose(SKIP))
    kept = out != 0
    torch.testing.assert_close(out[kept], torch.full_like(out[kept], 1 / (1 - rate)))
    count = out[0].numel()
    bound = 5 * (rate * (1 - rate) / count) ** 0.5
    assert all(abs(float(k.double().mean()) - (1 - rate)) < bound for k in kept)
    for one, other in combinations(kept.double(), 2):  # independent masks: the covariance is zero
        covariance = float((one * other).mean() - one.mean() * other.mean())
        assert abs(covariance) < 5 * rate * (1 - rate) / count**0.5
    by_element = kept[0].double().mean(0)  # not by sample, channel or place
    assert float(by_element.std()) < 2 * (rate * (1 - rate) / 64) ** 0.5


@torch.no_grad()
def test_drop_path_drops_whole_samples_of_each_candidate_on_each_edge_anew() -> None:
    rate, batch = 0.4, 2000
    torch.manual_seed(7)
    x = torch.randn(batch, 8, 2, 2, dtype=torch.float64)
    alone = [run(fan(), x, choose(k)) for k in (CONV1, CONV3, POOL)]
    out = run(fan(drop_path=rate), x, choose(CONV1, CONV3, POOL))
    # each sample is a combination of the three, with coefficients 0 or 1 / (1 - rate)
    basis = torch.stack([a.flatten(2) for a in alone], dim=-1)  # (nodes, N, CHW, candidates)
    found = torch.linalg.lstsq(basis, out.flatten(2).unsqueeze(-1)).solution.squeeze(-1) * (1 - rate)
    assert float((found - found.round()).abs().max()) < 1e-6
    kept = found.round().permute(0, 2, 1).flatten(0, 1)  # (nodes * candidates, N)
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    bound = 5 * (rate * (1 - rate) / batch) ** 0.5
    assert float((kept.mean(1) - (1 - rate)).abs().max()) < bound
    correlation = torch.corrcoef(kept) - torch.eye(9, dtype=torch.float64)
    assert float(correlation.abs().max()) < 5 / batch**0.5


@torch.no_grad()
@pytest.mark.parametrize(("skip_dropout", "drop_path"), [(0.5, 0.0), (0.0, 0.5), (0.3, 0.5)])
def test_the_expectation_is_the_output_without_drops(skip_dropout: float, drop_path: float) -> None:
    draw = torch.Generator().manual_seed(1)
    weights = torch.rand(6, 5, generator=draw, dtype=torch.float64)
    x = torch.randn(16, 8, 4, 4, generator=draw, dtype=torch.float64)
    sample, cell = choose(*range(5), weights=weights), fan(skip_dropout, drop_path)
    exact = run(cell.eval(), x, sample)
    cell.train()
    torch.manual_seed(3)
    outs = torch.stack([run(cell, x, sample) for _ in range(1000)])
    error = (outs.mean(0) - exact) / (outs.std(0) / 1000**0.5)
    assert 0.6 < float(error.square().mean()) < 1.5  # standard normal values, in drop-path 144 independent ones
    assert float(error.abs().max()) < 5


@pytest.mark.parametrize("name", ["darts", "nasbench201", "s4"])
def test_without_rates_and_in_evaluation_nothing_changes_and_nothing_is_drawn(name: str) -> None:
    space = get_space(name)
    assert isinstance(space, CellSpace)
    two = space.topology.inputs == 2
    place = CellPlace("reduce", 2, (8, 6), 4, reduction=True) if two else CellPlace("cell", 0, (4,), 4)
    cell = stateless(MixedCell(space, place))
    states = tuple(torch.randn(2, c, 8, 8) for c in place.in_channels)
    active = tuple(tuple(k for k, op in enumerate(d.choices) if op != "noise") for d in space.decisions[place.kind])
    sample = Sample({}, {place.kind: active})
    expected = cell(states, sample)
    for training, rates in ((True, (0.0, 0.0)), (False, (0.5, 0.5))):
        cell.train(training)
        cell.skip_dropout, cell.drop_path = rates
        before = torch.get_rng_state()
        assert torch.equal(cell(states, sample), expected)
        assert torch.equal(torch.get_rng_state(), before)
    cell.train()
    assert not torch.equal(cell(states, sample), expected)


def test_dropout_is_for_skips_of_stride_one_alone() -> None:
    """Poolings, convolutions and reductions keep all; in drop-path identities keep all and reductions do not."""
    space = DARTSSpace()
    place = CellPlace("reduce", 2, (4, 4), 4, reduction=True)
    torch.manual_seed(0)
    cell = stateless(MixedCell(space, place))
    names = space.decisions["reduce"][0].choices
    states = tuple(torch.randn(6, 4, 8, 8) for _ in range(2))
    skip = names.index("skip_connect")
    from_inputs = tuple(source < 2 for _, source in space.topology.edges)

    def differs(sample: Sample) -> bool:
        return not torch.equal(cell.train()(states, sample), cell.eval()(states, sample))

    def active(at_inputs: tuple[int, ...], inside: tuple[int, ...]) -> Sample:
        return Sample({}, {"reduce": tuple(at_inputs if first else inside for first in from_inputs)})

    others = tuple(k for k in range(len(names)) if k != skip)
    cell.skip_dropout = 0.5
    assert not differs(active((*others, skip), others))
    assert differs(active(others, (skip,)))
    cell.skip_dropout, cell.drop_path = 0.0, 0.5
    assert not differs(active((0,), (skip,)))
    assert differs(active((skip,), (0,)))
    for k in others[1:]:
        assert differs(active((k,), (0,)))


def test_gradients_are_those_of_the_masked_sum() -> None:
    """Of theta and of the input, first and second: against the formula with the same masks."""
    cell, x = fan(0.5), torch.randn(BIG, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(6, 5, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(11)
    out = run(cell, x, choose(SKIP, POOL, weights=weights))
    torch.manual_seed(11)
    pooled = nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    rows = (0, 1, 3)
    masks = [nn.functional.dropout(torch.ones_like(x), 0.5) for _ in rows]
    expected = torch.stack(
        [weights[row, SKIP] * m * x + weights[row, POOL] * pooled for row, m in zip(rows, masks, strict=True)]
    )
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    direction = torch.randn_like(out)
    found = []
    for value in (out, expected):
        first = torch.autograd.grad(value, [x, weights], direction, create_graph=True)
        found.append([*first, *torch.autograd.grad(first[1].square().sum() + first[0].square().sum(), [x, weights])])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_with_partial_channels_and_own_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """The channels that pass stay as they are; a candidate of no known form is dropped as the others."""
    monkeypatch.setitem(OPS, "own", lambda spec: nn.Conv2d(spec.channels, spec.channels, 1))
    space = NASBench201Space("own", ("own", "skip_connect"))
    cell = MixedCell(space, CellPlace("cell", 0, (8,), 8), partial=2)
    x = torch.randn(64, 8, 4, 4)
    into_last = ((), (), (), (0,), (), ())
    cell.drop_path = 0.5
    out = cell((x,), Sample({}, {"cell": into_last}))
    loop = LoopCell(space, CellPlace("cell", 0, (8,), 8), partial=2)
    loop.load_state_dict(cell.state_dict())
    expected = loop((x,), Sample({}, {"cell": into_last}))
    assert torch.equal(out[:, 1::2], expected[:, 1::2])
    ratio = out[:, ::2].flatten(1) / expected[:, ::2].flatten(1)
    assert set(ratio.round(decimals=3).unique().tolist()) == {0.0, 2.0}
    assert bool((ratio.std(1) < 1e-4).all())


@pytest.mark.parametrize("rate", [1.0, -0.1, 2.0])
def test_rates_that_are_no_probabilities_are_refused(rate: float) -> None:
    x = torch.randn(BIG, dtype=torch.float64)
    with pytest.raises(ValueError) as caught:
        run(fan(drop_path=rate), x, choose(CONV1))
    one_line(caught.value, f"drop_path={rate}", "below 1")
    if rate != 1.0:
        with pytest.raises(ValueError, match="dropout probability"):
            run(fan(skip_dropout=rate), x, choose(SKIP))


def test_checkpointed_cells_draw_the_same_twice() -> None:
    x = torch.randn(BIG, dtype=torch.float64, requires_grad=True)
    found = []
    for again in (False, True):
        cell = fan(0.5, 0.5)
        cell.checkpoint = again
        torch.manual_seed(5)
        found.append(torch.autograd.grad(run(cell, x, choose(SKIP, CONV3)).square().sum(), x))
    assert torch.equal(*(grads[0] for grads in found))
