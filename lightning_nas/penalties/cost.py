"""The expected cost of an architecture as a part of the upper loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from lightning_nas.arch import Sample, Support
from lightning_nas.costs import CostName, CostTable, cost_table
from lightning_nas.penalties.base import Searching, image_size_of, size_of
from lightning_nas.relaxations import Relaxation
from lightning_nas.spaces import NetworkSize, Space

__all__ = ["ExpectedCost"]

Form = Literal["linear", "log", "ratio", "product"]
Of = Literal["expected", "sample", "drawn"]
FORMS: tuple[str, ...] = ("linear", "log", "ratio", "product")
OFS: tuple[str, ...] = ("expected", "sample", "drawn")
_LEAST = 1e-3
"""Of a cost below, or above one by less, no logarithm is taken."""


class ExpectedCost:
    r"""What the network costs, differentiable for every relaxation.

    With :math:`E` the cost, :math:`\lambda` the weight, :math:`R` the reference and :math:`p` the power, the forms are

    - ``"linear"``: adds :math:`\lambda E` (SNAS; with `above`, DSNAS),
    - ``"log"``: adds :math:`\lambda \log E` (SNAS),
    - ``"ratio"``: adds :math:`\lambda (E - R) / R` (ProxylessNAS; 0.1 with a reference of 80 ms),
    - ``"product"``: multiplies the loss by :math:`\lambda (\log E / \log R)^p` (ProxylessNAS: 0.2 and 0.3; FBNet: 0.2
      and 0.6, without reference, which stands for :math:`\log R = 1`).

    And what :math:`E` is taken of:

    - ``"expected"``: the expected weights of the relaxation, see `CostTable.expected`,
    - ``"sample"``: the weights of the sample that the loss is computed with (SNAS),
    - ``"drawn"``: the expected weights of what the sample has drawn, and nothing of the rest (DSNAS).

    Costs are counted in MACs, parameters or milliseconds, so a weight of 1e-8 suits a linear penalty of MACs. Relaxed
    inputs count too: an edge with the probability that its end takes it.

    References: Xie et al., "SNAS", ICLR 2019; Cai, Zhu and Han, "ProxylessNAS", ICLR 2019; Wu et al., "FBNet", CVPR
    2019; Hu et al., "DSNAS", CVPR 2020.

    Args:
        cost: ``"macs"``, ``"params"`` or ``"latency"``, of networks of the search's own size unless another is given;
            or a table of your own.
        weight: The factor; callbacks may set it.
        form: How the cost enters the loss.
        reference: The cost that is aimed at, in the same unit.
        power: Exponent of the form ``"product"``.
        of: What the cost is taken of.
        above: The cost of the sample up to which there is no penalty; ``None`` for none. Not for ``"product"``.
        latency_file: Milliseconds of the operations, see `lightning-nas latency`.
        channels: Channels of the first stage; ``None`` for those of the search.
        cells: Number of cells; ``None`` for that of the search.
        image_size: Height and width of the pictures; ``None`` for those of the data module.

    Attributes:
        table: The costs; made when a search begins, unless given.

    Raises:
        ValueError: If a name, or a number for a form, is not allowed.

    Example:
        >>> from lightning_nas.relaxations import Softmax
        >>> from lightning_nas.spaces import get_space
        >>> space = get_space("nasbench201")
        >>> relaxation = Softmax(space.decisions, init_std=0.0)
        >>> penalty = ExpectedCost("params", 1e-6)
        >>> penalty.build(space, NetworkSize(16, 5), 32)
        >>> round(penalty(relaxation, relaxation()).item(), 4)
        0.3986
    """

    def __init__(
        self,
        cost: CostName | CostTable,
        weight: float,
        form: Form = "linear",
        reference: float | None = None,
        power: float = 0.3,
        of: Of = "expected",
        above: float | None = None,
        latency_file: str | None = None,
        channels: int | None = None,
        cells: int | None = None,
        image_size: int | None = None,
    ) -> None:
        _require_known(form, of)
        _require_reference(form, reference, above)
        if not isinstance(cost, CostTable) and (cost == "latency") != (latency_file is not None):
            raise ValueError(
                f"cost={cost!r}, latency_file={latency_file!r}: latencies need a file, other costs none; measure one:"
                " lightning-nas latency --help"
            )
        self.cost, self.weight, self.form, self.reference, self.power = cost, weight, form, reference, power
        self.of, self.above, self.latency_file = of, above, latency_file
        self.channels, self.cells, self.image_size = channels, cells, image_size
        self.table: CostTable | None = cost if isinstance(cost, CostTable) else None
        self._near = self.table  # the same, on the device and with the precision of the last weights
        if self.table is not None:
            self._require_large(self.table)

    @property
    def multiplies(self) -> bool:
        """Whether it is a factor of the loss, and not a term."""
        return self.form == "product"

    def setup(self, search: Searching) -> None:
        """Make the table of the search's space and size, unless one was given.

        Raises:
            ValueError: If the space has none, or latencies or the size of the pictures are missing.
        """
        if isinstance(self.cost, CostTable):
            return
        size = size_of(search, self.channels, self.cells)
        self.build(search.space, size, image_size_of(search) if self.image_size is None else self.image_size)

    def build(self, space: Space, size: NetworkSize, image_size: int | None) -> None:
        """Make the table of a space and a size."""
        if isinstance(self.cost, CostTable):
            raise ValueError("the table was given; leave it, or name a cost to have one made")
        self.table = self._near = cost_table(space, size, image_size, self.cost, self.latency_file)
        self._require_large(self.table)

    def __call__(self, relaxation: Relaxation, sample: Sample) -> Tensor:
        """The penalty, or the factor of the loss."""
        if self._near is None:
            raise ValueError(f"the table of {self.cost} is not made yet; call setup(search) or build(space, size, ...)")
        weights = self._weights(relaxation, sample)
        table = self._near = self._near.to(next(iter(weights.values()), torch.zeros(())))
        value = self._formed(table.expected(weights, relaxation.support, inclusive=relaxation.discrete))
        if self.above is None:
            return value
        drawn = table.expected(sample.weights, relaxation.support, inclusive=relaxation.discrete)
        return value * (drawn.detach() > self.above)

    def _weights(self, relaxation: Relaxation, sample: Sample) -> Mapping[str, Tensor]:
        """The weights that the cost is taken of."""
        if self.of == "sample":
            return sample.weights
        expected = relaxation.expected()
        if self.of == "expected":
            return expected
        return {group: rows * sample.weights[group].detach() for group, rows in expected.items()}

    def _formed(self, cost: Tensor) -> Tensor:
        if self.form == "linear":
            return self.weight * cost
        if self.form == "log":
            return self.weight * cost.clamp(min=_LEAST).log()
        if self.form == "ratio" and self.reference is not None:
            return self.weight * (cost - self.reference) / self.reference
        scale = 1.0 if self.reference is None else math.log(self.reference)
        return self.weight * (cost.clamp(min=1 + _LEAST).log() / scale) ** self.power

    def _require_large(self, table: CostTable) -> None:
        """Refuse a unit so large that logarithms of costs are negative."""
        even = table.expected({}, Support(table.decisions)).item()
        if self.multiplies and even <= 1:
            raise ValueError(
                f"form='product' takes the logarithm of the cost, and a network of even weights costs {even:.3g}"
                f" {table.unit}; give costs in a smaller unit"
            )


def _require_known(form: str, of: str) -> None:
    for name, value, allowed in (("form", form, FORMS), ("of", of, OFS)):
        if value not in allowed:
            raise ValueError(f"{name}={value!r} is unknown; allowed are {', '.join(allowed)}")


def _require_reference(form: str, reference: float | None, above: float | None) -> None:
    if form == "ratio" and reference is None:
        raise ValueError("form='ratio' needs a reference: the cost that is aimed at")
    if reference is not None and (form in ("linear", "log") or reference <= (1 if form == "product" else 0)):
        raise ValueError(
            f"reference={reference} with form={form!r}: only 'ratio' and 'product' have one, positive, for 'product'"
            " above one, of whose logarithm it is"
        )
    if above is not None and form == "product":
        raise ValueError("form='product' multiplies the loss and cannot stop at a budget; leave above at None")
