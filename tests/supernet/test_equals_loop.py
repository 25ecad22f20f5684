"""Cells and supernets grouped by source node against the plain loop: values, first and second derivatives."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial as partial_of
from statistics import median
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loops import LoopCell, loop_supernet
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_nas.arch import Sample, Support
from lightning_nas.ops import OPS, Noise, OpSpec
from lightning_nas.spaces import CellNetwork, CellPlace, CellSpace, DARTSSpace, NASBench201Space, get_space
from lightning_nas.supernet import MixedCell, build_supernet

NAMES = ("darts", "darts_no_none", "nasbench201", "s1", "s2", "s3", "s4", "s5")
LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
CLOSE = {torch.float64: {"rtol": 1e-10, "atol": 1e-10}, torch.float32: {"rtol": 1e-4, "atol": 1e-4}}

layouts = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
dtypes = pytest.mark.parametrize("dtype", CLOSE, ids=["fp64", "fp32"])
everywhere = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(autouse=True)
def noise_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each noise draws from a generator of its own: the two executions visit the edges in different orders."""

    def forward(self: Noise, x: Tensor) -> Tensor:
        at = torch.Generator().manual_seed(self.number)  # type: ignore[arg-type]
        return torch.randn(x[:, :, :: self.stride, :: self.stride].shape, generator=at, dtype=x.dtype)

    monkeypatch.setattr(Noise, "forward", forward)


def paired(ours: nn.Module, loop: nn.Module, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, nn.Module]:
    """Both with the same weights, and the same number on the same noise."""
    loop.load_state_dict(ours.state_dict())
    for network in (ours, loop):
        for number, noise in enumerate(m for m in network.modules() if isinstance(m, Noise)):
            noise.number = number  # type: ignore[assignment]
    return ours.to(dtype), loop.to(dtype)


def supernets(
    space: CellSpace, channels: int = 4, partial: int = 1, dtype: torch.dtype = torch.float64
) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    cells = 1 if space.topology.inputs == 1 else 3
    ours = build_supernet(space, channels, cells, partial=partial)
    return paired(ours, loop_supernet(space, channels, cells, partial), dtype)


def places(space: CellSpace) -> dict[str, CellPlace]:
    if space.topology.inputs == 1:
        return {"cell": CellPlace("cell", 0, (4,), 4)}
    return {
        "normal": CellPlace("normal", 1, (6, 8), 4),
        "after a reduction": CellPlace("normal", 3, (6, 8), 4, reduced_before=True),
        "reduction": CellPlace("reduce", 2, (8, 6), 4, reduction=True),
    }


def cells(
    space: CellSpace, place: CellPlace, partial: int = 1, dtype: torch.dtype = torch.float64
) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return paired(MixedCell(space, place, partial), LoopCell(space, place, partial), dtype)


def states_of(
    place: CellPlace,
    batch: int = 2,
    layout: torch.memory_format = torch.contiguous_format,
    dtype: torch.dtype = torch.float64,
) -> list[Tensor]:
    sides = [12 if place.reduced_before and i == 0 else 6 for i in range(len(place.in_channels))]
    draw = torch.Generator().manual_seed(5)
    shapes = [(batch, c, side, side) for c, side in zip(place.in_channels, sides, strict=True)]
    made = [torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype) for shape in shapes]
    return [state.contiguous(memory_format=layout).requires_grad_() for state in made]


def pictures(batch: int = 2, layout: torch.memory_format = torch.contiguous_format) -> Tensor:
    drawn = torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return drawn.contiguous(memory_format=layout).requires_grad_()


# Samples: each function takes theta by group (leaves), and gives a sample that depends on them.
Theta = Mapping[str, Tensor]
Rows = tuple[tuple[int, ...], ...]


