"""Spaces whose decisions are taken one after another, each knowing those before."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

from torch import Tensor

from lightning_nas.arch import Decisions, Genotype
from lightning_nas.spaces.base import Space

__all__ = ["SequentialSpace"]

Picks = Mapping[str, tuple[int, ...]]


class SequentialSpace(Space):
    """A space of sequences: what earlier decisions came to says which choices a decision has, or that it has none.

    Each decision keeps one choice. One without a choice does not apply and is absent from the genotype. `allowed` is
    all that a subclass has to give beside its graphs; without it every combination is a genotype. The text is the name
    of the space and the choices of all decisions that apply, in their order: ``"toy: conv pool stop"``.

    Args:
        name: The space's name.
        decisions: Its decisions by group, each of which keeps one choice; all are relaxed.
        order: The names of all decisions in the order in which they are taken; ``None`` for group by group.
    """

    def __init__(self, name: str, decisions: Decisions, order: tuple[str, ...] | None = None) -> None:
        self.name, self.decisions, self.relaxed = name, decisions, tuple(decisions)
        self._rows = {row.name: row for rows in decisions.values() for row in rows}
        self._all = {row.name: tuple(range(len(row.choices))) for row in self._rows.values()}
        self.order = tuple(self._rows if order is None else order)

    def allowed(self, name: str, picks: Picks) -> tuple[int, ...]:
        """The choices of a decision.

        Args:
            name: The decision's name.
            picks: What all decisions before it, in `order`, came to.

        Returns:
            The allowed choices in ascending order; none if the decision does not apply. There are no dead ends: after
            allowed choices every decision that must be taken has one.
        """
        return self._all[name]

    def state(self, name: str, picks: Picks) -> str:
        """What is known when a decision is taken, for methods that keep a table of states; by default everything.

        Args:
            name: The decision's name.
            picks: What all decisions before it came to.
        """
        return " ".join(str(picks[earlier][0]) for earlier in self.order if earlier in picks)

    def choice(self, name: str, picks: Picks) -> str | None:
        """What a decision came to, by name; ``None`` if it does not apply."""
        return self._rows[name].choices[picks[name][0]] if name in picks else None

    def words(self, genotype: Genotype) -> tuple[str, ...]:
        """The names of all choices, in `order`."""
        picks = self.check(genotype).picks
        return tuple(self._rows[name].choices[picks[name][0]] for name in self.order if name in picks)

    def check(self, genotype: Genotype) -> Genotype:  # noqa: D102
        if genotype.space != self.name:
            raise ValueError(f"a genotype of space {genotype.space!r} was given to space {self.name!r}; use its own")
        left, seen = dict(genotype.picks), dict[str, tuple[int, ...]]()
        for name in self.order:
            allowed, kept = self.allowed(name, seen), left.pop(name, None)
            if kept is None and not allowed:
                continue
            if kept is None or len(kept) != 1 or kept[0] not in allowed:
                names = [self._rows[name].choices[k] for k in allowed]
                raise ValueError(f"{name!r} of {self.name!r} keeps one of {names}, not indices {kept}")
            seen[name] = kept
        if left:
            raise ValueError(f"a genotype of {self.name!r} has no decision {sorted(left)}")
        return genotype

    def sample(self, rng: random.Random) -> Genotype:
        """Take each decision uniformly among what is allowed."""
        picks: dict[str, tuple[int, ...]] = {}
        for name in self.order:
            if allowed := self.allowed(name, picks):
                picks[name] = (rng.choice(allowed),)
        return Genotype(self.name, picks)

    def mutate(self, genotype: Genotype, rng: random.Random) -> Genotype:  # noqa: D102
        return rng.choice(list(self.neighbors(genotype)))

    def neighbors(self, genotype: Genotype) -> Iterator[Genotype]:
        """All genotypes with another choice in one decision.

        Decisions that no longer apply fall away. Decisions that apply anew, or whose choice is not allowed any more,
        take the last choice that they have.
        """
        picks = self.check(genotype).picks
        for name in self.order:
            if name in picks:
                before = dict[str, tuple[int, ...]]()
                for earlier in self.order[: self.order.index(name)]:
                    if earlier in picks:
                        before[earlier] = picks[earlier]
                for choice in self.allowed(name, before):
                    if (choice,) != picks[name]:
                        yield self._completed(before | {name: (choice,)}, picks)

    def _completed(self, start: dict[str, tuple[int, ...]], old: Picks) -> Genotype:
        """The genotype that begins with some choices and goes on as an old one where it can."""
        picks = dict(start)
        for name in self.order:
            if name not in picks and (allowed := self.allowed(name, picks)):
                keeps = name in old and old[name][0] in allowed
                picks[name] = old[name] if keeps else (allowed[-1],)
        return Genotype(self.name, picks)

    def canonical(self, genotype: Genotype) -> Genotype:
        """The genotype itself."""
        return self.check(genotype)

    def discretize(self, scores: Mapping[str, Tensor], exclude: tuple[str, ...] | None = None) -> Genotype:
        """The best allowed choice of each decision in turn; of choices that score the same the first.

        Choices in `exclude` are never taken, unless a decision has no other.
        """
        value: dict[str, list[float]] = {}
        for group, rows in self.decisions.items():
            for index, row in enumerate(rows):
                value[row.name] = scores[group][index].tolist() if group in scores else [0.0] * len(row.choices)
        picks: dict[str, tuple[int, ...]] = {}
        for name in self.order:
            allowed = self.allowed(name, picks)
            kept = [k for k in allowed if self._rows[name].choices[k] not in (exclude or ())] or allowed
            if kept:
                picks[name] = (max(kept, key=value[name].__getitem__),)
        return Genotype(self.name, picks)

    def format(self, genotype: Genotype) -> str:
        """The choices of all decisions that apply, behind the name of the space."""
        return f"{self.name}: {' '.join(self.words(genotype))}"

    def parse(self, text: str) -> Genotype:
        """Read what `format` wrote, with or without the name of the space, or JSON.

        Raises:
            ValueError: If it is not an architecture of this space; the message says what is wrong.
        """
        text = text.strip()
        if text.startswith("{"):
            return self.from_json(text)
        head, colon, rest = text.partition(": ")
        if colon and head != self.name:
            raise ValueError(f"a genotype of space {head[:60]!r} was given to space {self.name!r}; use its own")
        words = (rest if colon else text).split()
        picks: dict[str, tuple[int, ...]] = {}
        for name in self.order:
            if allowed := self.allowed(name, picks):
                names = {self._rows[name].choices[k]: k for k in allowed}
                word = words.pop(0) if words else "nothing"
                if word not in names:
                    raise ValueError(f"{name!r} of {self.name!r} reads {word[:60]!r}; allowed are {list(names)}")
                picks[name] = (names[word],)
        if words:
            raise ValueError(f"{len(words)} words are left over behind {self.name!r}'s last decision: {words[:3]}")
        return Genotype(self.name, picks)
