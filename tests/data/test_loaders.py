from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lightning_nas.data import Augment, PairLoader, ResumableLoader, StatefulLoader, TensorLoader, normalize

N, BATCH = 23, 4
IMAGES = torch.randint(0, 256, (N, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(N)  # a label tells its picture
AUGMENT = Augment(crop=2, flip=True, cutout=4)


def tensor_loader(**changes: Any) -> TensorLoader:
    return TensorLoader(IMAGES, LABELS, BATCH, **{"augment": AUGMENT, "seed": 5} | changes)


def pair_loader() -> PairLoader:
    part = torch.arange(N) < 14
    w = tensor_loader().subset(part.nonzero().flatten(), seed=1)
    return PairLoader(w, tensor_loader().subset((~part).nonzero().flatten(), seed=2))  # 3 and 2 batches


def resumable_loader() -> ResumableLoader:
    return ResumableLoader(DataLoader(TensorDataset(IMAGES, LABELS), BATCH, shuffle=True), seed=5)


LOADERS: list[Callable[[], StatefulLoader[Any]]] = [tensor_loader, pair_loader, resumable_loader]


def flat(batch: Any) -> list[Tensor]:
    if isinstance(batch, Tensor):
        return [batch]
    return [leaf for part in (batch.values() if isinstance(batch, dict) else batch) for leaf in flat(part)]


def same(first: list[Any], second: list[Any]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(flat(x), flat(y), strict=True)
    )


def epochs(loader: StatefulLoader[Any], number: int) -> list[Any]:
    return [batch for _ in range(number) for batch in loader]


@pytest.mark.parametrize("make", LOADERS)
def test_each_iteration_is_the_next_epoch(make: Callable[[], StatefulLoader[Any]]) -> None:
    loader = make()
    first, second = list(loader), list(loader)
    assert len(first) == len(second) == len(loader)
    assert not same(first, second)
    assert same(first, list(make().read(0)))
    assert same(second, list(make().read(1)))


@pytest.mark.parametrize("make", LOADERS)
def test_every_place_of_two_epochs_is_resumed_exactly(make: Callable[[], StatefulLoader[Any]]) -> None:
    straight = epochs(make(), 3)
    length = len(make())
    for taken in range(2 * length + 1):
        first = make()
        for _ in islice(epochs_of(first), taken):
            pass
        state = first.state_dict()
        assert set(state) == {"epoch", "position"}
        assert {type(value) for value in state.values()} == {int}
        resumed = make()
        resumed.load_state_dict(state)
        assert resumed.state_dict() == state
        assert same(list(islice(epochs_of(resumed), 3 * length - taken)), straight[taken:])


def epochs_of(loader: StatefulLoader[Any]) -> Iterator[Any]:
    while True:
        yield from loader


@pytest.mark.parametrize("make", LOADERS)
def test_iterators_that_are_not_read_count_for_nothing(make: Callable[[], StatefulLoader[Any]]) -> None:
    loader = make()
    for _ in range(3):
        iter(loader)
    assert same(list(loader), list(make().read(0)))
    loader.load_state_dict({"epoch": 4, "position": 1})
    iter(loader)
    iter(loader)
    assert same(list(loader), list(make().read(4, 1)))


@pytest.mark.parametrize("make", LOADERS)
def test_an_epoch_left_in_the_middle_is_over(make: Callable[[], StatefulLoader[Any]]) -> None:
    loader = make()
    left = iter(loader)
    next(left)
    assert loader.state_dict() == {"epoch": 0, "position": 1}
    overtaking = iter(loader)
    assert same([next(overtaking)], [next(make().read(1))])
    next(left)  # still readable, but no longer what the state is about
    assert loader.state_dict() == {"epoch": 1, "position": 1}


@pytest.mark.parametrize("make", LOADERS)
def test_an_announced_epoch_wins(make: Callable[[], StatefulLoader[Any]]) -> None:
    loader = make()
    loader.sampler.set_epoch(3)
    assert same(list(loader), list(make().read(3)))
    assert same(list(loader), list(make().read(4)))
    loader.sampler.set_epoch(0)
    assert same(list(loader), list(make().read(0)))


@pytest.mark.parametrize(
    ("position", "announced", "expected"),
    [
        (1, None, (2, 1)),
        (1, 2, (2, 1)),  # the epoch in which it was saved goes on
        (1, 3, (3, 0)),  # it was cut short by a limit and is over
        (-1, None, (3, 0)),
        (-1, 2, None),  # it is complete, nothing of it is left
        (-1, 3, (3, 0)),
        (-1, 4, (3, 0)),  # an announcement that runs ahead of the restored count
    ],
)
def test_restored_places_and_announced_epochs(
    position: int, announced: int | None, expected: tuple[int, int] | None
) -> None:
    loader = tensor_loader()
    loader.load_state_dict({"epoch": 2, "position": position % (len(loader) + 1)})
    if announced is not None:
        loader.set_epoch(announced)
    assert same(list(loader), list(tensor_loader().read(*expected)) if expected else [])


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "a loader state is"),
        ({"epoch": -1, "position": 0}, "both at least 0"),
        ({"epoch": 0, "position": "1"}, "a loader state is"),
        ({"epoch": 0, "position": 6}, "batch 6, but an epoch has 5 batches"),
    ],
)
def test_states_that_do_not_fit(state: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tensor_loader().load_state_dict(state)


def test_a_tensor_loader_batch_is_the_gather_augmented() -> None:
    x, y = next(tensor_loader(augment=Augment(), mean=[0.5] * 3, std=[0.25] * 3).read(0))
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64
    assert torch.equal(x, normalize(IMAGES[y], [0.5] * 3, [0.25] * 3))


def test_augmentation_differs_between_epochs_batches_and_ranks() -> None:
    images = IMAGES[:1].expand(32, 3, 8, 8).contiguous()
    make = [
        TensorLoader(images, torch.arange(32), 8, augment=AUGMENT, shuffle=False, rank=rank, world_size=2)
        for rank in range(2)
    ]
    batches = [x for loader in make for epoch in range(2) for x, _ in loader.read(epoch)]
    assert len(batches) == 8
    assert not any(torch.equal(a, b) for i, a in enumerate(batches) for b in batches[:i])


def test_an_epoch_visits_each_picture_once() -> None:
    labels = torch.cat([y for _, y in tensor_loader(drop_last=False)])
    assert sorted(labels.tolist()) == list(range(N))
    assert len(torch.cat([y for _, y in tensor_loader()])) == N // BATCH * BATCH


def test_subset_of_a_tensor_loader() -> None:
    whole = tensor_loader(drop_last=False, shuffle=False, mean=[0.1] * 3, std=[0.2] * 3)
    part = whole.subset(torch.tensor([3, 1, 7, 20, 22]), seed=9)
    assert [y.tolist() for _, y in part] == [[3, 1, 7, 20], [22]]
    assert (part.order.seed, part.augment, part.mean, part.std) == (9, AUGMENT, whole.mean, whole.std)
    assert whole.subset(torch.arange(8), rank=1, world_size=2).order.rank == 1


def test_theta_is_one_stream_over_the_epochs() -> None:
    loader = pair_loader()
    assert len(loader) == 3
    seen = [pair["theta"] for pair in epochs(loader, 4)]
    stream = [batch for epoch in range(6) for batch in loader.theta.read(epoch)]
    assert same(seen, stream)
    visits = torch.cat([y for _, y in seen[:2]])
    assert len(visits.unique()) == len(visits)  # without replacement


def test_theta_stays_open_over_the_end_of_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    loader, opened = pair_loader(), []
    read = loader.theta.read

    def counting(epoch: int, start: int = 0) -> Iterator[Any]:
        opened.append((epoch, start))
        return read(epoch, start)

    monkeypatch.setattr(loader.theta, "read", counting)
    epochs(loader, 4)  # 12 batches, 2 of theta in an epoch of its own
    assert opened == [(epoch, 0) for epoch in range(6)]
    loader.close()
    epochs(loader, 1)
    assert opened[6:] == [(6, 0), (7, 0)]


def test_bad_loaders() -> None:
    with pytest.raises(ValueError, match=r"images must be uint8 \(N, C, H, W\), not torch.float32"):
        TensorLoader(IMAGES.float(), LABELS, 4)
    with pytest.raises(ValueError, match="labels must be int64"):
        TensorLoader(IMAGES, LABELS[:-1], 4)
    with pytest.raises(ValueError, match="pictures have 3 channels"):
        tensor_loader(mean=[0.5])
    with pytest.raises(ValueError, match="less than one batch of 4"):
        tensor_loader().subset(torch.arange(3))
    with pytest.raises(ValueError, match="theta is a DataLoader, which cannot be read from any place"):
        PairLoader(tensor_loader(), DataLoader(TensorDataset(IMAGES)))  # type: ignore[arg-type]


def test_reading_consumes_no_global_random_numbers() -> None:
    state = torch.get_rng_state()
    for make in LOADERS:
        list(make())
    assert torch.equal(torch.get_rng_state(), state)
