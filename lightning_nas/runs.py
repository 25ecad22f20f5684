"""What `lightning-nas search` and `lightning-nas train` do."""

import time
import warnings
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import yaml
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning_utilities.core.rank_zero import rank_zero_warn

from lightning_nas.callbacks import SearchDoctor
from lightning_nas.callbacks.progressive import keep_best
from lightning_nas.derived import DerivedTraining
from lightning_nas.methods import DifferentiableSearch
from lightning_nas.methods.estimate import StepEstimate
from lightning_nas.methods.stages import grow
from lightning_nas.reports import (
    draw_text,
    list_artifacts,
    plot_metrics,
    require_writable,
    run_folder,
    write_genotype,
    write_json,
    write_summary,
)

__all__ = ["run_search", "run_train"]


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


class _ConfigFile(SaveConfigCallback):
    """The resolved options as ``config.yaml`` in the folder of the run, whatever the logger."""

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write the file."""
        path = require_writable(run_folder(trainer)) / self.config_filename
        self.parser.save(self.config, str(path), skip_none=False, overwrite=True, multifile=self.multifile)


class RunCLI(LightningCLI):
    """LightningCLI with a network that fits the data, a checked run folder and a list of artefacts at the end."""

    command: ClassVar[str]
    fits_data: ClassVar[bool] = True
    """Whether the fit is one on a data module, and the network is built for it."""

    def __init__(self, model_class: type[L.LightningModule], args: list[str], subclass_mode_model: bool) -> None:
        self.prefix = "model.init_args" if subclass_mode_model else "model"
        warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended to run from within Python")
        super().__init__(
            model_class,
            L.LightningDataModule if self.fits_data else None,
            subclass_mode_model=subclass_mode_model,
            subclass_mode_data=self.fits_data,
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
        for name, default in (("num_classes", 10), ("in_channels", 3)) if self.fits_data else ():
            target = f"{self.prefix}.{name}"
            parser.link_arguments("data", target, compute_fn=_of_data(name, default), apply_on="instantiate")

    @property
    def leaves_files(self) -> bool:
        """Whether this process writes artefacts: the first one, unless the run is a trial of a few batches."""
        return self.trainer.is_global_zero and not getattr(self.trainer, "fast_dev_run", False)

    @property
    def folder(self) -> Path:
        """Where the run leaves its artefacts."""
        return run_folder(self.trainer)

    def finish(self, summary: dict[str, Any]) -> None:
        """Draw the curves, write the summary and print every artefact of the run."""
        plot_metrics(self.folder / "metrics.csv", self.folder / "curves.png")
        write_summary(self.folder, summary)
        print(f"\nartefacts in {self.folder}:\n{list_artifacts(self.folder)}")


class SearchCLI(RunCLI):
    """`lightning-nas search`."""

    command = "search"

    def __init__(self, args: list[str], stage: int = 0) -> None:
        self.stage = stage
        super().__init__(DifferentiableSearch, args, subclass_mode_model=True)
        if self.config.get("estimate"):
            self.trainer.callbacks.insert(0, StepEstimate())  # type: ignore[attr-defined]

    @property
    def stages(self) -> list[dict[str, Any]]:
        """The stages; a search without any is one."""
        return self.config.get("stages") or [{}]

    def before_instantiate_classes(self) -> None:
        """Put the options of the stage in place of those of the search."""
        for name, value in self.stages[self.stage].items():
            if name == "epochs":
                self.config["trainer"]["max_epochs"] = value
            elif name != "keep":
                if name not in self.config["model"]["init_args"]:
                    known = ", ".join(sorted(self.config["model"]["init_args"].keys()))
                    raise ValueError(f"stage {self.stage} sets {name!r}; allowed are keep, epochs and {known}")
                self.config["model"]["init_args"][name] = value

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Whether the cost of a step is estimated before the first."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--estimate", type=bool, default=True, help="Print memory and time of a step beforehand.")
        about = "Searches one after another: arguments of the search, epochs, and how many operations an edge keeps."
        parser.add_argument("--stages", type=list[dict[str, Any]] | None, default=None, help=about)


class TrainCLI(RunCLI):
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
    """Fit a search, or its stages one after another, and write the genotype that it found."""
    cli = SearchCLI(args)
    for number in range(len(cli.stages)):
        if number:
            before = cli
            cli = SearchCLI(args, number)
            grow(before.model, cli.model)
        if len(cli.stages) > 1:
            print(f"\nstage {number + 1} of {len(cli.stages)}: {dict(cli.stages[number])}")
        start = time.perf_counter()
        cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=cli.ckpt_path)
        _finish_search(cli, time.perf_counter() - start)
        if "keep" in cli.stages[number]:
            keep_best(cli.model, int(cli.stages[number]["keep"]))


def _finish_search(cli: SearchCLI, seconds: float) -> None:
    search = cli.model
    genotype = search.genotype()
    print(f"\n{draw_text(search.space, genotype)}\n{search.space.format(genotype)}\nsearch time {seconds:.0f} s")
    if not cli.leaves_files:
        return
    paths = write_genotype(search.space, genotype, cli.folder)
    doctors = [found for found in cli.trainer.callbacks if isinstance(found, SearchDoctor)]  # type: ignore[attr-defined]
    for doctor in doctors:
        write_json(cli.folder / "doctor.json", doctor.report())
        print(f"search doctor: {doctor.verdict}\nlast safe genotype: {doctor.last_safe}")
    metrics = {name: float(value) for name, value in cli.trainer.callback_metrics.items()}
    text = search.space.format(genotype)
    summary = {"space": search.space.name, "genotype": text, "search_seconds": seconds, "metrics": metrics}
    cli.finish(summary | {"doctor": [doctor.verdict for doctor in doctors]})
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
