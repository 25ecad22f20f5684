"""Splitting samples in two, so that both parts have the classes of the whole."""

import torch
from torch import Tensor

from lightning_nas.data.order import generator_from

__all__ = ["require_classes", "split_indices"]


def split_indices(num_samples: int, held_out: int, seed: int, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Deal the numbers ``0 .. num_samples - 1`` to two disjoint parts at random.

    With labels, each class is split in the same proportion, to within one sample: every class gives its share rounded
    down, and the samples still missing come from the classes with the largest remainders.

    Args:
        num_samples: How many samples there are.
        held_out: How many go to the second part.
        seed: The split is a function of it.
        labels: int64 ``(num_samples,)``, the class of each sample; None splits without classes.

    Returns:
        The two parts, ascending int64 numbers, ``num_samples - held_out`` and `held_out` of them.

    Raises:
        ValueError: If `held_out` is not between 0 and `num_samples`, or there is not a label for each sample.

    Example:
        >>> rest, held_out = split_indices(6, 2, seed=0, labels=torch.tensor([0, 0, 0, 0, 1, 1]))
        >>> len(rest), (held_out < 4).sum().item()  # one of four and one of two: nearest to a third of each class
        (4, 1)
    """
    if not 0 <= held_out <= num_samples:
        raise ValueError(f"cannot hold out {held_out} of {num_samples} samples; choose between 0 and all")
    if labels is None:
        labels = torch.zeros(num_samples, dtype=torch.int64)
    if labels.shape != (num_samples,):
        raise ValueError(f"labels {tuple(labels.shape)} must have one entry for each of {num_samples} samples")
    shuffled = torch.randperm(num_samples, generator=generator_from(seed))
    _, kind, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    shares = counts * held_out
    take = shares // num_samples
    remainders = shares % num_samples
    missing = held_out - int(take.sum())
    take[remainders.argsort(descending=True, stable=True)[:missing]] += 1
    by_class = shuffled[kind[shuffled].argsort(stable=True)]
    within = torch.arange(num_samples) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    chosen = within < take.repeat_interleave(counts)
    return by_class[~chosen].sort().values, by_class[chosen].sort().values


def require_classes(labels: Tensor) -> None:
    """Refuse labels that are all the same, on which nothing can be learned.

    Args:
        labels: ``(N,)``, at least one.

    Raises:
        ValueError: If there is one class only.
    """
    if bool((labels == labels[0]).all()):
        raise ValueError(
            f"all {len(labels)} training samples are of class {int(labels[0])}; a classifier needs at least two classes"
        )
