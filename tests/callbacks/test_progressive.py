"""Stages of DrNAS: fewer operations on more channels, everything else goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from planted import ResumablePairs
from torch import Tensor
from toys import one_line, quiet_trainer

from lightning_nas.callbacks import ChannelStage, ProgressiveChannelPruning
from lightning_nas.methods import AdamTheta, DifferentiableSearch
from lightning_nas.relaxations import Dirichlet
from lightning_nas.spaces import get_space
from lightning_nas.supernet import MixedCell, build_supernet

STAGES = [ChannelStage(1, keep=4, partial=2), ChannelStage(2, keep=2, partial=1)]


def search(name: str = "nasbench201", seed: int = 0, **settings: Any) -> DifferentiableSearch:
    torch.manual_seed(seed)
    space = get_space(name)
    supernet = build_supernet(space, channels=8, cells=1, partial=1, start_partial=4)
    settings = {"relaxation": Dirichlet, "theta": AdamTheta(lr=0.05), "seed": seed} | settings
    return DifferentiableSearch(space, supernet=supernet, **settings)


def fit(module: DifferentiableSearch, *callbacks: L.Callback, ckpt_path: Path | None = None, **more: Any) -> L.Trainer:
    settings: dict[str, Any] = {"max_epochs": 3, "limit_val_batches": 0, **more}
    trainer = quiet_trainer(callbacks=list(callbacks), **settings)
    trainer.fit(module, ResumablePairs(2), ckpt_path=ckpt_path)
    return trainer


class Diary(L.Callback):
    """What each step finds: open choices, width, whether theta moves, momentum, rate."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        self.before = {name: theta.detach().clone() for name, theta in pl_module.relaxation.theta.items()}

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        cells = [module for module in pl_module.supernet.modules() if isinstance(module, MixedCell)]
        optimizer = trainer.optimizers[0]
        self.steps.append(
            {
                "open": {g: pl_module.relaxation.support.open(g) for g in pl_module.space.relaxed},
                "partial": {cell.width.partial for cell in cells},
                "moved": any(not torch.equal(self.before[n], t) for n, t in pl_module.relaxation.theta.items()),
                "weights": pl_module.relaxation.weight_sample().weights,
                "momentum": [s["momentum_buffer"].clone() for s in optimizer.state.values()],
                "shapes": [p.shape for p in pl_module.parameters()],
                "rate": optimizer.param_groups[0]["lr"],
            }
        )


