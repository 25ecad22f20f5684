"""The network of a genotype."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.arch import Genotype
from lightning_nas.derived.auxiliary import AuxiliaryHead
from lightning_nas.derived.blocks import DiscreteBlock
from lightning_nas.derived.bodies import body_of, published_size, published_stem, read
from lightning_nas.derived.cells import DiscreteCell
from lightning_nas.derived.enas import DiscreteENASCell, DiscreteENASLayers
from lightning_nas.derived.nasbench101 import NASBench101Cell
from lightning_nas.derived.nasnet import NASNetCell
from lightning_nas.spaces import CellNetwork, NetworkSize, Space
from lightning_nas.spaces.skeleton import StemName

__all__ = ["DerivedNetwork"]

_WITH_DROP_PATH = (
    DiscreteBlock,
    DiscreteCell,
    DiscreteENASCell,
    DiscreteENASLayers,
    NASBench101Cell,
    NASNetCell,
)


class DerivedNetwork(nn.Module):
    """The network of a genotype, at any depth and width, with timm's conventions for features and classifier.

    Args:
        genotype: A genotype; or a published name, the field's own text, JSON, or the path of a file with one.
        space: The space of a genotype given as an object, if it is not one of the registered spaces.
        channels: Channels of the first stage; ``None`` for the published number. All widths of a chain of blocks, or of
            a network that is searched as a whole, are in proportion.
        cells: Number of cells (DARTS, NASNet) or of cells a stage (NAS-Bench-101 and 201, BlockQNN); ``None`` for the
            published number. A chain has as many blocks as decisions.
        num_classes: Outputs of the classifier; 0 for none, then `forward` gives pooled features.
        in_channels: Channels of the pictures.
        stem: ``"cifar"`` keeps the resolution at the start, ``"imagenet"`` reduces it; ``None`` for that of the space's
            supernet, ``"cifar"`` for cells and ``"imagenet"`` for chains of blocks.
        auxiliary: Whether there is an auxiliary head, see `forward_with_auxiliary`. It stands on the block at two
            thirds of the depth: in the DARTS space the second reduction cell, as published; in NAS-Bench-201, which
            publishes none, the residual block that ends the second stage.
        drop_path: Probability of dropping an operation's output in training, see `set_drop_path`.
        drop_rate: Dropout before the classifier.

    Attributes:
        genotype: The genotype.
        space: Its space.
        body: Stem, cells and classifier, with the parameter names of the supernet.
        auxiliary: The auxiliary head, or ``None``.
        num_features: Channels of the feature map.
        reductions: How often the resolution is halved.

    Raises:
        ValueError: If the genotype is none or of another space, or a size, a probability or the stem is not allowed.

    Shape:
        - input: ``(N, in_channels, H, W)``, H and W divisible by ``2 ** reductions``
        - output: ``(N, num_classes)``

    Example:
        >>> network = DerivedNetwork("darts_v2", channels=4, cells=3, num_classes=7)
        >>> network(torch.zeros(2, 3, 16, 16)).shape
        torch.Size([2, 7])
    """

    def __init__(
        self,
        genotype: str | Path | Genotype,
        *,
        space: Space | None = None,
        channels: int | None = None,
        cells: int | None = None,
        num_classes: int = 10,
        in_channels: int = 3,
        stem: StemName | None = None,
        auxiliary: bool = False,
        drop_path: float = 0.0,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.space, self.genotype = read(genotype, space)
        stem = published_stem(self.space) if stem is None else stem
        default_channels, default_cells = published_size(self.space, stem)
        self.size = NetworkSize(
            default_channels if channels is None else channels,
            default_cells if cells is None else cells,
            num_classes,
            in_channels,
            stem,
        )
        if auxiliary and not num_classes:
            raise ValueError("an auxiliary head needs classes; give num_classes of at least 1, or auxiliary=False")
        self.body = body_of(self.space, self.genotype, self.size)
        self.num_classes, self.global_pool = num_classes, "avg"
        self.num_features = self.head_hidden_size = self.body.num_features
        self.reductions = self.body.reductions
        self._auxiliary_after = 2 * len(self.body.blocks) // 3
        self.auxiliary = self._auxiliary_head() if auxiliary else None
        self.drop_rate = _probability("drop_rate", drop_rate)
        self.set_drop_path(drop_path)
        layers = (name for name, part in self.body.named_modules() if isinstance(part, (nn.Conv2d, nn.Linear)))
        cfg = timm_cfg(self.size) | {"first_conv": f"body.{next(layers)}"}
        self.pretrained_cfg = self.default_cfg = cfg

    def _auxiliary_head(self) -> AuxiliaryHead:
        channels = _channels_after(self.body, self._auxiliary_after)
        return AuxiliaryHead(channels, self.num_classes, second_norm=self.size.stem == "cifar")

    def set_drop_path(self, probability: float) -> None:
        """Drop each operation's output in training, identities excepted, with this probability for each sample.

        Raises:
            ValueError: If it is not at least 0 and less than 1.
        """
        self.drop_path = _probability("drop_path", probability)
        for cell in self.body.blocks:
            if isinstance(cell, _WITH_DROP_PATH):
                cell.drop_path = self.drop_path

    def forward(self, x: Tensor) -> Tensor:
        """Pictures ``(N, C, H, W)`` -> logits ``(N, num_classes)``, the auxiliary head left out."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Pictures ``(N, C, H, W)`` -> feature map ``(N, num_features, h, w)``.

        Raises:
            ValueError: If the pictures have another number of channels, or cannot be halved often enough.
        """
        self._check(x)
        return self.body.forward_features(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Feature map ``(N, num_features, h, w)`` -> logits, or what the classifier takes with `pre_logits`."""
        if self.global_pool:
            x = torch.mean(x, dim=(2, 3))
        x = F.dropout(x, self.drop_rate, self.training)
        return x if pre_logits else self.get_classifier()(x)

    def forward_with_auxiliary(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures ``(N, C, H, W)`` -> logits of the classifier and of the auxiliary head.

        Raises:
            ValueError: If the network has no auxiliary head, or the pictures do not fit.
        """
        if self.auxiliary is None:
            raise ValueError("the network has no auxiliary head; build it with auxiliary=True")
        self._check(x)
        out, middle = x, x
        for index, out in enumerate(self.body.outputs(x)):
            middle = out if index == self._auxiliary_after else middle
        return self.forward_head(self.body.tail(out)), self.auxiliary(middle)

    def get_classifier(self) -> nn.Module:
        """The classifier; an identity without classes."""
        return self.body.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put new classifiers, with fresh weights, in place of the old ones.

        Args:
            num_classes: Outputs; 0 for none (then without the auxiliary head too).
            global_pool: ``"avg"``; or ``""`` without classes, for feature maps; ``None`` leaves it as it is.

        Raises:
            ValueError: If the number is negative, or the pooling is unknown or does not go with it.
        """
        pool = self.global_pool if global_pool is None else global_pool
        if num_classes < 0 or pool not in ("avg", "") or (num_classes and not pool):
            raise ValueError(
                f"num_classes={num_classes}, global_pool={pool!r}: give global_pool='avg' and num_classes of at least"
                " 0, or global_pool='' and num_classes=0"
            )
        device = next(self.parameters()).device
        self.num_classes, self.global_pool = num_classes, pool
        head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.body.classifier = head.to(device)
        if self.auxiliary is not None:
            self.auxiliary = self._auxiliary_head().to(device) if num_classes else None

    def _check(self, x: Tensor) -> None:
        if x.ndim != 4 or x.shape[1] != self.size.in_channels:
            raise ValueError(
                f"pictures of shape {tuple(x.shape)} were given to a network of in_channels={self.size.in_channels};"
                " expected (N, in_channels, H, W)"
            )


def _channels_after(body: CellNetwork, index: int) -> int:
    """Channels of a block's output: its own word, or what the cell behind it takes."""
    for candidate in body.blocks[index + 1 : index + 2]:
        if isinstance(candidate, (DiscreteCell, NASBench101Cell)):
            return candidate.in_channels[-1]
    return int(getattr(body.blocks[index], "out_channels", body.num_features))


def _probability(name: str, value: float) -> float:
    if not 0 <= value < 1:
        raise ValueError(f"{name}={value} must be at least 0 and less than 1")
    return float(value)


def timm_cfg(size: NetworkSize) -> dict[str, Any]:
    """What timm's data and head functions read of a model; there are no pretrained weights."""
    imagenet, rgb = size.stem == "imagenet", size.in_channels == 3
    side = 224 if imagenet else 32
    mean, std = (0.485, 0.456, 0.406) if imagenet else (0.4914, 0.4822, 0.4465), (0.229, 0.224, 0.225)
    std = std if imagenet else (0.2470, 0.2435, 0.2616)
    return {
        "url": "",
        "num_classes": size.num_classes,
        "input_size": (size.in_channels, side, side),
        "pool_size": None,
        "crop_pct": 0.875 if imagenet else 1.0,
        "interpolation": "bicubic",
        "mean": mean if rgb else (0.5,) * size.in_channels,
        "std": std if rgb else (0.5,) * size.in_channels,
        "first_conv": "body.stem.stem0.0" if imagenet else "body.stem.conv.0",
        "classifier": "body.classifier",
    }
