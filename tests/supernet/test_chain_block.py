"""The mixed block of a chain against its formula in plain loops, and what it executes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from lightning_nas.arch import Sample
from lightning_nas.ops import Zero
from lightning_nas.spaces import ChainSpace, FBNetSpace, ProxylessMobileSpace, ShuffleNetSpace
from lightning_nas.supernet import MixedBlock

SHORT = ((8, 2, 2),)
SPACES = [
    ProxylessMobileSpace(stages=SHORT),
    FBNetSpace(stages=SHORT),
    ShuffleNetSpace(stages=((20, 2, 2),)),
]
everywhere = pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
places = pytest.mark.parametrize("row", [0, 1], ids=["reduces", "keeps"])


def make(space: ChainSpace, row: int) -> tuple[MixedBlock, Tensor]:
    torch.manual_seed(row)
    place = space.places[row]
    block = MixedBlock(space, place).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    return block, torch.randn(3, place.in_channels, 6, 6, dtype=torch.float64)


def reference(space: ChainSpace, block: MixedBlock, x: Tensor, weights: list[Tensor], active: list[int]) -> Tensor:
    """Every active candidate with its own shortcut, `Zero` and the identity computed like any other."""
    keeps = block.row == 1
    total: Tensor | float = 0.0
    for k in active:
        name, op = space.rows[block.row].choices[k], block.ops[k]
        if space.name == "fbnet" and keeps:
            out = x if name == "skip" else op(x) + x
        else:
            out = torch.zeros_like(x) if name == "Zero" else op(x)
        total = total + weights[k] * out
    return total + x if space.name == "proxyless_mobile" and keeps else total  # type: ignore[return-value]


@everywhere
@places
def test_values_and_gradients_are_those_of_the_formula(space: ChainSpace, row: int) -> None:
    block, x = make(space, row)
    count = len(space.rows[row].choices)
    width = max(len(decision.choices) for decision in space.rows)
    for active in (list(range(count)), [count - 1], [0], [1, count - 1], [2, 0]):
        for weighted in (True, False):
            p = torch.randn(2, width, dtype=torch.float64).requires_grad_()
            leaf = x.clone().requires_grad_()
            rows = tuple(tuple(active) if r == row else () for r in range(2))
            found = block((leaf,), Sample({"blocks": p} if weighted else {}, {"blocks": rows}))
            one = torch.ones((), dtype=torch.float64)
            wanted = reference(space, block, leaf, list(p[row]) if weighted else [one] * width, active)
            torch.testing.assert_close(found, wanted)
            above, variables = torch.randn_like(found), [leaf, p, *block.parameters()]
            grads = [
                torch.autograd.grad(out, variables, above, allow_unused=True, materialize_grads=True)
                for out in (found, wanted)
            ]
            for got, expected in zip(*grads, strict=True):
                torch.testing.assert_close(got, expected)


@everywhere
@places
def test_all_candidates_run_unless_the_sample_says_which(space: ChainSpace, row: int) -> None:
    block, x = make(space, row)
    count = len(space.rows[row].choices)
    every = Sample({}, {"blocks": (tuple(range(count)),) * 2})
    assert torch.equal(block((x,), Sample({})), block((x,), every))
    assert torch.equal(block((x,), Sample({}, {"other": ((0,),)})), block((x,), every))


@everywhere
@places
def test_only_active_candidates_run_and_zero_never(space: ChainSpace, row: int) -> None:
    block, x = make(space, row)
    ran: list[int] = []
    for k, op in enumerate(block.ops):
        op.register_forward_hook(lambda *_, k=k: ran.append(k))
    zeros = {k for k, op in enumerate(block.ops) if isinstance(op, Zero)}
    assert len(zeros) == (row == 1 and space.identity is not None)
    count = len(space.rows[row].choices)
    for active in ([k] for k in range(count)):
        ran.clear()
        out = block((x,), Sample({"blocks": torch.ones(2, count)}, {"blocks": (tuple(active),) * 2}))
        assert ran == [k for k in active if k not in zeros]
        if set(active) <= zeros:
            assert torch.equal(out, x)
    ran.clear()
    block((x,), Sample({}))
    assert set(ran) == set(range(count)) - zeros


def test_a_skipped_block_of_proxyless_is_its_shortcut_whatever_its_weight() -> None:
    """The gate of `Zero` multiplies nothing; that of FBNet's skip multiplies the input."""
    for space, factor in [(SPACES[0], 1.0), (SPACES[1], 0.3)]:
        block, x = make(space, 1)
        last = len(space.rows[1].choices) - 1
        weights = torch.full((2, last + 1), 0.3, dtype=torch.float64)
        out = block((x,), Sample({"blocks": weights}, {"blocks": ((last,), (last,))}))
        torch.testing.assert_close(out, factor * x)


def test_nothing_active_gives_zeros_or_the_shortcut() -> None:
    nothing = Sample({}, {"blocks": ((), ())})
    for space in SPACES:
        for row in (0, 1):
            block, x = make(space, row)
            out = block((x,), nothing)
            keeps = space.name == "proxyless_mobile" and row == 1
            assert torch.equal(out, x if keeps else torch.zeros_like(block((x,), Sample({}))))


@everywhere
@places
def test_a_checkpointed_block_gives_the_same_gradients_and_keeps_less(space: ChainSpace, row: int) -> None:
    block, x = make(space, row)
    p = torch.rand(2, len(space.rows[row].choices), dtype=torch.float64).requires_grad_()
    state = {name: (1.5 * w.detach()).requires_grad_() for name, w in block.named_parameters()}  # virtual weights
    found, kept = [], []
    for checkpoint in (False, True):
        block.checkpoint = checkpoint
        saved: list[int] = []
        leaf = x.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=saved: s.append(t.numel()) or t, lambda t: t):  # type: ignore[misc]
            out = functional_call(block, state, ((leaf,), Sample({"blocks": p})))
        kept.append(sum(saved))
        found.append(torch.autograd.grad(F.softplus(out).sum(), [leaf, p, *state.values()]))
    assert block.checkpoint
    assert kept[1] < kept[0] / 2
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
