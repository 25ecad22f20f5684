"""The alpha-Hessian against differences of gradients, closed forms and the plain loop; Lanczos against eigvalsh."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from loops import loop_supernet
from torch import Tensor, nn

from lightning_nas.arch import Decision
from lightning_nas.relaxations import Softmax
from lightning_nas.sharpness import dense_hessian, dominant_eigenvalue, hessian_product, lanczos
from lightning_nas.spaces import CellSpace, get_space
from lightning_nas.spaces.darts import DARTSSpace
from lightning_nas.supernet import build_supernet

Loss = Callable[[], Tensor]
ROWS, CHOICES = (3, 2), 3


def smooth_net() -> tuple[Loss, list[nn.Parameter]]:
    """A loss that is smooth in two groups of softmax logits, in double precision."""
    names = tuple(f"op{k}" for k in range(CHOICES))
    groups = {f"group{g}": tuple(Decision(f"{g}/{row}", names) for row in range(count)) for g, count in enumerate(ROWS)}
    relaxation = Softmax(groups, init_std=0.7).double()
    draw = torch.Generator().manual_seed(3)
    first = torch.randn(ROWS[0], CHOICES, 4, generator=draw, dtype=torch.double)
    second = torch.randn(ROWS[1], CHOICES, 4, generator=draw, dtype=torch.double)
    target = torch.randn(4, generator=draw, dtype=torch.double)

    def loss() -> Tensor:
        weights = relaxation().weights
        hidden = (weights["group0"][..., None] * first).sum((0, 1)).tanh()
        return ((weights["group1"][..., None] * second).sum((0, 1)) * hidden - target).square().sum()

    return loss, list(relaxation.theta.values())


def flat_gradient(loss: Loss, parameters: list[nn.Parameter]) -> Tensor:
    return torch.cat([grad.flatten() for grad in torch.autograd.grad(loss(), parameters)])


# --- the Hessian


def test_dense_is_the_difference_of_gradients() -> None:
    loss, parameters = smooth_net()
    dense, step, columns = dense_hessian(loss, parameters), 1e-5, []
    for parameter in parameters:
        for entry in range(parameter.numel()):
            sides = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter.view(-1)[entry] += sign * step
                sides.append(flat_gradient(loss, parameters))
                with torch.no_grad():
                    parameter.view(-1)[entry] -= sign * step
            columns.append((sides[0] - sides[1]) / (2 * step))
    assert dense.abs().max() > 0.1
    torch.testing.assert_close(dense, torch.stack(columns, dim=1), rtol=1e-7, atol=1e-7)


def test_a_common_shift_of_a_row_has_no_curvature() -> None:
    loss, parameters = smooth_net()
    dense, start = dense_hessian(loss, parameters), 0
    for parameter in parameters:
        for _ in range(parameter.shape[0]):
            row = torch.zeros(len(dense), dtype=torch.double)
            row[start : start + CHOICES] = 1.0
            assert (dense @ row).abs().max() < 1e-12
            start += CHOICES
    assert start == len(dense)


def test_a_product_is_that_of_the_matrix_and_leaves_no_gradient() -> None:
    loss, parameters = smooth_net()
    vector = torch.randn(sum(p.numel() for p in parameters), dtype=torch.double)
    torch.testing.assert_close(hessian_product(loss, parameters)(vector), dense_hessian(loss, parameters) @ vector)
    assert all(parameter.grad is None for parameter in parameters)


def test_unused_and_straight_parameters_have_zero_rows() -> None:
    curved, straight, unused = (torch.ones(2, dtype=torch.double, requires_grad=True) for _ in range(3))
    dense = dense_hessian(lambda: (curved**3).sum() + 5 * straight.sum(), [straight, curved, unused])
    assert torch.equal(dense, torch.diag(torch.tensor([0.0, 0.0, 6.0, 6.0, 0.0, 0.0], dtype=torch.double)))
    assert dominant_eigenvalue(lambda: straight.sum(), [straight], weight_decay=0.5).value == 0.5


def test_a_loss_without_the_parameters_is_refused() -> None:
    theta, other = (torch.ones(2, requires_grad=True) for _ in range(2))
    for loss in (lambda: other.sum(), lambda: torch.ones(())):
        with pytest.raises(ValueError, match="does not depend on the architecture parameters"):
            dominant_eigenvalue(loss, [theta])


# --- the eigenvalue


def matrix_with(values: Tensor, seed: int = 0) -> Tensor:
    turn, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=torch.Generator().manual_seed(seed)))
    turn = turn.double()
    turn, _ = torch.linalg.qr(turn)
    return turn @ torch.diag(values.double()) @ turn.T


@pytest.mark.parametrize(
    "values",
    [
        torch.linspace(-1, 1, 40) ** 3,
        torch.cat([torch.linspace(-100, -1, 39), torch.tensor([0.5])]),  # the negative end is far larger
        torch.cat([torch.zeros(35), torch.tensor([0.1, 0.2, 0.3, 2.0, 2.0])]),  # twice the same
        torch.cat([torch.linspace(0, 1, 39), torch.tensor([1.02])]),  # hardly a gap
        -torch.linspace(1, 2, 40),  # all negative
        torch.zeros(40),
        torch.full((40,), 3.0),
    ],
    ids=["even", "negative", "twice", "gap", "all-negative", "zero", "multiple"],
)
def test_lanczos_finds_the_largest_with_its_sign(values: Tensor) -> None:
    matrix = matrix_with(values)
    start = torch.randn(40, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    found, exact = lanczos(lambda v: matrix @ v, start), float(torch.linalg.eigvalsh(matrix)[-1])
    assert abs(found.value - exact) <= 1e-4 * abs(exact) + 1e-12
    assert found.products <= 40
    image = matrix @ found.vector
    assert (image - found.value * found.vector).norm() <= 0.03 * max(abs(exact), 1e-9)


def random_spectrum(size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues most of which are small, and a start in the basis of the eigenvectors."""
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn(size, generator=draw, dtype=torch.double) ** 3 * 0.1
    return values, torch.randn(size, generator=draw, dtype=torch.double)


