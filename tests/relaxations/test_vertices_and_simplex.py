"""NASP's vertices, GAEA's exponentiated gradient, FairDARTS' sigmoid, the auxiliary skip of DARTS-."""

from __future__ import annotations

import io

import pytest
import torch
from torch import Tensor

from lightning_nas.arch import Decision, Decisions
from lightning_nas.optimizers import ExponentiatedGradient
from lightning_nas.relaxations import Proximal, Sigmoid, Simplex, Softmax
from lightning_nas.spaces import get_space
from lightning_nas.supernet import build_supernet

RAGGED: Decisions = {"g": (Decision("a", ("x", "y", "z")), Decision("b", ("x", "y")))}
OFFSETS = {2: (0, 2), 3: (2, 5), 4: (5, 9), 5: (9, 14)}


def random_(theta: Tensor, seed: int = 0) -> Tensor:
    with torch.no_grad():
        theta.copy_(torch.rand(theta.shape, generator=torch.Generator().manual_seed(seed)))
    return theta.detach().clone()


# --- NASP


def test_two_edges_of_the_largest_entries_survive_at_each_node() -> None:
    space = get_space("darts")
    relaxation = Proximal(space.decisions, space.relaxed)
    alphas = {kind: random_(relaxation.theta[kind], seed) for seed, kind in enumerate(space.relaxed)}
    sample, path = relaxation(), relaxation.weight_sample()
    assert sample.active is None
    assert path.active is not None
    for kind, alpha in alphas.items():
        assert torch.equal(relaxation.theta[kind], alpha)
        assert torch.equal(sample.weights[kind], path.weights[kind])
        want = torch.zeros(14, 8)
        for begin, end in OFFSETS.values():
            best = alpha[begin:end].max(-1)
            for row in best.values.topk(2).indices.tolist():
                want[begin + row, int(best.indices[row])] = 1
        assert torch.equal(sample.weights[kind], want)
        assert path.active[kind] == tuple(tuple(row.nonzero().flatten().tolist()) for row in want)


def test_the_gradient_at_the_vertex_goes_to_all_candidates() -> None:
    space = get_space("darts")
    relaxation = Proximal(space.decisions, space.relaxed)
    random_(relaxation.theta["normal"])
    c = torch.randn(14, 8)
    (grad,) = torch.autograd.grad((relaxation().weights["normal"] * c).sum(), relaxation.theta["normal"])
    assert torch.equal(grad, c)


def test_edges_are_ranked_among_inputs_that_are_open_by_operations_that_are() -> None:
    space = get_space("darts")
    relaxation = Proximal(space.decisions, space.relaxed)
    random_(relaxation.theta["normal"])
    with torch.no_grad():
        relaxation.theta["normal"][9:14] = 0.1 * torch.arange(5).unsqueeze(1) + 0.01 * torch.arange(8)
    assert [row for row in range(9, 14) if relaxation.weight_sample().open("normal")[row]] == [12, 13]  # type: ignore[index]
    relaxation.support.drop("normal/inputs", 3, 4)
    relaxation.support.drop("normal", 12, 7)
    assert relaxation.weight_sample().open("normal")[9:] == ((), (), (7,), (6,), ())  # type: ignore[index]


def test_inputs_with_parameters_of_their_own_rank_themselves() -> None:
    space = get_space("darts")
    relaxation = Proximal(space.decisions)
    alpha = random_(relaxation.theta["normal/inputs"])
    sample = relaxation.weight_sample()
    assert all(len(row) == 1 for row in sample.open("normal") or ())
    for node, row in enumerate(sample.open("normal/inputs") or ()):
        assert row == tuple(sorted(alpha[node, : node + 2].topk(2).indices.tolist()))


def test_its_path_is_all_that_the_weights_see() -> None:
    """The supernet computes the same with and without the candidates of weight zero."""
    space = get_space("darts")
    relaxation = Proximal(space.decisions, space.relaxed)
    for seed, theta in enumerate(relaxation.theta.values()):
        random_(theta, seed)
    supernet, x = build_supernet(space, channels=4, cells=2).double(), torch.randn(2, 3, 8, 8).double()
    with torch.no_grad():
        torch.testing.assert_close(supernet(x, relaxation()), supernet(x, relaxation.weight_sample()))


