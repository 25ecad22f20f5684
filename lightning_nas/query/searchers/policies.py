"""How a policy takes the decisions of any space, one after another, and the baseline of a policy gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from lightning_nas.arch import Decision, Genotype
from lightning_nas.spaces import CellSpace, Space
from lightning_nas.spaces.independent import IndependentSpace
from lightning_nas.spaces.sequential import SequentialSpace

__all__ = ["Agenda", "Draw", "EMABaseline", "largest"]

Draw = tuple[tuple[int, ...], ...]
"""For each decision of an agenda the choices taken, in the order in which they were drawn; none if it did not apply."""


class EMABaseline:
    """A moving average of rewards, from which a reward's advantage is measured.

    It is updated with a reward before that reward's advantage is taken, as the released codes do. ``"corrected"`` (as
    in NAS-Bench-101 and NAS-Bench-201) divides by the sum of the weights, so that the first advantage is zero;
    ``"enas"`` starts at zero and does not, so that the first samples are all reinforced.

    Reference: Ying et al., "NAS-Bench-101", ICML 2019; Pham et al., "Efficient Neural Architecture Search via Parameter
    Sharing", ICML 2018.

    Args:
        momentum: Share of the old average.
        convention: ``"corrected"`` or ``"enas"``.

    Raises:
        ValueError: If the momentum is not in ``[0, 1)`` or the convention is another.

    Example:
        >>> baseline = EMABaseline(0.9)
        >>> baseline.advantage(80.0), round(baseline.advantage(90.0), 6), round(baseline.value, 6)
        (0.0, 4.736842, 85.263158)
    """

    def __init__(self, momentum: float = 0.9, convention: Literal["corrected", "enas"] = "corrected") -> None:
        if not 0 <= momentum < 1 or convention not in ("corrected", "enas"):
            raise ValueError(f"momentum={momentum}, convention={convention!r}: give [0, 1) and 'corrected' or 'enas'")
        self.momentum, self.convention = momentum, convention
        self.total = self.weight = 0.0

    @property
    def value(self) -> float:
        """The average; zero before any reward."""
        if self.convention == "enas" or not self.weight:
            return self.total
        return self.total / self.weight

    def advantage(self, reward: float) -> float:
        """Take a reward into the average, and return how far it is above it."""
        self.total = self.momentum * self.total + (1 - self.momentum) * reward
        self.weight = self.momentum * self.weight + (1 - self.momentum)
        return reward - self.value

    def state(self) -> list[float]:
        """Its two numbers."""
        return [self.total, self.weight]

    def load_state(self, state: list[float]) -> None:
        """Take back what `state` returned."""
        self.total, self.weight = state


class Agenda:
    """The decisions of a space in an order in which each can be taken after those before it.

    Of cells whose nodes choose their inputs, an operation is decided only on edges that are kept, and operations that
    the space excludes are not allowed. A `SequentialSpace` says itself what is allowed. In all other spaces each choice
    is allowed at any time, and a draw may turn out to be no genotype.

    Args:
        space: The space.

    Attributes:
        rows: The decisions.
        width: Number of choices of the widest.
        static: Whether what is allowed depends on no other decision.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> agenda = Agenda(get_space("darts"))
        >>> agenda.rows[0].name, agenda.rows[4].name, agenda.static
        ('normal/inputs/2', 'normal/2<-0', False)
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        rows = {row.name: row for rows in space.decisions.values() for row in rows}
        self._inputs: dict[str, tuple[str, int]] = {}
        self._open = {name: tuple(range(len(row.choices))) for name, row in rows.items()}
        if isinstance(space, (SequentialSpace, IndependentSpace)):
            rows = {name: rows[name] for name in space.order}
        elif isinstance(space, CellSpace):
            rows = self._of_cells(space)
        self.rows = tuple(rows.values())
        self.width = max(len(row.choices) for row in self.rows)
        own = isinstance(space, SequentialSpace) and type(space).allowed is not SequentialSpace.allowed
        self.static = not self._inputs and not own
        self._constant = self._mask({}) if self.static else None

    def _of_cells(self, space: CellSpace) -> dict[str, Decision]:
        """The rows of a cell space, inputs before operations."""
        rows: dict[str, Decision] = {}
        for kind in space.kinds:
            inputs = space.decisions.get(space.input_group(kind), ())
            rows |= {row.name: row for row in (*inputs, *space.decisions[kind])}
            chooses = {row.name for row in inputs}
            for row, (target, source) in zip(space.decisions[kind], space.topology.edges, strict=True):
                kept = tuple(k for k, op in enumerate(row.choices) if op not in space.exclude)
                self._open[row.name] = kept or self._open[row.name]
                if f"{kind}/inputs/{target}" in chooses:
                    self._inputs[row.name] = (f"{kind}/inputs/{target}", source)
        return rows

    def allowed(self, name: str, picks: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
        """The choices of a decision after those before it; none if it does not apply."""
        if isinstance(self.space, SequentialSpace):
            return self.space.allowed(name, picks)
        if name in self._inputs:
            chosen, source = self._inputs[name]
            return self._open[name] if source in picks[chosen] else ()
        return self._open[name]

    def genotype(self, draw: Draw) -> Genotype | None:
        """The genotype of a draw; ``None`` if the space does not know it."""
        picks = {row.name: kept for row, kept in zip(self.rows, draw, strict=True) if kept}
        try:
            return self.space.check(Genotype(self.space.name, picks))
        except ValueError:
            return None

    def draw_of(self, genotype: Genotype) -> Draw:
        """A draw that gives a genotype; of several choices the first is taken to have been drawn first."""
        return tuple(genotype.picks.get(row.name, ()) for row in self.rows)

    def open(self, draw: Draw) -> npt.NDArray[np.bool_]:
        """Boolean ``(rows, choices)``: what was allowed when each decision of a draw was taken.

        A row is empty if nothing was left to decide: the decision did not apply, or had to keep all that was allowed.
        """
        if self._constant is not None:
            return self._constant
        return self._mask({row.name: kept for row, kept in zip(self.rows, draw, strict=True) if kept})

    def _mask(self, picks: Mapping[str, tuple[int, ...]]) -> npt.NDArray[np.bool_]:
        mask = np.zeros((len(self.rows), self.width), dtype=np.bool_)
        for index, row in enumerate(self.rows):
            allowed = self.allowed(row.name, picks)
            if len(allowed) > row.keep:
                mask[index, list(allowed)] = True
        return mask


def largest(values: Sequence[float], allowed: tuple[int, ...], keep: int) -> tuple[int, ...]:
    """The allowed choices of the largest values, the largest first; as they are where all of them are kept.

    With logits and Gumbel noise as values they are an ordered draw without replacement.

    Example:
        >>> largest([3.0, 1.0, 5.0, 4.0], (0, 1, 3), 2)
        (3, 0)
    """
    if len(allowed) <= keep:
        return allowed
    if keep == 1:
        return (max(allowed, key=values.__getitem__),)
    return tuple(sorted(allowed, key=values.__getitem__, reverse=True)[:keep])
