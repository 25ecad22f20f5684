"""PNAS: cells of fewer blocks, how levels grow, and the recurrent surrogate."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import product
from typing import Self

import pytest
import torch
from torch import Tensor

from lightning_nas.arch import Genotype
from lightning_nas.query.encoders import Encoded
from lightning_nas.query.encoders.tokens import TokenEncoder
from lightning_nas.query.predictors import Prediction, Predictor, lstm
from lightning_nas.query.predictors.lstm import LSTMPredictor, StringRegressor
from lightning_nas.query.searchers.blocks import growth_of
from lightning_nas.query.searchers.pnas import PNAS
from lightning_nas.query.trial import Result
from lightning_nas.spaces import DARTSSpace, ENASMicroSpace, NASBench201Space, Space, get_space
from lightning_nas.spaces.nasnet import NASNetSpace
from lightning_nas.spaces.operation_graph import operation_graph
from lightning_nas.spaces.restricted import RestrictedSpace

OPS = ("skip_connect", "sep_conv_3x3", "max_pool_3x3")
TOY = DARTSSpace("toy", OPS, nodes=2, kinds=("normal",))


class Known(Predictor):
    """Knows a score of strings."""

    def __init__(self, score: Callable[[Tensor], Tensor]) -> None:
        self.score, self.fits = score, list[Tensor]()

    def fit(self, x: Encoded, y: Tensor, seed: int = 0) -> Self:
        assert isinstance(x, Tensor)
        torch.testing.assert_close(self.score(x), y)
        self.fits.append(x)
        return self

    def predict(self, x: Encoded) -> Prediction:
        assert isinstance(x, Tensor)
        return Prediction(self.score(x), torch.zeros(len(x)))


def run(searcher: PNAS, score: Callable[[Genotype], float], trials: int) -> list[Genotype]:
    asked = []
    while len(asked) < trials and (new := searcher.ask()):
        asked.append(new[0].genotype)
        searcher.tell([Result(new[0], score(new[0].genotype))])
    return asked


def test_number_of_blocks() -> None:
    def counts(space: Space) -> list[int]:
        growth = growth_of(space)
        return [len(growth.blocks(number)) for number in range(len(growth.tokens))]

    assert counts(get_space("nasbench201")) == [5, 25, 125]
    assert counts(get_space("darts")) == [49, 3 * 49, 6 * 49, 10 * 49]  # without `none`
    assert counts(ENASMicroSpace(2)) == [10 * 11 // 2, 15 * 16 // 2]
    assert counts(NASNetSpace(1)) == [26 * 27]  # two ways to combine
    sides = list(product(range(3), range(5)))  # 136 of 2 inputs and 8 operations, published, are counted so
    assert set(growth_of(ENASMicroSpace(2)).blocks(1)) == {("add", tuple(sorted(two))) for two in product(sides, sides)}


@pytest.mark.parametrize("space", [get_space("nasbench201"), get_space("darts"), ENASMicroSpace(3), NASNetSpace(3)])
def test_strings_of_blocks_are_those_of_whole_cells(space: Space) -> None:
    searcher, encoder, rng = PNAS(space), TokenEncoder(space), random.Random(0)
    places = range(len(searcher.growth.tokens))
    cells = [tuple(rng.randrange(len(searcher.growth.blocks(place))) for place in places) for _ in range(10)]
    whole = encoder.encode([searcher.genotype_of(cell) for cell in cells])
    assert torch.equal(searcher.strings(cells), whole[:, : sum(searcher.growth.tokens)])
    shorter = searcher.strings([cells[0][:1], cells[1][:2]])
    first, second = searcher.growth.tokens[:2]
    assert torch.equal(shorter[0, :first], whole[0, :first])
    assert torch.equal(shorter[1, : first + second], whole[1, : first + second])
    assert not shorter[0, first:].any()
    assert not shorter[1, first + second :].any()


def test_what_fewer_blocks_are() -> None:
    space = get_space("nasbench201")
    growth = growth_of(space)
    one = operation_graph(space, growth.genotype([("nor_conv_3x3",)]), prune=True)
    assert one.labels == ("input", "nor_conv_3x3", "output")
    two = operation_graph(space, growth.genotype([("nor_conv_3x3",), ("none", "avg_pool_3x3")]), prune=True)
    assert two.labels == ("input", "nor_conv_3x3", "avg_pool_3x3", "output")
    darts = get_space("darts")
    cell = growth_of(darts).genotype([((0, "sep_conv_3x3"), (1, "dil_conv_5x5"))])
    labels = operation_graph(darts, cell, prune=True).labels
    assert sorted(label for label in labels if "conv" in label) == ["dil_conv_5x5"] * 2 + ["sep_conv_3x3"] * 2
    assert len(labels) == 2 * 5  # and two inputs and the output of each cell


def test_a_block_that_is_not_built_stands_for_the_last() -> None:
    for space in (NASNetSpace(3), ENASMicroSpace(3)):
        single = type(space)(1)
        for block in growth_of(single).blocks(0)[::7]:
            short, whole = growth_of(single).genotype([block]), growth_of(space).genotype([block])
            before, after = single.loose_ends(short, "normal"), space.loose_ends(whole, "normal")
            assert after == tuple(4 if state == 2 else state for state in before)
            graphs = operation_graph(single, short, prune=True), operation_graph(space, whole, prune=True)
            without, with_ = ([label for label in graph.labels if label != "add"] for graph in graphs)
            assert without == with_


def test_levels_are_what_brute_force_grows() -> None:
    space = NASBench201Space()
    searcher = PNAS(space, beam=10_000, surrogate=Known(lambda x: torch.zeros(len(x)).double()))
    cells = run(searcher, lambda g: 0.0, 5)
    assert len(set(cells)) == 5
    asked = [trial.genotype for trial in searcher.ask(1000)]
    growth = searcher.growth
    grown = {
        space.canonical(growth.genotype([one, two])) for one in growth.blocks(0) for two in growth.blocks(1)
    } - set(map(space.canonical, cells))
    assert set(map(space.canonical, asked)) == grown
    assert len(asked) == len(grown)
    assert len(searcher.members) == 5 * 25  # equal ones grow too


def quality(tokens: Tensor) -> Tensor:
    """Percent; the same for a cell whose nodes are renumbered. An operation counts more on an inner node."""
    words = TokenEncoder(TOY).vocabulary
    worth = torch.tensor([{"sep_conv_3x3": 3.0, "max_pool_3x3": 1.0}.get(word, 0.0) for word in words])
    inner = torch.tensor([word == "2" for word in words])
    return (50 + worth[tokens[:, 1::2]].sum(1) + 0.5 * inner[tokens[:, ::2]].sum(1)).double()


def test_with_a_perfect_surrogate_the_first_whole_cell_is_the_best() -> None:
    encoder = TokenEncoder(TOY)

    def score(genotype: Genotype) -> float:
        searched = len(searcher.growth.tokens) if searcher.level == 2 else 1
        tokens = encoder.encode([genotype])
        tokens[:, 4 * searched :] = 0
        return float(quality(tokens)[0])

    searcher = PNAS(TOY, beam=1, surrogate=Known(quality))
    asked = run(searcher, score, 10)
    cells = [
        TOY.from_rows({"normal": {**dict.fromkeys(rows, 0), 0: a, 1: b} | dict(zip(rows, (c, d), strict=True))})
        for a, b, c, d in product(range(3), repeat=4)
        for rows in ((2, 3), (2, 4), (3, 4))
    ]
    best = max(float(q) for q in quality(encoder.encode(cells)))
    assert float(quality(encoder.encode(asked[9:]))[0]) == best
    assert best > max(float(q) for q in quality(encoder.encode(asked[:9])))


def test_beam_and_first_level_are_limits_and_failures_do_not_grow() -> None:
    searcher = PNAS(TOY, beam=3, first=4, surrogate=Known(lambda x: x.sum(dim=1).double()))
    trials = searcher.ask(10)
    assert len(trials) == 4
    strings = [searcher.strings([searcher._cells[trial.number]]) for trial in trials]
    searcher.tell([Result.failed(trials[0], "broken")])
    assert not searcher.ask()  # it waits
    searcher.tell([Result(t, float(s.sum())) for t, s in zip(trials[1:], strings[1:], strict=True)])
    assert len(searcher.ask(10)) == 3
    assert len(searcher.parents) == 3
    assert all(trial.note["blocks"] == 2 for trial in searcher.pending.values())


def test_it_goes_on_after_the_last_level_until_there_are_none() -> None:
    searcher = PNAS("small_ops", beam=2, surrogate=Known(lambda x: torch.ones(len(x)).double()))
    assert len(run(searcher, lambda g: 1.0, 100)) == 49
    assert not searcher.ask()
    limited = PNAS("small_ops", beam=2, first=5, surrogate=LSTMPredictor(10, 4, 4, members=1, passes=1))
    assert len(set(run(limited, lambda g: float(sum(map(sum, g.picks.values())) % 7), 11))) == 11


def test_a_loaded_search_goes_on_as_it_would_have() -> None:
    def make(seed: int) -> PNAS:
        return PNAS("nasbench201", beam=4, surrogate=LSTMPredictor(6, 4, 4, members=2, passes=2), seed=seed)

    def score(genotype: Genotype) -> float:
        return float(sum(k * (7 + k) % 11 for (k,) in genotype.picks.values()))

    searcher, other = make(3), make(4)
    run(searcher, score, 7)
    (trial,) = searcher.ask()
    state = searcher.state_dict()
    searcher.tell([Result(trial, 1.0)])
    rest = run(searcher, score, 9)
    other.load_state_dict(state)
    other.tell([Result(trial, 1.0)])
    assert run(other, score, 9) == rest


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(ValueError, match="do not grow block by block"):
        PNAS("nasbench101")
    base = get_space("nasbench201")
    with pytest.raises(ValueError, match=r"this part of 'nasbench201' has \d+ members"):
        PNAS(RestrictedSpace(base, [base.sample(random.Random(k)) for k in range(5)]))
    with pytest.raises(ValueError, match="lack"):
        PNAS(NASBench201Space("no_skip", ("none", "nor_conv_3x3")))
    with pytest.raises(ValueError, match="beam=0"):
        PNAS(beam=0)
    with pytest.raises(ValueError, match="other operations each"):
        PNAS("s1")
    with pytest.raises(ValueError, match="must be positive"):
        LSTMPredictor(6, members=0)


def test_a_string_ends_before_its_padding() -> None:
    torch.manual_seed(0)
    model = StringRegressor(5, 6, 7)
    strings = torch.tensor([[1, 2, 0, 3, 0, 0], [4, 1, 0, 0, 0, 0]])
    torch.testing.assert_close(model(strings)[:1], model(strings[:1, :4]))
    torch.testing.assert_close(model(strings)[1:], model(strings[1:, :2]))
    assert not torch.isclose(model(strings)[0], model(torch.tensor([[1, 2]]))[0])


def test_the_sigmoid_starts_at_the_mean() -> None:
    model = StringRegressor(5, 6, 7, mean=0.86)
    torch.nn.init.zeros_(model.out.weight)
    torch.testing.assert_close(model(torch.ones(2, 3, dtype=torch.long)), torch.tensor([0.86, 0.86]))
    assert float(model.out.bias.detach()) == pytest.approx(1.8153, abs=1e-4)  # the published 1.8


def test_each_member_leaves_a_fifth_out() -> None:
    predictor, order = LSTMPredictor(6), torch.randperm(20, generator=torch.Generator().manual_seed(0))
    shares = [set(predictor._share(order, member).tolist()) for member in range(5)]
    assert [len(share) for share in shares] == [16] * 5
    left = [set(range(20)) - share for share in shares]
    assert set().union(*left) == set(range(20))
    assert set(LSTMPredictor(6, members=1)._share(order, 0).tolist()) == set(range(20))


def test_mean_and_deviation_of_the_members(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randint(1, 6, (12, 4), generator=torch.Generator().manual_seed(0))
    y = x.sum(dim=1).double()
    fitted = LSTMPredictor(6, 8, 8, members=3, passes=2).fit(x, y)
    found = fitted.predict(x)
    assert fitted.scale == (float(y.min()), float(y.max() - y.min()))
    parts = torch.stack([fitted.scale.back(model(x).double()) for model in fitted.models])
    torch.testing.assert_close(found.mean, parts.mean(dim=0))
    torch.testing.assert_close(found.std, (parts - parts.mean(dim=0)).square().mean(dim=0).sqrt(), rtol=1e-4, atol=1e-6)
    assert bool((found.std > 0).all())
    monkeypatch.setattr(lstm, "_CHUNK", 5)
    torch.testing.assert_close(fitted.predict(x).mean, found.mean)


def test_the_rate_falls_at_half_time() -> None:
    model = StringRegressor(5, 6, 7)
    learner = lstm._Fit(model, torch.ones(1, 1, dtype=torch.long), torch.ones(1), (0.01, 0.002), 6)
    (optimizer,), (scheduler,) = learner.configure_optimizers()
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.01] * 3 + [0.002] * 3)
