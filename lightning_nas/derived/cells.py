"""The discrete cell: exactly the operations that a genotype keeps."""

from __future__ import annotations

import torch
from timm.layers.drop import drop_path
from torch import Tensor, nn

from lightning_nas.arch import Genotype, Sample
from lightning_nas.ops import OpSpec, Zero, make_op
from lightning_nas.spaces import CellPlace, CellSpace

__all__ = ["DiscreteCell"]


class DiscreteCell(nn.Module):
    """A cell that executes the edges of a genotype and nothing else.

    Batch normalisation has a scale and a shift and keeps running statistics, and a pooling has none, as the published
    evaluation networks have it. Submodules are named as in the supernet's cell: ``preprocess.<input>``, and
    ``edges.<row>`` for the operation that stands there at ``edges.<row>.<choice>``.

    In training each operation's output is dropped for whole samples with probability `drop_path` and scaled by what is
    kept, identities excepted (Larsson, Maire and Shakhnarovich, "FractalNet", ICLR 2017).

    Args:
        space: The space; gives the edges, the operations and what stands before them.
        genotype: An architecture of this space.
        place: Where the cell stands.

    Attributes:
        drop_path: The probability, a plain number.
        out_channels: Channels of the output.

    Raises:
        ValueError: If the genotype is of another space.

    Shape:
        - states: as many tensors ``(N, C_i, H, W)`` as the cell has inputs
        - output: ``(N, nodes * channels, H', W')`` concatenated, or ``(N, channels, H', W')``; zeros where a node
          receives only `none`

    Example:
        >>> from lightning_nas.spaces import load_genotype
        >>> space, genotype = load_genotype("darts_v2")
        >>> cell = DiscreteCell(space, genotype, CellPlace("reduce", 1, (8, 8), channels=4, reduction=True))
        >>> cell((torch.zeros(2, 8, 8, 8), torch.zeros(2, 8, 8, 8))).shape
        torch.Size([2, 16, 4, 4])
    """

    def __init__(self, space: CellSpace, genotype: Genotype, place: CellPlace) -> None:
        super().__init__()
        self.topology, self.in_channels = space.topology, place.in_channels
        self.out_channels = place.channels * (self.topology.nodes if self.topology.output == "concat" else 1)
        self.drop_path = 0.0
        self.strides = space.strides(place)
        self.preprocess = nn.ModuleList(space.preprocess(place, affine=True))
        self.edges = nn.ModuleDict()
        for row, choice in sorted(space.kept_rows(space.check(genotype), place.kind).items()):
            spec = OpSpec(place.channels, self.strides[row], affine=True, pool_bn=False)
            self.edges[str(row)] = make_op(space.op_name(place.kind, row, choice), spec)

    def forward(self, states: tuple[Tensor, ...], sample: Sample | None = None) -> Tensor:
        """Compute the cell for its inputs; the sample of a supernet's call is not looked at."""
        nodes = [prepare(state) for prepare, state in zip(self.preprocess, states, strict=True)]
        for target in range(self.topology.inputs, self.topology.inputs + self.topology.nodes):
            total: Tensor | None = None
            rows = self.topology.rows_into(target)
            for source, row in enumerate(rows):
                if str(row) in self.edges and not isinstance(self.edges[str(row)], Zero):
                    term = self._edge(row, nodes[source])
                    total = term if total is None else total + term
            nodes.append(Zero(self.strides[rows[0]])(nodes[0]) if total is None else total)
        inner = nodes[self.topology.inputs :]
        return torch.cat(inner, dim=1) if self.topology.output == "concat" else inner[-1]

    def _edge(self, row: int, x: Tensor) -> Tensor:
        """The operation of one edge, dropped at random for whole samples unless it is an identity."""
        op = self.edges[str(row)]
        out: Tensor = op(x)
        return out if isinstance(op, nn.Identity) else drop_path(out, self.drop_path, self.training)
