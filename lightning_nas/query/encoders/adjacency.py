"""The decisions of a genotype as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lightning_nas.arch import Decision, Genotype
from lightning_nas.query.encoders.base import Encoder
from lightning_nas.spaces import Space

__all__ = ["AdjacencyEncoder"]

_BITS = ("0", "1")


class AdjacencyEncoder(Encoder):
    """Edges and operations as features: what a genotype decides, decision by decision.

    Of a decision between ``"0"`` and ``"1"``, whether there is an edge, each form makes one number. Every other
    decision becomes a number for each choice (``"one-hot"``), or one number in [0, 1], the rank of the choice
    (``"ordinal"``); decisions that keep several choices have a number for each in both. ``"continuous"`` is ordinal
    with one more number at the end, the share of edges that there are. Decisions that do not apply are zero.

    NAS-Bench-201 has 30 one-hot features, NAS-Bench-101 has 21 + 15.

    Reference: White, Neiswanger, Nolen and Savani, "A Study on Encodings for Neural Architecture Search",
    NeurIPS 2020; Ying et al., "NAS-Bench-101", ICML 2019 (the continuous form).

    Args:
        space: Name of a search space, or a space.
        form: ``"one-hot"``, ``"ordinal"`` or ``"continuous"``.
        canonical: Whether genotypes are brought to the form that all equal ones share before they are encoded.

    Raises:
        ValueError: If the form is unknown.

    Example:
        >>> import random
        >>> encoder = AdjacencyEncoder("nasbench101")
        >>> encoder([encoder.space.sample(random.Random(0))]).shape
        torch.Size([1, 36])
    """

    def __init__(
        self,
        space: str | Space = "nasbench201",
        form: Literal["one-hot", "ordinal", "continuous"] = "one-hot",
        canonical: bool = False,
    ) -> None:
        super().__init__(space)
        if form not in ("one-hot", "ordinal", "continuous"):
            raise ValueError(f"form={form!r}; give 'one-hot', 'ordinal' or 'continuous'")
        self.form, self.canonical = form, canonical
        self.rows = [row for rows in self.space.decisions.values() for row in rows]

    def encode(self, genotypes: Sequence[Genotype]) -> Tensor:
        """``(n, features)`` in the order of the space's decisions."""
        if self.canonical:
            genotypes = [self.space.canonical(genotype) for genotype in genotypes]
        features = torch.tensor([[x for row in self.rows for x in self._one(row, g)] for g in genotypes])
        if self.form != "continuous":
            return features
        edges = [x for row in self.rows for x in [row.choices == _BITS] * self._width(row)]
        share = features[:, torch.tensor(edges)].mean(dim=1, keepdim=True).nan_to_num()
        return torch.cat([features, share], dim=1)

    def _several(self, row: Decision) -> bool:
        """Whether a decision has a number for each choice."""
        return row.keep > 1 or (self.form == "one-hot" and row.choices != _BITS)

    def _width(self, row: Decision) -> int:
        return len(row.choices) if self._several(row) else 1

    def _one(self, row: Decision, genotype: Genotype) -> list[float]:
        """The features of a decision."""
        kept = genotype.picks.get(row.name, ())
        if self._several(row):
            return [float(k in kept) for k in range(len(row.choices))]
        if not kept:
            return [0.0]
        return [kept[0] / max(1, len(row.choices) - 1)]
