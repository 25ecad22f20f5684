"""The genotype of each epoch, where people look: in the terminal and in the experiment tracker."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning_utilities.core.rank_zero import rank_zero_warn

from lightning_nas.arch import Genotype
from lightning_nas.callbacks.terminal import print_above_bar
from lightning_nas.reports import draw_figure, draw_text, save_drawing
from lightning_nas.spaces import Space

__all__ = ["GenotypeLogger"]


class _HasGenotype(Protocol):
    space: Space

    def genotype(self) -> Genotype: ...


class GenotypeLogger(Callback):
    """After each epoch, draw the genotype in the terminal and log its text and picture to every logger that takes them.

    Weights & Biases gets the text as a table, the picture as an image, and the final genotype as an artifact;
    TensorBoard gets text and picture. Any other logger is left alone, and an error of a logger is no more than a
    warning.

    Args:
        terminal: Whether to print.
        every_n_epochs: Epochs between two reports.
        pictures: Whether loggers get pictures.

    Raises:
        ValueError: If `every_n_epochs` is not positive.

    Example:
        >>> import lightning as L
        >>> trainer = L.Trainer(callbacks=[GenotypeLogger(every_n_epochs=5)], logger=False, accelerator="cpu")
    """

    def __init__(self, terminal: bool = True, every_n_epochs: int = 1, pictures: bool = True) -> None:
        if every_n_epochs < 1:
            raise ValueError(f"every_n_epochs={every_n_epochs} must be at least 1")
        self.terminal, self.every_n_epochs, self.pictures = terminal, every_n_epochs, pictures
        self._texts: list[list[str]] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report the genotype that the epoch has led to."""
        if (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        search: _HasGenotype = pl_module  # type: ignore[assignment]
        genotype = search.genotype()  # in every process: a selection may let them agree
        if not trainer.is_global_zero:
            return
        if self.terminal:
            print_above_bar(
                trainer, f"genotype after epoch {trainer.current_epoch}\n{draw_text(search.space, genotype)}"
            )
        self._texts.append([str(trainer.current_epoch), search.space.format(genotype)])
        for logger in trainer.loggers:
            with _never_stopping(logger):
                self._log(logger, search.space, genotype, trainer.global_step)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the final genotype as an artifact of the run."""
        search: _HasGenotype = pl_module  # type: ignore[assignment]
        genotype = search.genotype()
        for logger in trainer.loggers if trainer.is_global_zero else ():
            if isinstance(logger, WandbLogger):
                with _never_stopping(logger):
                    _log_artifact(logger, search.space, genotype)

    def _log(self, logger: Logger, space: Space, genotype: Genotype, step: int) -> None:
        if isinstance(logger, WandbLogger):
            logger.log_text("genotype/text", columns=["epoch", "genotype"], data=list(self._texts))
            if self.pictures:
                with tempfile.TemporaryDirectory() as folder:
                    picture = save_drawing(space, genotype, Path(folder) / "cell")[1]
                    logger.log_image("genotype/cell", [str(picture)])
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text("genotype", f"`{space.format(genotype)}`", step)
            if self.pictures:
                logger.experiment.add_figure("genotype/cell", draw_figure(space, genotype), step)


@contextmanager
def _never_stopping(logger: Logger) -> Iterator[None]:
    """Turn an error of a logger (a full disk, a run that is finished) into a warning: the search goes on."""
    try:
        yield
    except Exception as error:
        rank_zero_warn(f"{type(logger).__name__} did not take the genotype: {type(error).__name__}: {error}")


def _log_artifact(logger: WandbLogger, space: Space, genotype: Genotype) -> None:
    import wandb

    artifact = wandb.Artifact(f"genotype-{logger.experiment.id}", type="genotype")
    with artifact.new_file("genotype.json", mode="w", encoding="utf-8") as file:
        file.write(space.to_json(genotype))
    logger.experiment.log_artifact(artifact)
