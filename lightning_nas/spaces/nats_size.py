"""The size space of NATS-Bench: the widths of five layers (Dong, Liu, Musial and Gabrys, "NATS-Bench", TPAMI 2021)."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_nas.arch import Decision, Genotype
from lightning_nas.spaces.base import CellGraph
from lightning_nas.spaces.independent import IndependentSpace

__all__ = ["NATS_WIDTHS", "NATSSizeSpace"]

NATS_WIDTHS = (8, 16, 24, 32, 40, 48, 56, 64)


class NATSSizeSpace(IndependentSpace):
    """Five widths out of 8, 16, ..., 64 channels: 32,768 networks with one and the same cell.

    It serves searches that ask a table; no network is built from its genotypes here.

    Example:
        >>> space = NATSSizeSpace()
        >>> space.widths(space.parse("8:16:64:8:32"))
        (8, 16, 64, 8, 32)
    """

    def __init__(self, name: str = "nats_size") -> None:
        choices = tuple(map(str, NATS_WIDTHS))
        super().__init__(name, {"width": tuple(Decision(f"width/{layer}", choices) for layer in range(5))})

    def widths(self, genotype: Genotype) -> tuple[int, ...]:
        """The channels of the five layers."""
        picks = self.check(genotype).picks
        return tuple(NATS_WIDTHS[picks[name][0]] for name in self.order)

    def from_widths(self, widths: Sequence[int]) -> Genotype:
        """The genotype with these channels.

        Raises:
            ValueError: If they are not five of the allowed widths.
        """
        if len(widths) != len(self.order) or not set(widths) <= set(NATS_WIDTHS):
            raise ValueError(f"not the widths of five layers: {list(widths)[:9]}; each is one of {NATS_WIDTHS}")
        return self.from_indices([NATS_WIDTHS.index(width) for width in widths])

    def canonical(self, genotype: Genotype) -> Genotype:
        """The genotype itself: other widths are another network."""
        return self.check(genotype)

    def format(self, genotype: Genotype) -> str:
        """The benchmark's text: ``8:16:64:8:32``."""
        return ":".join(map(str, self.widths(genotype)))

    def parse(self, text: str) -> Genotype:
        """Read the benchmark's text, or JSON.

        Raises:
            ValueError: If it is not five allowed widths.
        """
        text = text.strip()
        if text.startswith("{"):
            return self.from_json(text)
        parts, allowed = text.split(":"), {str(width): width for width in NATS_WIDTHS}
        if len(parts) != len(self.order) or not set(parts) <= set(allowed):
            raise ValueError(f"not five widths: {text[:60]!r}; expected 8:16:64:8:32, each one of {NATS_WIDTHS}")
        return self.from_widths([allowed[part] for part in parts])

    def graphs(self, genotype: Genotype) -> dict[str, CellGraph]:
        """A chain with the widths on its edges."""
        widths = self.widths(genotype)
        nodes = ("input", *map(str, range(1, len(widths))), "output")
        return {"network": CellGraph(nodes, tuple((k, k + 1, str(width)) for k, width in enumerate(widths)))}
