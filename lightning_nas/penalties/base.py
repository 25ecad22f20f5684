"""The protocol of regularizers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from lightning_nas.arch import Sample
from lightning_nas.costs import network_size
from lightning_nas.relaxations import Relaxation
from lightning_nas.spaces import NetworkSize, Space

__all__ = ["Regularizer", "Searching", "image_size_of", "size_of"]


@runtime_checkable
class Regularizer(Protocol):
    """A differentiable scalar of the relaxation and the sample of the architecture step.

    A search adds it to its upper loss, or multiplies the loss by it if it has an attribute `multiplies` that is true.
    If it has a method `setup`, the search calls it with itself before the first step.
    """

    # jsonargparse takes a protocol whose call gives an instance of a class for a factory of that class, hence Any
    def __call__(self, relaxation: Relaxation, sample: Sample) -> Any:
        """The penalty, a scalar tensor."""


class Searching(Protocol):
    """What a regularizer reads of a search in its `setup`."""

    space: Space

    @property
    def hparams(self) -> Mapping[str, Any]:
        """Its arguments; channels, cells, num_classes and in_channels are read."""

    @property
    def trainer(self) -> Any:
        """Its Trainer; the data module says the size of the pictures."""


def size_of(search: Searching, channels: int | None = None, cells: int | None = None) -> NetworkSize:
    """The size of the search's supernet, where no other channels or cells are given."""
    own = search.hparams
    channels = int(own["channels"]) if channels is None else channels
    cells = own["cells"] if cells is None else cells
    return network_size(search.space, channels, cells, own["num_classes"], own["in_channels"])


def image_size_of(search: Searching) -> int | None:
    """Height and width of the pictures, if the data module says them."""
    return getattr(getattr(search.trainer, "datamodule", None), "image_size", None)
