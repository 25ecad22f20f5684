"""The softmax relaxation and the part that all relaxations share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax as reference
from toys import one_line

from lightning_nas.arch import Decision, Decisions
from lightning_nas.relaxations import Relaxation, Softmax, masked_softmax

DECISIONS: Decisions = {
    "ops": (Decision("a", ("skip", "conv", "pool")), Decision("b", ("skip", "conv"))),
    "inputs": (Decision("c", ("0", "1", "2"), keep=2),),
}
LOGITS = st.lists(st.lists(st.floats(-50, 50), min_size=4, max_size=4), min_size=1, max_size=3)


@given(LOGITS, st.data())
def test_the_masked_softmax_is_the_softmax_of_what_is_open(logits: list[list[float]], data: st.DataObject) -> None:
    opened = [data.draw(st.sets(st.integers(0, 3), min_size=1)) for _ in logits]
    mask = torch.tensor([[k in choices for k in range(4)] for choices in opened])
    got = masked_softmax(torch.tensor(logits, dtype=torch.float64), mask)
    for row, choices, weights in zip(logits, opened, got, strict=True):
        kept = sorted(choices)
        want = np.zeros(4)
        want[kept] = reference(np.array(row)[kept])
        np.testing.assert_allclose(weights.numpy(), want, rtol=1e-12, atol=1e-15)


def test_gradients_of_the_masked_softmax() -> None:
    mask = torch.tensor([[True, True, False, True], [True, False, False, False]])
    logits = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: masked_softmax(x, mask), (logits,))


def test_weights_are_the_softmax_of_theta() -> None:
    relaxation = Softmax(DECISIONS, init_std=1.0)
    rows = relaxation().weights
    np.testing.assert_allclose(
        rows["inputs"].detach(), reference(relaxation.theta["inputs"].detach(), axis=-1), rtol=1e-6
    )
    np.testing.assert_allclose(
        rows["ops"][1, :2].detach(), reference(relaxation.theta["ops"][1, :2].detach()), rtol=1e-6
    )
    assert rows["ops"][1, 2] == 0


def test_only_the_named_groups_are_relaxed() -> None:
    relaxation = Softmax(DECISIONS, ["ops"])
    assert list(relaxation.theta) == ["ops"]
    assert set(relaxation().weights) == set(relaxation.mean()) == {"ops"}
    assert relaxation().active is None
    relaxation.support.fix("inputs", 0, 0, 2)  # a group without parameters is narrowed as well
    assert relaxation().active == {"inputs": ((0, 2),)}


def test_theta_starts_near_zero_with_the_deviation_asked_for() -> None:
    wide = {"ops": tuple(Decision(str(row), tuple("abcdefgh")) for row in range(500))}
    theta = Softmax(wide, init_std=0.01).theta["ops"]
    assert theta.std().item() == pytest.approx(0.01, rel=0.05)
    assert theta.mean().item() == pytest.approx(0, abs=5e-4)
    assert torch.equal(Softmax(wide, init_std=0.0).theta["ops"], torch.zeros(500, 8))


def test_closing_a_choice_renormalises_the_others() -> None:
    relaxation = Softmax(DECISIONS, init_std=1.0)
    before = relaxation.mean()["ops"][0]
    relaxation.support.drop("ops", 0, 1)
    after = relaxation.mean()["ops"][0]
    torch.testing.assert_close(after, before * torch.tensor([1.0, 0.0, 1.0]) / (1 - before[1]))


def test_unknown_groups_are_named() -> None:
    with pytest.raises(ValueError) as caught:
        Softmax(DECISIONS, ["ops", "edges"])
    one_line(caught.value, "unknown groups ['edges']", "['inputs', 'ops']")


def test_the_protocol_is_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Relaxation(DECISIONS)  # type: ignore[abstract]
