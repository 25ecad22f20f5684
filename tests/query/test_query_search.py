"""A search by queries in a Trainer: steps, limits, checkpoints, resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from asked import Convolutions
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from lightning_nas.methods import QuerySearch
from lightning_nas.query import RandomSearch, RegularizedEvolution, Result, Trial
from lightning_nas.spaces import get_space

SPACE = get_space("nasbench201")
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "max_epochs": 1,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def trainer(*callbacks: Callback, **options: Any) -> L.Trainer:
    checkpoints = {"enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks)}
    return L.Trainer(**QUIET | checkpoints | options, callbacks=list(callbacks))


def search(**options: Any) -> QuerySearch:
    searcher = RegularizedEvolution(SPACE, population=4, sample=2, seed=3)
    return QuerySearch(searcher, Convolutions(SPACE), **{"trials": 20} | options)


def texts(module: QuerySearch) -> list[str]:
    return [SPACE.format(result.trial.genotype) for result in module.evaluator.history]


def test_every_trial_is_a_step_and_limits_of_the_trainer_hold() -> None:
    module, short = search(), search()
    whole, stopped = trainer(), trainer(max_steps=7)
    whole.fit(module)
    stopped.fit(short)
    assert (whole.global_step, stopped.global_step) == (20, 7)
    assert len(module.evaluator.history) == 20
    assert texts(short) == texts(module)[:7]
    metrics = whole.callback_metrics
    best = max(result.score for result in module.evaluator.history)
    assert (metrics["query/best"], metrics["query/trials"], metrics["query/cost"]) == (best, 20, 40)
    assert module.genotype() == module.searcher.genotype()


@pytest.mark.parametrize(("limit", "trials"), [({"max_cost": 9.0}, 5), ({"max_epochs_trained": 12.0}, 4)])
def test_a_search_ends_with_its_budget(limit: dict[str, float], trials: int) -> None:
    module = QuerySearch(RandomSearch(SPACE, budget=3.0), Convolutions(SPACE), trials=50, **limit)  # type: ignore[arg-type]
    fit = trainer()
    fit.fit(module)
    assert fit.global_step == len(module.evaluator.history) == trials


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint")
@pytest.mark.parametrize("in_flight", [1, 3])
@pytest.mark.parametrize("stored", [False, True])
def test_a_resumed_search_makes_the_same_proposals(tmp_path: Path, in_flight: int, stored: bool) -> None:
    paths = [tmp_path / "histories" / f"{k}.sqlite" if stored else None for k in range(2)]
    whole = search(in_flight=in_flight, history=paths[0])
    trainer().fit(whole)
    keep = ModelCheckpoint(tmp_path / "kept", every_n_train_steps=3, save_top_k=-1)
    trainer(keep, max_steps=9).fit(search(in_flight=in_flight, history=paths[1]))
    checkpoint = tmp_path / "kept" / "epoch=0-step=6.ckpt"
    assert sorted(path.name for path in checkpoint.parent.glob("*.ckpt")) == [
        f"epoch=0-step={k}.ckpt" for k in (3, 6, 9)
    ]
    torch.load(checkpoint, weights_only=True)
    resumed = search(in_flight=in_flight, history=paths[1])
    fit = trainer()
    fit.fit(resumed, ckpt_path=checkpoint, weights_only=True)
    assert fit.global_step == 20
    assert texts(resumed)[:20] == texts(whole)[:20]
    assert resumed.spent == whole.spent


def test_a_search_with_a_history_is_started_again_without_a_checkpoint(tmp_path: Path) -> None:
    asked: list[int] = []

    class Counting(Convolutions):
        def __call__(self, trial: Trial) -> Result:
            asked.append(trial.number)
            return super().__call__(trial)

    for steps in (8, 20):
        searcher = RegularizedEvolution(SPACE, population=4, sample=2, seed=3)
        module = QuerySearch(searcher, Counting(SPACE), 20, history=tmp_path / "h.sqlite")
        trainer(max_steps=steps).fit(module)
    assert asked == list(range(20))


def test_early_stopping_and_loggers(tmp_path: Path) -> None:
    class Falling(Convolutions):
        def __call__(self, trial: Trial) -> Result:
            return Result(trial, -float(trial.number), 1.0)

    stop = EarlyStopping("query/best", mode="max", patience=2)
    fit = trainer(stop, max_epochs=-1)
    fit.fit(QuerySearch(RandomSearch(SPACE), Falling(SPACE), trials=100, trials_an_epoch=5))
    assert fit.global_step == 15  # the first trial is the best; two epochs bring nothing
    whole = trainer(max_epochs=-1)
    whole.fit(QuerySearch(RandomSearch(SPACE), Falling(SPACE), trials=12, trials_an_epoch=5))
    assert whole.global_step == 12
    module = QuerySearch(RandomSearch(SPACE), Falling(SPACE), trials=30)
    fit = trainer(logger=CSVLogger(tmp_path), log_every_n_steps=1)
    fit.fit(module)
    text = (Path(str(fit.log_dir)) / "metrics.csv").read_text().splitlines()
    assert {"query/best", "query/score", "query/cost"} <= set(text[0].split(","))
    assert len(text) == 31


def test_a_time_limit_of_the_trainer_holds() -> None:
    module = QuerySearch(RandomSearch(SPACE), Convolutions(SPACE, seconds=0.05), trials=1000)
    fit = trainer(max_time={"seconds": 1})
    fit.fit(module)
    assert 1 <= fit.global_step < 100


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="proposes in 'darts', the oracle answers in 'nasbench201'"):
        QuerySearch(RandomSearch("darts"), Convolutions(SPACE))
    with pytest.raises(ValueError, match="each must be positive"):
        search(trials=0)
    many = L.Trainer(**QUIET | {"devices": 2, "strategy": "ddp", "enable_checkpointing": False})
    with pytest.raises(MisconfigurationException, match="a search by queries is one process"):
        module = search()
        module.trainer = many
        module.setup("fit")