def thetas(space: CellSpace, inputs: bool = False, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(3)
    groups = [g for g in space.decisions if g in space.kinds or inputs]
    masks = Support(space.decisions)
    made = {g: torch.randn(masks.mask(g).shape, generator=draw, dtype=torch.float64).to(dtype) for g in groups}
    return {g: value.requires_grad_() for g, value in made.items()}


def softmax(space: CellSpace, theta: Theta) -> dict[str, Tensor]:
    """Over the choices that a row has."""
    mask = Support(space.decisions).mask
    return {g: t.masked_fill(~mask(g), -torch.inf).softmax(-1) for g, t in theta.items()}


def paths(space: CellSpace, count: int, seed: int = 0) -> dict[str, Rows]:
    rng = random.Random(seed)
    return {
        kind: tuple(tuple(sorted(rng.sample(range(len(d.choices)), count))) for d in space.decisions[kind])
        for kind in space.kinds
    }


def dropped(space: CellSpace, seed: int = 0) -> Support:
    """A support after random drops, of candidates and of inputs."""
    rng, support = random.Random(seed), Support(space.decisions)
    for group, row, decision in list(support.rows()):
        for choice in rng.sample(range(len(decision.choices)), rng.randint(0, len(decision.choices) - decision.keep)):
            support.drop(group, row, choice)
    return support


def dense(space: CellSpace, theta: Theta) -> Sample:
    return Sample(softmax(space, theta))


def masked(space: CellSpace, theta: Theta) -> Sample:
    support = dropped(space)
    return Sample(
        {g: t.masked_fill(~support.mask(g), -torch.inf).softmax(-1) for g, t in theta.items()}, support.active()
    )


def only_candidates_masked(space: CellSpace, theta: Theta) -> Sample:
    active = dropped(space, 1).active() or {}
    return Sample(softmax(space, theta), {kind: active[kind] for kind in space.kinds if kind in active})


def straight_through(space: CellSpace, theta: Theta, paths_run: int | None = 1, seed: int = 0) -> Sample:
    """One-hot in value, soft in gradient, as hard Gumbel samples are; the losers may run or not."""
    relaxed, one = softmax(space, theta), paths(space, 1, seed)
    hard = {g: torch.zeros_like(p) for g, p in relaxed.items()}
    for kind in space.kinds:
        for row, (choice,) in enumerate(one[kind]):
            hard[kind][row, choice] = 1.0
    weights = {g: hard[g] + p - p.detach() if g in space.kinds else p for g, p in relaxed.items()}
    if paths_run is None:
        return Sample(weights)
    others = paths(space, paths_run, seed + 1)
    active = {
        kind: tuple(tuple(sorted({*a, *b[: paths_run - 1]})) for a, b in zip(one[kind], others[kind], strict=True))
        for kind in space.kinds
    }
    return Sample(weights, active)


def vertex(space: CellSpace, theta: Theta, seed: int = 0) -> Sample:
    return space.vertex(space.sample(random.Random(seed)))


def not_relaxed(space: CellSpace, theta: Theta) -> Sample:
    return Sample({}, dropped(space, 2).active())


def rows_empty(space: CellSpace, theta: Theta) -> Sample:
    active = {
        kind: tuple(ks if row % 3 else () for row, ks in enumerate(paths(space, 1)[kind])) for kind in space.kinds
    }
    return Sample(softmax(space, theta), active)


Draw = Callable[[CellSpace, Theta], Sample]
SAMPLES: dict[str, Draw] = {
    "dense": dense,
    "masked": masked,
    "candidates masked": only_candidates_masked,
    "losers run": partial_of(straight_through, paths_run=None),
    "one path": straight_through,
    "two paths": partial_of(straight_through, paths_run=2),
    "vertex": vertex,
    "another vertex": partial_of(vertex, seed=7),
    "not relaxed": not_relaxed,
    "rows empty": rows_empty,
}
samples = pytest.mark.parametrize("draw", SAMPLES.values(), ids=SAMPLES)


def direction(out: Tensor) -> Tensor:
    """A gradient of the output that no symmetry cancels, in the output's memory format."""
    drawn = torch.randn(out.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return torch.empty_like(out, requires_grad=False).copy_(drawn)


def slopes(out: Tensor, leaves: list[Tensor], create_graph: bool = False) -> list[Tensor | None]:
    if not out.requires_grad:
        return [None] * len(leaves)
    return list(torch.autograd.grad(out, leaves, direction(out), True, create_graph, allow_unused=True))


def assert_same(
    ours: list[Tensor | None], theirs: list[Tensor | None], dtype: torch.dtype = torch.float64, dead_ends: bool = False
) -> None:
    """Equal up to round-off, and none where the loop has none; with `dead_ends` that may be zero too."""
    for one, other in zip(ours, theirs, strict=True):
        if other is None:
            assert one is None or (dead_ends and not one.any())
            continue
        assert one is not None
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        size = max(1.0, float(other.detach().abs().max()))  # round-off grows with the terms of a sum
        torch.testing.assert_close(one / size, other / size, **CLOSE[dtype])


def assert_executed_equally(
    space: CellSpace,
    pair: tuple[nn.Module, nn.Module],
    given: list[Tensor],
    sample: Sample,
    theta: Theta,
    dtype: torch.dtype = torch.float64,
) -> None:
    """Outputs and the gradients of inputs, theta and every weight."""
    found = []
    for network in pair:
        states = tuple(given) if isinstance(network, (MixedCell, LoopCell)) else given[0]
        out = network(states, sample)
        found.append([out, *slopes(out, [*given, *theta.values(), *network.parameters()])])
    assert_same(*found, dtype, dead_ends=False)


def cell_space(name: str) -> CellSpace:
    space = get_space(name)
    assert isinstance(space, CellSpace)
    return space


@samples
@pytest.mark.parametrize("name", ["darts", "nasbench201", "s1", "s4"])
def test_supernets(name: str, draw: Draw) -> None:
    space = cell_space(name)
    theta = thetas(space)
    assert_executed_equally(space, supernets(space), [pictures()], draw(space, theta), theta)


@everywhere
def test_weights_load_into_the_other_execution(name: str) -> None:
    """Both ways, under the same names."""
    space = cell_space(name)
    loop, theta = loop_supernet(space, 4, 1), thetas(space)
    ours = build_supernet(space, 4, 1)
    assert not torch.equal(ours.classifier.weight, loop.classifier.weight)  # type: ignore[arg-type]
    assert ours.load_state_dict(loop.state_dict()) == loop.load_state_dict(ours.state_dict())
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in loop.named_parameters()]
    pair = paired(loop, ours)[::-1]
    for draw in (dense, masked):
        assert_executed_equally(space, pair, [pictures()], draw(space, theta), theta)


@samples
@pytest.mark.parametrize("inputs", [False, True], ids=["", "relaxed inputs"])
@pytest.mark.parametrize(
    ("name", "kind"), [("darts", "normal"), ("darts_no_none", "reduction"), ("nasbench201", "cell")]
)
def test_cells(name: str, kind: str, inputs: bool, draw: Draw) -> None:
    space = cell_space(name)
    place, theta = places(space)[kind], thetas(space, inputs)
    given = states_of(place, 5, torch.channels_last)
    assert_executed_equally(space, cells(space, place), given, draw(space, theta), theta)


@layouts
@pytest.mark.parametrize("batch", [2, 5])
@pytest.mark.parametrize("name", ["darts", "nasbench201", "s1", "s2", "s3", "s4"])
def test_every_place_and_layout(name: str, batch: int, layout: torch.memory_format) -> None:
    space = cell_space(name)
    theta = thetas(space, inputs=True)
    for place in places(space).values():
        given = states_of(place, batch, layout)
        assert_executed_equally(space, cells(space, place), given, masked(space, theta), theta)


@samples
@pytest.mark.parametrize("partial", [2, 4])
@pytest.mark.parametrize(("name", "inputs"), [("darts", True), ("nasbench201", False), ("s1", False), ("s1", True)])
def test_partial_channels(name: str, inputs: bool, partial: int, draw: Draw) -> None:
    space = cell_space(name)
    theta = thetas(space, inputs)
    for place in list(places(space).values())[::2]:
        wide = replace(place, channels=8, in_channels=place.in_channels if len(place.in_channels) == 2 else (8,))
        given = states_of(wide)
        assert_executed_equally(space, cells(space, wide, partial), given, draw(space, theta), theta)


@pytest.mark.parametrize("draw", [dense, masked, straight_through, vertex])
@pytest.mark.parametrize("partial", [1, 2])
@pytest.mark.parametrize("name", ["darts", "nasbench201"])
def test_single_precision(name: str, partial: int, draw: Draw) -> None:
    space, dtype = cell_space(name), torch.float32
    layout = torch.channels_last if partial == 2 else torch.contiguous_format
    theta = thetas(space, dtype=dtype)
    pair = supernets(space, 4, partial, dtype)
    assert_executed_equally(
        space, pair, [pictures(5, layout).float().detach().requires_grad_()], draw(space, theta), theta, dtype
    )


@layouts
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", ["darts", "nasbench201"])
def test_layouts_and_modes(name: str, training: bool, layout: torch.memory_format) -> None:
    space = cell_space(name)
    theta = thetas(space)
    ours, loop = supernets(space)
    for batch in (2, 5):
        pair = ours.train(training), loop.train(training)
        assert_executed_equally(space, pair, [pictures(batch, layout)], dense(space, theta), theta)


@pytest.mark.parametrize("name", ["darts", "nasbench201"])
def test_one_cell_for_many_samples(name: str) -> None:
    """What a cell remembers of one sample serves no other, whichever part of it differs."""
    space = cell_space(name)
    place, theta = next(iter(places(space).values())), thetas(space, inputs=True)
    given, pair = states_of(place), cells(space, place)
    whole = masked(space, theta)
    parts = [Sample(whole.weights, {g: rows}) for g, rows in (whole.active or {}).items()]
    for sample in (whole, *parts, dense(space, theta), whole, *(draw(space, theta) for draw in SAMPLES.values())):
        assert_executed_equally(space, pair, given, sample, theta)


@dtypes
@layouts
@pytest.mark.parametrize("active", [((), (), (), (3,), (), ()), ((), (1,), (), (), (), (3,))], ids=["first", "last"])
def test_a_single_edge_with_a_gradient_in_channels_last(
    active: Rows, layout: torch.memory_format, dtype: torch.dtype
) -> None:
    """One weight for all channels: a library reads the scale of a normalisation past its end if its stride is zero."""
    space = cell_space("nasbench201")
    place, theta = places(space)["cell"], {"cell": torch.full((6, 5), 0.5, dtype=dtype, requires_grad=True)}
    given, pair = states_of(place, 2, layout, dtype), cells(space, place, dtype=dtype)
    assert_executed_equally(space, pair, given, Sample(theta, {"cell": active}), theta, dtype)


def test_noise_from_the_global_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    """One noise draws the same from the same seed in both executions."""
    space, found = cell_space("s4"), []
    monkeypatch.undo()
    one = tuple((0,) if row == 3 else (1,) for row in range(14))
    x, sample = pictures(layout=torch.channels_last), Sample({}, {"normal": one, "reduce": ((1,),) * 14})
    for network in supernets(space):
        torch.manual_seed(9)
        found.append([network(x, sample)])
    assert_same(*found)
    torch.manual_seed(10)
    assert not torch.equal(network(x, sample), found[1][0])


@pytest.mark.parametrize("draw", [dense, masked, straight_through])
@pytest.mark.parametrize(("name", "partial"), [("darts", 1), ("darts", 2), ("nasbench201", 1), ("s1", 1)])
def test_hessian_vector_products(name: str, partial: int, draw: Draw) -> None:
    """Second derivatives in theta, the weights and the inputs, all against all."""
    space, found = cell_space(name), []
    place, theta = list(places(space).values())[-1], thetas(space, inputs=True)
    given = states_of(place, 3)
    for network in cells(space, place, partial):
        leaves = [*given, *theta.values(), *network.parameters()]
        first = slopes(network(tuple(given), draw(space, theta)), leaves, create_graph=True)
        kept = [g for g in first if g is not None and g.requires_grad]
        product = torch.stack([(g * direction(g)).sum() for g in kept]).sum()
        found.append(list(torch.autograd.grad(product, leaves, allow_unused=True)))
    ours, theirs = ([torch.zeros_like(x) if g is None else g for g, x in zip(f, leaves, strict=True)] for f in found)
    assert any(bool(g.any()) for g in theirs)
    assert_same(ours, theirs)


def test_second_derivatives_by_differences() -> None:
    space = cell_space("nasbench201")
    place = CellPlace("cell", 0, (2,), 2)
    ours, _ = cells(space, place)
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)

    def value(x: Tensor, theta: Tensor) -> Tensor:
        out: Tensor = ours((x,), Sample({"cell": theta.softmax(-1)}))
        return out

    theta = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(value, (x, theta), fast_mode=True)


