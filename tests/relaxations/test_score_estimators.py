"""The estimators of DSNAS and ProxylessNAS against the exact gradient, and what the gates leave alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from toys import one_line

from lightning_nas.arch import Decision, Decisions, Sample
from lightning_nas.relaxations import BinaryGates, Relaxation, ScorePath
from lightning_nas.spaces import get_space
from lightning_nas.supernet import build_supernet

EDGES: Decisions = {"g": (Decision("a", ("x", "y", "z")), Decision("b", ("x", "y")))}
C = torch.tensor([[1.0, -2.0, 0.5], [0.3, 1.7, 9.0]])


def made(kind: Callable[..., Relaxation], seed: int = 0, **settings: int | None) -> Relaxation:
    relaxation = kind(EDGES, seed=seed, **settings)
    with torch.no_grad():
        relaxation.theta["g"].copy_(torch.tensor([[0.4, -0.3, 1.0], [-0.5, 0.2, 7.0]]))
    return relaxation


def exact(p: Tensor) -> Tensor:
    """The gradient of ``sum c p``: ``p (c - <p, c>)``, row by row."""
    return p * (C - (p * C).sum(-1, keepdim=True))


def gradients(
    relaxation: Relaxation, loss: Callable[[Tensor], Tensor], want: int
) -> dict[tuple[int, ...], tuple[Tensor, Sample]]:
    """The gradient for every path, found by drawing until all have been seen."""
    found: dict[tuple[int, ...], tuple[Tensor, Sample]] = {}
    for _ in range(500):
        sample = relaxation()
        path = tuple(sample.weights["g"].detach().argmax(-1).tolist())
        if path not in found:
            (grad,) = torch.autograd.grad(loss(sample.weights["g"]), relaxation.theta["g"], retain_graph=True)
            found[path] = (grad, sample)
    assert len(found) == want
    return found


def test_the_score_path_is_unbiased_for_a_linear_loss() -> None:
    relaxation = made(ScorePath)
    p = relaxation.mean()["g"]
    average = torch.zeros_like(p)
    for (s, t), (grad, sample) in gradients(relaxation, lambda z: (C * z).sum(), 6).items():
        assert sample.active == {"g": ((s,), (t,))}
        chance = p[0, s] * p[1, t]
        assert sample.log_prob is not None
        torch.testing.assert_close(sample.log_prob.exp(), chance)
        average += chance * grad
        score = F.one_hot(torch.tensor([s, t]), 3) - p  # of each row
        torch.testing.assert_close(grad, torch.tensor([[C[0, s]], [C[1, t]]]) * score)
    torch.testing.assert_close(average, exact(p))


def test_the_score_path_takes_the_slope_at_one() -> None:
    """For another loss the gradient is the slope for the weight of one, times the score; hence the bias."""
    relaxation = made(ScorePath)
    p = relaxation.mean()["g"]
    for (s, t), (grad, _) in gradients(relaxation, lambda z: (C * z).sum() ** 3, 6).items():
        slope = 3 * (C[0, s] + C[1, t]) ** 2
        score = F.one_hot(torch.tensor([s, t]), 3) - p
        torch.testing.assert_close(grad, slope * torch.tensor([[C[0, s]], [C[1, t]]]) * score)


def test_gates_with_all_paths_have_no_variance_for_a_linear_loss() -> None:
    relaxation = made(BinaryGates, paths=None)
    p = relaxation.mean()["g"]
    for grad, sample in gradients(relaxation, lambda g: (C * g).sum(), 6).values():
        torch.testing.assert_close(grad, exact(p))
        assert sample.active == {"g": ((0, 1, 2), (0, 1))}


def test_gates_with_two_paths_update_the_two_by_their_share() -> None:
    relaxation = made(BinaryGates, paths=2)
    theta = relaxation.theta["g"].detach()
    seen = set()
    for _ in range(100):
        sample = relaxation()
        (grad,) = torch.autograd.grad((C * sample.weights["g"]).sum(), relaxation.theta["g"])
        assert sample.active is not None
        for row, pair in enumerate(sample.active["g"]):
            assert len(pair) == 2
            q, c = theta[row, list(pair)].softmax(0), C[row, list(pair)]
            want = torch.zeros(3)
            want[list(pair)] = q * (c - (q * c).sum())
            torch.testing.assert_close(grad[row], want)
            seen.add((row, pair))
    assert seen == {(0, (0, 1)), (0, (0, 2)), (0, (1, 2)), (1, (0, 1))}
    assert sample.log_prob is None


def test_pairs_and_open_gates_have_their_frequencies() -> None:
    """A pair has ``p_i p_j (1 / (1 - p_i) + 1 / (1 - p_j))``; within it a gate opens by its share."""
    relaxation, draws = made(BinaryGates, paths=2), 4000
    p = relaxation.mean()["g"][0]
    with torch.no_grad():
        samples = [relaxation() for _ in range(draws)]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        these = [s for s in samples if s.active is not None and s.active["g"][0] == (i, j)]
        chance = (p[i] * p[j] * (1 / (1 - p[i]) + 1 / (1 - p[j]))).item()
        assert len(these) / draws == pytest.approx(chance, abs=0.032)
        first = sum(s.weights["g"][0, i].item() for s in these) / len(these)
        assert first == pytest.approx((p[i] / (p[i] + p[j])).item(), abs=4 * 0.5 / len(these) ** 0.5)


@pytest.mark.parametrize("calls", [1, 2])
def test_a_step_on_two_keeps_the_probability_of_all_others(calls: int) -> None:
    decisions: Decisions = {"g": tuple(Decision(str(row), tuple("abcdefg")) for row in range(5))}
    relaxation = BinaryGates(decisions, init_std=1.0)
    for _ in range(4):
        before = relaxation.mean()["g"]
        moved: list[set[int]] = [set() for _ in range(5)]
        total = torch.zeros(())
        for _ in range(calls):  # a second-order gradient draws more than once
            sample = relaxation()
            assert sample.active is not None
            moved = [old | set(row) for old, row in zip(moved, sample.active["g"], strict=True)]
            total = total + (sample.weights["g"] * torch.randn(5, 7)).sum()
        (grad,) = torch.autograd.grad(total, relaxation.theta["g"])
        with torch.no_grad():
            relaxation.theta["g"] -= 3.0 * grad
        relaxation.project_()
        after = relaxation.mean()["g"]
        for row, pair in enumerate(moved):
            others = [k for k in range(7) if k not in pair]
            torch.testing.assert_close(after[row, others], before[row, others])
            assert bool((after[row, list(pair)] != before[row, list(pair)]).any())


def test_one_path_gives_the_gradient_of_its_gate_alone() -> None:
    relaxation = made(BinaryGates, paths=1)
    p = relaxation.mean()["g"]
    for (s, t), (_, sample) in gradients(relaxation, lambda g: g.sum(), 6).items():
        assert sample.active == {"g": ((s,), (t,))}
        gate = sample.weights["g"][0, s]
        (grad,) = torch.autograd.grad(C[0, s] * gate, relaxation.theta["g"], retain_graph=True)
        torch.testing.assert_close(grad[0], C[0, s] * p[0, s] * (F.one_hot(torch.tensor(s), 3) - p[0]))
        assert sample.log_prob is not None
        torch.testing.assert_close(sample.log_prob.exp(), p[0, s] * p[1, t])
    with torch.no_grad():
        relaxation.theta["g"].add_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    moved = relaxation.theta["g"].detach().clone()
    relaxation.project_()
    assert torch.equal(relaxation.theta["g"], moved)  # nothing is shifted: all probabilities may move


def test_a_weight_step_leaves_candidates_that_were_not_drawn_as_they_are() -> None:
    space = get_space("nasbench201")
    supernet = build_supernet(space, channels=4, cells=1)
    relaxation = BinaryGates(space.decisions, space.relaxed)
    optimizer = torch.optim.SGD(supernet.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    before = {name: p.detach().clone() for name, p in supernet.named_parameters()}
    sample = relaxation.weight_sample()
    F.cross_entropy(supernet(torch.randn(4, 3, 8, 8), sample), torch.tensor([0, 1, 2, 3])).backward()
    optimizer.step()
    assert sample.active is not None
    drawn = [f"edges.{row}.{k}." for row, (k,) in enumerate(sample.active["cell"])]
    moved = {name for name, p in supernet.named_parameters() if not torch.equal(p, before[name])}
    assert any("edges." in name for name in moved)
    assert all("edges." not in name or any(edge in name for edge in drawn) for name in moved)


def test_there_must_be_a_path() -> None:
    with pytest.raises(ValueError) as caught:
        BinaryGates(EDGES, paths=0)
    one_line(caught.value, "paths=0", "at least 1", "None for all")
