"""The setting of a micro-benchmark: in it its cells are trained from scratch, and supernets are searched."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_nas.arch import Genotype
from lightning_nas.data import NPZDataModule
from lightning_nas.data.augment import Augment
from lightning_nas.derived import DerivedNetwork, DerivedTraining
from lightning_nas.optimizers import SGDCosine
from lightning_nas.spaces import SmallSpace

__all__ = ["MicroSetting"]


@dataclass(frozen=True)
class MicroSetting:
    """How large the networks are, what they see, and how long they are trained.

    Args:
        space: Name of a small space.
        channels: Channels of the first stage.
        cells: Number of cells, the second and third of which halve the resolution.
        image_size: Height and width to which the pictures are reduced.
        crop: Padding of random crops; pictures are flipped too.
        batch_size: Pictures in a batch.
        epochs: Epochs of training from scratch.
        lr: Initial learning rate, which falls to 0 by a cosine.
        val_fraction: Part of the training pictures held out for validation.

    Example:
        >>> MicroSetting("small_sep").network_space.name
        'small_sep'
    """

    space: str
    channels: int = 8
    cells: int = 3
    image_size: int = 16
    crop: int = 2
    batch_size: int = 64
    epochs: int = 10
    lr: float = 0.05
    val_fraction: float = 0.2

    @property
    def network_space(self) -> SmallSpace:
        """The space."""
        return SmallSpace(self.space)

    def data(self, path: str, seed: int, batch_size: int | None = None) -> NPZDataModule:
        """The pictures of an ``.npz`` file as this setting wants them; the validation part is the same for all seeds.

        Args:
            path: The file, see `NPZDataModule`.
            seed: Seed of the order of batches and of the augmentation.
            batch_size: Pictures in a batch; ``None`` for those of the setting.
        """
        data = NPZDataModule(
            path,
            batch_size=self.batch_size if batch_size is None else batch_size,
            val_fraction=self.val_fraction,
            augment=Augment(crop=self.crop, flip=True),
            seed=0,
            image_size=self.image_size,
        )
        _ = data.splits  # held out with seed 0
        data.seed = seed
        return data

    def training(self, genotype: Genotype, num_classes: int, in_channels: int) -> DerivedTraining:
        """The training of a cell's network from scratch."""
        network = DerivedNetwork(
            genotype,
            space=self.network_space,
            channels=self.channels,
            cells=self.cells,
            num_classes=num_classes,
            in_channels=in_channels,
        )
        return DerivedTraining(
            network=network,
            num_classes=num_classes,
            in_channels=in_channels,
            w=SGDCosine(lr=self.lr),
            auxiliary_weight=0.0,
            drop_path=0.0,
        )
