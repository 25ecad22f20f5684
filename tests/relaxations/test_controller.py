"""The controller: its distribution is one over paths, and REINFORCE on it is the exact gradient in expectation."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import one_line

from lightning_nas.arch import Bilevel, Decision, Decisions, Outcome, Sample
from lightning_nas.hypergradients import ScoreFunction
from lightning_nas.relaxations import Controller
from lightning_nas.spaces import get_space

EDGES: Decisions = {"g": (Decision("a", ("x", "y")), Decision("b", ("x", "y", "z")))}
Path = tuple[int, ...]


def made(decisions: Decisions = EDGES, **settings: Any) -> Controller:
    controller = Controller(decisions, **{"size": 8, "layers": 1, "temperature": 1.0} | settings)
    with torch.no_grad():
        for parameter in controller.arch_parameters():
            parameter.mul_(8)  # so that the steps depend on those before
    return controller.double()


def path(sample: Sample) -> Path:
    return tuple(k for rows in (sample.active or {}).values() for row in rows for k in row)


def every_path(controller: Controller, count: int) -> dict[Path, Tensor]:
    """The log-probability of every path, found by drawing until all have been seen."""
    found: dict[Path, Tensor] = {}
    for _ in range(3000):
        sample = controller()
        assert sample.log_prob is not None
        found.setdefault(path(sample), sample.log_prob)
        if len(found) == count:
            return found
    raise AssertionError(f"{len(found)} of {count} paths were drawn")


def test_probabilities_of_all_paths_sum_to_one_and_are_the_frequencies() -> None:
    controller, draws = made(), 600
    chances = {drawn: score.exp().item() for drawn, score in every_path(controller, 6).items()}
    assert sum(chances.values()) == pytest.approx(1)
    with torch.no_grad():
        drawn = [path(controller()) for _ in range(draws)]
    for one, chance in chances.items():
        assert drawn.count(one) / draws == pytest.approx(chance, abs=4 * 0.5 / draws**0.5)


def test_later_decisions_know_the_earlier_ones() -> None:
    chances = {drawn: score.exp().item() for drawn, score in every_path(made(), 6).items()}
    given = [[chances[a, b] / sum(chances[a, c] for c in range(3)) for b in range(3)] for a in range(2)]
    assert max(abs(x - y) for x, y in zip(*given, strict=True)) > 0.1


@pytest.mark.parametrize(("reward", "entropy"), [("accuracy", 0.0), ("loss", 0.0), ("accuracy", 0.3)])
def test_reinforce_is_the_gradient_of_the_expected_reward(reward: Any, entropy: float) -> None:
    """Averaged over the enumerated paths, with the baseline fixed, which leaves the factor of its decay."""
    controller, accuracy = made(), dict(zip(product(range(2), range(3)), (0.1, 0.9, 0.4, 0.3, 0.5, 0.7), strict=True))
    scores, theta = every_path(controller, 6), controller.arch_parameters()
    expected = torch.zeros((), dtype=torch.float64)
    for drawn, score in scores.items():
        value = accuracy[drawn[0], drawn[1]] - entropy * score.detach()
        expected = expected + score.exp() * (value if reward == "accuracy" else accuracy[drawn[0], drawn[1]])
    want = torch.autograd.grad(-0.9 * expected, theta, retain_graph=True, allow_unused=True, materialize_grads=True)
    got = [torch.zeros_like(p) for p in theta]
    for drawn, score in scores.items():
        accurate = torch.tensor(accuracy[drawn[0], drawn[1]])

        def outcome(score: Tensor = score, accurate: Tensor = accurate) -> Outcome:
            return Outcome(-accurate if reward == "loss" else torch.tensor(9.0), accurate, score)

        estimator = ScoreFunction(reward=reward, entropy=entropy, baseline_decay=0.9).double()
        estimator.baseline.fill_(0.4)
        estimator.updates.fill_(1)
        # a copy of the graph for each call, since a graph serves once
        for total, grad in zip(got, _retained(estimator, theta, outcome), strict=True):
            total += score.exp().detach() * grad
    torch.testing.assert_close(got, list(want), rtol=1e-5, atol=1e-7)


def _retained(estimator: ScoreFunction, theta: Iterable[Tensor], outcome: Any) -> list[Tensor]:
    """The estimate, keeping the graph of the log-probability."""
    drawn = outcome()
    leaf = drawn.log_prob.detach().requires_grad_()
    inner = drawn._replace(log_prob=leaf)
    problem = Bilevel(lambda _: leaf, lambda _: leaf, [], [leaf], outcome=lambda: inner)
    (slope,) = estimator(problem)
    return list(torch.autograd.grad(slope * drawn.log_prob, list(theta), retain_graph=True, materialize_grads=True))


def test_the_expectation_follows_the_greedy_path() -> None:
    controller = made()
    chances = {drawn: score.exp().item() for drawn, score in every_path(controller, 6).items()}
    first = [sum(chances[a, b] for b in range(3)) for a in range(2)]
    greedy = first.index(max(first))
    mean = controller.mean()["g"]
    assert mean[0, :2].tolist() == pytest.approx(first)
    assert mean[1].tolist() == pytest.approx([chances[greedy, b] / first[greedy] for b in range(3)])


def test_the_entropy_of_a_draw_is_that_of_its_steps() -> None:
    controller = made()
    chances = {drawn: score.exp().item() for drawn, score in every_path(controller, 6).items()}
    sample = controller()
    a, _ = path(sample)
    first = [sum(chances[k, b] for b in range(3)) for k in range(2)]
    steps = [torch.tensor(first), torch.tensor([chances[a, b] / first[a] for b in range(3)])]
    want = sum(torch.special.entr(p).sum().item() for p in steps)
    assert controller.entropy.item() == pytest.approx(want, rel=1e-5)


def test_logits_are_bounded() -> None:
    """With ``c tanh(l / T)`` no two choices differ by more than ``2 c`` in their logarithms."""
    for reduce, names in ((1.0, ("x", "y", "z")), (2.5, ("x", "y", "z")), (2.5, ("0", "1", "2"))):
        decisions: Decisions = {"g": tuple(Decision(str(row), names) for row in range(6))}
        controller = made(decisions, tanh_constant=1.1, temperature=0.01, op_tanh_reduce=reduce)
        logs = controller.mean()["g"].log()
        spread = (logs.amax(-1) - logs.amin(-1)).max().item()
        assert spread == pytest.approx(2.2 / (1.0 if names[0] == "0" else reduce), rel=1e-3)


def test_groups_with_the_same_candidates_share_their_layers() -> None:
    controller = Controller(get_space("enas_micro").decisions)
    assert len(controller.embed) == len(controller.score) == 2  # operations, inputs
    assert controller.kind["normal/ops"] == controller.kind["reduce/ops"]
    assert controller().active.keys() == get_space("enas_micro").decisions.keys()  # type: ignore[union-attr]


def test_the_order_can_be_given() -> None:
    space = get_space("enas_micro")
    controller = Controller(space.decisions, order=space.order)  # type: ignore[attr-defined]
    names = [space.decisions[group][row].name for group, row in controller.steps]
    assert tuple(names) == space.order  # type: ignore[attr-defined]
    with pytest.raises(ValueError) as caught:
        Controller(EDGES, order=["a"])
    one_line(caught.value, "['a']", "['a', 'b']", "once")


def test_rows_with_lists_of_their_own_see_their_own_candidates() -> None:
    decisions: Decisions = {"g": (Decision("a", ("x", "y")), Decision("b", ("z", "y")), Decision("c", ("y",)))}
    controller = made(decisions)
    with torch.no_grad():
        for layer in controller.score:
            layer.weight.zero_()  # type: ignore[operator, union-attr]
            layer.bias.copy_(torch.tensor([0.0, 50.0, 0.0]))  # type: ignore[operator, union-attr]
    mean = controller.mean()["g"]
    assert mean[0, 1] > 0.8  # y
    assert mean[1, 1] > 0.8
    assert mean[2].tolist() == [1.0, 0.0]


def test_a_controller_with_nothing_left_to_decide_has_no_gradient_but_a_graph() -> None:
    controller = made()
    controller.support.fix("g", 0, 1)
    controller.support.fix("g", 1, 2)
    sample = controller()
    assert path(sample) == (1, 2)
    assert sample.log_prob is not None
    assert sample.log_prob.item() == 0
    sample.log_prob.backward()


@pytest.mark.parametrize("bad", [{"size": 0}, {"layers": 0}, {"tanh_constant": 0.0}, {"temperature": -1.0}])
def test_sizes_must_be_positive(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError) as caught:
        Controller(EDGES, **bad)
    (name,) = bad
    one_line(caught.value, f"{name}={bad[name]}", "positive", "tanh_constant=None")
