"""How far the estimate of a step is from what is then measured: ``python tests/benchmarks/bench_estimate.py``.

Every setting runs in three fresh processes. One makes the estimate alone. Before and after it, another takes ten steps
in a Trainer without one, and measures the growth of the process from before the fit to its peak, and the median time
from the start of a batch to the start of the next; the table has the means of both, as other work on the machine
may change meanwhile. One thread, unless ``OMP_NUM_THREADS`` says otherwise.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from lightning_nas.memory import resident
from lightning_nas.methods import DARTS
from lightning_nas.methods.estimate import estimate

STEPS = 10
SETTINGS: dict[str, tuple[dict[str, Any], tuple[int, ...], int]] = {
    "darts, 8 cells, 16 channels, 32x32": ({"space": "darts", "cells": 8, "channels": 16}, (3, 32, 32), 16),
    "nasbench201, 5 cells, 16 channels, 32x32": ({"space": "nasbench201", "cells": 5, "channels": 16}, (3, 32, 32), 16),
    "darts, 3 cells, 8 channels, 8x8": ({"space": "darts", "cells": 3, "channels": 8, "in_channels": 1}, (1, 8, 8), 64),
}


class Clock(L.Callback):
    def __init__(self) -> None:
        self.marks: list[float] = []

    def on_train_batch_start(self, *args: Any) -> None:
        self.marks.append(time.perf_counter())


def batches(shape: tuple[int, ...], size: int) -> list[dict[str, Any]]:
    def part() -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(size, *shape), torch.randint(10, (size,))

    return [{"w": part(), "theta": part()} for _ in range(STEPS)]


def peak() -> int:
    """The most memory that this process has held since the peak was last forgotten."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def child(name: str, kind: str) -> dict[str, float]:
    settings, shape, size = SETTINGS[name]
    search, data = DARTS(**settings), batches(shape, size)
    started = time.perf_counter()
    if kind == "estimate":
        found = estimate(search, data[0])
        took = time.perf_counter() - started
        return {
            "memory": found.memory_bytes,
            "tensors": found.tensor_bytes,
            "seconds": found.seconds or 0,
            "cost": took,
        }
    clock, before = Clock(), resident() or 0
    Path("/proc/self/clear_refs").write_text("5")
    trainer = L.Trainer(
        max_epochs=1,
        callbacks=[clock],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(search, DataLoader(data, batch_size=None))  # type: ignore[arg-type]
    steps = [later - mark for mark, later in zip(clock.marks, clock.marks[1:], strict=False)]
    return {"memory": peak() - before, "seconds": statistics.median(steps[1:])}


def fresh(name: str, kind: str) -> dict[str, float]:
    environment = {"OMP_NUM_THREADS": "1"} | os.environ
    command = [sys.executable, __file__, name, kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    print(
        "| setting | batch | MB estimated | (tensors) | measured | off | s estimated | measured | off | cost in steps |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, (_, _, size) in SETTINGS.items():
        first, told, last = (fresh(name, kind) for kind in ("measure", "estimate", "measure"))
        real = {figure: (first[figure] + last[figure]) / 2 for figure in first}
        cells: list[str] = [name, str(size)]
        cells += [f"{figure / 1e6:.0f}" for figure in (told["memory"], told["tensors"], real["memory"])]
        cells += [f"{told['memory'] / real['memory'] - 1:+.0%}", f"{told['seconds']:.3f}", f"{real['seconds']:.3f}"]
        cells += [f"{told['seconds'] / real['seconds'] - 1:+.0%}", f"{told['cost'] / real['seconds']:.1f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(child(*sys.argv[1:])))
    else:
        main()