@pytest.mark.parametrize("name", ["darts", "nasbench201", "s2"])
def test_other_weights_by_functional_call(name: str) -> None:
    """As virtual steps of the bilevel problem execute it; the network's own weights neither count nor move."""
    space, found = cell_space(name), []
    theta = thetas(space)
    for network in supernets(space):
        before = [p.clone() for p in network.parameters()]
        draw = torch.Generator().manual_seed(6)
        others = {
            n: torch.randn(p.shape, generator=draw, dtype=p.dtype).requires_grad_()
            for n, p in network.named_parameters()
        }
        out = functional_call(network, others, (pictures(), dense(space, theta)))
        assert slopes(out, list(network.parameters())) == [None] * len(before)
        found.append([out, *slopes(out, [*theta.values(), *others.values()])])
        assert all(torch.equal(p, b) for p, b in zip(network.parameters(), before, strict=True))
    assert_same(*found)


@pytest.mark.parametrize("draw", [dense, masked, vertex])
@pytest.mark.parametrize(("name", "partial"), [("darts", 1), ("darts", 2), ("nasbench201", 1), ("s1", 1)])
def test_bfloat16(name: str, partial: int, draw: Draw) -> None:
    """Under autocast outputs agree to what bfloat16 resolves, and gradients are as near single precision as the loop's.

    A ReLU near zero may fall to either side, so a few gradients may differ by more: the median counts.
    """
    space, dtype = cell_space(name), torch.float32
    place, theta = list(places(space).values())[-1], thetas(space, dtype=dtype)
    given, pair = states_of(place, 5, torch.channels_last, dtype), cells(space, place, partial, dtype)
    sample, found = draw(space, theta), []
    for network, low in ((pair[1], False), (pair[1], True), (pair[0], True)):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
            out = network(tuple(given), sample)
        found.append([out.detach(), *slopes(out, [*given, *theta.values(), *network.parameters()])])
    exact, theirs, ours = ([g.float() for g in part if g is not None] for part in found)
    assert all(bool(g.isfinite().all()) for g in ours)
    assert (ours[0] - theirs[0]).norm() < 2**-6 * theirs[0].norm()
    errors = [
        median((g - e).norm() / e.norm().clamp(1e-3) for g, e in zip(part, exact, strict=True))
        for part in (ours, theirs)
    ]
    assert 0 < errors[0] < 1.5 * errors[1] < 0.2


