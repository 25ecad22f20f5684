"""NASBOT and NAS-BOWL on all kinds of spaces."""

import pytest

from lightning_nas.query.searchers.nas_bowl import NASBOWL
from lightning_nas.query.searchers.nasbot import NASBOT
from lightning_nas.query.searchers.predictor_search import PredictorSearch
from lightning_nas.query.trial import Result


@pytest.mark.parametrize("space", ["nasbench201", "nasbench101", "nasbench1shot1_1", "darts"])
@pytest.mark.parametrize("method", [NASBOT, NASBOWL])
def test_presets_take_two_turns_on_any_space(method: type[PredictorSearch], space: str) -> None:
    searcher = method(space, pool=16, steps=3, initial=4, batch=2)
    for k in range(8):
        (trial,) = searcher.ask()
        searcher.tell([Result(trial, score=90 + k / 10)])
    assert searcher.turn == 2
    assert len({searcher.key(genotype) for genotype, _ in searcher.labels}) == 8


@pytest.mark.parametrize("method", [NASBOT, NASBOWL])
def test_presets_find_what_random_search_finds_once_in_fifty_times(method: type[PredictorSearch]) -> None:
    searcher = method("nasbench201", pool=60, steps=5, initial=10, batch=5, seed=1)
    for _ in range(40):
        (trial,) = searcher.ask()
        score = sum(
            searcher.space.format(trial.genotype).count(op) * gain for op, gain in {"3x3~": 1, "1x1~": 2}.items()
        )
        searcher.tell([Result(trial, score=80.0 + score)])
    scores = [score for _, score in searcher.labels]
    assert max(scores) >= 91  # 7 of the 15,625 architectures
    assert max(scores[:10]) < 91
