"""The discrete block of a chain: the candidate that a genotype keeps."""

from __future__ import annotations

from timm.layers.drop import drop_path
from torch import Tensor, nn

from lightning_nas.arch import Genotype, Sample
from lightning_nas.ops import Zero
from lightning_nas.spaces.chain_skeleton import BlockPlace
from lightning_nas.spaces.chain_space import ChainSpace

__all__ = ["DiscreteBlock"]


class DiscreteBlock(nn.Module):
    """One candidate, and the shortcut around it where the shape stays.

    Batch normalisation has a scale and a shift and keeps running statistics. Parameters are named as in the supernet's
    block, ``ops.{choice}``, so that its weights load here. In training the candidate's output is dropped for whole
    samples with probability `drop_path` where there is a shortcut (Larsson, Maire and Shakhnarovich, "FractalNet",
    ICLR 2017).

    Args:
        space: The space.
        genotype: An architecture of this space.
        place: Where the block stands.

    Attributes:
        drop_path: The probability, a plain number.
        out_channels: Channels of the output.

    Raises:
        ValueError: If the genotype is of another space.

    Example:
        >>> import random, torch
        >>> from lightning_nas.spaces import get_space
        >>> space = get_space("shufflenet")
        >>> block = DiscreteBlock(space, space.sample(random.Random(0)), space.places[0])
        >>> block((torch.zeros(2, 16, 8, 8),)).shape
        torch.Size([2, 64, 4, 4])
    """

    def __init__(self, space: ChainSpace, genotype: Genotype, place: BlockPlace) -> None:
        super().__init__()
        row = space.rows[place.index]
        (choice,) = space.check(genotype).picks[row.name]
        self.ops = nn.ModuleDict({str(choice): space.make(row.choices[choice], place, affine=True)})
        self.shortcut = place.keeps_shape and space.shortcut != "none"
        self.drop_path, self.out_channels = 0.0, place.out_channels

    def forward(self, states: tuple[Tensor, ...], sample: Sample | None = None) -> Tensor:
        """Compute the block for its input; the sample of a supernet's call is not looked at."""
        x = states[-1]
        (op,) = self.ops.values()
        if not self.shortcut:
            out: Tensor = op(x)
            return out
        return x if isinstance(op, Zero) else x + drop_path(op(x), self.drop_path, self.training)
