"""The dominant eigenvalue in a fit: its value, the rule of DARTS-ES, the way back of DARTS-ADA, no trace, resume."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from planted import ResumablePairs
from torch import Tensor, nn
from toys import HardGumbel, UniformPath, one_line, quiet_trainer

from lightning_nas.arch import Sample
from lightning_nas.callbacks import SharpnessMonitor
from lightning_nas.callbacks.sharpness_monitor import mean_of_last, turned_sharp
from lightning_nas.methods import DARTS, AdamTheta, DifferentiableSearch, SGDCosine
from lightning_nas.sharpness import dense_hessian

pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")

# --- the criterion, against the bookkeeping of the published tracker


class Published:
    """Its rules retold with the published numbers: local averages, the epochs they stand for, the comparison."""

    def __init__(self, every: int, first: int, ratio: float) -> None:
        self.every, self.first, self.ratio = every, first, ratio
        self.values: list[float] = []
        self.averages: dict[int, float] = {}  # by the epoch they stand for

    def update(self, epoch: int, value: float) -> int | None:
        self.values.append(value)
        if len(self.values) < 3:
            return None
        latest = self.values if len(self.values) < 5 else self.values[-5:]
        stands_for = epoch - 2 * self.every
        self.averages[stands_for] = sum(latest) / len(latest)
        before = stands_for - 4 * self.every
        if before < self.first:
            return None
        return before if self.averages[stands_for] / self.averages[before] > self.ratio else None


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_the_criterion_is_the_published_one(every: int, seed: int) -> None:
    rng, stops = random.Random(seed), 0
    published, epochs, values = Published(every, first=10, ratio=1.3), list[int](), list[float]()
    for epoch in range(0, 60 * every, every):
        values.append(rng.lognormvariate(0.0, 0.5) * 1.02 ** len(values))
        epochs.append(epoch)
        index, expected = turned_sharp(epochs, values), published.update(epoch, values[-1])
        assert (None if index is None else epochs[index]) == expected
        stops += expected is not None
    assert 0 < stops < 50


def test_means_need_half_a_window() -> None:
    assert [mean_of_last([1.0, 2.0, 6.0, 7.0][:n], 4) for n in range(5)] == [None, None, 1.5, 3.0, 4.0]


def test_a_negative_mean_is_no_base_for_a_ratio() -> None:
    assert turned_sharp(range(7), [-1.0] * 5 + [9.0] * 2, first=0) is None
    assert turned_sharp(range(7), [1.0] * 5 + [9.0] * 2, first=0) == 0


# --- fits with a curvature that is set


class Curved(nn.Module):
    """A loss whose curvature in the first row is `scale` times a constant; the other rows only tell the genotype."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(3))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: Tensor, sample: Sample) -> Tensor:
        first = sample.weights["cell"][0]
        gains = torch.arange(len(first)) - 2.0
        return self.scale * (first * gains).sum().square() + self.w.square().sum() * x[0, 0, 0, 0]


