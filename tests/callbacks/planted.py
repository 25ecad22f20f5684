"""A supernet whose best choices are known, and data that a fit can resume within an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from toys import Pairs

from lightning_nas.arch import Sample
from lightning_nas.data.stateful import StatefulLoader
from lightning_nas.spaces import CellSpace


class Planted(nn.Module):
    """Two classes, told apart by the first number of a picture; the second disturbs.

    Each choice adds its weight times its gain to the factor of the first number, so the accuracy grows with the sum
    over all choices on open edges. An edge whose input is closed adds nothing.

    Args:
        space: The space.
        gains: Kind of cell -> gains ``(rows, choices)``.
    """

    def __init__(self, space: CellSpace, gains: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.space, self.gains = space, dict(gains)
        self.bias = nn.Parameter(torch.zeros(2))
        self.seen: list[Sample] = []

    def strength(self, sample: Sample) -> Tensor:
        total = torch.zeros(())
        for kind, gains in self.gains.items():
            active, inputs = sample.open(kind), sample.open(self.space.input_group(kind))
            across = sample.weights.get(self.space.input_group(kind))
            weights = sample.weights[kind] * gains
            for row, (target, source) in enumerate(self.space.topology.edges):
                node = target - self.space.topology.inputs
                if inputs is not None and source not in inputs[node]:
                    continue
                columns = range(gains.shape[1]) if active is None else active[row]
                total = total + weights[row, list(columns)].sum() * (1 if across is None else across[node, source])
        return total

    def forward(self, x: Tensor, sample: Sample) -> Tensor:
        if not torch.is_grad_enabled():
            self.seen.append(sample)
        score = self.strength(sample) * x[:, 0, 0, 0] + x[:, 1, 0, 0]
        return torch.stack([-score, score], dim=1) + self.bias


def signals(count: int, batch_size: int, seed: int = 0, scale: float = 0.02) -> list[tuple[Tensor, Tensor]]:
    """Batches for `Planted`: the label's sign times `scale`, and noise of size one beside it."""
    draw = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(count):
        x, y = torch.zeros(batch_size, 3, 8, 8), torch.randint(2, (batch_size,), generator=draw)
        x[:, 0, 0, 0] = scale * (2.0 * y - 1)
        x[:, 1, 0, 0] = torch.randn(batch_size, generator=draw)
        batches.append((x, y))
    return batches


class _List(StatefulLoader[Any]):
    def __init__(self, batches: list[Any]) -> None:
        super().__init__()
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def read(self, epoch: int, start: int = 0) -> Iterator[Any]:
        yield from self.batches[start:]


class ResumablePairs(Pairs):
    """Pairs whose place in an epoch is kept; validation on given batches."""

    def __init__(self, count: int = 4, held_out: list[tuple[Tensor, Tensor]] | None = None, **settings: Any) -> None:
        super().__init__(count, **settings)
        self.held_out = self.held_out if held_out is None else held_out

    def train_dataloader(self) -> Any:
        return _List(self.pairs).follow(self.trainer)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.held_out, batch_size=None)  # type: ignore[arg-type]
