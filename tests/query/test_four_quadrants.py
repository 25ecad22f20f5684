"""The system of 1989: the batch of networks, the genetic operators, and what evolution is worth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_nas.query.miller import Constraints, evolve, four_quadrants, next_generation, outputs, train

RULES = Constraints(3)


def test_only_earlier_units_and_the_bias_may_feed_a_unit() -> None:
    allowed = RULES.allowed
    assert allowed.shape == (6, 7)
    for unit in range(6):
        expected = [source < unit and unit >= 2 for source in range(6)] + [unit >= 2]
        assert allowed[unit].tolist() == expected
    drawn = RULES.random(500, torch.Generator().manual_seed(0))
    assert not (drawn & ~allowed).any()
    torch.testing.assert_close(drawn[:, allowed].float().mean(), torch.tensor(0.5), atol=0.03, rtol=0)
    with pytest.raises(ValueError, match="hidden=-1"):
        Constraints(-1)


def test_a_layered_network_is_that_of_torch() -> None:
    layers = nn.Sequential(nn.Linear(2, 3), nn.Sigmoid(), nn.Linear(3, 1), nn.Sigmoid()).requires_grad_(False)
    weights = torch.zeros(2, 6, 7)
    weights[1, 2:5, :2], weights[1, 2:5, 6] = layers[0].weight, layers[0].bias
    weights[1, 5, 2:5], weights[1, 5, 6] = layers[2].weight[0], layers[2].bias
    x = torch.randn(9, 2)
    torch.testing.assert_close(outputs(weights, x)[1], layers(x)[:, 0])
    torch.testing.assert_close(outputs(weights, x)[0], torch.full((9,), 0.5))


def test_training_leaves_what_is_not_connected_and_networks_do_not_see_each_other() -> None:
    matrices = RULES.random(5, torch.Generator().manual_seed(1))
    x, y = torch.randn(12, 2), torch.randint(2, (12,)).float()
    before, _ = train(matrices, x, y, 0, torch.Generator().manual_seed(2))
    errors, weights = train(matrices, x, y, 40, torch.Generator().manual_seed(2), lr=0.5)
    assert (errors < before).all()
    assert (weights[~matrices] == 0).all()
    torch.testing.assert_close(errors, (outputs(weights, x) - y).square().sum(dim=1))
    others = torch.cat([matrices[:1], RULES.random(4, torch.Generator().manual_seed(3))])
    again, _ = train(others, x, y, 40, torch.Generator().manual_seed(2), lr=0.5)
    torch.testing.assert_close(again[:1], errors[:1])
    assert not torch.allclose(again[1:], errors[1:])


def test_children_have_rows_of_their_parents_but_for_a_few_bits() -> None:
    allowed = RULES.allowed
    parents = torch.stack([torch.zeros_like(allowed), allowed.clone(), allowed.clone()])
    parents = parents.repeat_interleave(200, dim=0)
    errors = torch.tensor([1.0, 2.0, 3.0]).repeat_interleave(200)
    errors[7] = 0.5
    children = next_generation(parents, errors, allowed, torch.Generator().manual_seed(0))
    assert torch.equal(children[0], parents[7])
    assert not (children & ~allowed).any()
    ones = children[1:, 2:].sum(dim=2).float() / allowed[2:].sum(dim=1)
    whole = (ones == 0) | (ones == 1)
    assert 0.85 < whole.float().mean() < 0.97  # 3 to 6 bits, each flipped with probability 0.02
    # roulette: 2 of 3 are the empty matrix, 1 of 3 the full one that is better than the worst
    torch.testing.assert_close(ones.mean(), torch.tensor(1 / 3), atol=0.04, rtol=0)


def test_evolution_beats_random_networks() -> None:
    for seed in range(3):
        found, weights = evolve(generations=4, population=20, hidden=6, epochs=30, seed=seed)
        assert found["evolved_error"] < found["random_error"]
        matrix = torch.tensor([[bit == "1" for bit in row] for row in found["matrix"]])
        assert (weights[~matrix] == 0).all()
        assert (weights[matrix] != 0).all()


def test_picture_and_figures_are_written_and_their_paths_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs" / "four"
    found = four_quadrants(str(out), generations=2, population=5, hidden=2, epochs=3)
    assert len(found["best"]) == len(found["mean"]) == 3
    assert json.loads((out / "four_quadrants.json").read_text()) == found
    assert (out / "four_quadrants.png").stat().st_size > 10_000
    assert capsys.readouterr().out.split() == [str(out / f"four_quadrants.{kind}") for kind in ("png", "json")]
    assert found == four_quadrants(str(out), generations=2, population=5, hidden=2, epochs=3)


def test_numbers_that_are_not_positive_are_refused() -> None:
    with pytest.raises(ValueError, match="generations=0"):
        four_quadrants(generations=0)
