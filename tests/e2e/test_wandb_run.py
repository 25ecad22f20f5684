"""What a Weights & Biases run of a search holds, read from the file that the offline run leaves."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml
from wandb.proto import wandb_internal_pb2

from lightning_nas.cli import main
from lightning_nas.spaces import load_genotype

_BLOCK, _HEADER = 32768, 7
_WHOLE, _LAST = 1, 4


def records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: a LevelDB log after seven bytes of its own."""
    content, at, parts = path.read_bytes(), _HEADER, b""
    while at + _HEADER <= len(content):
        if _BLOCK - at % _BLOCK < _HEADER:
            at += _BLOCK - at % _BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + _HEADER])
        parts += content[at + _HEADER : at + _HEADER + length]
        at += _HEADER + length
        if kind in (_WHOLE, _LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def nested(items: Any) -> dict[str, Any]:
    """Logged values by name, dictionaries put together again."""
    row: dict[str, Any] = {}
    for item in items:
        *outer, last = list(item.nested_key) or [item.key]
        inner = row
        for name in outer:
            inner = inner.setdefault(name, {})
        inner[last] = json.loads(item.value_json)
    return row


def finished(folder: Path, seconds: float = 20) -> list[Any]:
    """The records of a run once its last one is there; the process that writes them may be a little behind."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = [record for path in folder.glob("*.wandb") for record in records(path)]
        if found and found[-1].WhichOneof("record_type") == "exit":
            return found
        time.sleep(0.1)
    raise TimeoutError(f"{folder} has no end after {seconds} s")


@dataclass
class Run:
    """One offline run."""

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    artifacts: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        for record in finished(self.folder):
            kind = record.WhichOneof("record_type")
            if kind in ("run", "config"):
                updates = record.run.config.update if kind == "run" else record.config.update
                self.config |= nested(updates)
            elif kind == "history":
                self.history.append(nested(record.history.item))
            elif kind == "artifact":
                self.artifacts.append(record.artifact)
            elif kind == "request" and record.request.HasField("log_artifact"):
                self.artifacts.append(record.request.log_artifact.artifact)

    def column(self, key: str) -> list[Any]:
        return [row[key] for row in self.history if key in row]


@pytest.fixture(autouse=True)
def own_service() -> Iterator[None]:
    """A W&B service of this test's own: it resolves relative paths in the folder where it was started."""
    wandb.finish()
    wandb.teardown()
    yield
    wandb.finish()
    wandb.teardown()


@pytest.fixture
def run(project: Path, tmp_path: Path) -> Run:
    """A search of two epochs with the W&B logger."""
    main(
        [
            "search",
            f"--config={project}/recipes/search/digits_nasbench201.yaml",
            "--model.channels=4",
            "--trainer.max_epochs=2",
            "--trainer.limit_train_batches=2",
            "--trainer.enable_progress_bar=false",
            "--trainer.enable_model_summary=false",
            "--trainer.logger=WandbLogger",
            "--trainer.logger.project=pictures",
        ]
    )
    wandb.finish()
    (folder,) = tmp_path.glob("runs/wandb/offline-run-*")
    return Run(folder)


def test_a_search_is_all_in_its_run(run: Run, tmp_path: Path) -> None:
    # hyperparameters of the method, and the resolved options of the command, which make the run again
    assert run.config["space"] == "nasbench201"
    assert run.config["channels"] == 4
    assert run.config["w"] == {
        "lr": 0.1, "lr_min": 0.001, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0003, "clip": 5.0,
    }  # fmt: skip
    (left,) = tmp_path.glob("runs/pictures/*/config.yaml")
    assert run.config["config"] == yaml.safe_load(left.read_text())
    assert run.config["config"]["data"]["init_args"]["val_fraction"] == 0.5
    assert run.config["config"]["trainer"]["max_epochs"] == 2

    # every key of the design, once an epoch
    scalars = ("train/loss", "arch/loss", "arch/entropy/cell", "arch/skips", "support/open", "val/acc", "val/loss")
    for key in scalars:
        values = run.column(key)
        assert len(values) == 2, key
        assert all(isinstance(value, int | float) for value in values), key
    assert run.column("support/open") == [30, 30]

    # the genotype of each epoch, as text and as a picture
    tables = run.column("genotype/text")
    assert len(tables) == 2
    rows = json.loads((run.folder / "files" / tables[-1]["path"]).read_text())
    assert rows["columns"] == ["epoch", "genotype"]
    assert [row[0] for row in rows["data"]] == ["0", "1"]
    for _, text in rows["data"]:
        assert load_genotype(text)[0].name == "nasbench201"
    pictures = run.column("genotype/cell")
    assert len(pictures) == 2
    for picture in pictures:
        for name in picture["filenames"]:
            assert (run.folder / "files" / name).read_bytes().startswith(b"\x89PNG")

    # the final genotype as an artifact
    (artifact,) = [found for found in run.artifacts if found.type == "genotype"]
    (entry,) = artifact.manifest.contents
    assert entry.path == "genotype.json"
    (found,) = tmp_path.glob("runs/pictures/*/genotype.json")
    assert load_genotype(Path(entry.local_path))[1] == load_genotype(found)[1]
    assert load_genotype(found)[1] == load_genotype(rows["data"][-1][1])[1]


def test_runs_do_not_overwrite_each_other(run: Run, project: Path, tmp_path: Path) -> None:
    recipe = f"--config={project}/recipes/derived/digits.yaml"
    few = ["--model.channels=4", "--model.cells=3", "--trainer.max_epochs=1", "--trainer.limit_train_batches=2"]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    logger = ["--trainer.logger=WandbLogger", "--trainer.logger.project=pictures"]
    main(["train", recipe, *few, *quiet, *logger])
    wandb.finish()
    summaries = [json.loads(path.read_text()) for path in tmp_path.glob("runs/pictures/*/summary.json")]
    assert sorted(summary["space"] for summary in summaries) == ["darts", "nasbench201"]
    (other,) = [folder for folder in tmp_path.glob("runs/wandb/offline-run-*") if folder != run.folder]
    trained = Run(other)
    assert {"train/loss", "val/acc", "val/loss", "test/acc"} <= {key for row in trained.history for key in row}
    assert trained.config["config"]["genotype"] == "darts_v2"
    assert trained.config["drop_path"] == 0.1
