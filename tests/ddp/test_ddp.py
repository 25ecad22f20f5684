"""What two processes must agree on beyond their final weights: draws, starts, gradients, and a refusal."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor
from toys import HardGumbel, one_line, quiet_trainer

from lightning_nas.arch import Bilevel, Sample
from lightning_nas.data import BilevelDataModule, DigitsDataModule
from lightning_nas.hypergradients import FirstOrder
from lightning_nas.methods import AdamTheta, DifferentiableSearch

pytestmark = pytest.mark.ddp
STEPS = 4
LAUNCH = ("LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Recorded(HardGumbel):
    """Remembers the paths that it drew."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.paths: list[tuple[int, ...]] = []

    def forward(self) -> Sample:
        sample = super().forward()
        assert sample.active is not None
        self.paths.append(tuple(k for (k,) in sample.active["cell"]))
        return sample


class Spy(FirstOrder):
    """Remembers the gradients of this process."""

    def __init__(self) -> None:
        object.__setattr__(self, "local", [])

    def __call__(self, problem: Bilevel) -> list[Tensor]:
        grads = super().__call__(problem)
        self.local.append(grads[0].clone())  # type: ignore[attr-defined]
        return grads


class Applied(L.Callback):
    """Remembers what the optimiser of the architecture was given, and where theta started."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        (theta,) = pl_module.relaxation.theta.values()  # type: ignore[union-attr, operator]
        self.start, self.grads = theta.detach().clone(), []
        trainer.optimizers[1].register_step_pre_hook(lambda *_: self.grads.append(theta.grad.clone()))


def paths(folder: Path, rank: int) -> None:
    L.seed_everything(rank, verbose=False)  # the global generators differ, the draws must not
    search = DifferentiableSearch(
        "nasbench201",
        relaxation=Recorded,
        channels=4,
        cells=1,
        in_channels=1,
        theta=AdamTheta(lr=0.05),
        seed=rank,  # other draws in each process, of which the first counts
    )
    applied = Applied()
    fit(search, "ddp_find_unused_parameters_true", applied)
    save(folder, rank, search, paths=search.relaxation.paths, start=applied.start)


def gradients(folder: Path, rank: int) -> None:
    spy, applied = Spy(), Applied()
    search = DifferentiableSearch(
        "nasbench201",
        hypergradient=spy,
        channels=4,
        cells=1,
        in_channels=1,
        theta=AdamTheta(lr=0.05, clip=None),
        seed=rank,  # another start in each process, of which the first counts
    )
    own = search.relaxation.theta["cell"].detach().clone()
    fit(search, "ddp", applied)
    found = {"own": own, "start": applied.start, "applied": applied.grads, "local": spy.local}  # type: ignore[attr-defined]
    save(folder, rank, search, **found)


def refused(folder: Path, rank: int) -> None:
    search = DifferentiableSearch("nasbench201", relaxation=HardGumbel, channels=4, cells=1, in_channels=1)
    try:
        fit(search, "ddp")
    except MisconfigurationException as error:
        save(folder, rank, search, error=str(error))


def fit(search: DifferentiableSearch, strategy: str, *callbacks: L.Callback) -> None:
    trainer = quiet_trainer(
        max_epochs=1,
        limit_train_batches=STEPS,
        limit_val_batches=0,
        use_distributed_sampler=False,
        devices=2,
        strategy=strategy,
        callbacks=list(callbacks),
    )
    trainer.fit(search, BilevelDataModule(DigitsDataModule(batch_size=32)))
    assert trainer.world_size == 2
    assert trainer.global_step == STEPS


def save(folder: Path, rank: int, search: DifferentiableSearch, **found: Any) -> None:
    state = {name: value for name, value in search.state_dict().items() if isinstance(value, Tensor)}
    torch.save({"state": state} | found, folder / f"{rank}.pt")


CASES = {case.__name__: case for case in (paths, gradients, refused)}


def run(case: str, folder: Path) -> list[dict[str, Any]]:
    """Both processes of a case; what an earlier fit in this process left for its own launch is not passed on."""
    env = {name: value for name, value in os.environ.items() if name not in LAUNCH}
    found = os.pathsep.join([str(Path(__file__).parents[1]), env.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    env |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": found}
    command = [sys.executable, __file__, case, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def same_parameters(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert first["state"].keys() == second["state"].keys()
    for name, value in first["state"].items():
        assert torch.equal(value, second["state"][name]), name


def test_sampled_paths_are_the_same_in_both_processes(tmp_path: Path) -> None:
    """Averaged gradients keep weights and alphas equal even where the paths are not, so the paths are compared."""
    first, second = run("paths", tmp_path)
    assert len(first["paths"]) >= 2 * STEPS  # a draw for each step of each level
    assert len(set(first["paths"])) > 1
    assert first["paths"] == second["paths"]
    same_parameters(first, second)
    assert not torch.equal(first["state"]["relaxation.theta.cell"], first["start"])


def test_the_first_process_gives_the_start_and_both_apply_the_mean_of_their_gradients(tmp_path: Path) -> None:
    first, second = run("gradients", tmp_path)
    assert not torch.equal(first["own"], second["own"])
    assert torch.equal(first["start"], first["own"])
    assert torch.equal(second["start"], first["own"])
    assert len(first["applied"]) == len(first["local"]) == STEPS
    for one, other, used, too in zip(first["local"], second["local"], first["applied"], second["applied"], strict=True):
        assert not torch.allclose(one, other)  # their data differ
        torch.testing.assert_close(used, (one + other) / 2)
        assert torch.equal(used, too)
    same_parameters(first, second)


def test_plain_ddp_is_refused_in_both_processes(tmp_path: Path) -> None:
    """Neither process is left waiting for the other."""
    for process in run("refused", tmp_path):
        message = MisconfigurationException(process["error"])
        one_line(message, "HardGumbel", "without a gradient", "strategy='ddp_find_unused_parameters_true'")


if __name__ == "__main__":
    CASES[sys.argv[1]](Path(sys.argv[2]), int(os.environ.get("LOCAL_RANK", "0")))
