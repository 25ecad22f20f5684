"""All architectures of a small space."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from itertools import combinations, product
from math import comb, prod

from lightning_nas.arch import Decision, Genotype
from lightning_nas.spaces import Space
from lightning_nas.spaces.restricted import RestrictedSpace

__all__ = ["all_members", "one_of_each"]


@lru_cache(maxsize=8)
def all_members(space: Space, largest: int = 20_000) -> tuple[Genotype, ...]:
    """All architectures of a space, equal ones too; none if there are more than `largest`.

    Args:
        space: The space.
        largest: Size up to which a space counts as small.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> len(all_members(get_space("small_sep"))), len(all_members(get_space("darts")))
        (48, 0)
    """
    if isinstance(space, RestrictedSpace):
        return space.members if len(space.members) <= largest else ()
    rng = random.Random(0)  # noqa: S311
    drawn = [space.sample(rng) for _ in range(5 * int(largest**0.5) + 2)]
    if len(set(drawn)) == len(drawn):  # in a small space some would be drawn twice
        return ()
    rows = {row.name: row for rows in space.decisions.values() for row in rows}
    if all(len(genotype.picks) == len(rows) for genotype in drawn):
        return tuple(_combinations(space, rows, largest))
    return tuple(_closure(space, drawn[0], largest))


@lru_cache(maxsize=8)
def one_of_each(space: Space, largest: int = 20_000) -> tuple[Genotype, ...]:
    """One of each kind of equal architectures of a space; none if there are more than `largest`.

    Args:
        space: The space.
        largest: Size up to which a space counts as small. Where a space is a list of architectures, equal ones count
            as one.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> len(one_of_each(get_space("small_sep")))
        42
    """
    if isinstance(space, RestrictedSpace):
        one_each = {space.canonical(member): member for member in reversed(space.members)}
        return tuple(one_each.values()) if len(one_each) <= largest else ()
    return tuple(dict.fromkeys(map(space.canonical, all_members(space, largest))))


def _combinations(space: Space, rows: Mapping[str, Decision], largest: int) -> Iterator[Genotype]:
    """All combinations of choices that are architectures."""
    if prod(comb(len(row.choices), row.keep) for row in rows.values()) > largest:
        return
    for picks in product(*(combinations(range(len(row.choices)), row.keep) for row in rows.values())):
        genotype = Genotype(space.name, dict(zip(rows, picks, strict=True)))
        with suppress(ValueError):  # a combination that is no architecture
            yield space.check(genotype)


def _closure(space: Space, start: Genotype, largest: int) -> Iterable[Genotype]:
    """Whatever is reached from neighbor to neighbor."""
    found, left = {start: None}, [start]
    while left:
        new = [genotype for genotype in space.neighbors(left.pop()) if genotype not in found]
        found.update(dict.fromkeys(new))
        left += new
        if len(found) > largest:
            return []
    return found
