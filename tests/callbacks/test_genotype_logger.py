"""The genotype of each epoch: in the terminal once, in W&B and TensorBoard, and in no other logger."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
import wandb
from lightning.pytorch.callbacks import Callback, RichProgressBar, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure
from PIL import Image

from lightning_nas.arch import Genotype
from lightning_nas.callbacks import GenotypeLogger
from lightning_nas.data import BilevelDataModule, DigitsDataModule
from lightning_nas.methods import DARTS
from lightning_nas.reports import draw_text
from lightning_nas.spaces import load_genotype


class Genotypes(Callback):
    """The genotype after each epoch; each epoch starts at other architecture parameters."""

    def __init__(self) -> None:
        self.kept: list[Genotype] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        with torch.no_grad():
            pl_module.relaxation.theta["cell"].normal_(generator=torch.Generator().manual_seed(trainer.current_epoch))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.kept.append(pl_module.genotype())


def fit(*callbacks: Callback, epochs: int = 2, **settings: Any) -> tuple[DARTS, list[Genotype]]:
    """Search for some epochs of two batches; the search and the genotype after each epoch."""
    search, genotypes = DARTS("nasbench201", channels=4, cells=1, in_channels=1), Genotypes()
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"enable_checkpointing": False, "limit_train_batches": 2, "limit_val_batches": 1, "max_epochs": epochs}
    trainer = L.Trainer(**quiet | settings, callbacks=[genotypes, *callbacks])
    trainer.fit(search, datamodule=BilevelDataModule(DigitsDataModule()))
    assert len(set(genotypes.kept)) == epochs, "the epochs must differ for the tests to tell them apart"
    return search, genotypes.kept


def report(search: DARTS, epoch: int, genotype: Genotype) -> str:
    return f"genotype after epoch {epoch}\n{draw_text(search.space, genotype)}\n"


# --- the terminal


@pytest.mark.parametrize("callbacks", [(), (GenotypeLogger,)], ids=["own", "given"])
def test_every_epoch_is_printed_once(callbacks: tuple[type[Callback], ...], capsys: Any) -> None:
    search, genotypes = fit(*(make() for make in callbacks))
    out = capsys.readouterr().out
    assert out.count("genotype after epoch") == 2
    assert "".join(report(search, epoch, genotype) for epoch, genotype in enumerate(genotypes)) in out


def test_every_second_epoch(capsys: Any) -> None:
    search, genotypes = fit(GenotypeLogger(every_n_epochs=2), epochs=5)
    out = capsys.readouterr().out
    assert out.count("genotype after epoch") == 2
    assert report(search, 1, genotypes[1]) + report(search, 3, genotypes[3]) in out


def test_nothing_is_printed_where_it_is_not_wanted(capsys: Any) -> None:
    fit(GenotypeLogger(terminal=False))
    out = capsys.readouterr().out
    assert "genotype" not in out
    assert "─" not in out
    assert "┬" not in out


@pytest.mark.parametrize("bar", [TQDMProgressBar, RichProgressBar])
def test_the_text_stands_whole_above_a_progress_bar(bar: type[Callback], capsys: Any) -> None:
    search, genotypes = fit(bar(), enable_progress_bar=True)
    out = capsys.readouterr().out
    assert out.count("genotype after epoch") == 2
    lines = [line.rsplit("\r", 1)[-1].rstrip() for line in out.splitlines()]
    for epoch, genotype in enumerate(genotypes):
        expected = report(search, epoch, genotype).splitlines()
        if bar is TQDMProgressBar:
            assert "\n".join(expected) in "\n".join(lines)
        else:
            assert all(any(line.endswith(wanted) for line in lines) for wanted in expected)


def test_other_processes_report_nothing(capsys: Any) -> None:
    class Loggers(SimpleNamespace):
        @property
        def loggers(self) -> list[Any]:
            raise AssertionError("only the first process logs")

    trainer: Any = Loggers(is_global_zero=False, current_epoch=0)
    search = DARTS("nasbench201", channels=4, cells=1, in_channels=1)
    callback = GenotypeLogger()
    callback.on_train_epoch_end(trainer, search)
    callback.on_fit_end(trainer, search)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("every", [0, -1])
def test_epochs_between_reports_must_be_positive(every: int) -> None:
    with pytest.raises(ValueError, match=rf"^every_n_epochs={every} must be at least 1$"):
        GenotypeLogger(every_n_epochs=every)


# --- loggers


def test_a_csv_logger_is_left_alone(tmp_path: Path, capsys: Any) -> None:
    fit(GenotypeLogger(), logger=CSVLogger(tmp_path, name="run", version=0), log_every_n_steps=1)
    assert capsys.readouterr().out.count("genotype after epoch") == 2
    files = sorted(path.name for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert files == ["hparams.yaml", "metrics.csv"]
    header = (tmp_path / "run" / "version_0" / "metrics.csv").read_text().splitlines()[0]
    assert "train/loss" in header
    assert "genotype" not in header


class Recorded(TensorBoardLogger):
    """A TensorBoard logger without TensorBoard, which keeps what it is given."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, str, int]] = []
        self.pictures: list[tuple[str, Figure, int]] = []

    @property
    def experiment(self) -> Any:
        return SimpleNamespace(
            add_text=lambda *given: self.texts.append(given), add_figure=lambda *given: self.pictures.append(given)
        )


