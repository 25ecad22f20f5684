"""What every proposal promises."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from lightning_nas.query.proposals import Mixture, Mutants, Neighbors, Pool, Proposal, RandomPool, WholeSpace
from lightning_nas.spaces import get_space
from lightning_nas.spaces.restricted import RestrictedSpace

PROPOSALS: dict[str, Callable[[], Proposal]] = {
    "RandomPool": lambda: RandomPool(20),
    "Mutants": lambda: Mutants(20),
    "Mutants of several": lambda: Mutants(20, parents=3, steps=(0.5, 0.25, 0.25)),
    "Neighbors": lambda: Neighbors(2),
    "Pool": lambda: Pool(get_space("small_sep").sample(random.Random(k)) for k in range(9)),
    "WholeSpace": lambda: WholeSpace(),
    "Mixture": lambda: Mixture(Mutants(10), RandomPool(10)),
}
every = pytest.mark.parametrize("name", PROPOSALS)


@every
def test_candidates_are_of_the_space_and_the_same_again(name: str) -> None:
    space = get_space("small_sep")
    labels = [(space.sample(random.Random(k)), float(k)) for k in range(5)]
    before = list(labels)
    first, again = (list(PROPOSALS[name]()(space, labels, random.Random(1))) for _ in range(2))
    assert first
    assert first == again
    assert labels == before
    assert [space.check(genotype) for genotype in first] == first


@every
def test_before_the_first_label(name: str) -> None:
    space = get_space("small_sep")
    found = PROPOSALS[name]()(space, [], random.Random(1))
    assert bool(found) == (name != "Neighbors")


def test_mutants_are_shared_by_the_best() -> None:
    space = get_space("nasbench201")
    labels = [(space.sample(random.Random(k)), float(k)) for k in range(6)]
    found = Mutants(20, parents=2)(space, labels, random.Random(0))
    for index, child in enumerate(found):
        assert child in set(space.neighbors(labels[5 - index % 2][0]))


@pytest.mark.parametrize("name", ["nasbench201", "small_sep", "small_ops"])
def test_the_whole_of_a_small_space_once_each(name: str) -> None:
    space = get_space(name)
    found = WholeSpace()(space, [], random.Random(0))
    assert len(set(found)) == len(found) == {"nasbench201": 6466, "small_sep": 42, "small_ops": 49}[name]
    drawn = random.Random(1)
    assert {space.canonical(space.sample(drawn)) for _ in range(300)} <= set(found)


def test_a_large_space_gives_a_random_pool() -> None:
    assert len(WholeSpace(pool=7)(get_space("darts"), [], random.Random(0))) == 7


def test_the_whole_of_a_part_of_a_space_is_its_members() -> None:
    base = get_space("nasbench101")  # of which a list of all would be far too long
    members = [base.sample(random.Random(k)) for k in range(60)]
    space = RestrictedSpace(base, [*members, *map(base.canonical, members)])
    found = WholeSpace()(space, [], random.Random(0))
    assert set(found) <= set(space.members)
    assert sorted(map(base.format, map(base.canonical, found))) == sorted(
        {base.format(base.canonical(member)) for member in members}
    )


def test_a_restricted_space_stays_inside() -> None:
    base = get_space("nasbench201")
    members = {base.sample(random.Random(k)) for k in range(200)}
    space, rng = RestrictedSpace(base, sorted(members, key=base.format)), random.Random(0)
    drawn = [space.sample(rng) for _ in range(2000)]
    assert set(drawn) == members
    for genotype in drawn[:50]:
        near = list(space.neighbors(genotype))
        assert genotype not in near
        assert set(near) <= members
        inside = members & set(base.neighbors(genotype))
        assert set(near) == inside if inside else near
        assert not inside or genotype in set(space.neighbors(near[0]))
    with pytest.raises(ValueError, match="no member"):
        space.mutate(next(g for g in base.neighbors(drawn[0]) if g not in members), rng)
    with pytest.raises(ValueError, match="at least 2"):
        RestrictedSpace(base, drawn[:1])