@pytest.mark.parametrize("draw", [dense, masked, vertex, rows_empty])
@pytest.mark.parametrize(("name", "partial"), [("darts", 1), ("darts", 2), ("nasbench201", 1), ("s1", 1)])
def test_the_type_under_autocast(name: str, partial: int, draw: Draw) -> None:
    """Every block works in bfloat16 where the loop does: a weight in single precision widens nothing."""
    space, dtype = cell_space(name), torch.float32
    theta, found = thetas(space, dtype=dtype), []
    for network in supernets(space, 4, partial, dtype):
        assert isinstance(network, CellNetwork)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outs = network.outputs(pictures().float(), draw(space, theta))
            found.append([out.dtype for out in outs])
    assert found[0] == found[1]
    assert torch.bfloat16 in found[0]


class Squeezed(nn.Module):
    """A project's own candidate, of no form that the package knows."""

    def __init__(self, spec: OpSpec) -> None:
        super().__init__()
        self.conv = nn.Conv2d(spec.channels, spec.channels, 3, spec.stride, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x).tanh() * x.mean((2, 3), keepdim=True)
        return out


class Residual(nn.Sequential):
    """A sequence that does not do what a sequence does."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + super().forward(x)
        return out


def sep_conv_7x7(spec: OpSpec) -> nn.Module:
    made = OPS["sep_conv_5x5"](spec)
    assert isinstance(made, nn.Sequential)
    for at in (1, 5):
        c, stride = spec.channels, made[at].stride
        made[at] = nn.Conv2d(c, c, 7, stride, 3, groups=c, bias=False)
    return made


def residual(spec: OpSpec) -> nn.Module:
    c = spec.channels
    norm = nn.BatchNorm2d(c, affine=False, track_running_stats=False)
    return Residual(nn.ReLU(), nn.Conv2d(c, c, 1, bias=False), norm)


def with_bias(spec: OpSpec) -> nn.Module:
    c = spec.channels
    return nn.Sequential(nn.ReLU(), nn.Conv2d(c, c, 3, spec.stride, 1), nn.BatchNorm2d(c, track_running_stats=False))


OWN: dict[str, Callable[[OpSpec], nn.Module]] = {
    "squeezed": Squeezed,
    "sep_conv_7x7": sep_conv_7x7,
    "with bias": with_bias,
    "residual": residual,
    "nothing": lambda spec: nn.Sequential(),
}


@pytest.mark.parametrize("partial", [1, 2])
@pytest.mark.parametrize("own", ["squeezed", "sep_conv_7x7", "with bias"])
def test_own_candidates_in_both_kinds_of_cell(own: str, partial: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPS, own, OWN[own])
    space = DARTSSpace("own", ("skip_connect", own, "sep_conv_3x3"), nodes=2)
    theta = thetas(space, inputs=True)
    for draw in (dense, masked):
        pair = supernets(space, 8, partial)
        assert_executed_equally(space, pair, [pictures()], draw(space, theta), theta)


@pytest.mark.parametrize("own", ["residual", "nothing"])
def test_own_candidates_of_stride_one(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPS, own, OWN[own])
    space = NASBench201Space("own", ("skip_connect", own, "nor_conv_3x3"))
    theta = thetas(space)
    assert_executed_equally(space, supernets(space), [pictures()], dense(space, theta), theta)


@pytest.mark.parametrize(("own", "calls"), [("sep_conv_7x7", 4 * 3), ("squeezed", 6)])
def test_what_is_grouped(own: str, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A known form takes one call per layer for all edges that leave a node; an unknown one a call per edge."""
    monkeypatch.setitem(OPS, own, OWN[own])
    space = NASBench201Space("own", (own,))
    ours, loop = cells(space, places(space)["cell"])
    counts = []
    for network in (ours, loop):
        with Convolutions() as counted:
            network(tuple(states_of(places(space)["cell"])), Sample({}))
        counts.append(counted.count)
    assert counts == [calls, 6 * (4 if own == "sep_conv_7x7" else 1)]