@pytest.mark.parametrize("pictures", [True, False])
def test_what_tensorboard_is_given(pictures: bool) -> None:
    search, logger = DARTS("nasbench201", channels=4, cells=1, in_channels=1), Recorded()
    trainer: Any = SimpleNamespace(is_global_zero=True, current_epoch=3, global_step=17, loggers=[logger])
    callback = GenotypeLogger(terminal=False, pictures=pictures)
    callback.on_train_epoch_end(trainer, search)
    callback.on_fit_end(trainer, search)
    ((tag, text, step),) = logger.texts
    assert (tag, step) == ("genotype", 17)
    assert search.space.parse(text.strip("`")) == search.genotype()
    assert [(tag, type(figure), step) for tag, figure, step in logger.pictures] == (
        [("genotype/cell", Figure, 17)] if pictures else []
    )


class Broken(Recorded):
    """A logger whose disk is full."""

    @property
    def experiment(self) -> Any:
        raise OSError("no space left on device")


def test_a_logger_that_fails_stops_nothing() -> None:
    search, working = DARTS("nasbench201", channels=4, cells=1, in_channels=1), Recorded()
    trainer: Any = SimpleNamespace(is_global_zero=True, current_epoch=0, global_step=1, loggers=[Broken(), working])
    with pytest.warns(UserWarning, match=r"^Broken did not take the genotype: OSError: no space left on device$"):
        GenotypeLogger(terminal=False).on_train_epoch_end(trainer, search)
    assert len(working.texts) == 1  # and the next one has it


def test_a_run_that_is_finished_stops_nothing(tmp_path: Path, silent_server: list[Any]) -> None:
    logger = WandbLogger(project="test", offline=True, save_dir=tmp_path)
    search = DARTS("nasbench201", channels=4, cells=1, in_channels=1)
    trainer: Any = SimpleNamespace(is_global_zero=True, current_epoch=0, global_step=1, loggers=[logger])
    assert logger.experiment.id
    wandb.finish()
    callback = GenotypeLogger(terminal=False)
    with pytest.warns(UserWarning, match=r"^WandbLogger did not take the genotype: UsageError: Run"):
        callback.on_train_epoch_end(trainer, search)
    with pytest.warns(UserWarning, match=r"^WandbLogger did not take the genotype: UsageError: Run"):
        callback.on_fit_end(trainer, search)


