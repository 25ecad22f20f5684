"""The searched cell of NAS-Bench-1Shot1: choice blocks that mix their inputs, then their operations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.arch import Sample
from lightning_nas.ops import ConvBNReLU, OpSpec, make_op
from lightning_nas.spaces.one_shot1 import NASBench1Shot1Space
from lightning_nas.spaces.skeleton import CellPlace

__all__ = ["ChoiceBlockCell"]


class ChoiceBlockCell(nn.Module):
    r"""A cell with every wiring and every operation; the sample says how much of each, and which to execute.

    With the weights :math:`a` of a block's inputs and :math:`p` of its operations, and :math:`b` of the output,

    .. math:: h_i = \sum_o p_{io} \, o(\sum_{j<i} a_{ij} h_j), \qquad y = b_0 \, h_0' + [b_1 h_1, ..., b_n h_n]

    where each block (and the output) has its own 1x1 projection :math:`h_0` (:math:`h_0'`) of the cell's input. Inputs
    of a block that has no choice count with weight one. A choice that is not active is not executed, nor is a block
    that no active choice asks for; its channels of the output are zero. The projections that are needed are one
    convolution and one normalisation, since they share their input.

    Reference: Zela, Siems and Hutter, "NAS-Bench-1Shot1", ICLR 2020. Normalisation has a scale, as published.

    Args:
        space: One of the three spaces.
        place: Where the cell stands.

    Shape:
        - states: a tuple of one tensor ``(N, C_in, H, W)``
        - output: ``(N, blocks * channels, H, W)``

    Example:
        >>> import random
        >>> space = NASBench1Shot1Space(1)
        >>> cell = ChoiceBlockCell(space, CellPlace("cell", 0, (4,), 8))
        >>> cell((torch.zeros(2, 4, 6, 6),), space.vertex(space.sample(random.Random(0)))).shape
        torch.Size([2, 32, 6, 6])
    """

    def __init__(self, space: NASBench1Shot1Space, place: CellPlace) -> None:
        super().__init__()
        (c_in,), self.channels = place.in_channels, place.channels
        self.input_rows = [space.input_row(block) for block in range(1, space.blocks + 1)]
        self.projections = nn.ModuleList(ConvBNReLU(c_in, self.channels, 1, track_stats=False) for _ in self.input_rows)
        self.output_projection = ConvBNReLU(c_in, space.blocks * self.channels, 1, track_stats=False)
        spec = OpSpec(self.channels, track_stats=False)
        self.blocks = nn.ModuleList(
            nn.ModuleList(make_op(op, spec) for op in decision.choices) for decision in space.decisions["ops"]
        )

    def forward(self, states: tuple[Tensor, ...], sample: Sample) -> Tensor:
        """Compute the cell for its input under a sample."""
        (x,) = states
        output = _open(sample, "output", 0, len(self.blocks) + 1)
        needed = self._needed(sample, output)
        projected = self._project(x, needed, output, sample)
        layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        empty = x.new_zeros(x.shape[0], self.channels, *x.shape[2:]).to(memory_format=layout)
        values: list[Tensor] = []
        for index in range(len(self.blocks)):
            before = [projected.get(index, empty), *values]
            values.append(self._block(index, before, empty, sample) if index + 1 in needed else empty)
        parts = [_weigh(sample, "output", 0, k, h) if k in output else empty for k, h in enumerate(values, start=1)]
        joined = torch.cat(parts, dim=1)
        return joined + _weigh(sample, "output", 0, 0, projected[len(values)]) if 0 in output else joined

    def _project(self, x: Tensor, needed: set[int], output: Sequence[int], sample: Sample) -> dict[int, Tensor]:
        """The input as each block that is needed and takes it projects it; the output's stands behind the blocks'."""
        blocks = range(len(self.blocks))
        taken = [index for index in blocks if index + 1 in needed and 0 in self._inputs(index, sample)]
        modules = [self.projections[index] for index in taken]
        if 0 in output:
            taken, modules = [*taken, len(blocks)], [*modules, self.output_projection]
        if not taken:
            return {}
        convs = [part for module in modules for part in module.modules() if isinstance(part, nn.Conv2d)]
        norms = [part for module in modules for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
        scale, shift = torch.cat([norm.weight for norm in norms]), torch.cat([norm.bias for norm in norms])
        out = F.conv2d(x, torch.cat([conv.weight for conv in convs]))
        out = F.relu_(F.batch_norm(out, None, None, scale, shift, True, 0.0, norms[0].eps))
        return dict(zip(taken, torch.split(out, [conv.out_channels for conv in convs], dim=1), strict=True))

    def _block(self, index: int, before: Sequence[Tensor], empty: Tensor, sample: Sample) -> Tensor:
        """The mixture of its operations on the mixture of its inputs; zeros where a mixture has no active part."""
        row, ops = self.input_rows[index], list(self.blocks[index].children())
        taken = [(source, before[source]) for source in self._inputs(index, sample)]
        total = _add([h if row is None else _weigh(sample, "inputs", row, j, h) for j, h in taken], empty)
        chosen = _open(sample, "ops", index, len(ops))
        return _add([_weigh(sample, "ops", index, choice, ops[choice](total)) for choice in chosen], empty)

    def _inputs(self, index: int, sample: Sample) -> Sequence[int]:
        row = self.input_rows[index]
        return range(index + 1) if row is None else _open(sample, "inputs", row, index + 1)

    def _needed(self, sample: Sample, output: Sequence[int]) -> set[int]:
        """The nodes from which active choices lead to the output."""
        needed = set(output)
        for index in reversed(range(len(self.blocks))):
            if index + 1 in needed:
                needed |= set(self._inputs(index, sample))
        return needed


def _add(terms: Sequence[Tensor], empty: Tensor) -> Tensor:
    """Their sum, in their memory format; `empty` if there are none."""
    return reduce(torch.add, terms) if terms else empty


def _open(sample: Sample, group: str, row: int, choices: int) -> Sequence[int]:
    """The active choices of a row."""
    rows = sample.open(group)
    return range(choices) if rows is None else rows[row]


def _weigh(sample: Sample, group: str, row: int, choice: int, value: Tensor) -> Tensor:
    weights = sample.weights.get(group)
    return value if weights is None else weights[row, choice] * value
