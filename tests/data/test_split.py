from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_nas.data import split_indices
from lightning_nas.data.split import require_classes


@given(st.lists(st.integers(-2, 5), min_size=1, max_size=60), st.floats(0, 1), st.integers(0, 5))
def test_parts_are_disjoint_complete_and_stratified(classes: list[int], fraction: float, seed: int) -> None:
    labels = torch.tensor(classes)
    held_out = round(fraction * len(labels))
    rest, held = split_indices(len(labels), held_out, seed, labels)
    assert len(held) == held_out
    assert sorted(rest.tolist() + held.tolist()) == list(range(len(labels)))
    assert rest.tolist() == sorted(rest.tolist())
    for kind in set(classes):
        share = held_out * classes.count(kind) / len(classes)
        assert abs((labels[held] == kind).sum().item() - share) < 1


def test_equal_classes_are_split_exactly() -> None:
    labels = torch.arange(100) % 10
    rest, held = split_indices(100, 50, 0, labels)
    assert labels[rest].bincount().tolist() == labels[held].bincount().tolist() == [5] * 10


def test_split_is_a_function_of_the_seed() -> None:
    labels = torch.arange(200) % 4
    first = split_indices(200, 100, 1, labels)
    assert all(map(torch.equal, first, split_indices(200, 100, 1, labels)))
    assert not torch.equal(first[1], split_indices(200, 100, 2, labels)[1])
    assert not torch.equal(first[1], split_indices(200, 100, 1)[1])


def test_samples_of_a_class_are_equally_likely() -> None:
    labels = torch.tensor([0] * 8 + [1] * 4)
    counts = torch.zeros(12)
    for seed in range(2_000):
        counts[split_indices(12, 6, seed, labels)[1]] += 1
    assert (counts - 1_000).abs().max() < 80  # 3.6 standard deviations


def test_bad_values() -> None:
    with pytest.raises(ValueError, match="cannot hold out 5 of 4"):
        split_indices(4, 5, 0)
    with pytest.raises(ValueError, match="one entry for each of 4 samples"):
        split_indices(4, 2, 0, torch.zeros(3))
    with pytest.raises(ValueError, match="all 3 training samples are of class 7"):
        require_classes(torch.full((3,), 7))
