"""Gaussian processes against their closed forms."""

import math
from typing import Any

import pytest
import torch
from gpytorch.kernels import MaternKernel

from lightning_nas.query.encoders.base import Encoded, Graphs
from lightning_nas.query.predictors.correlation import Correlation, Matern
from lightning_nas.query.predictors.gaussian_process import GaussianProcess
from lightning_nas.query.predictors.processes import known_matrix
from lightning_nas.query.predictors.weisfeiler_lehman import WeisfeilerLehman


def data(n: int = 12, d: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(n, d, generator=rng, dtype=torch.float64)
    return x, 90 + torch.sin(5 * x[:, 0]) + 0.5 * x[:, 1]


def rebuilt(process: GaussianProcess, x: torch.Tensor) -> torch.Tensor:
    """Correlations of rows with the labelled ones, from gpytorch's kernel and the learned lengthscales."""
    kernel = MaternKernel(nu=2.5, ard_num_dims=x.shape[1]).double()
    kernel.lengthscale = process.posterior.parameters[0]
    with torch.no_grad():
        return process.posterior.variance * kernel(x, process.posterior.x.double()).to_dense()


def test_matern_is_that_of_gpytorch_with_its_gradient() -> None:
    x, _ = data()
    lengths = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64, requires_grad=True)
    kernel = MaternKernel(nu=2.5, ard_num_dims=3).double()
    kernel.raw_lengthscale.requires_grad_(False)
    ours = Matern().matrix(Matern().compare(x, x), lengths[None])[0]
    kernel.lengthscale = lengths.detach()
    torch.testing.assert_close(ours.detach(), kernel(x).to_dense())
    weights = torch.arange(144.0).reshape(12, 12)
    (gradient,) = torch.autograd.grad((ours * weights).sum(), lengths)
    for k in range(3):
        values = []
        for step in (1e-5, -1e-5):
            moved = lengths.detach().clone()
            moved[k] += step
            values.append((Matern().matrix((x, x), moved[None])[0] * weights).sum())
        assert gradient[k].item() == pytest.approx((values[0] - values[1]).item() / 2e-5, rel=1e-6)


def test_lengthscales_start_where_their_prior_is_greatest() -> None:
    x, _ = data(d=30)
    mean, deviation = Matern().prior((x, x))
    assert mean[0].item() == pytest.approx(math.sqrt(2) + 0.5 * math.log(30))
    start = Matern().start((x, x))[0].item()
    assert start == pytest.approx(0.2047 * math.sqrt(30), rel=1e-3)
    density = torch.distributions.LogNormal(mean[0], deviation)
    at = [density.log_prob(torch.tensor(start * factor)).item() for factor in (0.9, 1.0, 1.1)]
    assert at[1] == max(at)


def test_posterior_is_the_closed_form() -> None:
    x, y = data()
    process = GaussianProcess(steps=20, noise=(1e-3, 1e-1)).fit(x, y)
    new, _ = data(5, seed=1)
    known = process.posterior
    shift, width = y.mean(), y.std(correction=0)
    inverse = torch.linalg.inv(rebuilt(process, x) + known.noise * torch.eye(12, dtype=torch.float64))
    cross = rebuilt(process, new)
    prediction = process.predict(new)
    torch.testing.assert_close(prediction.mean, shift + width * (cross @ inverse @ ((y - shift) / width)))
    variance = known.variance - (cross @ inverse * cross).sum(dim=1)
    torch.testing.assert_close(prediction.std, width * variance.sqrt(), rtol=1e-6, atol=1e-9)


def test_evidence_is_the_density_of_the_labels_and_learning_raises_it() -> None:
    x, y = data(20)
    z = (y - y.mean()) / y.std(correction=0)
    evidence = []
    for steps in (0, 40):
        process = GaussianProcess(steps=steps).fit(x, y)
        covariance = rebuilt(process, x) + process.posterior.noise * torch.eye(20, dtype=torch.float64)
        sign, logdet = torch.linalg.slogdet(covariance)
        direct = -0.5 * (z @ torch.linalg.solve(covariance, z) + logdet + 20 * math.log(2 * math.pi))
        assert sign == 1
        assert process.posterior.evidence == pytest.approx(direct.item(), abs=1e-8)
        evidence.append(process.posterior.evidence)
    assert evidence[1] > evidence[0] + 1


def test_without_noise_it_interpolates() -> None:
    x, y = data()
    errors = []
    for noise in (1e-2, 1e-5, 1e-8):
        prediction = GaussianProcess(steps=20, noise=(noise, noise)).fit(x, y).predict(x)
        errors.append((prediction.mean - y).abs().max().item())
        assert prediction.std.max().item() <= 1.01 * math.sqrt(noise) * y.std(correction=0).item() + 1e-6
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-5


def test_far_from_all_labels_it_knows_the_prior_alone() -> None:
    x, y = data()
    process = GaussianProcess().fit(x, y)
    far = process.predict(torch.full((1, 3), 1e6))
    assert far.mean.item() == pytest.approx(y.mean().item(), abs=1e-6)
    assert far.std.item() == pytest.approx(y.std(correction=0).item() * math.sqrt(process.posterior.variance))


def test_noise_stays_within_its_bounds() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.eye(3).repeat(10, 1)  # labels of equal architectures differ
    wild = torch.randn(30, generator=rng)
    assert 0.009 < GaussianProcess(lr=0.5, noise=(1e-4, 1e-2)).fit(x, wild).posterior.noise <= 0.01 * (1 + 1e-6)
    assert GaussianProcess(lr=0.5, noise=(1e-4, 10.0)).fit(x, wild).posterior.noise > 0.5


