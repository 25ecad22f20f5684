"""Schedules by epoch: their ends, their shape, and a resume in the middle of an epoch."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from planted import ResumablePairs
from toys import one_line, quiet_trainer

from lightning_nas.callbacks import (
    Annealing,
    AuxiliarySkipAnnealing,
    EpochSchedule,
    PenaltyAnnealing,
    TemperatureAnnealing,
)
from lightning_nas.callbacks.schedule import Search
from lightning_nas.methods import DifferentiableSearch
from lightning_nas.penalties import Entropy
from lightning_nas.relaxations import Gumbel, Softmax

pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")


class Calls(EpochSchedule):
    """Records each call, and the batch before which it came."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int | None, int]] = []

    def at_epoch(self, trainer: L.Trainer, search: Search, epoch: int, epochs: int | None) -> None:
        self.calls.append((epoch, epochs, trainer.global_step))


def search(**settings: Any) -> DifferentiableSearch:
    return DifferentiableSearch("nasbench201", channels=4, cells=1, **settings)


def fit(module: DifferentiableSearch, *callbacks: L.Callback, epochs: int = 3, batches: int = 2, **more: Any) -> Any:
    ckpt_path = more.pop("ckpt_path", None)
    settings: dict[str, Any] = {"max_epochs": epochs, "limit_val_batches": 0, **more}
    trainer = quiet_trainer(callbacks=list(callbacks), **settings)
    trainer.fit(module, ResumablePairs(batches), ckpt_path=ckpt_path)
    return trainer


def test_it_is_called_once_an_epoch_before_the_first_step() -> None:
    calls = Calls()
    fit(search(), calls)
    assert calls.calls == [(0, 3, 0), (1, 3, 2), (2, 3, 4)]
    fit(search(), calls, epochs=1)  # a second fit starts anew
    assert calls.calls[3:] == [(0, 1, 0)]


def test_steps_say_how_many_epochs_there_are() -> None:
    calls = Calls()
    fit(search(), calls, epochs=-1, max_steps=5)
    assert calls.calls == [(0, 3, 0), (1, 3, 2), (2, 3, 4)]


