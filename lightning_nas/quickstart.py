"""The main job on a small scale: search a cell on pictures of digits, train the network it gives, test it once."""

import itertools
import time
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from lightning_nas.data import BilevelDataModule, DigitsDataModule
from lightning_nas.derived import DerivedTraining
from lightning_nas.methods import DARTS
from lightning_nas.optimizers import AdamTheta, SGDCosine
from lightning_nas.reports import list_artifacts, plot_metrics, require_writable, write_genotype, write_summary
from lightning_nas.spaces import CellSpace, NetworkSize, get_space

__all__ = ["quickstart"]


def quickstart(
    run_dir: str = "runs/quickstart",
    space: str = "darts",
    search_epochs: int = 20,
    train_epochs: int = 40,
    search_channels: int = 8,
    search_cells: int = 3,
    train_channels: int = 16,
    train_cells: int = 5,
    seed: int = 0,
) -> None:
    """Search a cell on scikit-learn's digits with DARTS, train the network it gives from scratch, and test it once.

    Args:
        run_dir: Folder for all that the run leaves; one that is there already is kept under another name.
        space: Name of a cell space.
        search_epochs: Epochs of the search.
        train_epochs: Epochs of the training of the derived network.
        search_channels: Channels of the supernet's first stage.
        search_cells: Cells of the supernet.
        train_channels: Channels of the derived network's first stage.
        train_cells: Cells of the derived network.
        seed: Seed of everything but the choice of the test pictures, which is fixed.

    Raises:
        ValueError: If the space is unknown or a number is not allowed.
        OSError: If the folder cannot be written.
    """
    settings = dict(locals())
    if min(search_epochs, train_epochs) < 1:
        raise ValueError(f"search_epochs={search_epochs}, train_epochs={train_epochs}: give at least 1 of each")
    if not isinstance(get_space(space), CellSpace):
        raise ValueError(f"the quickstart builds no networks of {space!r}; run 'lightning-nas search' there instead")
    NetworkSize(train_channels, train_cells)  # refuses what the training would refuse after the search
    L.seed_everything(seed, verbose=False)
    search = DARTS(
        space,
        channels=search_channels,
        cells=search_cells,
        in_channels=1,
        w=SGDCosine(lr=0.1, lr_min=0.001),
        theta=AdamTheta(lr=0.03),
        seed=seed,
    )
    folder = _fresh_folder(Path(run_dir))
    (folder / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")

    started = time.perf_counter()
    _trainer(folder, "search", search_epochs).fit(search, BilevelDataModule(DigitsDataModule(seed=seed), seed=seed))
    search_seconds = time.perf_counter() - started
    genotype = search.genotype()
    write_genotype(search.space, genotype, folder)

    training = DerivedTraining(
        search.space.to_json(genotype),
        channels=train_channels,
        cells=train_cells,
        in_channels=1,
        w=SGDCosine(lr=0.1),
        drop_path=0.1,
    )
    data = DigitsDataModule(seed=seed)
    trainer = _trainer(folder, "train", train_epochs)
    started = time.perf_counter()
    trainer.fit(training, data)
    train_seconds = time.perf_counter() - started
    accuracy = float(trainer.test(training, data, verbose=False)[0]["test/acc"])

    summary = training.summary() | {
        "search_seconds": round(search_seconds, 1),
        "train_seconds": round(train_seconds, 1),
        "test_accuracy": accuracy,
        "test_pictures": len(data.test_labels),
        "seed": seed,
    }
    for part in ("search", "train"):
        plot_metrics(folder / part / "metrics.csv", folder / f"{part}.png")
    write_summary(folder, summary)
    _report(summary, folder)


def _fresh_folder(folder: Path) -> Path:
    """The folder, empty; what an earlier run left there is kept beside it."""
    if folder.is_dir() and any(folder.iterdir()):
        taken = (Path(f"{folder}.{k}") for k in itertools.count(1))
        kept = next(path for path in taken if not path.exists())
        folder.rename(kept)
        print(f"an earlier run is kept in {kept}")
    return require_writable(folder)


def _trainer(folder: Path, part: str, epochs: int) -> L.Trainer:
    """A Trainer with progress bar, metrics as CSV and the last checkpoint, in a folder of its own."""
    return L.Trainer(
        max_epochs=epochs,
        logger=CSVLogger(folder, name=part, version=""),
        callbacks=[ModelCheckpoint(folder / part, filename="last"), LearningRateMonitor()],
        log_every_n_steps=10,
        enable_model_summary=False,
    )


def _report(summary: dict[str, Any], folder: Path) -> None:
    """Print what was found, what it took, and what is left in the folder."""
    print(f"\ngenotype        {summary['genotype']}")
    print(f"parameters      {summary['parameters']:,}")
    print(f"MACs            {summary['macs']:,}")
    print(f"search time     {summary['search_seconds']} s")
    print(f"training time   {summary['train_seconds']} s")
    print(f"test accuracy   {summary['test_accuracy']:.2%} of {summary['test_pictures']} held-out pictures")
    print(f"\nfiles in {folder}:\n{list_artifacts(folder)}")
