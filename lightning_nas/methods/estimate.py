"""What a search will cost: peak memory and time of a step, told before the first one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from lightning_nas import strategy
from lightning_nas.callbacks.terminal import print_above_bar
from lightning_nas.memory import LiveBytes, free, resident, tensors_in
from lightning_nas.methods.alone import alone
from lightning_nas.methods.differentiable import DifferentiableSearch
from lightning_nas.training import rng_state, set_rng_state

__all__ = ["Estimate", "StepEstimate", "estimate", "extrapolate"]

FEWEST = 2
"""Rows of the smaller of the two batches that are tried: batch normalisation takes no single picture."""


@dataclass(frozen=True)
class Estimate:
    """The cost of one step of the weights together with one of the architecture parameters.

    Args:
        memory_bytes: Growth of the process at the peak; that of the tensors where the process cannot be asked.
        seconds: Time of the step, without waiting for data; ``None`` if it would not fit in memory.
        batch_size: Pictures in a batch of the weights.
        tensor_bytes: Tensors at the peak: weights, gradients, states of the optimisers, batch and activations.
        program_bytes: Memory that the process held before; ``None`` where it cannot be asked.
        free_bytes: Memory that was free; ``None`` where it is not known.

    Example:
        >>> print(Estimate(412_000_000, 1.93, 64, 380_000_000, 700_000_000))
        estimate: 412 MB at the peak (+ 700 MB that the program holds already), 1.93 s a step (batch 64)
    """

    memory_bytes: int
    seconds: float | None
    batch_size: int
    tensor_bytes: int
    program_bytes: int | None = None
    free_bytes: int | None = None

    def __str__(self) -> str:
        held = "of tensors" if self.program_bytes is None else f"(+ {_size(self.program_bytes)} that the program holds"
        held += "" if self.program_bytes is None else " already)"
        duration = "time not measured" if self.seconds is None else f"{_three(self.seconds)} s a step"
        text = f"estimate: {_size(self.memory_bytes)} at the peak {held}, {duration} (batch {self.batch_size})"
        if self.free_bytes is not None and self.memory_bytes > self.free_bytes:
            text += f"; only {_size(self.free_bytes)} are free: choose a smaller batch, fewer channels or cells"
        return text


def _three(seconds: float) -> str:
    """Seconds to the millisecond or to three figures."""
    return f"{seconds:.{3 if seconds < 1 else 2 if seconds < 10 else 1}f}"


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def estimate(
    search: DifferentiableSearch,
    batch: dict[str, Any],
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Estimate:
    """Estimate the peak memory and the time of a step from steps of a copy on two smaller batches.

    A deep copy of the search, with optimisers of its own, takes whole steps (its own `training_step`, so any
    relaxation, hypergradient and perturbation) on 2 rows and on half of the rows of the batch: on each size one that
    counts the bytes of all live tensors after every operation, and warms up, and one that is timed. Both draw the same.
    Bytes after an operation, and seconds, are linear in the batch, so they are extended to the whole batch; the peak is
    the largest of the extended bytes. What the process takes beside its tensors (libraries, work space of kernels,
    gaps) is read off the larger of the two runs. In all that is about one step, and four times the part of a step that
    does not depend on the batch. The search and all random generators stay as they were.

    Not counted: workers of a loader, the exchange between processes, validation. A relaxation that samples paths is
    estimated by one draw, and cells that are compiled in the search run as they are in the copy.

    Args:
        search: The search.
        batch: A training batch, of the size and on the device of the fit.
        context: What a step runs in, such as the autocast of the Trainer's precision.

    Example:
        >>> search = DifferentiableSearch("nasbench201", channels=4, cells=1)
        >>> part = torch.zeros(8, 3, 8, 8), torch.zeros(8, dtype=torch.long)
        >>> found = estimate(search, {"w": part, "theta": part})
        >>> found.batch_size, found.tensor_bytes > 0, found.seconds > 0
        (8, True, True)
    """
    kept = rng_state()
    try:
        return _estimate(search, batch, context)
    finally:
        set_rng_state(kept)


def _estimate(
    search: DifferentiableSearch, batch: dict[str, Any], context: Callable[[], AbstractContextManager[Any]]
) -> Estimate:
    device = next(search.supernet.parameters()).device
    asks_process = device.type == "cpu" and resident() is not None
    program, room, size = resident() if asks_process else None, free(device), len(batch["w"][0])
    twin = alone(search)
    small = -(-FEWEST * size // min(size, len(batch["theta"][0])))
    runs = [_run(twin, _rows(batch, small, size), context)]
    held = runs[0].timeline[0]
    large, fits = max(size // 2, small + 1), True
    if room is not None and held + (runs[0].peak - held) * large / small > room:
        large, fits = small + 1, False
    runs.append(_run(twin, _rows(batch, large, size), context))
    tensors = int(extrapolate((small, large), (runs[0].timeline, runs[1].timeline), size))
    seconds = extrapolate((small, large), ([runs[0].seconds], [runs[1].seconds]), size)
    memory = tensors
    if program is not None:
        memory = max(tensors, runs[1].resident - program + tensors - runs[1].peak)
    return Estimate(memory, max(seconds, 0.0) if fits else None, size, tensors, program, room)


def extrapolate(sizes: tuple[int, int], values: tuple[Sequence[float], Sequence[float]], size: int) -> float:
    """The largest of several values, each linear in the size and known at two sizes.

    If the two sequences do not correspond, their largest values are taken for linear.

    Example:
        >>> extrapolate((2, 3), ([10, 2], [10, 3]), 20)  # a constant 10, and the size itself, which overtakes it
        20.0
    """
    first, second = values
    if len(first) != len(second):
        first, second = [max(first)], [max(second)]
    factor = (size - sizes[0]) / (sizes[1] - sizes[0])
    return max(a + (b - a) * factor for a, b in zip(first, second, strict=True))


# --- steps of the copy


def _rows(batch: dict[str, Any], count: int, size: int) -> Any:
    """The first rows of each part of a batch, in proportion, repeated if they are not enough."""

    def take(tensor: Tensor) -> Tensor:
        if not tensor.dim():
            return tensor
        rows = max(round(len(tensor) * count / size), FEWEST)
        return torch.cat([tensor] * -(-rows // len(tensor)))[:rows].clone()

    return apply_to_collection({part: batch[part] for part in ("w", "theta")}, Tensor, take)


@dataclass(frozen=True)
class _Run:
    timeline: list[int]
    resident: int
    seconds: float

    @property
    def peak(self) -> int:
        return max(self.timeline)


def _run(twin: Any, batch: Any, context: Callable[[], AbstractContextManager[Any]]) -> _Run:
    """A step that is tracked, and one from the same draws that is timed."""
    draws, kept = twin.relaxation.get_extra_state(), rng_state()
    for parameter in twin.weights():  # those of the step before, which may have taken another path
        parameter.grad = torch.zeros_like(parameter)
    tracker = LiveBytes(tensors_in([batch, twin.own_optimizers, list(twin.parameters()), list(twin.buffers())]))
    for mode in (tracker, nullcontext()):
        twin.relaxation.set_extra_state(draws)
        set_rng_state(kept)
        _wait(twin.device)
        started = time.perf_counter()
        with mode, context():
            twin.training_step(batch, 0)
        _wait(twin.device)
        seconds = time.perf_counter() - started
    twin.relaxation.set_extra_state(draws)
    set_rng_state(kept)
    return _Run(tracker.timeline, tracker.resident, seconds)


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


# --- in a Trainer


class StepEstimate(Callback):
    """Prints the `estimate` of a search before its first step; each process makes its own, the first one prints.

    It never stops a search: where there can be no estimate (a supernet that cannot be copied), it says why in a line.

    Example:
        >>> trainer = L.Trainer(callbacks=[StepEstimate()], logger=False, enable_progress_bar=False, accelerator="cpu")
    """

    def __init__(self) -> None:
        self._done = False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Every fit has its estimate."""
        self._done = False

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Estimate on the first batch."""
        if self._done or not isinstance(pl_module, DifferentiableSearch) or not isinstance(batch, dict):
            return
        self._done = True
        try:
            text = str(estimate(pl_module, batch, strategy.step_context(trainer)))
        except Exception as error:  # whatever a user's own parts raise
            reason = " ".join(str(error).split())[:200]
            text = f"no estimate: {type(error).__name__}{': ' if reason else ''}{reason}"
        if trainer.is_global_zero:
            print_above_bar(trainer, text)
