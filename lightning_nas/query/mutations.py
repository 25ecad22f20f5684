"""How a searcher makes one genotype from another, or from two."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from lightning_nas.arch import Decision, Genotype
from lightning_nas.spaces import CellSpace, Space

__all__ = ["MUTATIONS", "EachDecision", "Mutation", "crossover", "get_mutation", "node_then_edge", "one_decision"]

Mutation = Callable[[Space, Genotype, random.Random], Genotype]
"""A function from a space, a genotype of it and a source of randomness to another genotype."""

_TRIES = 10_000


def one_decision(space: Space, genotype: Genotype, rng: random.Random) -> Genotype:
    """The space's own mutation: another choice in one decision, all neighbors alike in most spaces.

    Args:
        space: The space.
        genotype: A genotype of it.
        rng: Source of randomness.
    """
    return space.mutate(genotype, rng)


def node_then_edge(space: Space, genotype: Genotype, rng: random.Random) -> Genotype:
    """Another operation on one edge of a cell: first the node is drawn, then one of the edges kept into it.

    So edges are not equally likely. In NAS-Bench-201 the edge into node 1 is drawn with probability 1/3, each of those
    into node 2 with 1/6, each of those into node 3 with 1/9, as in the benchmark's own evolution.

    Args:
        space: A space of cells.
        genotype: A genotype of it.
        rng: Source of randomness.

    Raises:
        ValueError: If the space is none of cells, or none of its edges has a second operation.

    Reference:
        Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search", ICLR 2020.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> space = get_space("nasbench201")
        >>> parent = space.sample(random.Random(0))
        >>> node_then_edge(space, parent, random.Random(0)) in set(space.neighbors(parent))
        True
    """
    if not isinstance(space, CellSpace):
        raise ValueError(f"mutate='nasbench201' draws a node of a cell, and {space.name!r} has none; give 'one'")
    topology = space.topology
    for _ in range(_TRIES):
        kind = rng.choice(space.kinds)
        node = topology.inputs + rng.randrange(topology.nodes)
        rows = [space.decisions[kind][row] for row in topology.rows_into(node)]
        row = rng.choice([row for row in rows if row.name in genotype.picks])
        allowed = [
            k for k, op in enumerate(row.choices) if op not in space.exclude and (k,) != genotype.picks[row.name]
        ]
        if allowed:
            return Genotype(space.name, {**genotype.picks, row.name: (rng.choice(allowed),)})
    raise ValueError(f"no edge of a cell of {space.name!r} has a second operation; give mutate='one'")


class EachDecision:
    """Every decision changes by chance, with a probability that belongs to its group, until the genotype is valid.

    A changed decision takes another choice, all alike. The child may be the parent again.

    Args:
        rates: Group of decisions -> probability with which each of them changes; other groups stay as they are.

    Raises:
        ValueError: If there are no rates, or one is not in ``[0, 1]``.

    Reference:
        Ying, Klein, Christiansen, Real, Murphy and Hutter, "NAS-Bench-101", ICML 2019; rates of White, Neiswanger and
        Savani, "BANANAS", AAAI 2021.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> space = get_space("enas_macro")
        >>> parent = space.sample(random.Random(0))
        >>> child = EachDecision({"ops": 1.0})(space, parent, random.Random(0))
        >>> sum(child.picks[name] != parent.picks[name] for name in parent.picks)
        12
    """

    def __init__(self, rates: Mapping[str, float]) -> None:
        if not rates or not all(0 <= rate <= 1 for rate in rates.values()):
            raise ValueError(f"rates={dict(rates)}: give a probability in [0, 1] for one group of decisions at least")
        self.rates = dict(rates)

    def __call__(self, space: Space, genotype: Genotype, rng: random.Random) -> Genotype:
        """A changed genotype.

        Raises:
            ValueError: If the space lacks a group, or no valid genotype is found.
        """
        unknown = sorted(set(self.rates) - set(space.decisions))
        if unknown:
            raise ValueError(f"{space.name!r} has no group {unknown}; its groups are {sorted(space.decisions)}")
        for _ in range(_TRIES):
            picks = dict(genotype.picks)
            for group, rate in self.rates.items():
                for row in space.decisions[group]:
                    if row.name in picks and rng.random() < rate:
                        picks[row.name] = _other(row, picks[row.name], rng)
            child = valid(space, Genotype(space.name, picks))
            if child is not None:
                return child
        raise ValueError(
            f"no valid genotype of {space.name!r} in {_TRIES} mutations with {self.rates}; lower the rates"
        )


def _other(row: Decision, kept: tuple[int, ...], rng: random.Random) -> tuple[int, ...]:
    """Another choice for one of those kept; the same if there is no other."""
    others = [k for k in range(len(row.choices)) if k not in kept]
    if not others:
        return kept
    out = rng.randrange(len(kept))
    return (*kept[:out], rng.choice(others), *kept[out + 1 :])


def valid(space: Space, genotype: Genotype) -> Genotype | None:
    """The genotype, or ``None`` if its space does not let it pass."""
    try:
        return space.check(genotype)
    except ValueError:
        return None


MUTATIONS: dict[str, Mutation] = {
    "one": one_decision,
    "nasbench201": node_then_edge,
    "nasbench101": EachDecision({"edges": 1 / 21, "ops": 1 / 5}),
}
"""Name -> mutation. A project adds its own with ``MUTATIONS["mine"] = mutation``."""


def get_mutation(mutate: str | Mutation) -> Mutation:
    """The mutation of a name; anything else is returned as it is.

    Raises:
        ValueError: If no mutation has this name.

    Example:
        >>> get_mutation("one") is one_decision
        True
    """
    if not isinstance(mutate, str):
        return mutate
    if mutate not in MUTATIONS:
        raise ValueError(f"unknown mutation {mutate!r}; known are {', '.join(MUTATIONS)}; or pass a function")
    return MUTATIONS[mutate]


def crossover(space: Space, first: Genotype, second: Genotype, rng: random.Random, tries: int = 10) -> Genotype | None:
    """A child that takes each decision from either parent, with equal chances.

    In cells whose nodes keep only some of their inputs, a node takes the inputs of one parent, and the operation of
    each edge from a parent that has the edge.

    Args:
        space: The space.
        first: A genotype of it.
        second: Another one.
        rng: Source of randomness.
        tries: How often a child that is not valid is made anew.

    Returns:
        The child; ``None`` if no try gave a valid one.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> space, rng = get_space("darts"), random.Random(0)
        >>> crossover(space, space.sample(rng), space.sample(rng), rng).space
        'darts'
    """
    groups = [space.input_group(kind) for kind in space.kinds] if isinstance(space, CellSpace) else []
    for _ in range(tries):
        picks = _mixed(first, second, rng)
        for row in (row for group in groups for row in space.decisions.get(group, ())):
            kind, node = row.name.split("/inputs/")
            into = {f"{kind}/{node}<-{i}" for i in range(len(row.choices))}
            kept = {f"{kind}/{node}<-{i}" for i in picks[row.name]}
            for name in into - kept:
                picks.pop(name, None)
            for name in sorted(kept - set(picks)):
                picks[name] = first.picks.get(name) or second.picks[name]
        child = valid(space, Genotype(space.name, picks))
        if child is not None:
            return child
    return None


def _mixed(first: Genotype, second: Genotype, rng: random.Random) -> dict[str, tuple[int, ...]]:
    """Each decision of either parent; one that a parent lacks may be missing."""
    names = sorted(set(first.picks) | set(second.picks))
    chosen = [(name, (first if rng.random() < 0.5 else second).picks.get(name)) for name in names]
    return {name: kept for name, kept in chosen if kept is not None}
