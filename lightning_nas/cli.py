"""The command `lightning-nas`: search, train, show, list, quickstart."""

import argparse
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
import yaml
from jsonargparse import auto_cli
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning_utilities.core.rank_zero import rank_zero_warn

import lightning_nas
from lightning_nas.derived import DerivedNetwork, DerivedTraining
from lightning_nas.flops import count_macs, count_parameters
from lightning_nas.methods import DifferentiableSearch
from lightning_nas.methods.estimate import StepEstimate
from lightning_nas.mistakes import one_line
from lightning_nas.quickstart import quickstart
from lightning_nas.reports import (
    draw_text,
    list_artifacts,
    plot_metrics,
    require_writable,
    save_drawing,
    write_genotype,
    write_summary,
)
from lightning_nas.spaces import GENOTYPES, SPACES, load_genotype
from lightning_nas.training import NonFiniteLossError

__all__ = ["main"]


def _of_data(name: str, default: int) -> Any:
    """A function that reads an attribute of the data module, so that the network is built to fit it."""

    def read(data: L.LightningDataModule) -> int:
        value = getattr(data, name, None)
        if value is None:
            kind = type(getattr(data, "datamodule", data)).__name__
            rank_zero_warn(
                f"{kind} has no attribute {name}: the network is built for {name}={default}; add it if not so"
            )
        return default if value is None else int(value)

    return read


def _folder(trainer: L.Trainer) -> Path:
    """Where a run leaves its artefacts: beside its checkpoints, which Lightning keeps by name and version."""
    logger = trainer.logger
    if logger is not None and getattr(logger, "log_dir", None) is None and logger.save_dir is not None:
        return Path(logger.save_dir, str(logger.name), str(logger.version))
    return Path(trainer.log_dir or trainer.default_root_dir)