class Convolutions(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten.convolution.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["darts", "nasbench201", "s1"])
def test_closed_candidates_get_no_gradient(name: str) -> None:
    """Not a gradient of zeros, at which an optimiser would still decay and move them; all others get one."""
    space = cell_space(name)
    support, theta = dropped(space, 4), thetas(space)
    closed = {kind: support.open(kind) for kind in space.kinds}
    ours, _ = supernets(space)
    ours(pictures(), masked(space, theta)._replace(active=support.active())).square().sum().backward()
    found = set()
    for block in ours.modules():
        if isinstance(block, MixedCell):
            inputs = support.open(block.input_group) if block.input_group in space.decisions else None
            for row, (target, source) in enumerate(space.topology.edges):
                shut = inputs is not None and source not in inputs[target - space.topology.inputs]
                for k, op in enumerate(block.edges[row]):  # type: ignore[arg-type]
                    executed = k in closed[block.kind][row] and not shut
                    found |= {executed} if list(op.parameters()) else set()
                    assert all((p.grad is not None) == executed for p in op.parameters())
    assert found == {True, False}


def test_an_edge_into_a_dead_end_gets_no_gradient() -> None:
    """Where nothing leaves a node, the loop computes for nothing, and no gradient returns."""
    space = cell_space("nasbench201")
    place, active = places(space)["cell"], ((3,), (3,), (0,), (3,), (0,), (3,))  # node 1 is read by `none` alone
    found = []
    for network in cells(space, place):
        out = network(tuple(states_of(place)), Sample({}, {"cell": active}))
        found.append(slopes(out, list(network.parameters())))
    assert_same(*found)


