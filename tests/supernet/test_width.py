"""Partial channels that are widened in place: narrow execution, gradients, copies, optimisers, resumption."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from toys import one_line

from lightning_nas.arch import Sample
from lightning_nas.ops import OPS, FactorizedReduce, OpSpec
from lightning_nas.spaces import CellNetwork, CellPlace, CellSpace, DARTSSpace, get_space
from lightning_nas.supernet import MixedCell, build_supernet, widen

PLACES = {
    "darts": CellPlace("normal", 1, (6, 8), 12),
    "darts reduction": CellPlace("reduce", 2, (8, 6), 12, reduction=True),
    "nasbench201": CellPlace("cell", 0, (12,), 12),
    "s1": CellPlace("reduce", 2, (8, 6), 12, reduction=True),
}
places = pytest.mark.parametrize("name", PLACES)


def cell_space(name: str) -> CellSpace:
    space = get_space(name.split()[0])
    assert isinstance(space, CellSpace)
    return space


def supernet(name: str = "nasbench201", channels: int = 12, partial: int = 2, start: int | None = 6) -> CellNetwork:
    torch.manual_seed(0)
    cells = 1 if name == "nasbench201" else 3
    return build_supernet(get_space(name), channels, cells, partial=partial, start_partial=start)


def cells_of(network: nn.Module) -> list[MixedCell]:
    return [block for block in network.modules() if isinstance(block, MixedCell)]


def sliced(narrow: dict[str, Tensor], wide: dict[str, Tensor]) -> dict[str, Tensor]:
    """The corner of each wide tensor that has the shape of the narrow one."""
    return {key: wide[key][tuple(slice(side) for side in value.shape)] for key, value in narrow.items()}


def theta_of(space: CellSpace, kind: str) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(3)
    width = max(len(d.choices) for d in space.decisions[kind])
    made = {kind: torch.randn(len(space.decisions[kind]), width, generator=draw, dtype=torch.float64)}
    if space.input_group(kind) in space.decisions:
        made[space.input_group(kind)] = torch.rand(4, 5, generator=draw, dtype=torch.float64)
    return {group: value.requires_grad_() for group, value in made.items()}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("start", [2, 3, 6])
@places
def test_a_narrow_cell_equals_one_that_was_built_narrow(name: str, start: int, layout: torch.memory_format) -> None:
    """Output and all gradients; those of weights that are not in use are zero."""
    space, place = cell_space(name), PLACES[name]
    torch.manual_seed(1)
    wide = MixedCell(space, place, partial=2, start_partial=start).double()
    small = MixedCell(space, place, partial=start).double()
    small.load_state_dict(sliced(small.state_dict(), wide.state_dict()))
    theta = theta_of(space, place.kind)
    states = [torch.randn(3, c, 6, 6, dtype=torch.float64).contiguous(memory_format=layout) for c in place.in_channels]
    for state in states:
        state.requires_grad_()
    outs = [cell(tuple(states), Sample(theta)) for cell in (wide, small)]
    torch.testing.assert_close(outs[0], outs[1], rtol=1e-10, atol=1e-10)
    direction = torch.randn_like(outs[0])
    given = [*theta.values(), *states]
    found = [
        torch.autograd.grad(out, [*given, *cell.parameters()], direction)
        for out, cell in zip(outs, (wide, small), strict=True)
    ]
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours[tuple(map(slice, theirs.shape))], theirs, rtol=1e-10, atol=1e-10)
        rest = ours.clone()
        rest[tuple(map(slice, theirs.shape))] = 0.0
        assert not rest.any()
    assert any(ours.shape != theirs.shape for ours, theirs in zip(*found, strict=True)) == (start > 2)


def test_weights_that_are_not_in_use_may_hold_anything() -> None:
    network = supernet()
    x, sample = torch.randn(2, 3, 8, 8), Sample({})
    before = network(x, sample)
    for cell in cells_of(network):
        c = cell.width.channels
        for weight in cell.edges.parameters():
            weight.data[c:] = torch.nan
            if weight.shape[1] > 1:
                weight.data[:, c:] = torch.nan
    assert torch.equal(network(x, sample), before)


def trace(tensor: Tensor, old: int) -> Tensor:
    """For each index of the first dimension beyond the old ones the old one that it equals (all differ there)."""
    return torch.stack([(tensor[:old] == row).flatten(1).all(1).nonzero()[0, 0] for row in tensor[old:]])


@pytest.mark.parametrize("name", ["darts", "nasbench201"])
def test_widening_copies_trained_filters(name: str) -> None:
    """New filters of a layer are copies of old ones; what reads their channels copies its weights for the same."""
    network = supernet(name, partial=2, start=6)
    before, old = copy.deepcopy(network.state_dict()), [cell.width.channels for cell in cells_of(network)]
    identities = [id(p) for p in network.parameters()]
    widen(network, 2, torch.Generator().manual_seed(0))
    assert [id(p) for p in network.parameters()] == identities
    after, drawn = network.state_dict(), set()
    for at, (cell, c) in enumerate(zip(cells_of(network), old, strict=True)):
        assert (cell.width.partial, cell.width.channels) == (2, 3 * c)
        for op in (op for edge in cell._ops() for op in edge):
            convs = [m for m in op.modules() if isinstance(m, nn.Conv2d)]
            reads: Tensor | None = None  # where the new channels that the layer reads come from
            for conv in convs:
                if conv.groups > 1:
                    reads = trace(conv.weight, c)
                    continue
                half = c // 2 if isinstance(op, FactorizedReduce) else c
                own_inputs = trace(conv.weight[:half].transpose(0, 1), c)
                assert reads is None or torch.equal(own_inputs, reads)
                writes = trace(conv.weight, half)
                drawn |= {tuple(writes.tolist()), tuple(own_inputs.tolist())}
                reads = own_inputs if isinstance(op, FactorizedReduce) else writes
        assert at == 0 or len(drawn) > 4  # not always the same draw
    for key, value in before.items():
        if ".edges." not in key and not key.endswith("active"):
            assert torch.equal(after[key], value)
    small = supernet(name, partial=6, start=None)
    for key, value in small.state_dict().items():
        if ".edges." in key:
            corner = tuple(map(slice, value.shape))
            assert torch.equal(after[key][corner], before[key][corner])


def test_step_by_step_and_the_shuffle_of_the_present_width() -> None:
    """After each widening the network equals one that was built with this width; at the end with all channels."""
    network = supernet(channels=12, partial=1, start=6).double()
    x, draw = torch.randn(2, 3, 8, 8, dtype=torch.float64), torch.Generator().manual_seed(5)
    outs = []
    for partial in (6, 3, 1):
        widen(network, partial, draw)
        fixed = supernet(channels=12, partial=partial, start=None).double()
        fixed.load_state_dict(sliced(fixed.state_dict(), network.state_dict()))
        outs.append(network(x, Sample({})))
        torch.testing.assert_close(outs[-1], fixed(x, Sample({})), rtol=1e-10, atol=1e-10)
    assert not torch.allclose(outs[0], outs[1])


def test_widening_is_drawn_from_its_generator_alone() -> None:
    def widened(seed: int, torch_seed: int) -> dict[str, Tensor]:
        network, generator = supernet("darts"), torch.Generator().manual_seed(seed)
        torch.manual_seed(torch_seed)
        widen(network, 2, generator)
        return network.state_dict()

    one, again, other = widened(1, 1), widened(1, 2), widened(2, 1)
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("algorithm", ["SGD", "Adam"])
def test_the_state_of_an_optimiser_is_copied_along(algorithm: str) -> None:
    network = supernet()
    options: dict[str, float] = {"momentum": 0.9} if algorithm == "SGD" else {}
    optimizer = getattr(torch.optim, algorithm)(network.parameters(), lr=0.1, **options)
    x = torch.randn(4, 3, 8, 8)
    for _ in range(2):
        optimizer.zero_grad()
        network(x, Sample({})).square().sum().backward()
        optimizer.step()
    for weight in network.parameters():  # a state that tells where it was copied from
        for value in optimizer.state[weight].values():
            if value.shape == weight.shape:
                value.copy_(weight.detach() ** 3)
    steps = [float(state["step"]) for state in optimizer.state.values() if "step" in state]
    widen(network, 2, torch.Generator(), optimizer)
    assert [float(state["step"]) for state in optimizer.state.values() if "step" in state] == steps
    for weight in network.parameters():
        for value in optimizer.state[weight].values():
            if value.shape == weight.shape:
                torch.testing.assert_close(value, weight.detach() ** 3)
    optimizer.zero_grad()
    network(x, Sample({})).square().sum().backward()
    assert all(bool(p.grad.any()) for cell in cells_of(network) for p in cell.parameters() if p.grad is not None)
    optimizer.step()


def test_the_width_returns_with_the_state() -> None:
    x, network = torch.randn(2, 3, 8, 8), supernet()
    fresh = supernet()
    widen(network, 3, torch.Generator().manual_seed(0))
    fresh.load_state_dict(copy.deepcopy(network.state_dict()))
    assert [cell.width.partial for cell in cells_of(fresh)] == [3] * 3
    assert torch.equal(fresh(x, Sample({})), network(x, Sample({})))
    fresh.load_state_dict(supernet().state_dict())
    assert [cell.width.channels for cell in cells_of(fresh)] == [2, 4, 8]
    clone = copy.deepcopy(network)
    widen(clone, 2, torch.Generator())
    assert [cell.width.partial for cell in (*cells_of(network), *cells_of(clone))] == [3] * 3 + [2] * 3
    state = network.state_dict()
    for nonsense in (0, 5, 12):
        state["blocks.0.width.active"] = torch.tensor(nonsense)
        with pytest.raises(RuntimeError, match=f"blocks.0.width.active of {nonsense} channels"):
            fresh.load_state_dict(state)


def test_the_width_is_a_number_for_a_program_and_a_buffer_for_a_checkpoint() -> None:
    network = supernet().double()
    assert [int(network.get_buffer(f"blocks.{k}.width.active")) for k in (0, 2, 4)] == [2, 4, 8]
    assert network.get_buffer("blocks.0.width.active").dtype == torch.int64
    assert not list(supernet(start=None).buffers())
    assert list(supernet(start=None).state_dict()) == [k for k in network.state_dict() if not k.endswith("active")]


def test_widening_to_the_present_width_changes_and_draws_nothing() -> None:
    network, generator = supernet(), torch.Generator().manual_seed(0)
    before, drawn = copy.deepcopy(network.state_dict()), generator.get_state()
    widen(network, 6, generator)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert torch.equal(generator.get_state(), drawn)


@pytest.mark.parametrize(
    ("partial", "words"),
    [
        (5, ("partial=5", "12 channels", "divisor")),
        (0, ("partial=0", "divisor")),
        (-2, ("partial=-2", "divisor")),
        (12, ("narrower", "partial=6", "smaller")),
        (1, ("partial=1", "weights for 6", "from 2 on")),
    ],
)
def test_widths_that_are_not_possible_are_refused_and_change_nothing(partial: int, words: tuple[str, ...]) -> None:
    network = supernet()
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(ValueError) as caught:
        widen(network, partial, torch.Generator())
    one_line(caught.value, *words)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_supernets_that_cannot_be_widened_are_refused() -> None:
    with pytest.raises(ValueError) as caught:
        widen(supernet(start=None), 2, torch.Generator())
    one_line(caught.value, "fixed width", "start_partial")
    with pytest.raises(ValueError) as caught:
        widen(nn.Linear(2, 2), 2, torch.Generator())
    one_line(caught.value, "no cells", "cell space")
    mixed = supernet(partial=1)  # the width of a later cell is wrong: the first stays too
    cells_of(mixed)[2].width.set(3)
    before = copy.deepcopy(mixed.state_dict())
    with pytest.raises(ValueError, match="narrower"):
        widen(mixed, 4, torch.Generator())
    assert all(torch.equal(before[key], value) for key, value in mixed.state_dict().items())


@pytest.mark.parametrize(
    ("name", "channels", "partial", "start", "words"),
    [
        ("darts", 12, 2, 5, ("partial=5", "divisor")),
        ("darts", 12, 4, 2, ("partial=2", "weights for 3", "from 4 on")),
        ("darts", 6, 2, 4, ("partial=4", "6 channels", "divisor")),
        ("darts", 6, 1, 6, ()),
        ("darts", 10, 2, 10, ()),
        ("nasbench1shot1_1", 8, 1, 2, ("start_partial=2", "nasbench1shot1_1", "leave it out")),
    ],
)
def test_starts_that_are_not_possible_are_refused(
    name: str, channels: int, partial: int, start: int, words: tuple[str, ...]
) -> None:
    if not words:  # one channel in a normal cell, two in a reduction: enough
        network = build_supernet(get_space(name), channels, 3, partial=partial, start_partial=start)
        assert network(torch.randn(2, 3, 8, 8), Sample({})).isfinite().all()
        return
    with pytest.raises(ValueError) as caught:
        build_supernet(get_space(name), channels, 3, partial=partial, start_partial=start)
    one_line(caught.value, *words)


def test_reductions_keep_an_even_number_of_channels() -> None:
    space, place = cell_space("darts"), CellPlace("reduce", 2, (8, 6), 12, reduction=True)
    with pytest.raises(ValueError) as caught:
        MixedCell(space, place, partial=2, start_partial=4)
    one_line(caught.value, "partial=4", "3 channels", "even")
    with pytest.raises(ValueError, match="even"):
        MixedCell(space, place, partial=2, start_partial=6).width.set(4)


class Own(nn.Module):
    def __init__(self, spec: OpSpec) -> None:
        super().__init__()
        self.conv = nn.Conv2d(spec.channels, spec.channels, 3, spec.stride, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


def test_own_candidates_with_weights_of_an_unknown_form_have_a_fixed_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPS, "own", Own)
    space = DARTSSpace("own", ("skip_connect", "own"), nodes=2)
    build_supernet(space, 8, 3, partial=2)
    with pytest.raises(ValueError) as caught:
        build_supernet(space, 8, 3, partial=2, start_partial=4)
    one_line(caught.value, "Own", "start_partial")
    noisy = build_supernet(get_space("s4"), 8, 3, partial=2, start_partial=4)  # noise has no weights
    assert noisy(torch.randn(2, 3, 8, 8), Sample({})).isfinite().all()
