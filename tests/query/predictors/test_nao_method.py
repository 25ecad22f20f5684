"""NAO: what is read lies on spheres, the decoder's likelihood, gradient steps, and the searches."""

from __future__ import annotations

import math
import random

import pytest
import torch

from lightning_nas.query.encoders.tokens import TokenEncoder
from lightning_nas.query.predictors.nao import NAOPredictor, SemiNASPredictor
from lightning_nas.query.predictors.nao_network import NAONetwork
from lightning_nas.query.searchers.nao import NAO, GradientSteps, SemiNAS
from lightning_nas.query.searchers.predictor_search import PredictorSearch
from lightning_nas.query.trial import Result, Trial

STRINGS = TokenEncoder("nasbench201")
SMALL = {"hidden": 16, "embedding": 8, "layers": 1, "width": 16}


def drawn(n: int, seed: int = 0) -> torch.Tensor:
    rng = random.Random(seed)
    return STRINGS.encode([STRINGS.space.sample(rng) for _ in range(n)])


def network(seed: int = 0) -> NAONetwork:
    torch.manual_seed(seed)
    return NAONetwork(6, 12, 8, layers=2, width=10).eval().requires_grad_(False)


def convolutions(strings: torch.Tensor) -> torch.Tensor:
    """Percent, better with each 3x3 convolution."""
    return 60.0 + 5.0 * (strings == STRINGS.vocabulary.index("nor_conv_3x3")).sum(dim=1).double()


def test_what_is_read_and_its_summary_have_length_one() -> None:
    net = network()
    read = net.read(drawn(9))
    for vectors in (read, net.summary(read), net.move(read, 50.0)):
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(vectors.shape[:-1]))
    mean = read.mean(dim=1)
    torch.testing.assert_close(net.summary(read), mean / mean.norm(dim=1, keepdim=True))


def test_the_likelihood_is_that_of_the_tokens_one_after_the_other() -> None:
    net, strings = network(), drawn(3)
    total = 0.0
    for string in strings:
        read = net.read(string[None])
        summary = read.mean(dim=1) / read.mean(dim=1).norm()
        state = (summary[None], summary[None])
        before = torch.zeros(1, 1, dtype=torch.long)
        for token in string:
            out, state = net.writer(net.embed_written(before), state)
            weight = [math.exp(float(out[0, 0] @ vector)) for vector in read[0]]
            context = sum(w * vector for w, vector in zip(weight, read[0], strict=True)) / sum(weight)
            logits = net.words(torch.tanh(net.mix(torch.cat([context, out[0, 0]]))))
            total += float(logits[token] - logits.exp().sum().log())
            before = token[None, None]
    expected = total / strings.numel()
    assert float(net.log_likelihood(net.read(strings), strings)) == pytest.approx(expected, abs=1e-5)


def test_a_string_does_not_see_its_own_tokens_ahead() -> None:
    net, strings = network(), drawn(4)
    read = net.read(strings)
    written = net.write(read)
    logits, _ = net._step(read, torch.nn.functional.pad(written[:, :-1], (1, 0)), net._start(read))
    assert torch.equal(logits.argmax(dim=2), written)  # teacher forcing on what was written agrees step by step


def test_only_allowed_tokens_are_written() -> None:
    net, allowed = network(), torch.zeros(6, 6, dtype=torch.bool)
    allowed[torch.arange(6), torch.tensor([3, 1, 5, 2, 4, 1])] = True
    assert net.write(net.read(drawn(5)), allowed).tolist() == [[3, 1, 5, 2, 4, 1]] * 5


def test_a_step_is_along_the_gradient() -> None:
    net, read = network(), network().read(drawn(2))
    eta, h = 0.5, 1e-3
    moved = net.move(read, eta)
    gradient = torch.zeros_like(read)
    for place in torch.nonzero(torch.ones_like(read[0])):
        shift = torch.zeros_like(read)
        shift[:, place[0], place[1]] = h
        gradient[:, place[0], place[1]] = (net.score(read + shift) - net.score(read - shift)) / (2 * h)
    raw = read + eta * gradient
    torch.testing.assert_close(moved, raw / raw.norm(dim=2, keepdim=True), atol=1e-3, rtol=0)


def test_a_step_up_raises_the_score_and_a_step_down_lowers_it() -> None:
    net, read = network(), network().read(drawn(20))
    start = net.score(read)
    assert bool((net.score(net.move(read, 5.0)) > start).all())
    assert bool((net.score(net.move(read, -5.0)) < start).all())
    torch.testing.assert_close(net.score(net.move(read, 0.0)), start)


def test_the_loss_weighs_score_and_reconstruction() -> None:
    x, y = drawn(12), convolutions(drawn(12))
    scores = NAOPredictor(6, **SMALL, passes=60, lr=0.02, trade_off=1.0).fit(x, y)
    strings = NAOPredictor(6, **SMALL, passes=60, lr=0.02, trade_off=0.0).fit(x, y)
    assert (scores.predict(x).mean - y).abs().mean() < (strings.predict(x).mean - y).abs().mean()
    assert (scores.generate(x, 0.0) == x).float().mean() < (strings.generate(x, 0.0) == x).float().mean()