@pytest.mark.parametrize("step", [2, 3, 4], ids=["within", "at the end", "within the next"])
def test_a_resume_calls_it_again(step: int, tmp_path: Path) -> None:
    saved = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    fit(search(), saved, batches=3, enable_checkpointing=True)
    calls = Calls()
    fit(search(), calls, batches=3, ckpt_path=tmp_path / f"step={step}.ckpt")
    begun = [(step // 3, 3, step)]
    assert calls.calls == begun + [(e, 3, 3 * e) for e in range(step // 3 + 1, 3)]


class Number(Annealing):
    def set(self, search: Search, value: float) -> None:
        self.seen = [*getattr(self, "seen", []), value]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [8.0, 6.5, 5.0, 3.5]),
        ({"inclusive": True}, [8.0, 6.0, 4.0, 2.0]),
        ({"epochs": 2}, [8.0, 5.0, 2.0, 2.0]),
        ({"kind": "exponential"}, [8.0, 8 * 4**-0.25, 4.0, 8 * 4**-0.75]),
        ({"kind": "exponential", "inclusive": True}, [8.0, 8 * 4 ** (-1 / 3), 8 * 4 ** (-2 / 3), 2.0]),
        ({"epochs": 1, "inclusive": True}, [8.0, 2.0, 2.0, 2.0]),
    ],
)
def test_the_way_from_start_to_end(settings: dict[str, Any], expected: list[float]) -> None:
    number = Number(8.0, 2.0, **settings)
    assert [number.value(epoch, number.epochs or 4) for epoch in range(4)] == pytest.approx(expected)
    fit(search(), number, epochs=4, batches=1)
    assert number.seen == pytest.approx(expected)


def test_an_annealing_needs_an_end() -> None:
    class Stop(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
            trainer.should_stop = True

    with (
        pytest.raises(ValueError) as error,
        pytest.warns(UserWarning, match="max_epochs"),
    ):
        fit(search(), Number(1.0, 0.0), Stop(), epochs=-1)
    one_line(error.value, "Number", "max_epochs", "epochs=")
    number = Number(1.0, 0.0, epochs=4)
    with pytest.warns(UserWarning, match="max_epochs"):
        fit(search(), number, Stop(), epochs=-1, min_epochs=0)
    assert number.seen[0] == 1.0


class Watch(L.Callback):
    """The value of an attribute at each step, read off a path of names."""

    def __init__(self, *path: str | int) -> None:
        self.path, self.seen = path, []  # type: ignore[var-annotated]

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        value = pl_module
        for name in self.path:
            value = value[name] if isinstance(name, int) else getattr(value, name)
        self.seen.append(value)


def test_the_temperature_runs_from_one_end_to_the_other() -> None:
    module, watch = search(relaxation=partial(Gumbel, tau=5.0)), Watch("relaxation", "tau")
    trainer = fit(module, TemperatureAnnealing(10.0, 0.1), watch)
    assert watch.seen == pytest.approx([10.0, 10.0, 5.05, 5.05, 0.1, 0.1])
    assert trainer.callback_metrics["arch/tau"].item() == pytest.approx(0.1)


def test_a_temperature_can_fall_in_equal_ratios() -> None:
    module, watch = search(relaxation=partial(Gumbel, tau=5.0)), Watch("relaxation", "tau")
    fit(module, TemperatureAnnealing(1.0, 0.01, kind="exponential"), watch, batches=1)
    assert watch.seen == pytest.approx([1.0, 0.1, 0.01])


def test_a_resumed_fit_has_the_temperature_of_the_epoch(tmp_path: Path) -> None:
    saved = ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=-1, filename="{step}")
    make = partial(search, relaxation=partial(Gumbel, tau=5.0))
    whole, watch = make(), Watch("relaxation", "tau")
    fit(whole, TemperatureAnnealing(10.0, 1.0), saved, watch, enable_checkpointing=True)
    resumed, again = make(), Watch("relaxation", "tau")
    fit(resumed, TemperatureAnnealing(10.0, 1.0), again, ckpt_path=tmp_path / "step=3.ckpt")
    assert again.seen == watch.seen[3:]
    for (name, one), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert bool((one == other).all()), name


def test_a_penalty_grows_as_published() -> None:
    terms = (Entropy(1.0), Entropy(2.0))
    first, second = Watch("regularizers", 0, "weight"), Watch("regularizers", 1, "weight")
    fit(search(regularizers=terms), PenaltyAnnealing(0.0, 50.0, index=1), first, second, epochs=5, batches=1)
    assert second.seen == pytest.approx([0.0, 10.0, 20.0, 30.0, 40.0])
    assert first.seen == [1.0] * 5


def test_an_auxiliary_skip_fades() -> None:
    watch = Watch("relaxation", "auxiliary_skip")
    fit(search(relaxation=partial(Softmax, auxiliary_skip=0.3)), AuxiliarySkipAnnealing(), watch, epochs=4, batches=1)
    assert watch.seen == pytest.approx([1.0, 0.75, 0.5, 0.25])


class WithoutSkip(Softmax):
    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        del self.auxiliary_skip


WithoutSkip.scalars = ()


@pytest.mark.parametrize(
    ("callback", "words"),
    [
        (TemperatureAnnealing(), ("TemperatureAnnealing", "tau", "WithoutSkip")),
        (AuxiliarySkipAnnealing(), ("AuxiliarySkipAnnealing", "auxiliary_skip", "WithoutSkip")),
        (PenaltyAnnealing(index=2), ("index=2", "0 regularizers", "regularizers=(...)")),
    ],
)
def test_what_has_nothing_to_set_says_so_before_the_fit(callback: L.Callback, words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as error:
        fit(search(relaxation=WithoutSkip), callback)
    one_line(error.value, *words)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Number(1.0, 0.0, kind="cosine"), ("'cosine'", "linear", "exponential")),
        (lambda: Number(1.0, 0.0, kind="exponential"), ("end=0.0", "linear")),
        (lambda: Number(1.0, 0.0, epochs=0), ("epochs=0", "at least 1")),
        (lambda: TemperatureAnnealing(0.0), ("start=0.0", "positive")),
    ],
)
def test_bad_arguments(make: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as error:
        make()
    one_line(error.value, *words)


def test_an_exponential_is_a_line_of_logarithms() -> None:
    number = Number(10.0, 0.1, kind="exponential", inclusive=True)
    logs = [math.log(number.value(epoch, 7)) for epoch in range(7)]
    assert [b - a for a, b in pairwise(logs)] == pytest.approx([math.log(0.01) / 6] * 6)
