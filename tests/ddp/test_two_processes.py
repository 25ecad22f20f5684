"""A search on two CPU processes: the same architecture and the same weights in both, and those of one process."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_nas.arch import Sample
from lightning_nas.data import BilevelDataModule, DigitsDataModule
from lightning_nas.methods import DARTS, AdamTheta, DifferentiableSearch
from lightning_nas.relaxations import Relaxation, masked_softmax

pytestmark = pytest.mark.ddp
STEPS = 4


class HardGumbel(Relaxation):
    """One sampled path with a straight-through gradient: what sampled methods ask of the strategy."""

    stochastic = True
    needs_unused_parameters = True

    def forward(self) -> Sample:
        weights, active = {}, {}
        for group, theta in self.theta.items():
            noise = -torch.empty(theta.shape).exponential_(generator=self.generator).log().to(theta.device)
            soft = masked_softmax(theta + noise, self.support.mask(group))
            choice = soft.argmax(-1)
            weights[group] = torch.nn.functional.one_hot(choice, theta.shape[1]) + soft - soft.detach()
            active[group] = tuple((k,) for k in choice.tolist())
        return Sample(weights, active)

    def expected(self) -> dict[str, Tensor]:
        return {g: masked_softmax(t, self.support.mask(g)) for g, t in self.theta.items()}


class SameBatches(L.LightningDataModule):
    """The same batches in each process, so that a step equals that of one process."""

    def setup(self, stage: str) -> None:
        data = DigitsDataModule(batch_size=32)
        data.setup("fit")
        x, y = next(iter(data.train_dataloader()))
        self.pairs = [{"w": (x.roll(k, 0), y.roll(k, 0)), "theta": (x.flip(0), y.flip(0))} for k in range(STEPS)]

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.pairs, batch_size=None, sampler=range(STEPS))  # type: ignore[arg-type]


def main(case: str, folder: Path) -> None:
    L.seed_everything(0 if case == "same" else int(os.environ.get("LOCAL_RANK", "0")), verbose=False)
    settings: dict[str, Any] = {"channels": 4, "cells": 1, "in_channels": 1, "theta": AdamTheta(lr=0.05)}
    if case == "gumbel":
        search: DifferentiableSearch = DifferentiableSearch("nasbench201", relaxation=HardGumbel, **settings)
    else:
        search = DARTS("nasbench201", **settings)
    processes = 1 if case == "single" else 2
    trainer = L.Trainer(
        max_epochs=1,
        limit_train_batches=STEPS,
        use_distributed_sampler=False,
        limit_val_batches=0,
        accelerator="cpu",
        devices=processes,
        strategy="auto" if processes == 1 else "ddp_find_unused_parameters_true" if case == "gumbel" else "ddp",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = SameBatches() if case in ("same", "single") else BilevelDataModule(DigitsDataModule(batch_size=32))
    trainer.fit(search, data)
    state = {k: v for k, v in search.state_dict().items() if isinstance(v, Tensor)}
    torch.save({"state": state, "steps": trainer.global_step}, folder / f"{case}-{trainer.global_rank}.pt")


def run(case: str, folder: Path) -> list[dict[str, Any]]:
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, __file__, case, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(path, weights_only=True) for path in sorted(folder.glob(f"{case}-*.pt"))]


@pytest.mark.parametrize("case", ["different", "gumbel"])
def test_both_processes_end_with_the_same_bits(case: str, tmp_path: Path) -> None:
    """Their seeds and their data differ; samples, weights and architecture must not."""
    first, second = run(case, tmp_path)
    assert first["steps"] == second["steps"] == STEPS
    for name, value in first["state"].items():
        assert torch.equal(value, second["state"][name]), name


def test_two_processes_on_the_same_data_equal_one(tmp_path: Path) -> None:
    (single,), (first, _) = run("single", tmp_path), run("same", tmp_path)
    assert first["steps"] == single["steps"]
    for name, value in single["state"].items():
        torch.testing.assert_close(first["state"][name], value, rtol=1e-4, atol=1e-5, msg=name)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