class _ConfigFile(SaveConfigCallback):
    """The resolved options as ``config.yaml`` in the folder of the run, whatever the logger."""

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write the file."""
        path = require_writable(_folder(trainer)) / self.config_filename
        self.parser.save(self.config, str(path), skip_none=False, overwrite=True, multifile=self.multifile)


class _RunCLI(LightningCLI):
    """LightningCLI with a network that fits the data, a checked run folder and a list of artefacts at the end."""

    command: ClassVar[str]

    def __init__(self, model_class: type[L.LightningModule], args: list[str], subclass_mode_model: bool) -> None:
        self.prefix = "model.init_args" if subclass_mode_model else "model"
        warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended to run from within Python")
        super().__init__(
            model_class,
            L.LightningDataModule,
            subclass_mode_model=subclass_mode_model,
            subclass_mode_data=True,
            run=False,
            args=args,
            save_config_callback=_ConfigFile,
            save_config_kwargs={"save_to_log_dir": False},
            seed_everything_default=0,
        )
        self.ckpt_path = self.config.get("ckpt_path")
        if self.leaves_files:
            require_writable(Path(self.trainer.log_dir or self.trainer.default_root_dir))
        for logger in self.trainer.loggers:
            if not isinstance(logger, CSVLogger | TensorBoardLogger):  # beside these lies the file config.yaml
                logger.log_hyperparams({"config": yaml.safe_load(self.parser.dump(self.config, skip_none=False))})

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser that knows its name and raises errors, which `main` then says in one line."""
        kwargs |= {"prog": f"lightning-nas {self.command}", "exit_on_error": False}
        return super().init_parser(**kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Resume option; classes and channels come from the data module."""
        parser.add_argument("--ckpt_path", type=str | None, default=None, help="Checkpoint to resume from.")
        for name, default in (("num_classes", 10), ("in_channels", 3)):
            target = f"{self.prefix}.{name}"
            parser.link_arguments("data", target, compute_fn=_of_data(name, default), apply_on="instantiate")

    @property
    def leaves_files(self) -> bool:
        """Whether this process writes artefacts: the first one, unless the run is a trial of a few batches."""
        return self.trainer.is_global_zero and not getattr(self.trainer, "fast_dev_run", False)

    @property
    def folder(self) -> Path:
        """Where the run leaves its artefacts."""
        return _folder(self.trainer)

    def finish(self, summary: dict[str, Any]) -> None:
        """Draw the curves, write the summary and print every artefact of the run."""
        plot_metrics(self.folder / "metrics.csv", self.folder / "curves.png")
        write_summary(self.folder, summary)
        print(f"\nartefacts in {self.folder}:\n{list_artifacts(self.folder)}")


class SearchCLI(_RunCLI):
    """`lightning-nas search`."""

    command = "search"

    def __init__(self, args: list[str]) -> None:
        super().__init__(DifferentiableSearch, args, subclass_mode_model=True)
        if self.config.get("estimate"):
            self.trainer.callbacks.insert(0, StepEstimate())  # type: ignore[attr-defined]

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Whether the cost of a step is estimated before the first."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--estimate", type=bool, default=True, help="Print memory and time of a step beforehand.")


class TrainCLI(_RunCLI):
    """`lightning-nas train`."""

    command = "train"

    def __init__(self, args: list[str]) -> None:
        super().__init__(DerivedTraining, args, subclass_mode_model=False)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The genotype as a short option."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--genotype", type=str, help="Published name, text, or file of a genotype.")
        parser.link_arguments("genotype", "model.genotype")


def run_search(args: list[str]) -> None:
    """Fit a search and write the genotype that it found."""
    cli = SearchCLI(args)
    start = time.perf_counter()
    cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=cli.ckpt_path)
    search, seconds = cli.model, time.perf_counter() - start
    genotype = search.genotype()
    print(f"\n{draw_text(search.space, genotype)}\n{search.space.format(genotype)}\nsearch time {seconds:.0f} s")
    if not cli.leaves_files:
        return
    paths = write_genotype(search.space, genotype, cli.folder)
    metrics = {name: float(value) for name, value in cli.trainer.callback_metrics.items()}
    text = search.space.format(genotype)
    cli.finish({"space": search.space.name, "genotype": text, "search_seconds": seconds, "metrics": metrics})
    print(f"\ntrain it: lightning-nas train --config recipes/derived/... --genotype {paths[0]}")


def run_train(args: list[str]) -> None:
    """Train a derived network and test its last weights once."""
    cli = TrainCLI(args)
    start = time.perf_counter()
    cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=cli.ckpt_path)
    seconds = time.perf_counter() - start
    metrics = {name: float(value) for name, value in cli.trainer.callback_metrics.items()}
    tests = cli.trainer.test(cli.model, cli.datamodule)
    if not cli.leaves_files:
        return
    cli.finish(cli.model.summary() | {"train_seconds": seconds, "metrics": metrics | dict(tests[0] if tests else {})})


def show(
    genotype: str, out: str | None = None, image_size: int = 32, channels: int | None = None, cells: int | None = None
) -> None:
    """Draw a genotype and print the size of its network.

    Args:
        genotype: Published name, text, or file of a genotype.
        out: Where to write the drawing, without ending; None for the genotype's name in the present folder.
        image_size: Height and width of the pictures for which operations are counted.
        channels: Channels of the network; None for the published number.
        cells: Cells of the network; None for the published number.
    """
    space, found = load_genotype(genotype)
    with torch.device("meta"):
        network = DerivedNetwork(found, space=space, channels=channels, cells=cells)
    is_text = genotype.strip().startswith(("|", "Genotype", "{"))
    name = genotype if genotype in GENOTYPES else "cell" if is_text else Path(genotype).stem
    stem = Path(out or name)
    require_writable(stem.parent)
    print(draw_text(space, found))
    print(space.format(found))
    print(f"parameters {count_parameters(network):,}   MACs {count_macs(network, (3, image_size, image_size)):,}")
    for path in save_drawing(space, found, stem):
        print(path)


def list_parts() -> None:
    """Print methods, spaces, published genotypes and the recipes below the present folder."""
    methods = [name for name in lightning_nas.methods.__all__ if name not in ("AdamTheta", "SGDCosine", "SearchModule")]
    recipes = sorted(str(path) for path in Path("recipes").rglob("*.yaml"))
    for title, names in (
        ("methods", methods),
        ("spaces", list(SPACES)),
        ("genotypes", list(GENOTYPES)),
        ("recipes", recipes or ["(none below the present folder; see recipes/ in the source)"]),
    ):
        print(f"{title}:")
        for name in names:
            print(f"  {name}")


def search() -> None:
    """Search an architecture: `lightning-nas search --config recipes/search/digits.yaml`; `search --help` for more."""


def train() -> None:
    """Train a genotype: `lightning-nas train --config recipes/derived/digits.yaml --genotype FILE`."""


def main(argv: list[str] | None = None) -> None:
    """Run the command line.

    A mistake of the user ends in one line and exit code 1; set ``LIGHTNING_NAS_TRACEBACK=1`` for the whole trace.
    """
    args = sys.argv[1:] if argv is None else argv
    commands = {"search": run_search, "train": run_train}
    try:
        if args and args[0] in commands:
            commands[args[0]](args[1:])
        else:
            parts: dict[str, Any] = {
                "quickstart": quickstart,
                "search": search,
                "train": train,
                "show": show,
                "list": list_parts,
            }
            auto_cli(parts, args=args, prog="lightning-nas", as_positional=True)
    except (ValueError, TypeError, OSError, MisconfigurationException, NonFiniteLossError) as error:
        if os.environ.get("LIGHTNING_NAS_TRACEBACK"):
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        raise SystemExit(1) from None
    except argparse.ArgumentError as error:
        print(f"error: {one_line(error)}; see lightning-nas {args[0]} --help", file=sys.stderr)
        raise SystemExit(2) from None