def test_operations_shrink_channels_widen_and_all_else_goes_on() -> None:
    module, diary = search(), Diary()
    optimizers: list[Any] = []

    class Momentum(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
            optimizers.append(trainer.optimizers[0])

    plain = Diary()
    fit(search(), plain)
    trainer = fit(module, ProgressiveChannelPruning(STAGES, warmup=1), diary, Momentum())
    sizes = [{len(row) for row in step["open"]["cell"]} for step in diary.steps]
    assert sizes == [{5}] * 2 + [{4}] * 2 + [{2}] * 2
    assert [step["partial"] for step in diary.steps] == [{4}] * 2 + [{2}] * 2 + [{1}] * 2
    assert not any(step["moved"] for step in diary.steps)  # each stage has one epoch, and rests in it
    for step in diary.steps:
        weights: Tensor = step["weights"]["cell"]
        torch.testing.assert_close(weights.sum(-1), torch.ones(6))
        closed = [[k not in row for k in range(5)] for row in step["open"]["cell"]]
        assert bool((weights[torch.tensor(closed)] == 0).all())
    assert len({id(optimizer) for optimizer in optimizers}) == 1
    assert all(step["shapes"] == diary.steps[0]["shapes"] for step in diary.steps)
    assert [step["rate"] for step in diary.steps] == [step["rate"] for step in plain.steps]
    assert trainer.global_step == 6


def test_momentum_is_carried_and_copied_along_with_the_filters() -> None:
    module = search()
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    name = "blocks.0.edges.0.3.1.weight"  # the 3x3 convolution of the first edge

    class Around(ProgressiveChannelPruning):
        def at_epoch(self, trainer: L.Trainer, search: Any, epoch: int, epochs: int | None) -> None:
            weight = dict(search.supernet.named_parameters())[name]
            state = trainer.optimizers[0].state
            before = state[weight]["momentum_buffer"].clone() if weight in state else torch.zeros(0)
            super().at_epoch(trainer, search, epoch, epochs)
            if epoch == 1:
                found.append((before, state[weight]["momentum_buffer"].clone(), weight.detach().clone()))

    assert dict(module.supernet.named_parameters())[name].shape == (8, 8, 3, 3)
    fit(module, Around([ChannelStage(1, partial=2)]), max_epochs=2)
    ((before, after, weight),) = found
    assert bool((before[:2, :2] != 0).any())
    assert torch.equal(after[:2, :2], before[:2, :2])
    copies = {tuple(after[row, :2].flatten().tolist()) for row in range(4)}
    assert copies == {tuple(before[row, :2].flatten().tolist()) for row in range(2)}  # new filters are copies
    pairs = {tuple(weight[row, :2].flatten().tolist()) for row in range(4)}
    assert len(pairs) == 2
    assert torch.equal(after[4:], before[4:])


def test_the_best_by_expected_weight_stay() -> None:
    module = search()
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        theta = module.relaxation.theta["cell"]
        theta.copy_(torch.randn(theta.shape, generator=draw))
    expected = [tuple(sorted(row.topk(3).indices.tolist())) for row in module.relaxation.mean()["cell"]]
    fit(module, ProgressiveChannelPruning([{"epoch": 0, "keep": 3}]), max_epochs=1)
    assert list(module.relaxation.support.open("cell")) == expected


def test_an_edge_never_keeps_only_what_is_never_derived() -> None:
    module = DifferentiableSearch("darts", channels=4, cells=3)
    with torch.no_grad():
        for theta in module.relaxation.theta.values():
            theta[:, 0] = 5.0  # `none`
            theta[:, 4] = 1.0
    fit(module, ProgressiveChannelPruning([ChannelStage(0, keep=2), ChannelStage(1, keep=1)]), max_epochs=2)
    support = module.relaxation.support
    assert set(support.open("normal")) == set(support.open("reduce")) == {(4,)}
    assert support.open("normal/inputs")[3] == (0, 1, 2, 3, 4)  # the inputs of nodes are no operations


@pytest.mark.parametrize(
    ("stages", "moved"),
    [([], [False, True, True]), ([ChannelStage(2)], [False, True, False])],
    ids=["one stage", "two stages"],
)
def test_theta_rests_at_the_beginning_of_each_stage(stages: list[ChannelStage], moved: list[bool]) -> None:
    diary = Diary()
    fit(search(), ProgressiveChannelPruning(stages, warmup=1), diary)
    assert [step["moved"] for step in diary.steps] == [m for m in moved for _ in range(2)]


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.parametrize("step", [1, 2, 3], ids=["within a stage", "at its end", "within the next"])
def test_a_resumed_fit_goes_through_the_same_stages(step: int, tmp_path: Path) -> None:
    saved = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    whole, resumed = search(), search(seed=1)
    fit(whole, ProgressiveChannelPruning(STAGES), saved, enable_checkpointing=True)
    fit(resumed, ProgressiveChannelPruning(STAGES, seed=7), ckpt_path=tmp_path / f"step={step}.ckpt")
    assert {len(row) for row in resumed.relaxation.support.open("cell")} == {2}
    for (name, one), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ProgressiveChannelPruning([ChannelStage(5), ChannelStage(3)]), ("[5, 3]", "in order")),
        (lambda: ProgressiveChannelPruning([], warmup=-1), ("warmup=-1", "negative")),
        (lambda: ChannelStage(1, keep=0), ("keep=0", "positive")),
    ],
)
def test_bad_arguments(make: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as error:
        make()
    one_line(error.value, *words)
