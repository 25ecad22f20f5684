from __future__ import annotations

import random
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from lightning_nas.data import EpochOrder, derive_seed, generator_from
from lightning_nas.data.order import seeded

sizes = st.integers(1, 60), st.integers(1, 9), st.integers(1, 4), st.booleans(), st.booleans()


@given(*sizes)
def test_ranks_share_nothing_and_have_equally_many_batches(
    samples: int, batch: int, world: int, drop_last: bool, shuffle: bool
) -> None:
    try:
        orders = [EpochOrder(samples, batch, 3, shuffle, drop_last, rank, world) for rank in range(world)]
    except ValueError:
        assume(False)
    batches = [order.batches(epoch=2) for order in orders]
    assert {len(part) for part in batches} == {len(orders[0])}
    seen = torch.cat([indices for part in batches for indices in part]).tolist()
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(range(samples))
    lengths = [len(indices) for part in batches for indices in part]
    assert min(lengths) >= 1
    assert max(lengths) <= batch
    if drop_last:
        assert set(lengths) == {batch}
        assert len(orders[0]) == samples // world // batch
    else:
        assert len(seen) == samples


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 4), st.booleans())
def test_only_impossible_orders_are_refused(samples: int, batch: int, world: int, drop_last: bool) -> None:
    fewest = batch * world if drop_last else world
    uneven = not drop_last and batch == 1 and samples % world > 0  # some rank lacks a batch that another one has
    possible = samples >= fewest and not uneven
    with nullcontext() if possible else pytest.raises(ValueError, match=r"^[^\n]*$"):
        EpochOrder(samples, batch, drop_last=drop_last, world_size=world)


def test_one_process_in_order() -> None:
    order = EpochOrder(7, 3, shuffle=False, drop_last=False)
    assert [indices.tolist() for indices in order.batches(5)] == [[0, 1, 2], [3, 4, 5], [6]]


def test_order_is_a_function_of_seed_and_epoch() -> None:
    order = EpochOrder(100, 10, seed=1)
    first = torch.cat(order.batches(0))
    assert torch.equal(first, torch.cat(EpochOrder(100, 10, seed=1).batches(0)))
    assert not torch.equal(first, torch.cat(order.batches(1)))
    assert not torch.equal(first, torch.cat(EpochOrder(100, 10, seed=2).batches(0)))


def test_samples_are_equally_likely_in_every_place() -> None:
    order = EpochOrder(5, 1, seed=0)
    counts = torch.zeros(5, 5)
    for epoch in range(2_000):
        counts[torch.arange(5), torch.cat(order.batches(epoch))] += 1
    assert (counts - 400).abs().max() < 72  # 4 standard deviations


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 0, "batch_size": 1}, "0 samples in batches of 1"),
        ({"num_samples": 4, "batch_size": 0}, "batches of 0"),
        ({"num_samples": 4, "batch_size": 5}, "less than one batch of 5"),
        ({"num_samples": 4, "batch_size": 3, "world_size": 2}, "for each of 2 process"),
        ({"num_samples": 4, "batch_size": 1, "rank": 2, "world_size": 2}, "rank=2 must lie in 0..1"),
        ({"num_samples": 4, "batch_size": 1, "seed": -1}, "seed=-1"),
        ({"num_samples": 5, "batch_size": 1, "drop_last": False, "world_size": 2}, "batch_size of at least 2"),
    ],
)
def test_bad_numbers(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EpochOrder(**arguments)


def test_seeds_do_not_collide() -> None:
    seeds = {derive_seed(a, b, c) for a in range(20) for b in range(20) for c in range(20)}
    assert len(seeds) == 20**3
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, 2) != derive_seed(2, 1) != derive_seed(2, 1, 0)
    with pytest.raises(ValueError, match="at least 0"):
        derive_seed(0, -1)


def test_first_draws_of_neighbouring_seeds_are_uniform() -> None:
    draws = torch.cat([torch.rand(1, generator=generator_from(0, 0, batch)) for batch in range(2_000)])
    assert abs(draws.mean().item() - 0.5) < 0.022  # 3.3 standard deviations
    assert abs(torch.corrcoef(torch.stack([draws[1:], draws[:-1]]))[0, 1].item()) < 0.075


def test_seeded_sets_and_restores_all_global_generators() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    def fail() -> None:
        with seeded(5):
            assert draw() == inside
            raise RuntimeError("inside")

    before = random.getstate(), torch.get_rng_state()
    with seeded(5):
        inside = draw()
    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    after = draw()
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)  # as the fixture of all tests did
    assert draw() == after
