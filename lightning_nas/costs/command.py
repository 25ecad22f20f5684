"""The command `lightning-nas latency`."""

from __future__ import annotations

import platform
import random
from pathlib import Path
from typing import Literal

import torch

from lightning_nas.costs.build import cost_table
from lightning_nas.costs.latency_file import require_suffix, write_latencies
from lightning_nas.costs.layout import network_size
from lightning_nas.costs.measure import Stopwatch, compare_latencies, measure_latencies
from lightning_nas.reports import require_writable
from lightning_nas.spaces import get_space

__all__ = ["latency"]


def latency(
    space: str = "darts",
    out: str = "latency.csv",
    channels: int = 16,
    cells: int | None = None,
    image_size: int = 32,
    num_classes: int = 10,
    in_channels: int = 3,
    stem: Literal["cifar", "imagenet"] | None = None,
    batch_size: int = 1,
    device: str = "cpu",
    threads: int | None = None,
    repeats: int = 30,
    networks: int = 0,
    seed: int = 0,
) -> None:
    """Measure the latency of every operation of a space on this machine, for the regularizer ExpectedCost.

    Args:
        space: Name of a space of cells or of a chain of blocks.
        out: The file to write, in CSV, JSON or YAML by the end of its name.
        channels: Channels of the network's first stage.
        cells: Cells of the network; None for those of the supernet.
        image_size: Height and width of the pictures.
        num_classes: Number of classes.
        in_channels: Channels of the pictures.
        stem: Stem of the network; None for that of the supernet.
        batch_size: Pictures in a batch; the latency is that of the batch.
        device: Where it is measured.
        threads: Threads of the CPU; None for all that torch uses.
        repeats: Timed passes, of which the median is taken.
        networks: How many random networks are measured as a whole, to see how far latencies add up.
        seed: Seed of the choice of these networks.

    Raises:
        ValueError: If a name or a number is not allowed.
        OSError: If the file cannot be written.
    """
    found, path = get_space(space), Path(out)
    require_suffix(path)
    require_writable(path.parent)
    if networks < 0:
        raise ValueError(f"networks={networks} must not be negative")
    size = network_size(found, channels, cells, num_classes, in_channels, stem)
    stopwatch = Stopwatch(batch_size, device, threads, repeats)
    latencies = measure_latencies(found, size, image_size, stopwatch)
    notes: dict[str, object] = {"space": space, "size": size, "image_size": image_size, "measured with": stopwatch}
    machine = {"threads": threads or torch.get_num_threads(), "torch": torch.__version__, "machine": platform.machine()}
    print(write_latencies(path, latencies, notes | machine))
    if networks:
        rng = random.Random(seed)  # noqa: S311
        genotypes = [found.sample(rng) for _ in range(networks)]
        table = cost_table(found, size, image_size, "latency", latencies)
        pairs = compare_latencies(found, size, image_size, table, genotypes, stopwatch)
        for number, (summed, whole) in enumerate(pairs, start=1):
            print(f"network {number}: {summed:.2f} ms by the table, {whole:.2f} ms measured")
        print(f"measured / table: {sum(whole for _, whole in pairs) / sum(summed for summed, _ in pairs):.2f}")