def test_joint_draws_have_the_moments_of_the_posterior() -> None:
    x, y = data()
    process = GaussianProcess(noise=(1e-2, 1e-2)).fit(x, y)
    new = torch.tensor([[0.2, 1.5, 0.1], [0.21, 1.5, 0.1], [2.0, 0.0, 0.0]])
    prediction = process.predict(new)
    rng = torch.Generator().manual_seed(0)
    draws = torch.stack([prediction.draw(rng) for _ in range(1000)])
    torch.testing.assert_close(draws.mean(dim=0), prediction.mean, rtol=0, atol=0.12)
    torch.testing.assert_close(draws.std(dim=0), prediction.std, rtol=0.1, atol=0)
    assert torch.corrcoef(draws.T)[0, 1] > 0.99
    assert torch.corrcoef(draws.T)[0, 2] < 0.9


def test_errors_on_a_logarithmic_scale_come_back_as_scores() -> None:
    x, y = data()
    z = -torch.log(100 - y)
    plain = GaussianProcess(steps=30).fit(x, z)
    process = GaussianProcess(steps=30, target="log_error").fit(x, y)
    new, _ = data(6, seed=2)
    known, got = plain.predict(new), process.predict(new)
    torch.testing.assert_close(got.mean, 100 - torch.exp(-known.mean))
    torch.testing.assert_close(got.std, torch.exp(-known.mean) * known.std)
    drawn = got.draw(torch.Generator().manual_seed(3))
    torch.testing.assert_close(drawn, 100 - torch.exp(-known.draw(torch.Generator().manual_seed(3))))
    assert (drawn < 100).all()
    # how far a candidate is above the best, in deviations, is nearly that on the scale of the logarithm
    best = 100 - torch.exp(-known.mean - 0.1 * known.std)
    torch.testing.assert_close(
        (got.mean - best) / got.std, torch.full((6,), -0.1, dtype=torch.float64), rtol=0.1, atol=0
    )


def test_a_perfect_score_is_no_infinite_target() -> None:
    x, y = data()
    process = GaussianProcess(target="log_error").fit(x, torch.where(y == y.max(), 100.0, y))
    assert torch.isfinite(process.predict(x).mean).all()


def test_scale_of_the_process_can_be_fixed() -> None:
    x, y = data()
    assert GaussianProcess(steps=25, scale=False).fit(x, y).posterior.variance == pytest.approx(1)
    assert GaussianProcess(steps=25, scale=True).fit(x, y).posterior.variance != pytest.approx(1, rel=0.1)


class Indefinite(Correlation):
    positive = False

    def compare(self, a: Encoded, b: Encoded) -> tuple[torch.Tensor, ...]:
        return (torch.tensor([[1.0, 0.9, 0.9], [0.9, 1.0, -0.9], [0.9, -0.9, 1.0]], dtype=torch.float64)[None],)

    def matrix(self, compared: tuple[torch.Tensor, ...], parameters: torch.Tensor) -> torch.Tensor:
        return compared[0]


def test_an_indefinite_matrix_is_raised_to_a_semi_definite_one() -> None:
    compared = Indefinite().compare(None, None)
    raised = known_matrix(Indefinite(), compared, torch.zeros(1, 0))[0]
    assert torch.linalg.eigvalsh(compared[0][0])[0] < -0.5
    assert abs(torch.linalg.eigvalsh(raised)[0]) < 1e-12
    torch.testing.assert_close(raised - torch.diag(raised.diag()), (compared[0][0] - torch.eye(3)).double())
    process = GaussianProcess(Indefinite()).fit(torch.zeros(3, 1), torch.tensor([1.0, 2.0, 3.0]))
    assert torch.isfinite(process.predict(torch.zeros(3, 1)).std).all()


def test_the_most_likely_variant_is_taken() -> None:
    rng = torch.Generator().manual_seed(0)
    adjacency = (torch.rand(30, 5, 5, generator=rng) < 0.5).float().triu(1)
    batch = Graphs(adjacency, torch.randint(3, (30, 5), generator=rng), kinds=3)
    y = torch.randn(30, generator=rng)
    single = [GaussianProcess(WeisfeilerLehman((h,)), scale=False).fit(batch, y).posterior for h in (0, 1, 3)]
    chosen = GaussianProcess(WeisfeilerLehman((0, 1, 3)), scale=False).fit(batch, y).posterior
    assert len({round(one.evidence, 3) for one in single}) == 3
    best = max(range(3), key=lambda k: single[k].evidence)
    assert chosen.variant == best
    assert chosen.evidence == pytest.approx(single[best].evidence, abs=1e-6)
    assert chosen.noise == pytest.approx(single[best].noise, rel=1e-6)


@pytest.mark.parametrize(
    "arguments", [{"steps": -1}, {"lr": 0.0}, {"noise": (0.0, 1.0)}, {"noise": (1.0, 0.1)}, {"target": "rank"}]
)
def test_wrong_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        GaussianProcess(**arguments)


def test_wrong_data() -> None:
    x, y = data()
    with pytest.raises(ValueError, match="fit it first"):
        GaussianProcess().predict(x)
    with pytest.raises(ValueError, match="percent"):
        GaussianProcess(target="log_error").fit(x, y + 20)
    with pytest.raises(ValueError, match="graphs"):
        GaussianProcess(WeisfeilerLehman()).fit(x, y)
