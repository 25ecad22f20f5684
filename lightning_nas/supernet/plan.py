"""What a cell executes for a set of active choices: which candidates run together, and which weights they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_nas.spaces import CellTopology
from lightning_nas.supernet.groups import Form, Stage

__all__ = ["Candidate", "Group", "Maps", "Plan", "make_plan"]

Rows = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Candidate:
    """A candidate as a plan sees it: two of one signature do the same but for their weights."""

    form: Form
    signature: str
    stages: tuple[Stage, ...] = ()


@dataclass(frozen=True)
class Group:
    """Candidates of one signature on edges that leave one node: their rows and choices; the stages of chains."""

    form: Form
    at: tuple[tuple[int, int], ...]
    stages: tuple[Stage, ...] = ()

    @property
    def rows(self) -> tuple[int, ...]:
        """The edges."""
        return tuple(row for row, _ in self.at)


@dataclass(frozen=True)
class Maps:
    """Parameter-free candidates on the same edges: ``choices[e][b]`` is the choice of map `b` on edge `e`."""

    rows: tuple[int, ...]
    choices: Rows


@dataclass(frozen=True)
class Plan:
    """For each source node its groups and maps; for the cell its active choices, and the weights to gather in order."""

    groups: tuple[tuple[Group, ...], ...]
    maps: tuple[tuple[Maps, ...], ...]
    active: Rows
    index: Tensor
    sizes: tuple[int, ...]

    def gather(self, weights: Tensor | None) -> list[Tensor | None]:
        """``(rows, choices)`` -> a vector for each group of each source, then for each of its maps."""
        if weights is None:
            return [None] * len(self.sizes)
        if self.index.device != weights.device:
            object.__setattr__(self, "index", self.index.to(weights.device))
        flat = weights.flatten()[self.index]
        return list(torch.split(flat, list(self.sizes)))


def make_plan(topology: CellTopology, candidates: Sequence[Sequence[Candidate]], active: Rows, width: int) -> Plan:
    """Plan the execution of the active choices.

    Args:
        topology: The edges.
        candidates: The candidates of each edge.
        active: The choices to execute on each edge.
        width: Columns of the matrix of weights.
    """
    last = topology.inputs + topology.nodes
    groups, maps = [], []
    for source in range(last):
        rows = [row for row, (_, start) in enumerate(topology.edges) if start == source]
        groups.append(_groups(rows, candidates, active))
        maps.append(_maps(rows, candidates, active))
    index: list[int] = []
    sizes: list[int] = []
    for source in range(last):
        taken = [list(group.at) for group in groups[source]]
        taken += [[(row, k) for row, ks in zip(m.rows, m.choices, strict=True) for k in ks] for m in maps[source]]
        sizes += [len(part) for part in taken]
        index += [row * width + k for part in taken for row, k in part]
    return Plan(tuple(groups), tuple(maps), active, torch.tensor(index, dtype=torch.long), tuple(sizes))


def _groups(rows: Sequence[int], candidates: Sequence[Sequence[Candidate]], active: Rows) -> tuple[Group, ...]:
    """Chains and reductions by signature; candidates of no known form each alone."""
    found: dict[Candidate, list[tuple[int, int]]] = {}
    for row in rows:
        for k in active[row]:
            one = candidates[row][k]
            if one.form in ("chain", "reduction"):
                found.setdefault(one, []).append((row, k))
            elif one.form == "other":
                found[Candidate(one.form, f"{row}, {k}")] = [(row, k)]
    # groups on the same edges stand together: their outputs are added before they are taken apart
    ordered = sorted(found.items(), key=lambda item: [row for row, _ in item[1]])
    return tuple(Group(one.form, tuple(at), one.stages) for one, at in ordered)


def _maps(rows: Sequence[int], candidates: Sequence[Sequence[Candidate]], active: Rows) -> tuple[Maps, ...]:
    on: dict[str, list[tuple[int, int]]] = {}
    for row in rows:
        for k in active[row]:
            if candidates[row][k].form == "map":
                on.setdefault(candidates[row][k].signature, []).append((row, k))
    together: dict[tuple[int, ...], list[list[tuple[int, int]]]] = {}
    for at in on.values():
        together.setdefault(tuple(row for row, _ in at), []).append(at)
    return tuple(
        Maps(edges, tuple(tuple(at[e][1] for at in several) for e in range(len(edges))))
        for edges, several in together.items()
    )