class Script(L.Callback):
    """Sets the curvature, and the genotype, by the epoch."""

    def __init__(self, scale: Callable[[int, float], float]) -> None:
        self.scale, self.epochs, self.w = scale, list[int](), dict[int, Tensor]()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        epoch, decay = trainer.current_epoch, trainer.optimizers[0].param_groups[0]["weight_decay"]
        pl_module.supernet.scale.fill_(self.scale(epoch, decay))
        self.epochs.append(epoch)
        with torch.no_grad():
            theta = pl_module.relaxation.theta["cell"]
            theta[1:] = 0.0
            theta[1 + epoch % 5, 1 + epoch // 5 % 4] = 1.0

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        self.w[trainer.current_epoch] = pl_module.supernet.w.detach().clone()


def fit(
    monitor: SharpnessMonitor, scale: Callable[[int, float], float], epochs: int, path: Path | None = None, **more: Any
) -> tuple[DifferentiableSearch, L.Trainer, Script]:
    search = DifferentiableSearch(
        "nasbench201",
        supernet=Curved(),
        loss=lambda out, y: out.mean(),
        theta=AdamTheta(lr=1e-9),
        w=SGDCosine(lr=0.1, weight_decay=3e-4),
    )
    script = Script(scale)
    callbacks = [script, monitor, *more.pop("callbacks", [])]
    trainer = quiet_trainer(max_epochs=epochs, limit_val_batches=0, callbacks=callbacks, **more)
    trainer.fit(search, ResumablePairs(1), ckpt_path=path, weights_only=None if path is None else True)
    return search, trainer, script


def growth(epoch: int, decay: float) -> float:
    return 1.0 if epoch < 14 or decay > 1e-3 else 3.0


def curvature(search: DifferentiableSearch) -> float:
    """The eigenvalue for scale 1."""
    x, y = torch.ones(1, 3, 8, 8), torch.zeros(1, dtype=torch.long)
    search.supernet.scale.fill_(1.0)  # type: ignore[operator, union-attr]
    dense = dense_hessian(lambda: search.loss(search.supernet(x, search.relaxation()), y), search.arch_parameters())
    return float(torch.linalg.eigvalsh(dense)[-1])


def test_it_only_watches_unless_told_otherwise(capsys: Any) -> None:
    monitor = SharpnessMonitor(weight_decay=0.25)
    search, trainer, _ = fit(monitor, growth, 40)
    assert monitor.epochs == list(range(0, 40, 2))
    assert trainer.current_epoch == 40
    assert search.relaxation.support.active() is None
    expected = [scale * curvature(search) + 0.25 for scale in [1.0] * 7 + [3.0] * 13]
    assert monitor.values == pytest.approx(expected, rel=1e-2)
    assert float(trainer.logged_metrics["sharpness/lambda_max"]) == pytest.approx(expected[-1], rel=1e-2)
    assert capsys.readouterr().out.count("dominant eigenvalue") == 20


def test_the_weight_decay_is_that_of_the_architecture_optimiser() -> None:
    watching, without = SharpnessMonitor(), SharpnessMonitor(weight_decay=0.0)
    fit(watching, growth, 1)
    fit(without, growth, 1)
    assert watching.values[0] - without.values[0] == pytest.approx(1e-3, rel=1e-4)


def test_early_stopping_keeps_the_genotype_of_the_safe_epoch(capsys: Any) -> None:
    monitor, watching = SharpnessMonitor(stop_ratio=1.3, min_epoch=4), SharpnessMonitor()
    search, trainer, _ = fit(monitor, growth, 40)
    fit(watching, growth, 40)
    published = Published(2, first=4, ratio=1.3)
    hits = [
        (epoch, published.update(epoch, value)) for epoch, value in zip(watching.epochs, watching.values, strict=True)
    ]
    stop, safe = next((epoch, before) for epoch, before in hits if before is not None)
    assert trainer.current_epoch == stop + 1 < 40
    assert monitor.stopped == watching.genotypes[watching.epochs.index(safe)] != monitor.genotypes[-1]
    assert search.space.format(search.genotype()) == monitor.stopped
    assert search.relaxation.support.resolved
    assert f"since epoch {safe}: the search stops" in capsys.readouterr().out


def test_a_choice_that_was_closed_meanwhile_opens_again() -> None:
    class Close(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
            if trainer.current_epoch == 13:  # the genotype of epoch 4 has choice 1 in row 5
                pl_module.relaxation.support.drop("cell", 5, 1)

    monitor = SharpnessMonitor(stop_ratio=1.3, min_epoch=4)
    search, _, _ = fit(monitor, growth, 40, callbacks=[Close()])
    assert search.space.format(search.genotype()) == monitor.stopped


def test_a_stopped_search_stays_stopped_after_a_resume(tmp_path: Path) -> None:
    saved = ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=1)
    monitor = SharpnessMonitor(stop_ratio=1.3, min_epoch=4)
    _, trainer, _ = fit(monitor, growth, 40, callbacks=[saved], enable_checkpointing=True)
    again = SharpnessMonitor(stop_ratio=1.3, min_epoch=4)
    search, resumed, script = fit(again, growth, 40, tmp_path / "last.ckpt")
    assert script.epochs == []
    assert resumed.global_step == trainer.global_step
    assert search.space.format(search.genotype()) == again.stopped == monitor.stopped


def test_adaptation_goes_back_and_raises_the_weight_decay() -> None:
    monitor = SharpnessMonitor(stop_ratio=1.3, min_epoch=4, adapt=10.0)
    search, trainer, script = fit(monitor, growth, 30)
    turn = script.epochs.index(5, 6)  # epoch 5 for the second time
    stop, safe = script.epochs[turn - 1], 4
    assert script.epochs == [*range(stop + 1), *range(safe + 1, 30)]
    assert trainer.optimizers[0].param_groups[0]["weight_decay"] == pytest.approx(3e-3)
    assert monitor.epochs == list(range(0, 30, 2))
    assert monitor.values == pytest.approx([monitor.values[0]] * 15, rel=1e-2)
    assert monitor.stopped is None
    assert search.relaxation.support.active() is None
    schedule: Any = trainer.lr_scheduler_configs[0].scheduler
    assert schedule.last_epoch == 30


def test_adaptation_restores_every_bit() -> None:
    class Look(L.Callback):
        """The state after the last batch of each epoch, and at the first batch of the next."""

        def __init__(self) -> None:
            self.after: dict[int, Any] = {}
            self.before: list[tuple[int, Any]] = []

        def state(self, trainer: L.Trainer, pl_module: Any) -> list[Tensor]:
            tensors = [value.clone() for value in pl_module.state_dict().values()]
            for optimizer in trainer.optimizers:
                for state in optimizer.state.values():
                    tensors += [torch.as_tensor(value).clone() for value in state.values()]
            return [*tensors, torch.tensor(trainer.optimizers[0].param_groups[0]["lr"])]

        def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
            self.after.setdefault(trainer.current_epoch, self.state(trainer, pl_module))

        def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
            self.before.append((trainer.current_epoch, self.state(trainer, pl_module)))

    look = Look()
    monitor = SharpnessMonitor(stop_ratio=1.3, min_epoch=4, adapt=10.0)
    search = DifferentiableSearch(
        "nasbench201", supernet=Curved(), loss=lambda out, y: out.mean(), theta=AdamTheta(lr=0.01), w=SGDCosine(lr=0.1)
    )
    trainer = quiet_trainer(max_epochs=22, limit_val_batches=0, callbacks=[look, Script(growth), monitor])
    trainer.fit(search, ResumablePairs(1))
    order = [epoch for epoch, _ in look.before]
    turn = order.index(5, 6)
    assert order[turn - 1] > 12
    first, second = look.before[order.index(5)][1], look.before[turn][1]
    assert len(first) == len(second) > 6
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_at_the_greatest_weight_decay_the_search_goes_on() -> None:
    monitor = SharpnessMonitor(stop_ratio=1.3, min_epoch=4, adapt=10.0, max_weight_decay=2e-3)
    _, trainer, script = fit(monitor, growth, 30)
    assert script.epochs == list(range(30))
    assert trainer.optimizers[0].param_groups[0]["weight_decay"] == 3e-4


def test_a_growth_that_comes_again_leads_back_again_until_the_weight_decay_is_at_its_most() -> None:
    monitor = SharpnessMonitor(stop_ratio=1.3, min_epoch=0, adapt=2.0, max_weight_decay=1.2e-3)
    _, trainer, script = fit(monitor, lambda epoch, decay: 1.0 if epoch < 14 else 3.0, 30)
    turns = [later for epoch, later in pairwise(script.epochs) if later != epoch + 1]
    assert len(turns) == 2
    assert turns[1] >= turns[0]
    assert script.epochs[-1] == 29
    assert trainer.optimizers[0].param_groups[0]["weight_decay"] == pytest.approx(1.2e-3)
    assert monitor.epochs == list(range(0, 30, 2))


def test_adaptation_resumes_exactly(tmp_path: Path) -> None:
    def monitor() -> SharpnessMonitor:
        return SharpnessMonitor(stop_ratio=1.3, min_epoch=4, adapt=10.0)

    saved = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    whole = monitor()
    search, trainer, script = fit(whole, growth, 22, callbacks=[saved], enable_checkpointing=True)
    turn = script.epochs.index(5, 6)
    for step in (3, 7, turn, turn + 1):
        again = monitor()
        resumed, end, rest = fit(again, growth, 22, tmp_path / f"step={step}.ckpt")
        assert rest.epochs == script.epochs[step:]
        assert again.values == whole.values
        assert again.genotypes == whole.genotypes
        assert end.global_step == trainer.global_step
        assert torch.equal(resumed.supernet.w, search.supernet.w)  # type: ignore[arg-type]
        groups = [run.optimizers[0].param_groups[0] for run in (end, trainer)]
        assert len({(group["lr"], group["weight_decay"]) for group in groups}) == 1


# --- real searches


@pytest.mark.parametrize("relaxation", [None, HardGumbel])
@pytest.mark.parametrize("space", ["small_sep", "nasbench201", "s4"])  # s4 draws noise
def test_a_search_takes_no_notice(space: str, relaxation: Any) -> None:
    def run(*callbacks: L.Callback) -> dict[str, Any]:
        torch.manual_seed(0)
        more = {} if relaxation is None else {"relaxation": relaxation}
        cells = 3 if space == "s4" else 1
        search = DifferentiableSearch(space, channels=2, cells=cells, **more)
        quiet_trainer(max_epochs=2, limit_val_batches=0, callbacks=[*callbacks]).fit(search, ResumablePairs(2))
        return dict(search.state_dict()) | {"rng": torch.get_rng_state()}

    monitor = SharpnessMonitor(every_n_epochs=1)
    with_it, without = run(monitor), run()
    assert len(monitor.values) == 2
    assert all(value > 0 for value in monitor.values)
    assert with_it.keys() == without.keys()
    assert all(torch.equal(value, without[name]) for name, value in with_it.items())


def test_it_is_the_eigenvalue_of_the_last_batch() -> None:
    search = DARTS("nasbench201", channels=4, cells=1)
    data, monitor = ResumablePairs(2), SharpnessMonitor(weight_decay=0.0, pictures=6)
    quiet_trainer(max_epochs=1, limit_val_batches=0, callbacks=[monitor]).fit(search, data)
    x, y = data.pairs[1]["theta"]
    x, y = x[:6], y[:6]
    dense = dense_hessian(
        lambda: F.cross_entropy(search.supernet(x, search.relaxation()), y), list(search.relaxation.theta.values())
    )
    assert monitor.values[0] == pytest.approx(float(torch.linalg.eigvalsh((dense + dense.T) / 2)[-1]), rel=1e-2)


def test_statistics_of_normalisation_stay() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn, self.line = nn.BatchNorm2d(3), nn.Linear(3, 10)

        def forward(self, x: Tensor, sample: Sample) -> Tensor:
            out: Tensor = self.line(self.bn(x).mean((2, 3))) * sample.weights["cell"][:, 1].square().sum()
            return out

    search, monitor = DifferentiableSearch("nasbench201", supernet=Normed()), SharpnessMonitor()
    quiet_trainer(max_epochs=1, limit_val_batches=0, callbacks=[monitor]).fit(search, ResumablePairs(3))
    assert int(search.supernet.bn.num_batches_tracked) == 6  # type: ignore[union-attr, arg-type]
    assert monitor.values[0] > 0


# --- what is refused


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"every_n_epochs": 0}, ["every_n_epochs=0", "at least 1"]),
        ({"window": 0}, ["window=0"]),
        ({"pictures": 0}, ["pictures=0"]),
        ({"min_epoch": -1}, ["min_epoch=-1"]),
        ({"stop_ratio": 1.0}, ["stop_ratio=1.0", "above 1", "None"]),
        ({"adapt": 10.0}, ["adapt=10.0", "needs a stop_ratio"]),
        ({"adapt": 1.0, "stop_ratio": 1.3}, ["adapt=1.0", "above 1"]),
    ],
)
def test_bad_arguments(settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        SharpnessMonitor(**settings)
    one_line(error.value, *words)


def test_a_search_without_architecture_parameters() -> None:
    search = DifferentiableSearch("nasbench201", relaxation=UniformPath, hypergradient=None, channels=4, cells=1)
    trainer = quiet_trainer(max_epochs=1, limit_val_batches=0, callbacks=[SharpnessMonitor()])
    with pytest.raises(MisconfigurationException) as error:
        trainer.fit(search, ResumablePairs(1))
    one_line(error.value, "no architecture parameters", "remove")
