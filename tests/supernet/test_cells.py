"""The mixed cell against the sum over edges and candidates as it is written down, in double precision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from loops import LoopCell
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lightning_nas.arch import Sample
from lightning_nas.spaces import CellPlace, CellSpace, CellTopology, NASBench201Space, get_space
from lightning_nas.supernet import MixedCell

DARTS = ("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect")
DARTS += ("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")
NB201 = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


@dataclass(frozen=True)
class Cell:
    """A place for a cell, and what the publications say of it."""

    space: str
    place: CellPlace
    sides: tuple[int, ...]  # of its inputs
    ops: tuple[str, ...]

    @property
    def inputs(self) -> int:
        return len(self.sides)

    @property
    def nodes(self) -> int:
        return 4 if self.inputs == 2 else 3

    @property
    def edges(self) -> list[tuple[int, int]]:
        """``(target, source)`` in the published order: 0, 2, 5, 9 are the first rows of the nodes of DARTS."""
        if self.inputs == 1:
            return [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]
        return [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2), *((4, i) for i in range(4)), *((5, i) for i in range(5))]


CELLS = {
    "nasbench201": Cell("nasbench201", CellPlace("cell", 0, (4,), 4), (6,), NB201),
    "darts": Cell("darts", CellPlace("normal", 1, (6, 8), 4), (6, 6), DARTS),
    "darts after a reduction": Cell("darts", CellPlace("normal", 3, (6, 8), 4, reduced_before=True), (12, 6), DARTS),
    "darts reduction": Cell("darts", CellPlace("reduce", 2, (8, 6), 4, reduction=True), (6, 6), DARTS),
    "darts without none": Cell("darts_no_none", CellPlace("reduce", 2, (8, 6), 4, reduction=True), (6, 6), DARTS[1:]),
}


def norm(x: Tensor) -> Tensor:
    mean = x.mean((0, 2, 3), keepdim=True)
    variance = (x - mean).square().mean((0, 2, 3), keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt()


def factorized(x: Tensor, w: list[Tensor]) -> Tensor:
    x = x.relu()
    return norm(torch.cat([F.conv2d(x, w[0], stride=2), F.conv2d(x[:, :, 1:, 1:], w[1], stride=2)], 1))


def separable(x: Tensor, w: list[Tensor], stride: int, kernel: int, dilation: int = 1) -> Tensor:
    padding, channels = dilation * (kernel - 1) // 2, x.shape[1]
    return norm(F.conv2d(F.conv2d(x.relu(), w[0], None, stride, padding, dilation, channels), w[1]))


def candidate(name: str, x: Tensor, w: list[Tensor], stride: int, published: str) -> Tensor:
    """An operation by its definition, on weights in the order of its layers."""
    kernel = int(name[-1]) if name[-1].isdigit() else 0
    if name == "none":
        return torch.zeros_like(x[:, :, ::stride, ::stride])
    if name == "skip_connect":
        return x if stride == 1 else factorized(x, w)
    if name.startswith("sep_conv"):
        return separable(separable(x, w[:2], stride, kernel), w[2:], 1, kernel)
    if name.startswith("dil_conv"):
        return separable(x, w, stride, kernel, dilation=2)
    if name.startswith("nor_conv"):
        return norm(F.conv2d(x.relu(), w[0], None, stride, kernel // 2))
    if name == "max_pool_3x3":
        out = F.max_pool2d(x, 3, stride, 1)
    else:
        out = F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)
    return out if published == "nasbench201" else norm(out)


def reference(cell: Cell, module: MixedCell, states: tuple[Tensor, ...], sample: Sample) -> Tensor:
    """``x_j = sum_i e_ij sum_k a_ijk o_k(x_i)`` with ``a`` and ``e`` zero for what is not active."""
    kind, nodes = cell.place.kind, list(states)
    if cell.inputs == 2:
        before, last = (list(part.parameters()) for part in module.preprocess)
        first = (
            factorized(states[0], before) if cell.place.reduced_before else norm(F.conv2d(states[0].relu(), *before))
        )
        nodes = [first, norm(F.conv2d(states[1].relu(), *last))]
    given = sample.weights.get(kind, torch.ones(len(cell.edges), len(cell.ops)).to(states[0]))
    across = sample.weights.get(f"{kind}/inputs", torch.ones(4, 5).to(states[0]))
    active, open_inputs = (sample.active or {}).get(kind), (sample.active or {}).get(f"{kind}/inputs")
    for node in range(cell.inputs, cell.inputs + cell.nodes):
        total: Tensor | float = 0.0
        for row, (target, source) in enumerate(cell.edges):
            if target != node or (open_inputs is not None and source not in open_inputs[node - cell.inputs]):
                continue
            stride = 2 if cell.place.reduction and source < 2 else 1
            for k, name in enumerate(cell.ops):
                if active is None or k in active[row]:
                    value = candidate(name, nodes[source], list(module.edges[row][k].parameters()), stride, cell.space)  # type: ignore[index]
                    total = total + across[node - cell.inputs, source] * given[row, k] * value
        nodes.append(total if isinstance(total, Tensor) else torch.zeros_like(nodes[-1 if node > cell.inputs else 0]))
        if isinstance(total, float) and node == cell.inputs and cell.place.reduction:
            nodes[-1] = nodes[-1][:, :, ::2, ::2]
    return torch.cat(nodes[cell.inputs :], 1) if cell.inputs == 2 else nodes[-1]


Rows = tuple[tuple[int, ...], ...]


def samples(cell: Cell) -> Iterator[tuple[str, Sample]]:
    """All kinds of sample. Weights are not zero where a choice is not active: only `active` decides."""
    kind, edges, count = cell.place.kind, len(cell.edges), len(cell.ops)
    draw = torch.Generator().manual_seed(3)

    def weights(rows: int = edges, columns: int = count) -> Tensor:
        return torch.randn(rows, columns, generator=draw, dtype=torch.float64).softmax(-1).requires_grad_()

    def subset(of: int, least: int = 0) -> tuple[int, ...]:
        size = int(torch.randint(least, of + 1, (), generator=draw))
        return tuple(sorted(torch.randperm(of, generator=draw)[:size].tolist()))

    narrowed: Rows = tuple(subset(count, 1) for _ in range(edges))
    one: Rows = tuple((int(torch.randint(count, (), generator=draw)),) for _ in range(edges))
    yield "dense", Sample({kind: weights()})
    yield "some active", Sample({kind: weights()}, {kind: narrowed})
    yield "one path", Sample({kind: weights()}, {kind: one})
    yield (
        "some rows empty",
        Sample({kind: weights()}, {kind: tuple(r if i % 2 else () for i, r in enumerate(narrowed))}),
    )
    yield "nothing active", Sample({kind: weights()}, {kind: ((),) * edges})
    yield "zero but active", Sample({kind: (0 * weights().detach()).requires_grad_()}, {kind: narrowed})
    yield "not relaxed", Sample({}, {kind: one})
    into_last = [row for row, edge in enumerate(cell.edges) if edge[0] == cell.edges[-1][0]]
    if cell.ops[0] == "none":
        yield "only none", Sample({kind: weights()}, {kind: ((0,),) * edges})
        into_first = tuple(
            (0,) if edge[0] == cell.inputs else row for edge, row in zip(cell.edges, narrowed, strict=True)
        )
        yield "first node only none", Sample({kind: weights()}, {kind: into_first})
        last = tuple((0,) if row in into_last else active for row, active in enumerate(narrowed))
        yield "last node only none", Sample({kind: weights()}, {kind: last})
    if cell.inputs == 2:
        both = {kind: weights(), f"{kind}/inputs": weights(4, 5)}
        kept = tuple(tuple(sorted(torch.randperm(node, generator=draw)[:2].tolist())) for node in range(2, 6))
        yield "relaxed inputs", Sample(both)
        yield "relaxed inputs, some closed", Sample(both, {f"{kind}/inputs": kept})
        yield "inputs kept", Sample({kind: weights()}, {f"{kind}/inputs": kept})
        yield "inputs kept, some active", Sample({kind: weights()}, {f"{kind}/inputs": kept, kind: narrowed})


CASES = [
    pytest.param(cell, sample, id=f"{name}: {what}") for name, cell in CELLS.items() for what, sample in samples(cell)
]


def make(cell: Cell) -> tuple[MixedCell, tuple[Tensor, ...]]:
    space = get_space(cell.space)
    assert isinstance(space, CellSpace)
    torch.manual_seed(1)
    shapes = zip(cell.place.in_channels, cell.sides, strict=True)
    states = tuple(torch.randn(3, c, side, side, dtype=torch.float64, requires_grad=True) for c, side in shapes)
    return MixedCell(space, cell.place).double(), states


def slopes(value: Tensor, inputs: list[Tensor], direction: Tensor) -> tuple[Tensor, ...]:
    """Gradients, zero where there are none (zeros that nothing was computed for have no graph at all)."""
    if not value.requires_grad:
        return tuple(torch.zeros_like(x) for x in inputs)
    return torch.autograd.grad(value, inputs, direction, materialize_grads=True)


@pytest.mark.parametrize(("cell", "sample"), CASES)
def test_values_and_gradients_equal_the_formula(cell: Cell, sample: Sample) -> None:
    module, states = make(cell)
    inputs = [*module.parameters(), *states, *sample.weights.values()]
    ours, theirs = module(states, sample), reference(cell, module, states, sample)
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
    direction = torch.randn_like(ours)
    for one, other in zip(slopes(ours, inputs, direction), slopes(theirs, inputs, direction), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(("cell", "sample"), CASES)
def test_only_what_is_active_is_executed(cell: Cell, sample: Sample) -> None:
    """Weights that are not active may hold anything, and the multiplications are those of the active candidates."""
    module, states = make(cell)
    before = module(states, sample)
    active, inputs = sample.open(cell.place.kind), sample.open(f"{cell.place.kind}/inputs")
    for row, (target, source) in enumerate(cell.edges):
        for k in range(len(cell.ops)):
            open_input = inputs is None or source in inputs[target - 2]
            if not (open_input and (active is None or k in active[row])):
                for p in module.edges[row][k].parameters():  # type: ignore[index]
                    p.data.fill_(torch.nan)
    assert torch.equal(module(states, sample), before)
    loop = LoopCell(get_space(cell.space), cell.place).double()  # type: ignore[arg-type]
    work = []
    for one in (module, loop):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            one(tuple(state.detach() for state in states), sample.detach())
        flops = counter.get_flop_counts().get("Global", {})
        work.append(sum(n for op, n in flops.items() if "convolution" in str(op)))
    if cell.inputs == 1:  # edges into nodes that nothing reads are left out
        assert work[0] <= work[1]
    else:
        assert work[0] == work[1]


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_an_active_choice_of_weight_zero_still_gives_its_gradient(cell: Cell) -> None:
    """As a straight-through sample needs it; a choice that is not active gives none, whatever its weight."""
    module, states = make(cell)
    one, loser, silent = (cell.ops.index(op) for op in ("skip_connect", "avg_pool_3x3", cell.ops[-2]))
    weights = torch.zeros(len(cell.edges), len(cell.ops), dtype=torch.float64)
    weights[:, one], weights[:, silent] = 1.0, 0.5
    weights.requires_grad_()
    out = module(states, Sample({cell.place.kind: weights}, {cell.place.kind: ((one, loser),) * len(cell.edges)}))
    (grad,) = torch.autograd.grad(out, [weights], torch.randn_like(out))
    assert bool((grad[:, [one, loser]] != 0).all())
    assert bool((grad[:, [k for k in range(len(cell.ops)) if k not in (one, loser)]] == 0).all())


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_nothing_that_reaches_no_weight_gets_a_gradient(cell: Cell) -> None:
    """Parameters of what is not active keep no gradient at all, so that an optimiser does not move them."""
    module, states = make(cell)
    kind = cell.place.kind
    conv = next(k for k, op in enumerate(cell.ops) if "conv" in op)
    module(states, Sample({}, {kind: ((conv,),) * len(cell.edges)})).sum().backward()
    for row in range(len(cell.edges)):
        for k in range(len(cell.ops)):
            parameters = list(module.edges[row][k].parameters())  # type: ignore[index]
            assert all((p.grad is None) == (k != conv) for p in parameters)


def test_a_wrong_number_of_states_is_refused() -> None:
    cell = CELLS["darts"]
    module, states = make(cell)
    with pytest.raises(ValueError, match="argument"):
        module(states[:1], Sample({}))


class Ragged(NASBench201Space):
    """Edges with lists of their own."""

    def __init__(self) -> None:
        ops = (("skip_connect", "nor_conv_1x1", "avg_pool_3x3"), ("skip_connect",)) * 3
        CellSpace.__init__(self, "ragged", ("cell",), CellTopology(1, 3, "last"), {"cell": ops})


def test_the_padding_of_shorter_rows_is_neither_weighed_nor_executed() -> None:
    module = MixedCell(Ragged(), CellPlace("cell", 0, (4,), 4)).double()
    assert [len(edge) for edge in module.edges] == [3, 1] * 3  # type: ignore[arg-type]
    x = torch.randn(3, 4, 6, 6, dtype=torch.float64)
    weights = torch.rand(6, 3, dtype=torch.float64)
    padded = weights.clone()
    padded[1::2, 1:] = 100.0
    assert torch.equal(module((x,), Sample({"cell": weights})), module((x,), Sample({"cell": padded})))
