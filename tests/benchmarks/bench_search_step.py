"""How much of a search step goes into data: ``python tests/benchmarks/bench_search_step.py``.

Times the wait for each batch (fetching, augmenting, moving) against the whole step, in a Trainer, for the quickstart's
setting and for DARTS on CIFAR-shaped pictures at the published size.
"""

import statistics
import time
from typing import Any

import lightning as L
import numpy as np
import torch

from lightning_nas.data import ArrayDataModule, Augment, BilevelDataModule, DigitsDataModule
from lightning_nas.methods import DARTS


class Clock(L.Callback):
    """Time from the end of one batch to the start of the next, and from there to its end."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.steps: list[float] = []
        self.mark = 0.0

    def on_train_batch_start(self, *args: Any) -> None:
        now = time.perf_counter()
        self.waits.append(now - self.mark)
        self.mark = now

    def on_train_batch_end(self, *args: Any) -> None:
        now = time.perf_counter()
        self.steps.append(now - self.mark)
        self.mark = now


def measure(name: str, search: DARTS, data: L.LightningDataModule, batches: int) -> None:
    clock = Clock()
    trainer = L.Trainer(
        max_epochs=1,
        limit_train_batches=batches,
        limit_val_batches=0,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.callbacks.insert(0, clock)  # type: ignore[attr-defined]
    trainer.fit(search, data)
    wait, step = statistics.median(clock.waits[1:]), statistics.median(clock.steps[1:])
    print(f"{name}: data {wait * 1e3:.2f} ms, step {step * 1e3:.1f} ms, share {wait / (wait + step):.2%}")


def main() -> None:
    print(f"{torch.get_num_threads()} threads, medians")
    measure(
        "digits, 3 cells, 8 channels",
        DARTS(channels=8, cells=3, in_channels=1),
        BilevelDataModule(DigitsDataModule()),
        9,
    )
    rng = np.random.default_rng(0)
    pictures = (rng.integers(0, 256, (2000, 3, 32, 32), dtype=np.uint8), np.arange(2000) % 10)
    cifar = ArrayDataModule(pictures, batch_size=64, augment=Augment(crop=4, flip=True))
    measure("32x32, 8 cells, 16 channels, batch 64", DARTS(), BilevelDataModule(cifar), 4)


if __name__ == "__main__":
    main()
