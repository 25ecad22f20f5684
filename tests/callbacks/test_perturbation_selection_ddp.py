"""Decisions of two processes on parts of the validation data: the same in both, and those of one on all of it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from planted import Planted, signals  # noqa: E402

from lightning_nas.arch import Sample  # noqa: E402
from lightning_nas.callbacks import EpochSchedule, PerturbationSelection, SupernetSelection  # noqa: E402
from lightning_nas.callbacks.race import decide  # noqa: E402
from lightning_nas.methods import DifferentiableSearch  # noqa: E402
from lightning_nas.optimizers import SGDCosine  # noqa: E402
from lightning_nas.spaces.small import SmallSpace  # noqa: E402

pytestmark = pytest.mark.ddp


class Parts(L.LightningDataModule):
    """Each process validates on every other of five batches: one gets three, the other two."""

    def train_dataloader(self) -> DataLoader[Any]:
        (batch,) = signals(1, 8, seed=9)
        return DataLoader([{"w": batch, "theta": batch}], batch_size=None)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[Any]:
        rank, world_size = self.trainer.global_rank, self.trainer.world_size  # type: ignore[union-attr]
        return DataLoader(signals(5, 64)[rank::world_size], batch_size=None)  # type: ignore[arg-type]


class Raced(EpochSchedule):
    """One comparison by a race, in which one process runs out of batches first."""

    found: tuple[int, list[float]]

    def at_epoch(self, trainer: L.Trainer, search: Any, epoch: int, epochs: int | None) -> None:
        if epoch == 0:
            weak = [Sample({"normal": torch.full((5, 2), 0.01 * k)}) for k in (5, 6, 100, 5, 101, 7)]
            self.found = decide(trainer, search, weak, "loss", race=trainer.world_size > 1)


def fit(processes: int) -> dict[str, Any]:
    space = SmallSpace("small_sep")
    gains = torch.tensor([[3.0, 9.0], [-2.0, 5.0], [8.0, 1.0], [4.0, 7.0], [2.0, 6.0]])
    supernet = Planted(space, {"normal": gains})
    search = DifferentiableSearch(space, supernet=supernet, num_classes=2, w=SGDCosine(lr=1e-9))
    raced, pt = Raced(), PerturbationSelection(0, 1, metric="loss")
    drawn = SupernetSelection(samples=3, batches=1)
    trainer = L.Trainer(
        max_epochs=6,
        callbacks=[raced, pt, drawn],
        use_distributed_sampler=False,
        accelerator="cpu",
        devices=processes,
        strategy="auto" if processes == 1 else "ddp_find_unused_parameters_true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(search, Parts())
    support = search.relaxation.support
    found = {"rank": trainer.global_rank, "history": pt.history, "drawn": drawn.history, "raced": raced.found}
    return {**found, "open": {group: support.open(group) for group in support.decisions}}


def in_two_processes(folder: Path) -> list[dict[str, Any]]:
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, __file__, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def test_two_processes_decide_alike_and_as_one_does(tmp_path: Path) -> None:
    one = json.loads(json.dumps(fit(1)))
    first, second = in_two_processes(tmp_path)
    assert first | {"rank": 1} == second
    assert len(first["history"]) == 6
    assert first["open"] == one["open"]
    for ours, alone in zip(first["history"], one["history"], strict=True):
        assert ours | {"scores": 0} == alone | {"scores": 0}
        assert ours["scores"] == pytest.approx(alone["scores"], rel=1e-5)
    assert first["drawn"][0]["acc"] == pytest.approx(one["drawn"][0]["acc"], rel=1e-6)
    assert first["raced"][0] == one["raced"][0] == 4
    assert first["raced"][1] != pytest.approx(one["raced"][1])  # some dropped out early


if __name__ == "__main__":
    result = fit(2)
    Path(sys.argv[1], f"{result['rank']}.json").write_text(json.dumps(result))