def test_every_process_asks_for_the_genotype(capsys: Any) -> None:
    """A selection may let the processes agree, which waits for all of them."""

    class Asked(DARTS):
        asked = 0

        def genotype(self) -> Genotype:
            self.asked += 1
            return super().genotype()

    search, callback = Asked("nasbench201", channels=4, cells=1, in_channels=1), GenotypeLogger()
    trainer: Any = SimpleNamespace(is_global_zero=False, current_epoch=0, loggers=[])
    callback.on_train_epoch_end(trainer, search)
    callback.on_fit_end(trainer, search)
    assert (search.asked, capsys.readouterr().out) == (2, "")


def test_tensorboard_itself(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    search, genotypes = fit(GenotypeLogger(terminal=False), logger=TensorBoardLogger(tmp_path, name="run", version=0))
    events = EventAccumulator(str(tmp_path / "run" / "version_0")).Reload()
    texts = [e.tensor_proto.string_val[0].decode() for e in events.Tensors("genotype/text_summary")]
    assert [search.space.parse(text.strip("`")) for text in texts] == genotypes
    assert [picture.step for picture in events.Images("genotype/cell")] == [2, 4]


# --- Weights & Biases


@pytest.fixture
def silent_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[Any]]:
    """The only server that W&B knows of; the list has everyone who connected to it."""
    wandb.teardown()  # what an earlier run has read from the environment
    server, visitors = socket.create_server(("127.0.0.1", 0)), list[Any]()

    def accept() -> None:
        while True:
            try:
                connection, address = server.accept()
            except OSError:
                return
            visitors.append(address)
            connection.close()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
    for name in ("DATA", "CACHE", "CONFIG", "ARTIFACT"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name.lower()))
    yield visitors
    wandb.teardown()
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(timeout=5)


@pytest.mark.parametrize("pictures", [True, False])
def test_an_offline_run_has_texts_picture_and_artifact(
    pictures: bool, tmp_path: Path, silent_server: list[Any]
) -> None:
    logger = WandbLogger(project="test", offline=True, save_dir=tmp_path)
    try:
        search, genotypes = fit(GenotypeLogger(terminal=False, pictures=pictures), logger=logger)
        folder, name = Path(logger.experiment.dir).parent, f"genotype-{logger.experiment.id}"
    finally:
        wandb.finish()
        wandb.teardown()
    assert silent_server == []
    assert tmp_path in folder.parents
    check_tables(folder / "files" / "media" / "table" / "genotype", search, genotypes)
    images = sorted((folder / "files" / "media").glob("images/genotype/cell_*.png"))
    assert len(images) == (2 if pictures else 0)
    for path in images:
        with Image.open(path) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert min(picture.size) > 300
    (log,) = folder.glob("*.wandb")
    assert_written(log, name.encode(), b"genotype.json")
    kept = [path for path in (tmp_path / "data").rglob("*") if path.is_file() and is_genotype(path)]
    assert kept, "the content of the artifact waits for a later upload"
    assert {load_genotype(path)[1] for path in kept} == {genotypes[-1]}


def assert_written(path: Path, *wanted: bytes, seconds: float = 20) -> None:
    """The process of W&B may still be writing its file when `finish` returns."""
    end = time.monotonic() + seconds
    while not all(part in path.read_bytes() for part in wanted):
        assert time.monotonic() < end, f"{path} lacks one of {wanted}"
        time.sleep(0.05)


def check_tables(folder: Path, search: DARTS, genotypes: list[Genotype]) -> None:
    """A table an epoch, each with all epochs so far; the names have the step, of which only the order matters."""
    tables = [json.loads(path.read_text()) for path in folder.glob("text_*.table.json")]
    tables.sort(key=lambda table: len(table["data"]))
    texts = [[str(epoch), search.space.format(genotype)] for epoch, genotype in enumerate(genotypes)]
    assert [table["columns"] for table in tables] == [["epoch", "genotype"]] * 2
    assert [table["data"] for table in tables] == [texts[:1], texts]


def is_genotype(path: Path) -> bool:
    try:
        return path.read_text(encoding="utf-8").startswith('{\n  "space"')
    except UnicodeDecodeError:
        return False
