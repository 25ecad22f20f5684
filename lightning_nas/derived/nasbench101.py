"""The cell of NAS-Bench-101, and of NAS-Bench-1Shot1, as the published networks have it."""

from __future__ import annotations

import torch
from timm.layers.drop import drop_path
from torch import Tensor, nn

from lightning_nas.arch import Genotype, Sample
from lightning_nas.ops import ConvBN
from lightning_nas.spaces import CellPlace
from lightning_nas.spaces.nasbench101 import NASBench101Space, vertex_channels

__all__ = ["NASBench101Cell"]


class NASBench101Cell(nn.Module):
    """A cell that executes the pruned module of a genotype: an operation on each vertex between input and output.

    An inner vertex sums what reaches it: the inner vertices cut to its channels, and a 1x1 projection of the input.
    The output concatenates the inner vertices that reach it, and adds a projection of the input if that reaches it.
    Each convolution is followed by batch normalisation and ReLU.

    Args:
        space: The space.
        genotype: An architecture of it.
        place: Where the cell stands.

    Attributes:
        drop_path: Probability of dropping a vertex's output in training; the published networks drop nothing.
        in_channels: Channels of the input, in a tuple.
        out_channels: Channels of the output.

    Raises:
        ValueError: If the genotype is of another space, or the output has fewer channels than vertices to join.

    Shape:
        - states: a tuple of one tensor ``(N, in_channels, H, W)``
        - output: ``(N, out_channels, H, W)``

    Reference:
        Ying et al., "NAS-Bench-101: Towards Reproducible Neural Architecture Search", ICML 2019.

    Example:
        >>> space = NASBench101Space()
        >>> genotype = space.from_cell(["011", "001", "000"], ["input", "conv3x3-bn-relu", "output"])
        >>> cell = NASBench101Cell(space, genotype, CellPlace("cell", 0, (4,), 8))
        >>> cell((torch.zeros(2, 4, 6, 6),)).shape
        torch.Size([2, 8, 6, 6])
    """

    def __init__(self, space: NASBench101Space, genotype: Genotype, place: CellPlace) -> None:
        super().__init__()
        self.drop_path, self.in_channels, self.out_channels = 0.0, place.in_channels, place.channels
        matrix, ops = space.pruned(genotype)
        (c_in,), last = place.in_channels, len(matrix) - 1
        self.widths = vertex_channels(c_in, place.channels, matrix)
        self.sources = [[s for s in range(1, t) if matrix[s][t]] for t in range(last + 1)]
        self.ops = nn.ModuleDict({str(v): _operation(ops[v], self.widths[v]) for v in range(1, last)})
        self.projections = nn.ModuleDict(
            {str(v): _conv_bn_relu(c_in, self.widths[v], 1) for v in range(1, last + 1) if matrix[0][v]}
        )

    def forward(self, states: tuple[Tensor, ...], sample: Sample | None = None) -> Tensor:
        """Compute the cell for its input; the sample of a supernet's call is not looked at."""
        outputs = [states[-1]]
        for vertex, sources in enumerate(self.sources[1:-1], start=1):
            width = self.widths[vertex]
            total = self._sum([outputs[source][:, :width] for source in sources], vertex, states[-1])
            outputs.append(drop_path(self.ops[str(vertex)](total), self.drop_path, self.training))
        joined = [outputs[source] for source in self.sources[-1]]
        return self._sum([torch.cat(joined, dim=1)] if joined else [], len(self.sources) - 1, states[-1])

    def _sum(self, terms: list[Tensor], vertex: int, x: Tensor) -> Tensor:
        """What reaches a vertex: the terms and, where there is one, its projection of the input."""
        if str(vertex) in self.projections:
            terms = [*terms, self.projections[str(vertex)](x)]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total


def _conv_bn_relu(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    return ConvBN(in_channels, out_channels, kernel).append(nn.ReLU())


def _operation(name: str, channels: int) -> nn.Module:
    """The operation of a vertex, which keeps the number of channels."""
    if name == "maxpool3x3":
        return nn.MaxPool2d(3, stride=1, padding=1)
    return _conv_bn_relu(channels, channels, 3 if name == "conv3x3-bn-relu" else 1)
