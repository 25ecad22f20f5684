from __future__ import annotations

import multiprocessing
import os
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    get_worker_info,
)

from lightning_nas.data import EpochOrder, PairLoader, ResumableLoader
from lightning_nas.data.resumable import labels_of

WORKERS = [0, 1, 2]


class Noisy(Dataset[tuple[int, Tensor]]):
    """Samples that draw from every global generator, as random transforms do."""

    handle = "none"

    def __init__(self, length: int = 22) -> None:
        self.length = length
        self.targets = [index % 3 for index in range(length)]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        return index, torch.tensor([random.random(), float(np.random.rand()), float(torch.rand(()))])


class Fetched(Noisy):
    """The same, fetched by the batch."""

    def __getitems__(self, indices: list[int]) -> list[tuple[int, Tensor]]:
        return [self[index] for index in indices]


class Where(Noisy):
    """Samples that tell where they were read."""

    def __getitem__(self, index: int) -> Any:
        return index, os.getpid(), self.handle


class Stream(IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter(range(10))


def mixed(samples: list[Any]) -> list[Tensor]:
    """A collate function with a draw of its own, as mix-up has."""
    indices, noise = default_collate(samples)
    return [indices, noise, torch.rand(1)]


def open_handle(worker: int) -> None:
    info = get_worker_info()
    assert info is not None
    assert len(info.dataset) == 22  # type: ignore[arg-type]
    info.dataset.handle = f"worker {worker}"  # type: ignore[attr-defined]


def keep(samples: list[Any]) -> list[Any]:
    return samples


def loader(dataset: Dataset[Any] | None = None, workers: int = 0, **options: Any) -> ResumableLoader:
    settings = {"batch_size": 4, "shuffle": True, "num_workers": workers} | options
    return ResumableLoader(DataLoader(dataset or Noisy(), **settings), seed=3)


def same(first: list[Any], second: list[Any]) -> bool:
    pairs = zip(first, second, strict=True)
    return len(first) == len(second) and all(torch.equal(a, b) for x, y in pairs for a, b in zip(x, y, strict=True))


@pytest.mark.parametrize("dataset", [Noisy, Fetched])
@pytest.mark.parametrize("options", [{"num_workers": 1}, {"num_workers": 2, "persistent_workers": True}])
def test_random_samples_do_not_depend_on_the_workers(options: dict[str, Any], dataset: type[Noisy]) -> None:
    expected = [list(loader(Noisy(), collate_fn=mixed).read(epoch)) for epoch in range(2)]
    found = loader(dataset(), collate_fn=mixed, **options)
    assert same(list(found), expected[0])
    assert same(list(found), expected[1])
    assert not same(expected[0], expected[1])
    assert len(torch.cat([noise for _, noise, _ in expected[0]]).unique()) == 22 * 3
    found.close()


@pytest.mark.parametrize("workers", WORKERS)
def test_resumed_in_the_middle_of_an_epoch(workers: int) -> None:
    expected = list(loader().read(0))
    first = loader(workers=workers, prefetch_factor=4 if workers else None)
    iterator = iter(first)
    read = [next(iterator) for _ in range(3)]
    state = first.state_dict()
    assert state == {"epoch": 0, "position": 3}  # not what workers have fetched ahead
    resumed = loader(workers=workers)
    resumed.load_state_dict(state)
    assert same(read + list(resumed), expected)
    assert same(list(resumed), list(loader().read(1)))
    assert same(list(iterator), expected[3:])


def test_order_is_that_of_the_seed() -> None:
    order = EpochOrder(22, 4, seed=3, drop_last=False)
    assert [indices.tolist() for indices, _ in loader()] == [batch.tolist() for batch in order.batches(0)]


@pytest.mark.parametrize("workers", WORKERS)
def test_reading_leaves_global_generators_alone(workers: int) -> None:
    before = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]
    list(loader(collate_fn=mixed, workers=workers))
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert np.random.get_state()[1].tolist() == before[2]  # type: ignore[index]


def test_the_options_of_the_user_are_kept() -> None:
    found = loader(Where(), workers=2, worker_init_fn=open_handle, collate_fn=keep, persistent_workers=True, timeout=60)
    first, second = ([sample for batch in found for sample in batch] for _ in range(2))
    assert sorted(index for index, _, _ in first) == list(range(22))
    processes = {process for _, process, _ in first}
    assert len(processes) == 2
    assert os.getpid() not in processes
    assert {process for _, process, _ in second} == processes  # persistent
    assert {handle for _, _, handle in first} == {"worker 0", "worker 1"}
    found.close()
    assert {child.pid for child in multiprocessing.active_children()}.isdisjoint(processes)


