"""Resuming for the data sets that only a `torch.utils.data.DataLoader` can read."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler
from torch.utils.data.distributed import DistributedSampler

from lightning_nas.data.order import EpochOrder, derive_seed, seeded
from lightning_nas.data.stateful import StatefulLoader

__all__ = ["ResumableLoader"]

_Key = tuple[int, list[int]]  # the seed of a batch and the indices of its samples
_WORKER_OPTIONS = ("timeout", "worker_init_fn", "multiprocessing_context", "prefetch_factor", "persistent_workers")


class ResumableLoader(StatefulLoader[Any]):
    """The batches of a user's DataLoader over a map-style data set, from any epoch and position, to the bit.

    It keeps the loader's batch size, collate function, worker processes and memory options, and replaces its sampler by
    an `EpochOrder`. Before a batch is fetched and collated, in a worker or in this process, Python's, NumPy's and
    PyTorch's global CPU generators are seeded by (seed, epoch, batch, rank), and put back afterwards: random transforms
    give the same pictures for any number of workers and after any resume, and reading consumes no global random
    numbers. Generators of a data set's own are its own affair. Each loader has its own worker processes.

    Args:
        loader: The DataLoader whose data set and options are taken.
        indices: Samples of the data set to use; None is all of them.
        seed: Seed of order and transforms, the same on all ranks.
        shuffle: A new order in each epoch; None does as `loader` does.
        rank: This process.
        world_size: Number of processes.

    Raises:
        ValueError: If the data set is iterable-style or has no length, or the loader's sampler chooses samples itself.

    Example:
        >>> loader = ResumableLoader(DataLoader(range(5), batch_size=2))
        >>> list(loader)
        [tensor([0, 1]), tensor([2, 3]), tensor([4])]
        >>> list(loader.read(epoch=7, start=2))
        [tensor([4])]
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        *,
        indices: Tensor | None = None,
        seed: int = 0,
        shuffle: bool | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__()
        batch_size, drop_last, shuffled = _sampling(loader)
        self.source = loader
        self.indices = torch.arange(len(loader.dataset)) if indices is None else indices  # type: ignore[arg-type]
        shuffle = shuffled if shuffle is None else shuffle
        self.order = EpochOrder(len(self.indices), batch_size, seed, shuffle, drop_last, rank, world_size)
        self._keys = _Keys()
        self._reader: DataLoader[Any] | None = None

    @property
    def dataset_labels(self) -> Tensor | None:
        """The class of each sample in use, where the data set tells it without loading its samples."""
        labels = labels_of(self.source.dataset)
        return None if labels is None else labels[self.indices]

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.order)

    def read(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """See `StatefulLoader.read`; batches are those of the user's collate function."""
        order = self.order
        self._keys.current = [
            (derive_seed(order.seed, epoch, number, order.rank), self.indices[batch].tolist())
            for number, batch in enumerate(order.batches(epoch)[start:], start)
        ]
        yield from self._open(epoch)

    def subset(
        self, indices: Tensor, *, seed: int | None = None, rank: int | None = None, world_size: int | None = None
    ) -> "ResumableLoader":
        """A loader of the same kind over some of the samples.

        Args:
            indices: int64 numbers of the samples.
            seed: Seed of order and transforms; None keeps this one.
            rank: This process; None keeps this one.
            world_size: Number of processes; None keeps this one.

        Returns:
            A new loader at the beginning of its first epoch.
        """
        order = self.order
        return ResumableLoader(
            self.source,
            indices=self.indices[indices],
            seed=order.seed if seed is None else seed,
            shuffle=order.shuffle,
            rank=order.rank if rank is None else rank,
            world_size=order.world_size if world_size is None else world_size,
        )

    def close(self) -> None:
        """Let go of worker processes; the next iteration starts new ones."""
        self._reader = None

    def _open(self, epoch: int) -> Iterator[Any]:
        """An iterator over the batches of `self._keys`, on worker processes where the user wants them."""
        if self._reader is None:
            source = self.source
            options = {name: getattr(source, name) for name in _WORKER_OPTIONS if source.num_workers > 0}
            self._reader = DataLoader(
                _BatchDataset(source.dataset, source.collate_fn),
                batch_size=None,
                sampler=self._keys,
                collate_fn=_as_is,
                num_workers=source.num_workers,
                pin_memory=source.pin_memory,
                generator=torch.Generator(),
                **options,
            )
        self._reader.generator.manual_seed(derive_seed(self.order.seed, epoch))
        return iter(self._reader)


class _Keys:
    """A sampler whose keys are replaced between epochs; an iterator keeps those it started with."""

    def __init__(self) -> None:
        self.current: list[_Key] = []

    def __iter__(self) -> Iterator[_Key]:
        return iter(self.current)

    def __len__(self) -> int:
        return len(self.current)


class _BatchDataset(Dataset[Any]):
    """A data set whose item is a whole collated batch, fetched from seeded generators.

    In everything else it is the user's data set, which a ``worker_init_fn`` finds by ``get_worker_info().dataset``.
    """

    def __init__(self, dataset: Dataset[Any], collate: Callable[[list[Any]], Any]) -> None:
        self.__dict__.update(_dataset=dataset, _collate=collate)

    def __getitem__(self, key: _Key) -> Any:
        seed, indices = key
        with seeded(seed):
            fetch_all = getattr(self._dataset, "__getitems__", None)
            samples = fetch_all(indices) if fetch_all else [self._dataset[index] for index in indices]
            return self._collate(samples)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._dataset, name, value)