def test_a_projection_clips_to_the_unit_box() -> None:
    relaxation = Proximal(RAGGED)
    assert torch.equal(relaxation.theta["g"], torch.full((2, 3), 0.5))
    with torch.no_grad():
        relaxation.theta["g"].copy_(torch.tensor([[-0.5, 0.25, 1.5], [0.0, 1.0, 2.0]]))
    relaxation.project_()
    assert relaxation.theta["g"].tolist() == [[0.0, 0.25, 1.0], [0.0, 1.0, 1.0]]
    torch.testing.assert_close(relaxation.mean()["g"][0], torch.tensor([0.0, 0.25, 1.0]).softmax(0))


# --- GAEA


def test_it_starts_uniform_over_what_is_open() -> None:
    relaxation = Simplex(RAGGED)
    torch.testing.assert_close(relaxation.theta["g"], torch.tensor([[1, 1, 1], [1.5, 1.5, 0]]) / 3)
    torch.testing.assert_close(relaxation().weights["g"], relaxation.theta["g"])


def test_a_step_is_the_exponentiated_gradient() -> None:
    """``softmax(log theta - lr g)`` with the gradient for the weights, over the open choices."""
    relaxation, c = Simplex(RAGGED).double(), torch.randn(2, 3, dtype=torch.float64)
    optimizer = ExponentiatedGradient(0.7).optimizer(relaxation.arch_parameters())
    want = relaxation.theta["g"].detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        (relaxation().weights["g"] * c).sum().backward()
        optimizer.step()
        relaxation.project_()
        want = want * torch.exp(-0.7 * c)
        want = want / want.sum(-1, keepdim=True)
        torch.testing.assert_close(relaxation.theta["g"].detach(), want)
        assert relaxation.theta["g"][1, 2] == 0


def test_closed_choices_lose_their_weight_to_the_others() -> None:
    relaxation = Simplex(RAGGED)
    with torch.no_grad():
        relaxation.theta["g"][0] = torch.tensor([0.2, 0.5, 0.3])
    relaxation.support.drop("g", 0, 1)
    torch.testing.assert_close(relaxation().weights["g"][0], torch.tensor([0.4, 0.0, 0.6]))
    relaxation.project_()
    torch.testing.assert_close(relaxation.theta["g"].detach()[0], torch.tensor([0.4, 0.0, 0.6]))


def test_rows_that_have_lost_all_weight_start_again() -> None:
    relaxation = Simplex(RAGGED)
    with torch.no_grad():
        relaxation.theta["g"][0] = torch.tensor([1.0, 0.0, 0.0])
    relaxation.support.drop("g", 0, 0)
    torch.testing.assert_close(relaxation().weights["g"][0], torch.tensor([0.0, 0.5, 0.5]))
    relaxation.project_()
    torch.testing.assert_close(relaxation.theta["g"].detach()[0], torch.tensor([0.0, 0.5, 0.5]))


# --- FairDARTS, DARTS-


def test_the_sigmoid_does_not_compete() -> None:
    relaxation = Sigmoid(RAGGED)
    assert relaxation().weights["g"].tolist() == [[0.5, 0.5, 0.5], [0.5, 0.5, 0.0]]
    with torch.no_grad():
        relaxation.theta["g"][0, 0] = 2.0
    weights = relaxation().weights["g"]
    assert weights[0].tolist() == pytest.approx([1 / (1 + 2.718281828**-2), 0.5, 0.5])
    relaxation.support.drop("g", 0, 0)
    assert relaxation().weights["g"].tolist() == [[0.0, 0.5, 0.5], [0.5, 0.5, 0.0]]


def test_the_auxiliary_skip_is_added_where_there_is_a_skip() -> None:
    decisions: Decisions = {
        "g": (
            Decision("a", ("conv", "skip_connect")),
            Decision("b", ("conv", "pool")),
            Decision("c", ("skip_connect",)),
        )
    }
    relaxation = Softmax(decisions, auxiliary_skip=0.75, init_std=0.0)
    assert relaxation().weights["g"].tolist() == [[0.5, 1.25], [0.5, 0.5], [1.75, 0.0]]
    assert relaxation.mean()["g"].tolist() == [[0.5, 0.5], [0.5, 0.5], [1.0, 0.0]]
    relaxation.support.drop("g", 0, 1)
    assert relaxation().weights["g"][0].tolist() == [1.0, 0.0]
    relaxation.auxiliary_skip = 0.0
    assert torch.equal(relaxation().weights["g"], relaxation.mean()["g"])


def test_the_auxiliary_skip_travels_in_the_state() -> None:
    relaxation, again = Softmax(RAGGED, auxiliary_skip=1.0), Softmax(RAGGED)
    relaxation.auxiliary_skip = 0.3
    file = io.BytesIO()
    torch.save(relaxation.state_dict(), file)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert again.auxiliary_skip == 0.3