def test_a_short_fit_writes_its_strings_again_and_climbs() -> None:
    x = drawn(10)
    predictor = NAOPredictor(6, hidden=32, embedding=16, layers=1, width=16, passes=150, lr=0.01)
    predictor.fit(x, convolutions(x))
    assert torch.equal(predictor.generate(x, 0.0, STRINGS.allowed), x)
    up, down = (predictor.generate(x, eta, STRINGS.allowed) for eta in (30.0, -30.0))
    assert convolutions(up).mean() > convolutions(x).mean() + 2 > convolutions(down).mean() + 4


def test_labels_of_its_own_come_after_those_given() -> None:
    x, y = drawn(10), convolutions(drawn(10))
    plain = SemiNASPredictor(6, None, hidden=16, embedding=8, passes=40).fit(x, y)
    semi = SemiNASPredictor(6, drawn(40, 1), more_passes=3, hidden=16, embedding=8, passes=40).fit(x, y)
    alone = NAOPredictor(6, 16, 8, 2, 16, passes=40).fit(x, y)
    assert torch.equal(plain.predict(x).mean, alone.predict(x).mean)
    assert not torch.equal(plain.predict(x).mean, semi.predict(x).mean)
    likelihood = [
        float(p._fitted().log_likelihood(p._fitted().read(v), v)) for v in [drawn(40, 1)] for p in (plain, semi)
    ]
    assert likelihood[1] > likelihood[0]  # it has seen these strings


def test_steps_grow_until_there_are_enough() -> None:
    class Recorded(NAOPredictor):
        def generate(self, x: torch.Tensor, eta: float, allowed: torch.Tensor | None = None) -> torch.Tensor:  # type: ignore[override]
            steps.append(eta)
            out = x.clone()
            out[:, 0] = eta if eta < 4 else 0  # token 0 is no operation
            return out

    steps: list[float] = []
    space, rng = STRINGS.space, random.Random(0)
    labels = [(STRINGS.decode([5, 5, 4, 4, k, 4]), float(k)) for k in (3, 4)]
    found = GradientSteps(STRINGS, Recorded(6), size=4, seeds=2, steps=9)(space, labels, rng)
    assert steps == [1, 2, 3]
    first = STRINGS.encode(found)
    assert first[:, 0].tolist() in ([1, 2, 2, 3], [1, 1, 2, 2])  # of equal architectures one
    steps.clear()
    filled = GradientSteps(STRINGS, Recorded(6), size=20, seeds=1, steps=9)(space, labels, rng)
    assert steps == list(range(1, 10))
    assert len({space.canonical(genotype) for genotype in filled}) == 20


def score(trial: Trial) -> Result:
    encoder = TokenEncoder(trial.genotype.space)
    return Result(trial, 50.0 + float(encoder.encode([trial.genotype]).sum() % 17))


def course(searcher: PredictorSearch, trials: int) -> list[str]:
    asked = []
    for _ in range(trials):
        (trial,) = searcher.ask()
        asked.append(searcher.space.format(trial.genotype))
        searcher.tell([score(trial)])
    return asked


@pytest.mark.parametrize("kind", ["NAO", "SemiNAS"])
def test_a_loaded_search_goes_on_as_it_would_have(kind: str) -> None:
    def make() -> PredictorSearch:
        if kind == "NAO":
            return NAO("nasbench201", 6, 4, steps=3, passes=2, **SMALL)
        return SemiNAS("nasbench201", 6, 4, steps=3, unlabelled=10, passes=2, more_passes=1, hidden=8)

    searcher, other = make(), make()
    course(searcher, 8)
    state = searcher.state_dict()
    rest = course(searcher, 8)
    other.load_state_dict(state)
    assert course(other, 8) == rest


@pytest.mark.parametrize("space", ["darts", "nasbench101", "nasbench1shot1_1"])
def test_it_works_on_other_spaces(space: str) -> None:
    searcher = NAO(space, 5, 3, steps=2, passes=1, **SMALL)
    assert len(set(course(searcher, 9))) == 9


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(ValueError, match="all must be positive"):
        NAOPredictor(0)
    with pytest.raises(ValueError, match="trade_off=2"):
        NAOPredictor(6, trade_off=2.0)
    with pytest.raises(ValueError, match="works on tokens from 0 to 2"):
        NAOPredictor(3).fit(drawn(3), torch.arange(3.0))
    with pytest.raises(ValueError, match="works on tokens"):
        NAOPredictor(6).fit(drawn(3).float(), torch.arange(3.0))
    with pytest.raises(ValueError, match="fit it first"):
        NAOPredictor(6).generate(drawn(3), 1.0)
    with pytest.raises(ValueError, match="steps=0"):
        GradientSteps(STRINGS, NAOPredictor(6), steps=0)
