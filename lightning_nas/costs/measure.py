"""Latencies of operations and of whole networks on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from lightning_nas.arch import Genotype
from lightning_nas.costs.build import is_free
from lightning_nas.costs.layout import Operation, lay_out
from lightning_nas.costs.table import CostTable
from lightning_nas.derived import DerivedNetwork
from lightning_nas.spaces import NetworkSize, Space

__all__ = ["Stopwatch", "compare_latencies", "measure_latencies"]


@dataclass(frozen=True)
class Stopwatch:
    """How latencies are measured: the median of repeated forward passes, in evaluation, without a graph.

    Args:
        batch_size: Pictures in a batch; the latency is that of the batch.
        device: Where it runs.
        threads: Threads of the CPU; ``None`` for as many as torch uses now.
        repeats: Passes that are timed.
        warmup: Passes before them.

    Raises:
        ValueError: If a number is not positive, or the device cannot be used.

    Example:
        >>> Stopwatch(repeats=3)(nn.Conv2d(3, 8, 3), (3, 8, 8)) > 0
        True
    """

    batch_size: int = 1
    device: str = "cpu"
    threads: int | None = None
    repeats: int = 30
    warmup: int = 5

    def __post_init__(self) -> None:
        if min(self.batch_size, self.repeats, 1 if self.threads is None else self.threads) < 1 or self.warmup < 0:
            raise ValueError(
                f"batch_size={self.batch_size}, threads={self.threads}, repeats={self.repeats}, warmup={self.warmup}:"
                " give at least 1 of each, and no negative warmup"
            )
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"device={self.device!r} cannot be used ({reason}); give 'cpu', or 'cuda' if there is one"
            ) from None

    def __call__(self, module: nn.Module, shape: tuple[int, int, int]) -> float:
        """Milliseconds of a batch of inputs of shape ``(C, H, W)``."""
        x = torch.randn(self.batch_size, *shape, device=self.device)
        if x.device.type == "cpu":
            x = x.contiguous(memory_format=torch.channels_last)
        module = module.to(self.device).eval()
        passes = []
        with self._set_threads(), torch.inference_mode():
            for _ in range(self.warmup + self.repeats):
                self._wait()
                start = time.perf_counter()
                module(x)
                self._wait()
                passes.append(time.perf_counter() - start)
        return 1e3 * statistics.median(passes[self.warmup :])

    def _wait(self) -> None:
        """Until the device has done its work."""
        if torch.device(self.device).type != "cpu":
            torch.accelerator.synchronize(self.device)

    @contextmanager
    def _set_threads(self) -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def measure_latencies(
    space: Space,
    size: NetworkSize,
    image_size: int,
    stopwatch: Stopwatch = Stopwatch(),
    report: Callable[[str], object] = print,
) -> dict[Operation, float]:
    """Measure every distinct operation that a network of a space may execute, and its skeleton.

    Args:
        space: A space of cells, or of a chain of blocks.
        size: The size of the network.
        image_size: Height and width of the pictures.
        stopwatch: How is measured.
        report: Takes a line of text after each measurement.

    Returns:
        Milliseconds of each, for `cost_table` and `write_latencies`. What computes nothing (identity, `none`) is zero
        without a measurement.

    Raises:
        ValueError: If the space has no table of costs, or the pictures cannot be halved often enough.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> once, size = Stopwatch(repeats=1, warmup=0), NetworkSize(2, 1)
        >>> latencies = measure_latencies(get_space("nasbench201"), size, 8, once, report=lambda line: None)
        >>> len(latencies)
        16
    """
    layout = lay_out(space, size, image_size)
    builds: dict[Operation, Callable[[], nn.Module]] = {layout.operation: layout.build_skeleton}
    free = {}
    for c in layout.candidates:
        if c.operation not in builds and (c.operation, c.shortcut) not in free:
            free[c.operation, c.shortcut] = is_free(c)
            if not free[c.operation, c.shortcut]:
                builds[c.operation] = c.build
    latencies = {operation: 0.0 for operation, _ in free if operation not in builds}
    for number, (operation, build) in enumerate(builds.items(), start=1):
        shape = (operation.in_channels, operation.height, operation.width)
        latencies[operation] = stopwatch(build(), shape)
        report(f"{number}/{len(builds)} {latencies[operation]:9.3f} ms  {operation}")
    return latencies


def compare_latencies(
    space: Space,
    size: NetworkSize,
    image_size: int,
    table: CostTable,
    genotypes: Sequence[Genotype],
    stopwatch: Stopwatch = Stopwatch(),
) -> list[tuple[float, float]]:
    """The latency of whole networks beside the sum of their operations, to see how far latencies add up.

    Returns:
        For each genotype the milliseconds by the table and those measured.
    """
    pairs = []
    for genotype in genotypes:
        network = DerivedNetwork(
            genotype,
            space=space,
            channels=size.channels,
            cells=size.cells,
            num_classes=size.num_classes,
            in_channels=size.in_channels,
            stem=size.stem,
        )
        pairs.append((table.of(genotype), stopwatch(network, (size.in_channels, image_size, image_size))))
    return pairs
