"""The callbacks that watch a search, on two processes with other data in each: one eigenvalue, one decision."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F

from lightning_nas.callbacks import OLES, SearchDoctor, SharpnessMonitor
from lightning_nas.data import BilevelDataModule, DigitsDataModule
from lightning_nas.methods import DARTS, AdamTheta
from lightning_nas.sharpness import dense_hessian


class Dense(L.Callback):
    """The largest eigenvalue of the mean of the matrices of both processes, at the end of each epoch."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.is_last_batch:
            x, y = batch["theta"]
            theta = pl_module.arch_parameters()
            dense = dense_hessian(
                lambda: F.cross_entropy(pl_module.supernet(x, pl_module.relaxation()), y), theta, 1e-3
            )
            mean = pl_module.agreed(dense)
            self.values.append(float(torch.linalg.eigvalsh((mean + mean.T) / 2)[-1]))
            self.own = float(torch.linalg.eigvalsh((dense + dense.T) / 2)[-1])


def main(folder: Path) -> None:
    L.seed_everything(int(os.environ.get("LOCAL_RANK", "0")), verbose=False)
    search = DARTS("nasbench201", channels=2, cells=1, in_channels=1, theta=AdamTheta(lr=0.05))
    monitor, doctor, oles, dense = SharpnessMonitor(1), SearchDoctor(sharpness_every=1), OLES(0.1, window=3), Dense()
    trainer = L.Trainer(
        max_epochs=2,
        limit_train_batches=4,
        limit_val_batches=0,
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[dense, monitor, doctor, oles],
    )
    trainer.fit(search, BilevelDataModule(DigitsDataModule(batch_size=32)))
    found = {"dense": dense.values, "own": dense.own, "monitor": monitor.state_dict(), "doctor": doctor.state_dict()}
    found |= {"oles": oles.state_dict(), "weights": list(search.supernet.parameters())}
    torch.save(found, folder / f"{trainer.global_rank}.pt")


@pytest.mark.ddp
def test_two_processes_find_and_decide_the_same(tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, __file__, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert ranks[0]["own"] != ranks[1]["own"]  # other data in each
    for rank in ranks:
        assert rank["monitor"]["values"] == pytest.approx(rank["dense"], rel=1e-2)
        assert len(rank["dense"]) == 2
    assert ranks[0]["monitor"] == ranks[1]["monitor"]
    assert ranks[0]["doctor"] == ranks[1]["doctor"]
    frozen = [rank["oles"]["frozen"] for rank in ranks]
    assert torch.equal(*frozen)
    assert 0 < int(frozen[0].sum()) < len(frozen[0])
    assert all(torch.equal(a, b) for a, b in zip(ranks[0]["weights"], ranks[1]["weights"], strict=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
