"""How long an augmented pair of batches takes, against torchvision's transforms picture by picture.

Run ``python tests/benchmarks/bench_data.py``. Pictures have the shape of CIFAR-10 and lie in memory; a pair is two
batches of 64, padded and cropped, mirrored, normalised and cut out, as a search step takes them.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from lightning_nas.data import ArrayDataModule, Augment, BilevelDataModule

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
BATCH = 64


class Pictures(Dataset[tuple[Tensor, int]]):
    """The same pictures, one at a time through torchvision's transforms."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = [transforms.functional.to_pil_image(image) for image in images]
        self.labels = labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
                transforms.Lambda(_cutout),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def _cutout(picture: Tensor, length: int = 16) -> Tensor:
    row, column = torch.randint(32, (2,)).tolist()
    hidden = (
        slice(max(row - length // 2, 0), row + length // 2),
        slice(max(column - length // 2, 0), column + length // 2),
    )
    picture[(slice(None), *hidden)] = 0
    return picture


def _endless(loader: Iterable[Any]) -> Iterator[Any]:
    return itertools.chain.from_iterable(itertools.repeat(loader))


def _two(source: Iterator[Any]) -> tuple[Any, Any]:
    return next(source), next(source)


def _milliseconds(step: Callable[[], Any], repeats: int) -> float:
    """Median time of one call, after a warm-up."""
    step()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return 1000 * sorted(times)[repeats // 2]


def _small_step(pair: dict[str, tuple[Tensor, Tensor]], network: nn.Module) -> None:
    """A stand-in for a search step: one training step of a very small network on each batch."""
    for x, y in pair.values():
        nn.functional.cross_entropy(network(x), y).backward()


def main() -> None:
    """Print the times, their ratio, and the share of a step of a very small network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=100)
    options = parser.parse_args()

    images = torch.randint(0, 256, (options.pictures, 3, 32, 32), dtype=torch.uint8)
    labels = torch.arange(options.pictures) % 10
    data = BilevelDataModule(
        ArrayDataModule(
            (images, labels),
            val_fraction=0.0,
            batch_size=BATCH,
            augment=Augment(crop=4, flip=True, cutout=16),
            mean=MEAN,
            std=STD,
        )
    )
    pairs = _endless(data.train_dataloader())
    ours = _milliseconds(lambda: next(pairs), options.repeats)
    print(f"{torch.get_num_threads()} thread(s), {options.pictures} pictures, pairs of {BATCH} + {BATCH}, median times")
    print(f"batch augmentation in memory          {ours:8.2f} ms a pair")
    for workers in (0, 2):
        dataset = Pictures(images, labels)
        loader = DataLoader(dataset, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
        theirs = _milliseconds(partial(_two, _endless(loader)), max(options.repeats // 5, 3))
        ratio = theirs / ours
        print(f"torchvision by picture, {workers} workers      {theirs:8.2f} ms a pair = {ratio:.1f} times as long")

    network = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
    network.append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten()).append(nn.Linear(16, 10))
    pair = next(pairs)
    step = _milliseconds(lambda: _small_step(pair, network), max(options.repeats // 5, 3))
    print(f"two convolutions of 16 channels, a step{step:7.2f} ms; data takes {100 * ours / (ours + step):.1f} % of it")


if __name__ == "__main__":
    main()