def labels_of(dataset: Any) -> Tensor | None:
    """The class of each sample where a data set tells it cheaply: ``targets``, ``labels``, or the last tensor.

    Args:
        dataset: A map-style data set, or a `torch.utils.data.Subset` of one.

    Returns:
        int64 ``(N,)``, or None where labels are unknown or are not whole numbers.
    """
    if hasattr(dataset, "dataset") and hasattr(dataset, "indices"):
        labels = labels_of(dataset.dataset)
        return None if labels is None else labels[torch.as_tensor(dataset.indices)]
    found = next((getattr(dataset, name) for name in ("targets", "labels") if hasattr(dataset, name)), None)
    if found is None and getattr(dataset, "tensors", None):
        found = dataset.tensors[-1]
    if not isinstance(found, Tensor):
        try:
            found = torch.as_tensor(found)
        except (TypeError, ValueError, RuntimeError):
            return None
    whole = found.ndim == 1 and len(found) == len(dataset) and not (found.is_floating_point() or found.is_complex())
    return found.to(torch.int64) if whole else None


def _sampling(loader: DataLoader[Any]) -> tuple[int, bool, bool]:
    """Batch size, whether the remainder is dropped and whether order is random, of a loader that can be re-ordered."""
    dataset, sampler = loader.dataset, loader.sampler
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise ValueError(
            f"the data set {type(dataset).__name__} can only be read in its own order, so it cannot be split or"
            " resumed; use a map-style data set with a length"
        )
    if not isinstance(loader.batch_sampler, BatchSampler):
        raise ValueError(
            f"batches come from {type(loader.batch_sampler).__name__}, which cannot be split or resumed;"
            " use DataLoader(batch_size=..., shuffle=...)"
        )
    everything = isinstance(sampler, SequentialSampler | DistributedSampler) or (
        isinstance(sampler, RandomSampler) and not sampler.replacement and sampler.num_samples == len(dataset)
    )
    if not everything:
        raise ValueError(
            f"the sampler {type(sampler).__name__} chooses samples itself, so it cannot be split or resumed;"
            " use DataLoader(shuffle=True), and torch.utils.data.Subset to leave samples out"
        )
    shuffled = not isinstance(sampler, SequentialSampler) and getattr(sampler, "shuffle", True)
    return loader.batch_sampler.batch_size, loader.batch_sampler.drop_last, bool(shuffled)


def _as_is(batch: Any) -> Any:
    return batch
