"""Operation-level early stopping."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer

from lightning_nas import strategy
from lightning_nas.callbacks.terminal import print_above_bar
from lightning_nas.callbacks.watching import Watched

__all__ = ["OLES", "cosines", "find_operations"]

OPERATIONS = r"(?:.*\.)?(?:edges|ops|blocks\.\d+\.blocks)(?:\.\d+)+"
"""Names of the candidates in the supernets of this package."""


def find_operations(supernet: nn.Module, pattern: str = OPERATIONS) -> dict[str, list[nn.Parameter]]:
    """Name of each candidate operation that has weights -> its weights, for every place of every cell.

    Args:
        supernet: The supernet.
        pattern: Regular expression that matches the whole name of an operation, a member of a `ModuleList`.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> from lightning_nas.supernet import build_supernet
        >>> found = find_operations(build_supernet(get_space("nasbench201"), channels=4, cells=1))
        >>> len(found), list(found)[0]
        (36, 'blocks.0.edges.0.2')
    """
    found = {}
    for above, module in supernet.named_modules():
        for number, op in enumerate(module) if isinstance(module, nn.ModuleList) else ():
            weights = [p for p in op.parameters() if p.requires_grad]
            name = f"{above}.{number}"
            if weights and not isinstance(op, nn.ModuleList) and re.fullmatch(pattern, name):
                found[name] = weights
    return found


def cosines(left: Sequence[Tensor], right: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """The cosine between two gradients of each operation, all its weights together.

    Args:
        left: Gradients, operation by operation.
        right: The same.
        sizes: How many of them belong to each operation.

    Returns:
        ``(operations,)``; 0 where one of the gradients is zero.

    Example:
        >>> a, b = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])
        >>> cosines([a, a, b], [b, a, -b], [1, 2]).tolist()
        [0.707..., -0.333...]
    """
    pairs = [(a.detach().flatten().float(), b.detach().flatten().float()) for a, b in zip(left, right, strict=True)]
    products = torch.stack([torch.stack([a @ b, a @ a, b @ b]) for a, b in pairs])
    sums = torch.stack([part.sum(dim=0) for part in torch.split(products, list(sizes))])
    return sums[:, 0] / (sums[:, 1] * sums[:, 2]).sqrt().clamp(min=1e-30)


class OLES(Callback):
    """Freezes the weights of an operation once they overfit: their training gradient no longer helps in validation.

    At each batch, the gradient of an operation's weights on the architecture part of the batch is compared with that of
    the weight step. When the mean cosine over a window of steps is below the threshold, the operation's weights stay as
    they are for the rest of the search: their gradient is taken away before each step, so that momentum and weight
    decay leave them alone too. Each operation on each edge of each cell is judged by itself. Where paths are drawn, the
    two gradients have one each, and only steps count in which both execute the operation.

    It costs one more forward and backward pass with weight gradients a batch, since a first-order architecture step
    computes no weight gradients: a step takes about 1.6 times as long.

    The cosine is that of all weights of an operation together, before clipping, on the same batch. The authors' code
    averages cosines along the output channels of each weight, with the training gradient of the batch before.

    Reference: Jiang, Ji, Zhu, Yuan and Huang, "Operation-Level Early Stopping for Robustifying Differentiable NAS",
    NeurIPS 2023.

    Args:
        threshold: Mean cosine below which an operation is frozen.
        window: Steps of a mean; then the next one begins.
        operations: Regular expression for the names of the operations in a supernet of your own; each is a member of a
            `ModuleList`.
        terminal: Whether to print.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> import lightning as L
        >>> trainer = L.Trainer(callbacks=[OLES()], logger=False, enable_progress_bar=False, accelerator="cpu")
    """

    def __init__(
        self, threshold: float = 0.4, window: int = 20, operations: str = OPERATIONS, terminal: bool = True
    ) -> None:
        if not -1 <= threshold <= 1 or window < 1:
            raise ValueError(f"threshold={threshold}, window={window}: give a cosine in [-1, 1] and at least one step")
        self.threshold, self.window, self.pattern, self.terminal = threshold, window, operations, terminal
        self._operations: dict[str, list[nn.Parameter]] = {}
        self._upper: list[Tensor | None] = []
        self.frozen = torch.zeros(0, dtype=torch.bool)
        self._total = torch.zeros(0)
        self._count: list[int] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find the operations."""
        search: Watched = pl_module  # type: ignore[assignment]
        self._operations = find_operations(search.supernet, self.pattern)
        if not self._operations:
            raise MisconfigurationException(
                f"OLES found no operations with weights in {type(search.supernet).__name__} under names that match"
                f" {self.pattern!r}; pass operations= with a pattern for their names"
            )
        if len(self._count) != len(self._operations):
            self.frozen = torch.zeros(len(self._operations), dtype=torch.bool)
            self._total, self._count = torch.zeros(len(self._operations)), [0] * len(self._operations)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Take the gradient of the operations' weights on the architecture part of the batch."""
        if not isinstance(batch, dict):
            raise MisconfigurationException(
                "OLES compares training with validation gradients and needs batches {'w': (x, y), 'theta': (x, y)};"
                " wrap your data module: BilevelDataModule(datamodule)"
            )
        search: Watched = pl_module  # type: ignore[assignment]
        x, y = batch["theta"]
        draws = search.relaxation.get_extra_state()
        devices = [x.device] if x.device.type == "cuda" else []
        weights = [weight for group in self._operations.values() for weight in group]
        with torch.random.fork_rng(devices), strategy.step_context(trainer)():
            sample = search.relaxation.weight_sample()
            buffers = {name: buffer.clone() for name, buffer in search.supernet.named_buffers()}
            loss = search.loss(functional_call(search.supernet, buffers, (x, sample)), y)
        search.relaxation.set_extra_state(draws)
        loss = loss * strategy.loss_scale(trainer)  # fp16 gradients would be lost; the cosine is the same
        self._upper = list(torch.autograd.grad(loss, weights, allow_unused=True))

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """Compare it with the gradient of the weight step, and take the gradients of frozen operations away."""
        if optimizer is not trainer.optimizers[0]:
            return
        if self._upper:
            self._compare()
            self._upper = []
        if max(self._count) >= self.window:
            self._decide(trainer, pl_module)
        frozen = self.frozen.tolist()
        for is_frozen, weights in zip(frozen, self._operations.values(), strict=True):
            for weight in weights if is_frozen else ():
                weight.grad = None

    def _compare(self) -> None:
        """Add the cosines of the operations that both passes have executed."""
        lower, upper, sizes, places = list[Tensor](), list[Tensor](), list[int](), list[int]()
        start = 0
        for place, weights in enumerate(self._operations.values()):
            pairs = zip([weight.grad for weight in weights], self._upper[start : start + len(weights)], strict=True)
            both = [(a, b) for a, b in pairs if a is not None and b is not None]
            start += len(weights)
            if both:
                lower += [a for a, _ in both]
                upper += [b for _, b in both]
                sizes.append(len(both))
                places.append(place)
        if not places:
            return
        found = cosines(lower, upper, sizes)
        self._total = self._total.to(found.device)
        self._total[places] += found
        for place in places:
            self._count[place] += 1

    def _decide(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Freeze what is below the threshold, the same in all processes, and begin new windows."""
        search: Watched = pl_module  # type: ignore[assignment]
        means = search.agreed(self._total / torch.tensor(self._count).clamp(min=1).to(self._total)).cpu()
        full = torch.tensor([count >= self.window for count in self._count])
        new = full & (means < self.threshold) & ~self.frozen
        self.frozen = self.frozen | new
        self._total[full.to(self._total.device)] = 0.0
        self._count = [0 if is_full else count for is_full, count in zip(full.tolist(), self._count, strict=True)]
        if bool(new.any()):
            frozen, total = int(self.frozen.sum()), len(self.frozen)
            pl_module.log("oles/frozen", float(frozen), on_step=False, on_epoch=True, batch_size=1, reduce_fx="max")
            if self.terminal and trainer.is_global_zero:
                print_above_bar(trainer, f"OLES: {int(new.sum())} operations frozen, {frozen} of {total} in all")

    def state_dict(self) -> dict[str, Any]:
        """Which operations are frozen, and the window so far."""
        return {"frozen": self.frozen.clone(), "total": self._total.cpu().clone(), "count": list(self._count)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with it."""
        self.frozen, self._total = state_dict["frozen"].cpu(), state_dict["total"].clone()
        self._count = list(state_dict["count"])
