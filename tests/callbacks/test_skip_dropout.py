"""The schedule of P-DARTS for the dropout on skips."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn
from toys import Pairs, one_line, quiet_trainer

from lightning_nas.callbacks import SkipDropout
from lightning_nas.methods import DifferentiableSearch
from lightning_nas.supernet import MixedCell


def published(p: float, epoch: int, epochs: int, eps_no_archs: int = 10) -> float:
    """The lines of the released search script."""
    if epoch < eps_no_archs:
        return p * (epochs - epoch - 1) / epochs
    return p * math.exp(-(epoch - eps_no_archs) * 0.2)


def test_the_schedule_is_the_published_one() -> None:
    dropout = SkipDropout(0.7)
    for epoch in range(25):
        assert dropout.value(epoch, 25) == pytest.approx(published(0.7, epoch, 25), rel=1e-12)


class Rates(L.Callback):
    def __init__(self) -> None:
        self.seen: list[set[float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        self.seen.append({m.skip_dropout for m in pl_module.supernet.modules() if isinstance(m, MixedCell)})


def test_all_cells_get_the_rate_of_the_epoch_and_validation_drops_nothing() -> None:
    rates, search = Rates(), DifferentiableSearch("darts", channels=4, cells=3)
    trainer = quiet_trainer(max_epochs=4, callbacks=[SkipDropout(0.4, warmup=2), rates])
    trainer.fit(search, Pairs(1))
    assert [sorted(seen) for seen in rates.seen] == [[pytest.approx(published(0.4, e, 4, 2))] for e in range(4)]
    search.eval()
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(search(x), search(x))
    search.train()
    assert not torch.equal(search(x), search(x))


def test_a_supernet_without_cells_is_refused() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(10))

        def forward(self, x: torch.Tensor, sample: Any) -> torch.Tensor:
            return self.scale * x.mean((1, 2, 3), keepdim=True).flatten(1)

    search = DifferentiableSearch("nasbench201", supernet=Plain())
    with pytest.raises(ValueError) as error:
        quiet_trainer(max_epochs=1, callbacks=[SkipDropout(0.4)]).fit(search, Pairs(1))
    one_line(error.value, "SkipDropout", "none")


def test_bad_arguments() -> None:
    with pytest.raises(ValueError) as error:
        SkipDropout(1.0)
    one_line(error.value, "start=1.0", "[0, 1)")