SMALL = {"darts": DARTSSpace("small", nodes=2), "nasbench201": NASBench201Space()}


@st.composite
def executions(draw: st.DrawFn) -> tuple[str, CellPlace, int, Sample, dict[str, Tensor], list[Tensor]]:
    """A small cell with any active choices and inputs, any groups relaxed, any layout, any partial channels."""
    name = draw(st.sampled_from(list(SMALL)))
    space, partial = SMALL[name], draw(st.sampled_from([1, 2, 4]))
    place = draw(st.sampled_from(list(places(space).values())))
    wide = replace(place, channels=8, in_channels=place.in_channels if len(place.in_channels) == 2 else (8,))
    active, theta = {}, {}
    for group, rows in space.decisions.items():
        least = 0 if group in space.kinds else 1
        sets = [st.sets(st.integers(0, len(d.choices) - 1), min_size=least) for d in rows]
        if draw(st.booleans()):
            active[group] = tuple(tuple(sorted(s)) for s in draw(st.tuples(*sets)))
        if draw(st.booleans()):
            theta |= {g: t for g, t in thetas(space, inputs=True).items() if g == group}
    given = states_of(wide, draw(st.sampled_from([2, 5])), draw(st.sampled_from(list(LAYOUTS.values()))))
    return name, wide, partial, Sample(theta, active), theta, given


@given(executions())
@settings(max_examples=60, deadline=None)
def test_any_active_sets(execution: tuple[str, CellPlace, int, Sample, dict[str, Tensor], list[Tensor]]) -> None:
    name, place, partial, sample, theta, states = execution
    space = SMALL[name]
    assert_executed_equally(space, cells(space, place, partial), states, sample, theta)
