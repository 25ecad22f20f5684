"""A search with a predictor in a space that it tries to the last architecture, and what it refuses."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from lightning_nas.arch import Genotype
from lightning_nas.query.encoders import AdjacencyEncoder, GraphEncoder
from lightning_nas.query.encoders.tokens import TokenEncoder
from lightning_nas.query.enumeration import all_members
from lightning_nas.query.predictors import GaussianProcess, MLPEnsemble, NearestNeighbor, Predictor, Ranker
from lightning_nas.query.proposals import Pool
from lightning_nas.query.searcher import Searcher
from lightning_nas.query.searchers import NAO, NASBOWL, RankNOSH
from lightning_nas.query.searchers.predictor_search import PredictorSearch
from lightning_nas.query.trial import Result
from lightning_nas.spaces import Space, get_space
from lightning_nas.spaces.restricted import RestrictedSpace

BASE = get_space("nasbench201")


def six() -> RestrictedSpace:
    """Six architectures, two of which compute the same."""
    ops = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    texts = [f"|none~0|+|none~0|none~1|+|{op}~0|none~1|none~2|" for op in ops]
    texts.append("|skip_connect~0|+|none~0|none~1|+|none~0|nor_conv_3x3~1|none~2|")  # the wire of a convolution
    return RestrictedSpace(BASE, map(BASE.parse, texts), within=6)


def course(searcher: Searcher, fails: bool = False, at_once: int = 1, most: int = 100) -> list[Genotype]:
    """What is tried until nothing is asked any more."""
    tried: list[Genotype] = []
    while (trials := searcher.ask(at_once)) and len(tried) < most:
        tried += [trial.genotype for trial in trials]
        searcher.tell([Result.failed(t, "broken") if fails else Result(t, float(t.number % 5)) for t in trials])
    return tried


def search(space: Space, **parts: int | bool) -> PredictorSearch:
    return PredictorSearch(AdjacencyEncoder(space), NearestNeighbor(), **parts)  # type: ignore[arg-type]


@pytest.mark.parametrize("at_once", [1, 4])
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("initial", [1, 3, 10])
def test_a_small_space_is_tried_to_the_last_and_nothing_twice(initial: int, fails: bool, at_once: int) -> None:
    space = six()
    kinds = {space.canonical(member) for member in space.members}
    assert len(kinds) == 5
    for seed in range(10):
        tried = course(search(space, initial=initial, batch=2, seed=seed), fails, at_once)
        assert len(tried) == 5
        assert {space.canonical(genotype) for genotype in tried} == kinds
        every = course(search(space, initial=initial, batch=2, seed=seed, equal=False), fails, at_once)
        assert sorted(map(space.format, every)) == sorted(map(space.format, space.members))


def test_it_stays_at_its_end_also_after_a_stop() -> None:
    searcher, other = search(six(), initial=10), search(six(), initial=10, seed=1)
    assert len(course(searcher)) == 5
    other.load_state_dict(searcher.state_dict())
    assert [one.ask(3) for one in (searcher, other, searcher)] == [[], [], []]


def test_what_101_draws_do_not_find_is_looked_for_in_the_whole_of_a_small_space() -> None:
    """Of 49 kinds the last are drawn too rarely, and the proposal has none of them."""
    space = get_space("small_ops")
    kinds = {space.canonical(genotype) for genotype in all_members(space)}
    for seed in range(3):
        pool = Pool([space.sample(random.Random(0))])
        searcher = PredictorSearch(AdjacencyEncoder(space), NearestNeighbor(), proposal=pool, initial=40, seed=seed)
        assert {space.canonical(genotype) for genotype in course(searcher)} == kinds
        assert searcher.asked == len(kinds) == 49


def test_all_members_are_all_with_equal_ones() -> None:
    assert all_members(six()) == six().members
    assert all_members(six(), largest=5) == ()
    for name in ("nasbench201", "small_sep"):
        space, rng = get_space(name), random.Random(1)
        every = all_members(space)
        assert len(set(every)) == len(every) == {"nasbench201": 15625, "small_sep": 48}[name]
        assert {space.sample(rng) for _ in range(300)} <= set(every)
        assert all_members(space, largest=len(every) - 1) == ()


def test_the_pyramid_ends_with_the_space() -> None:
    space = six()
    for seed in range(10):
        parts = {"encoder": AdjacencyEncoder(space), "predictor": NearestNeighbor()}
        searcher = RankNOSH(space, (1, 4), initial=10, batch=4, pool=20, seed=seed, **parts)  # type: ignore[arg-type]
        lowest = course(searcher, at_once=4)[: searcher.entered[0]]
        assert searcher.entered[0] == len({space.canonical(genotype) for genotype in lowest}) == 5


@pytest.mark.parametrize(
    ("encoder", "predictor", "says"),
    [
        (AdjacencyEncoder, Ranker, "AdjacencyEncoder makes features, but Ranker takes graphs; give Ranker an encoder"),
        (GraphEncoder, MLPEnsemble, "GraphEncoder a predictor such as Ranker or NeuralPredictor"),
        (TokenEncoder, MLPEnsemble, "an encoder such as AdjacencyEncoder or PathEncoder"),
        (GraphEncoder, GaussianProcess, "GraphEncoder makes graphs, but GaussianProcess takes features"),
    ],
)
def test_pairs_that_cannot_work_are_refused_before_anything_is_tried(
    encoder: Callable[[], GraphEncoder], predictor: Callable[[], Predictor], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        PredictorSearch(encoder(), predictor())


def test_pools_that_are_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match=r"pool=5, batch=10: .* at least as large a pool"):
        NAO(batch=10, pool=5)
    assert NAO(batch=5, pool=5).batch == 5
    for pool in (0, 1):
        with pytest.raises(ValueError, match=rf"pool={pool}: .* give at least 2"):
            NASBOWL(pool=pool)
    assert NASBOWL(pool=2).batch == 5