def test_batch_size_order_and_remainder_of_the_user() -> None:
    whole = loader(batch_size=5, drop_last=True, shuffle=False)
    assert [indices.tolist() for indices, _ in whole] == [list(range(start, start + 5)) for start in (0, 5, 10, 15)]
    assert len(loader(batch_size=5)) == 5


def test_two_readings_at_once_do_not_disturb_each_other() -> None:
    both = loader()
    first, second = both.read(0), both.read(1)
    mixed_up = [(next(first), next(second)) for _ in range(len(both))]
    assert same([a for a, _ in mixed_up], list(loader().read(0)))
    assert same([b for _, b in mixed_up], list(loader().read(1)))


def test_workers_of_both_parts_end_with_close() -> None:
    parts = loader(workers=1).subset(torch.arange(8)), loader(workers=1).subset(torch.arange(8, 22))
    pairs = PairLoader(*parts)
    iterator = iter(pairs)
    next(iterator)
    children = {child.pid for child in multiprocessing.active_children()}
    assert len(children) == 2
    del iterator
    pairs.close()
    assert {child.pid for child in multiprocessing.active_children()}.isdisjoint(children)


def test_subset_of_a_subset() -> None:
    part = loader(shuffle=False).subset(torch.arange(10, 20)).subset(torch.tensor([0, 9]), seed=1)
    assert [indices.tolist() for indices, _ in part] == [[10, 19]]
    assert part.dataset_labels is not None
    assert part.dataset_labels.tolist() == [10 % 3, 19 % 3]


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        (TensorDataset(torch.zeros(3, 2), torch.tensor([2, 0, 1])), [2, 0, 1]),
        (Subset(Noisy(), [4, 2]), [1, 2]),
        (Subset(Subset(Noisy(), [4, 2, 0]), [2, 0]), [0, 1]),
        (TensorDataset(torch.zeros(3, 2)), None),
        (TensorDataset(torch.zeros(3, 2), torch.rand(3)), None),
        (TensorDataset(torch.zeros(3, 2), torch.zeros(3, 5, dtype=torch.long)), None),
        ([1, 2, 3], None),
    ],
)
def test_labels_are_found_without_reading_samples(dataset: Any, expected: list[int] | None) -> None:
    labels = labels_of(dataset)
    assert (None if labels is None else labels.tolist()) == expected


@pytest.mark.parametrize("targets", [["cat", "dog"], [{"box": 1}, {"box": 2}], None])
def test_targets_that_are_no_classes(targets: Any) -> None:
    dataset = Noisy(2)
    dataset.targets = targets
    assert labels_of(dataset) is None


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (DataLoader(Stream(), batch_size=2), "data set Stream can only be read in its own order"),
        (DataLoader(Noisy(), batch_size=None), "batches come from NoneType"),
        (
            DataLoader(Noisy(), 4, sampler=WeightedRandomSampler([1.0] * 22, 22)),
            "sampler WeightedRandomSampler chooses",
        ),
        (DataLoader(Noisy(), 4, sampler=SubsetRandomSampler([1, 2])), "sampler SubsetRandomSampler chooses"),
        (DataLoader(Noisy(), 4, sampler=RandomSampler(Noisy(), replacement=True)), "sampler RandomSampler chooses"),
        (DataLoader(Noisy(), 4, sampler=RandomSampler(Noisy(), num_samples=5)), "sampler RandomSampler chooses"),
        (DataLoader(Noisy(), batch_sampler=[[0, 1]]), "batches come from list"),
        (DataLoader(TensorDataset(torch.zeros(0, 1)), 4), "0 samples in batches of 4"),
    ],
)
def test_loaders_that_cannot_be_resumed(source: DataLoader[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        ResumableLoader(source)
    assert "\n" not in str(caught.value)


def test_a_batch_sampler_of_the_user_that_is_a_plain_one() -> None:
    source = DataLoader(Noisy(), batch_sampler=BatchSampler(RandomSampler(Noisy()), batch_size=6, drop_last=True))
    assert [len(indices) for indices, _ in ResumableLoader(source)] == [6, 6, 6]
