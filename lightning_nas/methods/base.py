"""What every search method is in a Trainer: it has a space, says its genotype, and keeps both in its checkpoints."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from lightning.pytorch.callbacks import Callback

from lightning_nas import strategy
from lightning_nas.arch import Genotype
from lightning_nas.callbacks import GenotypeLogger
from lightning_nas.spaces import Space, get_space
from lightning_nas.training import ReproducibleModule

__all__ = ["SearchModule"]


class SearchModule(ReproducibleModule):
    """A search in a space, optimised by hand, whose genotype can be read at any time.

    Args:
        space: Name of a search space, or a space.
        callbacks: Callbacks that belong to the method. A Trainer's own callback of the same class takes the place of
            one.

    Raises:
        ValueError: If no space has this name.
    """

    def __init__(self, space: str | Space, callbacks: Sequence[Callback] = ()) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.space, self.own_callbacks = get_space(space), tuple(callbacks)

    @abstractmethod
    def genotype(self) -> Genotype:
        """The genotype that the search has come to."""

    def configure_callbacks(self) -> list[Callback]:
        """The method's own callbacks and a `GenotypeLogger`, each unless the Trainer has one of the same class.

        Lightning calls this before all else, so options that a search cannot take are refused here.
        """
        strategy.require_supported(self.trainer)
        given: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        own = (*self.own_callbacks, GenotypeLogger())
        return [callback for callback in own if not any(isinstance(other, type(callback)) for other in given)]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the space and the genotype as text."""
        super().on_save_checkpoint(checkpoint)
        checkpoint |= {"space": self.space.name, "genotype": self.space.format(self.genotype())}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another space.

        Raises:
            ValueError: If it is one.
        """
        if checkpoint.get("space") != self.space.name:
            raise ValueError(
                f"the checkpoint is of space {checkpoint.get('space')!r}, the search of {self.space.name!r}; resume it"
                " with the space it was made with"
            )
        super().on_load_checkpoint(checkpoint)