def test_lanczos_is_within_a_percent_at_a_fifteenth_of_the_products() -> None:
    off, products = [], []
    for seed in range(200):
        values, start = random_spectrum(224, seed)
        found = lanczos(lambda v, values=values: values * v, start)  # type: ignore[misc]
        off.append(abs(found.value / float(values.max()) - 1))
        products.append(found.products)
    assert max(off) < 1e-2
    assert sorted(off)[100] < 1e-6
    assert sum(products) / 200 < 224 / 15


@pytest.mark.parametrize("seed", [5, 6, 44, 50])
def test_one_good_estimate_is_not_enough(seed: int) -> None:
    """The start has hardly any of the eigenvector: at first all speaks for the second largest eigenvalue."""
    values, start = random_spectrum(60, seed)
    start[values.argmax()] *= 1e-3
    assert lanczos(lambda v: values * v, start).value == pytest.approx(float(values.max()), rel=1e-6)


def test_lanczos_is_exact_at_the_full_size_and_stops_at_the_limit() -> None:
    matrix = matrix_with(torch.linspace(-1, 1, 12))
    start = torch.ones(12, dtype=torch.double)
    assert abs(lanczos(lambda v: matrix @ v, start, tol=1e-16).value - 1) < 1e-12
    assert lanczos(lambda v: matrix @ v, start, tol=1e-16, max_products=3).products == 3


def test_eigenvalue_of_the_network_and_its_weight_decay() -> None:
    loss, parameters = smooth_net()
    exact = float(torch.linalg.eigvalsh(dense_hessian(loss, parameters))[-1])
    found = dominant_eigenvalue(loss, parameters)
    assert found.value == pytest.approx(exact, rel=1e-2)
    assert dominant_eigenvalue(loss, parameters, weight_decay=0.25).value - found.value == pytest.approx(
        0.25, rel=1e-12
    )
    assert float(torch.linalg.eigvalsh(dense_hessian(loss, parameters, 0.25))[-1]) == pytest.approx(exact + 0.25)


