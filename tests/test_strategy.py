"""What a search refuses of a Trainer, and what it does across processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy
from toys import HardGumbel, Pairs, one_line, quiet_trainer

from lightning_nas import strategy
from lightning_nas.methods import DARTS, DifferentiableSearch
from lightning_nas.relaxations import Softmax


@pytest.fixture(autouse=True)
def no_launch_left_behind() -> Iterator[None]:
    """A fit under DDP leaves its rank and port in the environment, where a later launch would take them for its own."""
    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)


def search(**settings: Any) -> DifferentiableSearch:
    return DifferentiableSearch("nasbench201", channels=4, cells=1, **settings)


class Counted(Pairs):
    """Data that say whether they were asked for."""

    asked = False

    def train_dataloader(self) -> Any:
        self.asked = True
        return super().train_dataloader()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gradient_clip_val": 0.5}, ("gradient_clip_val=0.5", "remove it", "w=SGDCosine(clip=0.5)")),
        ({"accumulate_grad_batches": 4}, ("accumulate_grad_batches=4", "not supported", "batch size")),
    ],
)
def test_options_that_a_search_cannot_take_are_refused_before_data_are_loaded(
    options: dict[str, Any], words: tuple[str, ...]
) -> None:
    module, data = search(), Counted()
    before = module.supernet.classifier.weight.detach().clone()
    with pytest.raises(MisconfigurationException) as caught:
        quiet_trainer(max_epochs=1, **options).fit(module, data)
    one_line(caught.value, *words)
    assert not data.asked
    assert torch.equal(module.supernet.classifier.weight, before)


@pytest.mark.parametrize("sharded", [FSDPStrategy, ModelParallelStrategy])
def test_strategies_that_shard_are_refused(sharded: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, data = quiet_trainer(max_epochs=1), Counted()
    monkeypatch.setattr(type(trainer), "strategy", property(lambda self: sharded()))
    module = search()
    module.trainer = trainer
    with pytest.raises(MisconfigurationException) as caught:
        module.configure_callbacks()
    one_line(caught.value, sharded.__name__, "shards weights", "strategy='ddp'", "one device")
    assert not data.asked


def test_plain_trainers_are_taken() -> None:
    strategy.require_supported(quiet_trainer(max_epochs=1))


@pytest.mark.parametrize(
    "option", ["ddp", DDPStrategy(find_unused_parameters=False)], ids=["by name", "said to be off"]
)
def test_sampled_paths_under_plain_ddp_raise_an_error_that_names_the_right_strategy(option: Any) -> None:
    data = Counted()
    with pytest.raises(MisconfigurationException) as caught:
        quiet_trainer(max_epochs=1, strategy=option).fit(search(relaxation=HardGumbel), data)
    one_line(caught.value, "HardGumbel", "without a gradient", "strategy='ddp_find_unused_parameters_true'")
    assert not data.asked


@pytest.mark.parametrize(
    ("relaxation", "option"),
    [(Softmax, "ddp"), (HardGumbel, "ddp_find_unused_parameters_true"), (HardGumbel, "auto")],
)
def test_what_may_run_runs(relaxation: Any, option: str) -> None:
    trainer = quiet_trainer(max_epochs=1, limit_val_batches=0, strategy=option)
    trainer.fit(search(relaxation=relaxation), Pairs(2))
    assert trainer.global_step == 2


def test_ddp_does_not_see_the_relaxation() -> None:
    """Its gradient comes by hand; a reducer that waits for it would hang or raise."""
    seen: dict[str, Any] = {}

    class Look(L.Callback):
        def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            seen["ignored"] = set(trainer.strategy.model.parameters_to_ignore)  # type: ignore[union-attr]

    module = search()
    quiet_trainer(max_epochs=1, limit_val_batches=0, strategy="ddp", callbacks=[Look()]).fit(module, Pairs(1))
    assert {name for name, _ in module.named_parameters() if name in seen["ignored"]} == {"relaxation.theta.cell"}
    assert {name for name, _ in module.named_buffers() if name in seen["ignored"]} == {"relaxation.support.mask[cell]"}


# --- exchange, with a stand-in for the other process


class Other:
    """A strategy of two processes, whose second holds other values."""

    def __init__(self, other: torch.Tensor | list[torch.Tensor] | bool) -> None:
        self.other, self.exchanges = other, 0

    def reduce(self, tensor: torch.Tensor, reduce_op: str) -> torch.Tensor:
        assert reduce_op == "mean"
        self.exchanges += 1
        return (tensor + self.other) / 2

    def broadcast(self, tensors: list[torch.Tensor]) -> Any:
        self.exchanges += 1
        return self.other

    def reduce_boolean_decision(self, decision: bool, all: bool) -> bool:
        assert all
        return decision and bool(self.other)


def of_two(other: Any) -> Any:
    return SimpleNamespace(world_size=2, strategy=Other(other))


def test_the_mean_over_processes_in_one_exchange() -> None:
    trainer = of_two(torch.arange(10.0))
    mine = [torch.ones(2, 3), torch.full((4,), 3.0)]
    first, second = strategy.reduce(trainer, mine)
    assert first.tolist() == [[0.5, 1.0, 1.5], [2.0, 2.5, 3.0]]
    assert second.tolist() == [4.5, 5.0, 5.5, 6.0]
    assert trainer.strategy.exchanges == 1
    assert strategy.reduce(trainer, []) == []
    assert trainer.strategy.exchanges == 1


def test_one_process_exchanges_nothing() -> None:
    tensors = [torch.ones(2)]
    alone = quiet_trainer(max_epochs=1)
    assert strategy.reduce(alone, tensors)[0] is tensors[0]
    strategy.broadcast(alone, tensors)
    assert strategy.any_process(alone, True)
    assert not strategy.any_process(alone, False)


def test_the_values_of_the_first_process_are_taken_in_place() -> None:
    parameter = torch.nn.Parameter(torch.zeros(3))
    strategy.broadcast(of_two([torch.tensor([1.0, 2.0, 3.0])]), [parameter])
    assert parameter.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(("mine", "other", "either"), [(False, True, False), (True, True, True), (False, False, True)])
def test_a_flag_of_one_process_counts_for_all(mine: bool, other: bool, either: bool) -> None:
    """`other` is the opposite of the flag in the other process: whether it may go on."""
    assert strategy.any_process(of_two(other), mine) == either


def test_the_scale_of_a_loss() -> None:
    assert strategy.loss_scale(quiet_trainer(max_epochs=1)) == 1.0
    assert strategy.loss_scale(quiet_trainer(max_epochs=1, precision="bf16-mixed")) == 1.0
    scaled = SimpleNamespace(precision_plugin=SimpleNamespace(scaler=SimpleNamespace(get_scale=lambda: 1024)))
    assert strategy.loss_scale(scaled) == 1024.0  # type: ignore[arg-type]


def test_the_genotype_of_a_search_does_not_depend_on_a_trainer() -> None:
    module = DARTS("nasbench201", channels=4, cells=1)
    assert module.space.check(module.genotype()) == module.genotype()
