"""Regularizers against independent values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from scipy.special import softmax
from scipy.stats import entropy as reference
from torch import Tensor
from torch.distributions import Dirichlet as Reference
from torch.distributions import kl_divergence
from toys import Pairs, one_line, quiet_trainer

from lightning_nas.arch import Decision, Decisions, Sample, Support
from lightning_nas.costs import CostTable, Operation, cost_table, write_latencies
from lightning_nas.costs.layout import lay_out
from lightning_nas.hypergradients import FirstOrder, ScoreFunction, SingleLevel
from lightning_nas.methods import DARTS, DifferentiableSearch
from lightning_nas.metrics import entropy
from lightning_nas.penalties import BetaDecay, DirichletKL, Entropy, ExpectedCost, SquaredSize, ZeroOne, dirichlet_kl
from lightning_nas.relaxations import Dirichlet, Gumbel, Proximal, Relaxation, ScorePath, Sigmoid, Softmax, UniformPath
from lightning_nas.spaces import NetworkSize, SmallSpace, get_space

DECISIONS: Decisions = {
    "ops": (Decision("a", ("skip", "conv", "pool")), Decision("b", ("skip", "conv"))),
    "inputs": (Decision("c", ("0", "1", "2", "3"), keep=2),),
}


def test_the_entropy_of_rows() -> None:
    rows = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5]], dtype=torch.float64)
    assert entropy(rows).item() == pytest.approx(np.mean([reference(row) for row in rows.numpy()]), rel=1e-12)


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [(torch.float64, torch.float64), (torch.float32, torch.float32), (torch.bfloat16, torch.float32)],
)
def test_the_entropy_keeps_its_precision(dtype: torch.dtype, kept: torch.dtype) -> None:
    assert entropy(torch.tensor([[0.25, 0.75]], dtype=dtype)).dtype == kept


def test_the_entropy_at_a_vertex_has_no_value_and_no_slope_of_zeros() -> None:
    rows = torch.tensor([[0.0, 1.0, 0.0]], requires_grad=True)
    entropy(rows).backward()
    assert entropy(rows).item() == 0
    assert rows.grad is not None
    assert rows.grad.tolist() == [[0.0, -1.0, 0.0]]


def test_the_slope_of_the_entropy() -> None:
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: entropy(x.softmax(-1)), (logits,))


@pytest.mark.parametrize("closed", [False, True], ids=["open", "one closed"])
def test_the_penalty_is_the_mean_over_groups_of_the_mean_over_rows(closed: bool) -> None:
    relaxation = Softmax(DECISIONS, init_std=1.0)
    theta = {group: value.detach().numpy() for group, value in relaxation.theta.items()}
    first = theta["ops"][0]
    if closed:
        relaxation.support.drop("ops", 0, 1)
        first = first[[0, 2]]
    ops = [reference(softmax(first)), reference(softmax(theta["ops"][1, :2]))]
    want = 0.7 * (np.mean(ops) + reference(softmax(theta["inputs"][0]))) / 2
    assert Entropy(0.7)(relaxation, relaxation()).item() == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("weight", [1.0, -1.0])
def test_a_positive_factor_sharpens_the_mixture(weight: float) -> None:
    relaxation = Softmax(DECISIONS, init_std=1.0)
    before = entropy(relaxation.mean()["inputs"])
    optimizer = torch.optim.SGD(relaxation.parameters(), 0.5)
    for _ in range(20):
        optimizer.zero_grad()
        Entropy(weight)(relaxation, relaxation()).backward()
        optimizer.step()
    after = entropy(relaxation.mean()["inputs"])
    assert (after < before) == (weight > 0)


# --- distance from the flat Dirichlet


def test_the_divergence_is_that_of_the_distributions() -> None:
    beta = torch.tensor([[0.3, 2.0, 5.0], [1.0, 1.0, 7.0], [0.01, 0.5, 3.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, True], [True, True, False], [False, False, True]])
    want = [
        kl_divergence(Reference(beta[0]), Reference(torch.ones(3, dtype=torch.float64))).item(),
        0.0,
        0.0,  # one choice is left, and nothing to draw
    ]
    torch.testing.assert_close(dirichlet_kl(beta, mask), torch.tensor(want, dtype=torch.float64))


def test_the_divergence_is_the_mean_of_the_log_densities() -> None:
    """KL is the expectation of the log-density less that of the flat one, lgamma(K), over the distribution."""
    torch.manual_seed(0)
    drawn = Reference(torch.tensor([0.6, 2.0, 3.0], dtype=torch.float64))
    points = drawn.sample((200_000,))
    want = (drawn.log_prob(points) - math.lgamma(3)).mean().item()
    got = dirichlet_kl(drawn.concentration.unsqueeze(0), torch.ones(1, 3, dtype=torch.bool)).item()
    assert got == pytest.approx(want, abs=0.01)


def test_the_divergence_sums_rows_and_its_slope_pulls_to_the_flat_one() -> None:
    relaxation = Dirichlet(DECISIONS, init_std=0.5)
    relaxation.support.drop("inputs", 0, 3)
    value = DirichletKL(0.5)(relaxation, relaxation())
    terms = [dirichlet_kl(relaxation.concentration(g), relaxation.support.mask(g)).sum() for g in DECISIONS]
    assert value.item() == pytest.approx(0.5 * sum(term.item() for term in terms))
    assert value.item() > 0
    optimizer = torch.optim.SGD(relaxation.parameters(), 0.2)
    for _ in range(100):
        optimizer.zero_grad()
        DirichletKL(1.0)(relaxation, relaxation()).backward()
        optimizer.step()
    assert DirichletKL(1.0)(relaxation, relaxation()).item() < 1e-4 * value.item()


def test_the_divergence_needs_concentrations() -> None:
    with pytest.raises(ValueError) as error:
        DirichletKL()(Softmax(DECISIONS), Sample({}))
    one_line(error.value, "concentrations", "Softmax")


# --- decay of logits


def test_the_slope_of_beta_decay_is_the_softmax_over_the_rows() -> None:
    relaxation = Softmax(DECISIONS, init_std=1.0)
    relaxation.support.drop("inputs", 0, 1)
    BetaDecay(3.0)(relaxation, relaxation()).backward()
    for group, weights in relaxation.mean().items():
        torch.testing.assert_close(relaxation.theta[group].grad, 3.0 * weights / 3)


def test_beta_decay_needs_logits() -> None:
    with pytest.raises(ValueError) as error:
        BetaDecay(1.0)(UniformPath(DECISIONS), Sample({}))
    one_line(error.value, "logits", "UniformPath")


# --- zero or one


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_zero_one_is_the_mean_over_the_open_choices(norm: Any) -> None:
    relaxation = Sigmoid(DECISIONS, init_std=1.0)
    relaxation.support.drop("ops", 0, 1)
    theta = {group: value.detach().double().numpy() for group, value in relaxation.theta.items()}
    logits = np.concatenate([theta["ops"][0, [0, 2]], theta["ops"][1, :2], theta["inputs"][0]])
    away = np.abs(1 / (1 + np.exp(-logits)) - 0.5)
    want = -4 * (away**2 if norm == "l2" else away).mean()
    assert ZeroOne(4.0, norm)(relaxation, relaxation()).item() == pytest.approx(want, rel=1e-5)


def test_zero_one_refuses_another_norm() -> None:
    with pytest.raises(ValueError) as error:
        ZeroOne(1.0, "l3")  # type: ignore[arg-type]
    one_line(error.value, "l3", "l1", "l2")


# --- squares by size


def test_squares_count_by_the_share_of_parameters() -> None:
    space = get_space("darts")
    relaxation = Proximal(space.decisions, space.relaxed, init_std=0.1)
    penalty = SquaredSize(2.0, groups=("normal",))
    penalty.build(space, NetworkSize(4, 3))
    size = cost_table(space, NetworkSize(4, 3), cost="params").rows["normal"]
    want = 2 * (relaxation.theta["normal"].double() ** 2 * size).sum() / size.sum()
    value = penalty(relaxation, relaxation())
    assert value.item() == pytest.approx(want.item(), rel=1e-5)
    grads = torch.autograd.grad(value, [relaxation.theta["normal"], relaxation.theta["reduce"]], allow_unused=True)
    assert grads[0] is not None
    assert grads[1] is None


def test_squares_need_a_table_and_known_groups() -> None:
    with pytest.raises(ValueError, match="setup"):
        SquaredSize(1.0)(Softmax(DECISIONS), Sample({}))
    with pytest.raises(ValueError) as error:
        SquaredSize(1.0, groups=("normal",)).build(get_space("nasbench201"), NetworkSize(4, 1))
    one_line(error.value, "normal", "cell")


# --- expected cost

TOY: Decisions = {"cell": (Decision("a", ("skip", "conv")), Decision("b", ("skip", "conv", "pool")))}
TABLE = CostTable(TOY, {"cell": torch.tensor([[0.0, 6.0, 0.0], [1.0, 9.0, 2.0]])}, fixed=5.0, unit="ms")


def toy(make: Any = Softmax) -> tuple[Relaxation, float]:
    """A relaxation, and by hand the cost of its expected weights."""
    relaxation = make(TOY)
    with torch.no_grad():
        relaxation.theta["cell"].copy_(torch.tensor([[0.0, 1.0, 0.0], [0.5, -0.5, 0.0]]))
    p, q = softmax([0.0, 1.0]), softmax([0.5, -0.5, 0.0])
    return relaxation, 5 + 6 * p[1] + q @ [1.0, 9.0, 2.0]


@pytest.mark.parametrize(
    ("form", "settings", "value"),
    [
        ("linear", {}, lambda e: 0.3 * e),
        ("log", {}, lambda e: 0.3 * math.log(e)),
        ("ratio", {"reference": 4.0}, lambda e: 0.3 * (e - 4) / 4),
        ("product", {"reference": 8.0}, lambda e: 0.3 * (math.log(e) / math.log(8)) ** 0.3),
        ("product", {"power": 0.6}, lambda e: 0.3 * math.log(e) ** 0.6),
    ],
)
def test_the_forms_of_the_cost(form: Any, settings: dict[str, Any], value: Any) -> None:
    relaxation, expected = toy()
    penalty = ExpectedCost(TABLE, 0.3, form, **settings)
    got = penalty(relaxation, relaxation())
    assert got.item() == pytest.approx(value(expected), rel=1e-5)
    assert penalty.multiplies == (form == "product")
    (slope,) = torch.autograd.grad(got, relaxation.theta["cell"])
    p = softmax([0.0, 1.0])
    outer = (value(expected + 1e-4) - value(expected - 1e-4)) / 2e-4
    assert slope[0, 1].item() == pytest.approx(outer * 6 * p[0] * p[1], rel=1e-3)
    penalty.weight = 0.6
    assert penalty(relaxation, relaxation()).item() == pytest.approx(2 * value(expected), rel=1e-5)


def test_the_cost_of_a_soft_sample() -> None:
    relaxation, expected = toy(Gumbel)
    sample = relaxation()
    weights = sample.weights["cell"].detach()
    got = ExpectedCost(TABLE, 1.0, of="sample")(relaxation, sample)
    assert got.item() == pytest.approx(5 + float((weights * TABLE.rows["cell"]).sum()), rel=1e-5)
    assert got.item() != pytest.approx(expected, rel=1e-2)
    assert torch.autograd.grad(got, relaxation.theta["cell"])[0].abs().max() > 0


def test_the_expected_cost_of_what_was_drawn() -> None:
    relaxation, _ = toy(ScorePath)
    p, q = softmax([0.0, 1.0]), softmax([0.5, -0.5, 0.0])
    for _ in range(5):
        sample = relaxation()
        assert sample.active is not None
        (first,), (second,) = sample.active["cell"]
        got = ExpectedCost(TABLE, 1.0, of="drawn")(relaxation, sample)
        assert got.item() == pytest.approx(5 + [0, 6][first] * p[first] + [1, 9, 2][second] * q[second], rel=1e-5)
        (slope,) = torch.autograd.grad(got, relaxation.theta["cell"])
        assert slope[0, 1].item() == pytest.approx([0, 6][first] * p[0] * p[1], rel=1e-4)


def test_a_budget_of_the_sample_decides_whether_there_is_a_penalty() -> None:
    relaxation, expected = toy(ScorePath)
    penalty = ExpectedCost(TABLE, 1.0, above=12.0)
    seen = set()
    for _ in range(30):
        sample = relaxation()
        assert sample.active is not None
        (first,), (second,) = sample.active["cell"]
        over = 5 + [0, 6][first] + [1, 9, 2][second] > 12
        value = penalty(relaxation, sample)
        assert value.item() == pytest.approx(expected if over else 0.0, rel=1e-5)
        slope = torch.autograd.grad(value, relaxation.theta["cell"])[0]
        assert bool((slope != 0).any()) == over
        seen.add(over)
    assert seen == {True, False}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cost": "latency"}, ("latency_file", "lightning-nas latency")),
        ({"cost": "macs", "latency_file": "a.csv"}, ("latency_file='a.csv'",)),
        ({"form": "square"}, ("square", "ratio")),
        ({"of": "mean"}, ("mean", "drawn")),
        ({"form": "ratio"}, ("reference",)),
        ({"form": "ratio", "reference": 0.0}, ("reference=0.0",)),
        ({"form": "product", "reference": 1.0}, ("reference=1.0", "above one")),
        ({"reference": 2.0}, ("linear", "reference=2.0")),
        ({"form": "product", "above": 2.0}, ("above",)),
        ({"form": "product", "cost": CostTable(TOY, {}, 0.5, "s")}, ("0.5 s", "smaller unit")),
    ],
)
def test_the_cost_refuses(settings: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as error:
        ExpectedCost(**{"cost": "macs", "weight": 1.0} | settings)
    one_line(error.value, *words)


def test_a_cost_without_a_table_says_so() -> None:
    with pytest.raises(ValueError) as error:
        ExpectedCost("macs", 1.0)(*(lambda r: (r, r()))(Softmax(TOY)))
    one_line(error.value, "macs", "setup(search)")
    with pytest.raises(ValueError, match="given"):
        ExpectedCost(TABLE, 1.0).build(get_space("nasbench201"), NetworkSize(4, 1), 8)


def fitted(penalty: Any, data: Any = None, **settings: Any) -> DifferentiableSearch:
    torch.manual_seed(0)
    settings = {"space": "nasbench201", "channels": 4, "cells": 1} | settings
    search = DifferentiableSearch(regularizers=(penalty,), **settings)
    quiet_trainer(max_steps=1, limit_val_batches=0).fit(search, Pairs(1) if data is None else data)
    return search


class Sized(Pairs):
    image_size = 8


def test_a_search_brings_the_space_its_size_and_the_pictures() -> None:
    space, size = get_space("nasbench201"), NetworkSize(4, 1)
    for cost in ("macs", "params"):
        penalty = ExpectedCost(cost, 1e-6)  # type: ignore[arg-type]
        fitted(penalty, Sized(1))
        assert penalty.table == cost_table(space, size, 8, cost)  # type: ignore[arg-type]
    other = ExpectedCost("macs", 1e-6, channels=8, cells=2, image_size=16)
    fitted(other, Sized(1))
    assert other.table == cost_table(space, NetworkSize(8, 2), 16)
    squares = SquaredSize(1.0)
    fitted(squares)
    assert squares.table is not None
    assert torch.equal(squares.table.rows["cell"], cost_table(space, size, cost="params").rows["cell"].float())


def test_a_search_reads_latencies_before_its_first_step(tmp_path: Path) -> None:
    space = get_space("nasbench201")
    operations = {c.operation for c in lay_out(space, NetworkSize(4, 1), 8).candidates}
    latencies = {op: float(op.op.startswith("nor")) for op in operations}
    path = write_latencies(tmp_path / "phone.csv", latencies)
    penalty = ExpectedCost("latency", 0.1, latency_file=str(path))
    fitted(penalty, Sized(1))
    assert penalty.table is not None
    assert penalty.table.rows["cell"].unique().tolist() == [0.0, 3.0]
    del latencies[Operation("nor_conv_3x3", 4, 4, 8, 8, 1)]
    write_latencies(path, latencies)
    with pytest.raises(ValueError) as error:
        fitted(penalty, Sized(1))
    one_line(error.value, "nor_conv_3x3 from 4 to 4 channels at 8x8", "--space nasbench201 --channels 4 --cells 1")
    path.unlink()
    with pytest.raises(ValueError) as error:
        fitted(penalty, Sized(1))
    one_line(error.value, "--space nasbench201 --channels 4 --cells 1", f"--out {path}")


def test_pictures_of_unknown_size_are_asked_for() -> None:
    with pytest.raises(ValueError) as error:
        fitted(ExpectedCost("macs", 1e-6))
    one_line(error.value, "image_size")
    fitted(ExpectedCost("macs", 1e-6, image_size=8))


@pytest.mark.parametrize("cost", ["macs", "params"])
def test_a_heavy_penalty_makes_the_search_cheap(cost: Any) -> None:
    penalty = ExpectedCost(cost, 1.0, "log")
    search = fitted(penalty, Sized(1), space="small_ops", cells=3)
    before = penalty(search.relaxation, search.relaxation()).item()
    optimizer = torch.optim.Adam(search.relaxation.parameters(), 0.1)
    for _ in range(50):
        optimizer.zero_grad()
        penalty(search.relaxation, search.relaxation()).backward()
        optimizer.step()
    assert penalty(search.relaxation, search.relaxation()).item() < before
    table, space = penalty.table, search.space
    assert table is not None
    assert isinstance(space, SmallSpace)
    assert table.of(search.genotype()) == min(map(table.of, space.cells()))


def test_a_table_follows_the_weights() -> None:
    relaxation, expected = toy()
    penalty, sample = ExpectedCost(TABLE, 1.0), relaxation()
    assert penalty(relaxation, sample).dtype == torch.float32
    value: Tensor = penalty(relaxation.double(), relaxation())
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(expected, rel=1e-6)
    assert penalty.table is TABLE
    assert Support(TABLE.decisions).resolved is False


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Entropy", {"weight": 0.1}),
        ("DirichletKL", {}),
        ("BetaDecay", {"weight": 0.1}),
        ("ZeroOne", {"norm": "l1"}),
        ("SquaredSize", {"weight": 0.1, "groups": ["normal"]}),
        ("ExpectedCost", {"cost": "latency", "weight": 0.1, "latency_file": "phone.csv", "of": "sample"}),
    ],
)
def test_a_recipe_can_name_a_regularizer(name: str, arguments: dict[str, Any]) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(DARTS, "search", skip={"supernet"})
    entry = {"class_path": f"lightning_nas.penalties.{name}", "init_args": arguments}
    search = parser.instantiate_classes(
        parser.parse_object({"search": {"space": "nasbench201", "regularizers": [entry]}})
    )
    (regularizer,) = search.search.regularizers
    assert type(regularizer).__name__ == name
    assert {key: getattr(regularizer, key) for key in arguments} == {**arguments} | (
        {"groups": ("normal",)} if "groups" in arguments else {}
    )


def test_a_product_multiplies_the_upper_loss() -> None:
    torch.manual_seed(0)
    product, term = ExpectedCost("params", 0.2, "product", 4000.0, 0.6), BetaDecay(0.3)
    search = DifferentiableSearch("nasbench201", channels=4, cells=1, regularizers=(product, term))
    product.build(search.space, NetworkSize(4, 1), None)
    sample, loss = search.relaxation(), torch.tensor(2.0)
    factor, added = product(search.relaxation, sample), term(search.relaxation, sample)
    assert search.penalized(loss, sample).item() == pytest.approx(2 * factor.item() + added.item())
    penalty = search.penalty(sample)
    assert penalty is not None
    assert penalty.item() == pytest.approx(added.item())


@pytest.mark.parametrize("hypergradient", [FirstOrder(), SingleLevel()])
def test_a_factor_scales_the_gradient_of_the_search(hypergradient: Any) -> None:
    """With the power zero the factor is the weight alone, so plain gradient steps are that much longer."""
    moves = []
    for regularizers in ((), (ExpectedCost("params", 4.0, "product", 4000.0, 0.0),)):
        torch.manual_seed(0)
        settings: dict[str, Any] = {"channels": 4, "cells": 1, "order": "theta_first", "regularizers": regularizers}
        search = DifferentiableSearch("nasbench201", hypergradient=hypergradient, **settings)
        search.theta = PlainSteps()  # type: ignore[assignment]
        before = search.relaxation.theta["cell"].detach().clone()
        quiet_trainer(max_steps=1, limit_val_batches=0).fit(search, Pairs(1))
        moves.append(search.relaxation.theta["cell"].detach() - before)
    torch.testing.assert_close(moves[1], 4 * moves[0], rtol=1e-4, atol=1e-7)


class PlainSteps:
    clip = None

    def optimizer(self, parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, 1.0)


def test_a_score_has_no_loss_to_multiply() -> None:
    product = ExpectedCost("params", 0.2, "product", 4000.0)
    with pytest.raises(ValueError, match="ScoreFunction"):
        fitted(product, relaxation=ScorePath, hypergradient=ScoreFunction())