def test_the_sign_counts_where_the_negative_end_is_larger() -> None:
    loss, parameters = smooth_net()
    negated = dominant_eigenvalue(lambda: -loss(), parameters).value
    values = torch.linalg.eigvalsh(dense_hessian(loss, parameters))
    assert values[-1] > 1.2 * -values[0] > 0  # so for the negated loss the negative end is the larger one
    assert negated == pytest.approx(-float(values[0]), rel=1e-2)


def test_products_are_averaged() -> None:
    loss, parameters = smooth_net()
    halved = dominant_eigenvalue(loss, parameters, average=lambda product: product / 2).value
    assert halved == pytest.approx(dominant_eigenvalue(loss, parameters).value / 2, rel=1e-9)


# --- supernets: fused execution, custom gradients, checkpointing


def sums(space: CellSpace, partial: int) -> tuple[Softmax, Tensor, Tensor]:
    groups = tuple(space.decisions) if partial > 1 else space.relaxed
    relaxation = Softmax(space.decisions, groups, init_std=0.3).double()
    return relaxation, torch.randn(4, 3, 8, 8, dtype=torch.double), torch.arange(4)


@pytest.mark.parametrize(
    ("name", "partial", "checkpoint"),
    [("darts", 1, False), ("darts", 2, False), ("nasbench201", 1, False), ("nasbench201", 1, True)],
)
def test_supernet_has_the_hessian_of_the_loop(name: str, partial: int, checkpoint: bool) -> None:
    space = DARTSSpace(nodes=2) if name == "darts" else get_space(name)
    assert isinstance(space, CellSpace)
    channels, cells = 4 * partial, 3 if name == "darts" else 1
    fused = build_supernet(space, channels, cells, partial=partial, checkpoint=checkpoint).double()
    loop = loop_supernet(space, channels, cells, partial=partial).double()
    fused.load_state_dict(loop.state_dict())
    relaxation, x, y = sums(space, partial)
    vectors = torch.randn(3, sum(p.numel() for p in relaxation.theta.values()), dtype=torch.double)
    both = []
    for net in (fused, loop):
        product = hessian_product(
            lambda net=net: F.cross_entropy(net(x, relaxation()), y), list(relaxation.parameters())
        )
        both.append(torch.stack([product(vector) for vector in vectors]))
    assert both[1].abs().max() > 1e-2
    torch.testing.assert_close(*both, rtol=1e-9, atol=1e-12)
    across = vectors @ both[0].T
    torch.testing.assert_close(across, across.T, rtol=1e-9, atol=1e-12)


def test_compiled_cells_step_aside() -> None:
    space = get_space("nasbench201")
    network = build_supernet(space, 2, 1, compile=True)
    relaxation = Softmax(space.decisions)
    x, y = torch.randn(4, 3, 8, 8), torch.arange(4)
    found = dominant_eigenvalue(lambda: F.cross_entropy(network(x, relaxation()), y), list(relaxation.theta.values()))
    plain = build_supernet(space, 2, 1)
    plain.load_state_dict(network.state_dict())
    again = dominant_eigenvalue(lambda: F.cross_entropy(plain(x, relaxation()), y), list(relaxation.theta.values()))
    assert found.value == again.value > 0


def test_autocast_is_off() -> None:
    space = get_space("nasbench201")
    network, relaxation = build_supernet(space, 2, 1), Softmax(space.decisions)
    x, y = torch.randn(4, 3, 8, 8), torch.arange(4)
    theta = list(relaxation.theta.values())
    plain = dominant_eigenvalue(lambda: F.cross_entropy(network(x, relaxation()), y), theta).value
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert dominant_eigenvalue(lambda: F.cross_entropy(network(x, relaxation()), y), theta).value == plain


@pytest.mark.e2e
def test_benchmark_compares_with_the_dense_matrix(project: Path, tmp_path: Path) -> None:
    written = tmp_path / "bench.json"
    command = [sys.executable, "tests/benchmarks/bench_methods.py", "--cases", "eigenvalue", "--small"]
    done = subprocess.run(
        [*command, "--json", str(written)], cwd=project, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(written.read_text())["rows"]
    assert len(rows) == 2
    for row in rows:
        assert row["off"] < 1e-2
        assert row["rows"] == row["of_rows"] > 4 * row["products"]  # whatever the clock says
        assert row["ours_ms"] > 0
        assert row["case"] in done.stdout
