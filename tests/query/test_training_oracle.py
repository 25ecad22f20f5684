"""Real trainings as an oracle: continued, killed, inherited, in other processes, with a module of one's own."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from toys import one_line

from lightning_nas.arch import Genotype
from lightning_nas.data import BilevelDataModule, DigitsDataModule
from lightning_nas.data.augment import Augment
from lightning_nas.optimizers import SGDCosine
from lightning_nas.oracles import TrainingOracle
from lightning_nas.query import Evaluator, Processes, RandomSearch, Trial
from lightning_nas.spaces import get_space

SPACE = get_space("nasbench201")
CELL, RELATIVE = (
    SPACE.parse(f"|nor_conv_3x3~0|+|skip_connect~0|{op}~1|+|skip_connect~0|nor_conv_3x3~1|avg_pool_3x3~2|")
    for op in ("nor_conv_1x1", "nor_conv_3x3")
)
LR = 0.025


class Watch(Callback):
    """Notes epochs and learning rates and the weights at the start, wherever it is copied to."""

    epochs: ClassVar[list[tuple[int, float]]] = []
    start: ClassVar[dict[str, Tensor]] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.start.clear()
        self.start.update({name: value.clone() for name, value in pl_module.state_dict().items()})

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.epochs.append((trainer.current_epoch, trainer.optimizers[0].param_groups[0]["lr"]))


class Kill(Callback):
    """Ends the training within its second epoch, if it is armed."""

    armed: ClassVar[bool] = False

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if self.armed and trainer.current_epoch == 1:
            raise RuntimeError("killed")


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    Watch.epochs.clear()


def oracle(folder: Path, data: L.LightningDataModule | None = None, **settings: Any) -> TrainingOracle:
    """The score is the loss on the validation pictures, negated, to the last bit."""
    options = {"limit_train_batches": 3, "callbacks": [Watch(), Kill()]}
    small: dict[str, Any] = {"channels": 4, "cells": 1, "monitor": "val/loss", "scale": -1.0, "trainer": options}
    return TrainingOracle(SPACE, data or DigitsDataModule(), 4, folder, **small | settings)


def killed(asked: TrainingOracle, trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(Kill, "armed", True)
        asked(trial)


def weights(folder: Path, number: int) -> dict[str, Tensor]:
    (path,) = folder.glob(f"trial-{number:06d}-*.ckpt")
    state: dict[str, Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def numbers() -> list[int]:
    return [epoch for epoch, _ in Watch.epochs]


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_a_continued_training_is_the_one_without_a_break_to_the_bit(drop_path: float, tmp_path: Path) -> None:
    training = {"auxiliary_weight": 0.0, "drop_path": drop_path}
    parts, whole = (oracle(tmp_path / name, training=training) for name in ("parts", "whole"))
    first = parts(Trial(0, CELL, 1.0))
    second = parts(Trial(1, CELL, 3.0, continues=0, trained=1.0))
    assert numbers() == [0, 1, 2]
    straight = whole(Trial(0, CELL, 3.0))
    assert second.score == straight.score != first.score
    assert same(weights(tmp_path / "parts", 1), weights(tmp_path / "whole", 0))
    assert not same(weights(tmp_path / "parts", 0), weights(tmp_path / "parts", 1))
    assert (first.epochs, second.epochs, straight.epochs) == (1.0, 2.0, 3.0)
    assert straight.metrics["parameters"] == sum(
        p.numel() for p in whole._module(CELL, DigitsDataModule()).parameters()
    )
    assert straight.source == "training"


def test_the_schedule_is_one_over_the_full_training_or_begins_anew(tmp_path: Path) -> None:
    rates = {}
    for schedule in ("full", "rung"):
        Watch.epochs.clear()
        asked = oracle(tmp_path / schedule, schedule=schedule)
        asked(Trial(0, CELL, 2.0))
        before = weights(tmp_path / schedule, 0)
        result = asked(Trial(1, CELL, 4.0, continues=0, trained=2.0))
        assert same(Watch.start, before)
        assert not same(weights(tmp_path / schedule, 1), before)
        assert result.epochs == 2.0
        rates[schedule] = [rate for _, rate in Watch.epochs]
    quarter = [LR / 2 * (1 + 2**-0.5), LR / 2, LR / 2 * (1 - 2**-0.5)]
    assert rates["full"] == pytest.approx([LR, *quarter], abs=1e-9)
    assert rates["rung"] == pytest.approx([LR, LR / 2] * 2, abs=1e-9)


def test_a_rung_may_go_beyond_the_full_training_and_a_part_of_it_may_not(tmp_path: Path) -> None:
    assert oracle(tmp_path, schedule="rung")(Trial(0, CELL, 5.0)).epochs == 5.0
    with pytest.raises(ValueError, match="a budget of 5 epochs is more than epochs=4") as caught:
        oracle(tmp_path)(Trial(1, CELL, 5.0))
    one_line(caught.value, "schedule='rung'")


@pytest.mark.parametrize("schedule", ["full", "rung"])
def test_a_killed_training_goes_on_from_its_last_whole_epoch(
    schedule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial(0, CELL, 3.0)
    straight = oracle(tmp_path / "whole", schedule=schedule)(trial)
    killed(oracle(tmp_path / "killed", schedule=schedule), trial, monkeypatch)
    Watch.epochs.clear()
    resumed = oracle(tmp_path / "killed", schedule=schedule)(trial)
    assert numbers() == [1, 2]
    assert resumed.score == straight.score
    assert same(weights(tmp_path / "killed", 0), weights(tmp_path / "whole", 0))
    Watch.epochs.clear()
    again = oracle(tmp_path / "killed", schedule=schedule)(trial)  # killed before the result was kept
    assert numbers() == []
    assert again.score == straight.score


def test_checkpoints_of_another_search_are_not_gone_on_from(tmp_path: Path) -> None:
    trial = Trial(0, CELL, 1.0)
    straight = oracle(tmp_path / "empty")(trial)
    for other in (Trial(0, CELL, 2.0), Trial(0, RELATIVE, 1.0)):
        oracle(tmp_path / "used")(other)
        Watch.epochs.clear()
        assert oracle(tmp_path / "used")(trial).score == straight.score
        assert numbers() == [0]
    other_seed = oracle(tmp_path / "used", seed=1)(trial)
    assert other_seed.score != straight.score


class Slow(Callback):
    """A setting of a callback that may change what is learnt."""

    def __init__(self, factor: float) -> None:
        self.factor = factor


OTHER_SETTINGS: dict[str, dict[str, Any]] = {
    "training": {"training": {"auxiliary_weight": 0.0, "drop_path": 0.5}},
    "channels": {"channels": 8},
    "cells": {"cells": 2},
    "schedule": {"schedule": "rung"},
    "epochs of a trainer": {"trainer": {"limit_train_batches": 2, "callbacks": [Watch(), Kill()]}},
    "a callback": {"trainer": {"limit_train_batches": 3, "callbacks": [Watch(), Kill(), Slow(0.5)]}},
    "its setting": {"trainer": {"limit_train_batches": 3, "callbacks": [Watch(), Kill(), Slow(0.25)]}},
    "data": {"data": DigitsDataModule(val_fraction=0.25)},
    "seed of the data": {"data": DigitsDataModule(seed=1)},
    "augmentation": {"data": DigitsDataModule(augment=Augment(crop=2))},
    "data in pairs": {"data": BilevelDataModule(DigitsDataModule())},
    "module": {"build": str},
    "part of a module": {"build": partial(str, encoding="a")},
    "the same with another": {"build": partial(str, encoding="b")},
}


def test_settings_that_differ_have_checkpoints_of_their_own(tmp_path: Path) -> None:
    paths = [oracle(tmp_path, **settings)._path(0) for settings in ({}, *OTHER_SETTINGS.values())]
    assert len(set(paths)) == len(paths)
    assert [oracle(tmp_path, **settings)._path(0) for settings in ({}, *OTHER_SETTINGS.values())] == paths
    quiet = {"limit_train_batches": 3, "callbacks": [Watch(), Kill()], "enable_progress_bar": True, "devices": 2}
    assert oracle(tmp_path, trainer=quiet)._path(0) == paths[0]
    read = DigitsDataModule()
    read.setup("fit")
    assert oracle(tmp_path, read)._path(0) == paths[0]


def test_another_learning_rate_in_the_same_folder_is_another_training(tmp_path: Path) -> None:
    trial = Trial(0, CELL, 1.0)
    plain = {"auxiliary_weight": 0.0, "drop_path": 0.0}
    settings: list[dict[str, Any]] = [{"training": plain | {"w": SGDCosine(lr=lr, lr_min=0.0)}} for lr in (0.1, 1e-6)]
    scores = [oracle(tmp_path, **given)(trial).score for given in settings]
    assert scores[0] != scores[1]
    assert numbers() == [0, 0]
    assert oracle(tmp_path, **settings[0])(trial).score == scores[0]
    assert numbers() == [0, 0]  # that of the first is still there


@pytest.mark.parametrize("broken", [b"", b"no checkpoint", "half", "list"])
def test_a_checkpoint_that_cannot_be_read_is_taken_as_absent(broken: bytes | str, tmp_path: Path) -> None:
    asked, trials = oracle(tmp_path), (Trial(0, CELL, 1.0), Trial(1, CELL, 2.0, continues=0, trained=1.0))
    scores = [asked(trial).score for trial in trials]
    path = asked._path(1)
    if broken == "list":
        torch.save([1, 2], path)
    else:
        path.write_bytes(path.read_bytes()[:5000] if isinstance(broken, str) else broken)
    Watch.epochs.clear()
    with pytest.warns(UserWarning, match=r"trial-000001-.* cannot be read \(.*taken as absent"):
        again = asked(trials[1])
    assert (again.score, again.ok) == (scores[1], True)
    assert numbers() == [1]
    asked._path(0).write_bytes(b"")
    path.unlink()
    with pytest.warns(UserWarning, match="cannot be read"), pytest.raises(ValueError, match="no readable trial-000000"):
        asked(trials[1])


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="trial 5 continues trial 2") as caught:
        oracle(tmp_path)(Trial(5, CELL, 3.0, continues=2, trained=1.0))
    one_line(caught.value, "trial-000002-", "keep the folder", "settings")


@pytest.mark.parametrize("schedule", ["full", "rung"])
def test_a_relative_takes_over_what_fits(schedule: str, tmp_path: Path) -> None:
    asked = oracle(tmp_path, schedule=schedule)
    asked(Trial(0, CELL, 1.0))
    parent = weights(tmp_path, 0)
    Watch.epochs.clear()
    child = asked(Trial(1, RELATIVE, 3.0, continues=0, trained=1.0))
    assert numbers() == [0, 1]
    assert child.epochs == 2.0
    assert [rate for _, rate in Watch.epochs] == pytest.approx([LR, LR / 2])
    start = dict(Watch.start)
    oracle(tmp_path / "alone", schedule=schedule)(Trial(0, RELATIVE, 1.0))
    scratch = dict(Watch.start)
    taken = {name for name in start if name in parent and parent[name].shape == start[name].shape}
    assert same({name: start[name] for name in taken}, {name: parent[name] for name in taken})
    new = set(start) - taken
    assert any(start[name].ndim == 4 for name in new)  # the filters of the changed operation
    assert same({name: start[name] for name in new}, {name: scratch[name] for name in new})
    assert not same(start, scratch)


def test_a_killed_training_of_a_relative_goes_on_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = Trial(0, CELL, 1.0), Trial(1, RELATIVE, 3.0, continues=0, trained=1.0)
    whole = oracle(tmp_path / "whole")
    straight = [whole(trial).score for trial in trials]
    oracle(tmp_path / "killed")(trials[0])
    killed(oracle(tmp_path / "killed"), trials[1], monkeypatch)
    Watch.epochs.clear()
    resumed = oracle(tmp_path / "killed")(trials[1])
    assert numbers() == [1]
    assert (resumed.score, resumed.epochs) == (straight[1], 2.0)


def test_a_child_that_is_its_parent_again_counts_the_epochs_of_both(tmp_path: Path) -> None:
    """After a change and a change back, the epochs of the whole line are those of the budget."""
    asked = oracle(tmp_path)
    asked(Trial(0, CELL, 1.0))
    asked(Trial(1, RELATIVE, 2.0, continues=0, trained=1.0))
    Watch.epochs.clear()
    third = asked(Trial(2, RELATIVE, 4.0, continues=1, trained=2.0))
    assert numbers() == [0, 1]
    assert third.epochs == 2.0
    assert same(Watch.start, weights(tmp_path, 1))


@pytest.mark.ddp
def test_two_processes_train_to_the_same_bit(tmp_path: Path) -> None:
    searcher = RandomSearch(SPACE, budget=1.0)
    options = {"limit_train_batches": 3}
    here = oracle(tmp_path / "here", trainer=options)
    expected = [here(trial).score for trial in RandomSearch(SPACE, budget=1.0).ask(2)]
    there = oracle(tmp_path / "there", trainer=options)
    evaluator = Evaluator(there, in_flight=2, executor=partial(Processes, 2))
    results = [result for _ in range(2) if (result := evaluator.step(searcher)) is not None]
    evaluator.close()
    assert [result.error for result in results] == [None] * 2
    assert [result.score for result in results] == expected
    assert len(set(expected)) == 2


class Linear(L.LightningModule):
    """A linear classifier whose logits are scaled by the number of convolutions."""

    def __init__(self, genotype: Genotype) -> None:
        super().__init__()
        self.scale = SPACE.format(genotype).count("conv")
        self.layer = nn.Linear(64, 10)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self.scale * self.layer(batch[0].flatten(1)), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        hits = self.layer(batch[0].flatten(1)).argmax(1) == batch[1]
        self.log("hits", hits.float().mean(), batch_size=len(hits))

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def test_a_module_of_your_own(tmp_path: Path) -> None:
    own: dict[str, Any] = {"build": Linear, "monitor": "hits", "scale": 100.0}
    asked = oracle(tmp_path, **own, test="hits")
    first = asked(Trial(0, CELL, 1.0))
    second = asked(Trial(1, CELL, 3.0, continues=0, trained=1.0))
    assert numbers() == [0, 1, 2]
    assert first.metrics == {"parameters": 650.0}
    assert 40 < second.score <= 100
    assert second.test is not None
    assert second.test != second.score
    assert first.test is not None
    layer = Linear(CELL)
    layer.load_state_dict(weights(tmp_path, 1))
    data = DigitsDataModule()
    data.setup("fit")
    (x, y), *more = list(data.val_dataloader())
    assert not more
    assert second.score == pytest.approx(100 * float((layer.layer(x.flatten(1)).argmax(1) == y).float().mean()))


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    unknown: list[dict[str, Any]] = [{"monitor": "val/f1"}, {"test": "test/f1"}]
    for wrong in unknown:
        with pytest.raises(ValueError, match="the module logs only") as caught:
            oracle(tmp_path, **wrong)(Trial(0, CELL, 1.0))
        one_line(caught.value, *wrong.values(), "val/acc", "val/loss")
    with pytest.raises(ValueError, match="the oracle has no data"):
        TrainingOracle(SPACE, folder=tmp_path)(Trial(0, CELL, 1.0))
    for settings in ({"schedule": "none"}, {"threads": 0}):
        with pytest.raises(ValueError, match="give at least 1, 'full' or 'rung'"):
            oracle(tmp_path, **settings)
    with pytest.raises(ValueError, match="epochs=0"):
        TrainingOracle(SPACE, DigitsDataModule(), 0, tmp_path)


def test_a_trial_without_a_budget_is_trained_in_full(tmp_path: Path) -> None:
    result = oracle(tmp_path)(Trial(0, CELL))
    assert numbers() == [0, 1, 2, 3]
    assert result.epochs == 4.0
