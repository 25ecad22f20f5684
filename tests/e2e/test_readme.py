"""What the README shows is executed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml

from lightning_nas import cli
from lightning_nas.methods import DifferentiableSearch, SearchModule
from lightning_nas.query_runs import is_query
from lightning_nas.spaces import SPACES

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TINY = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.enable_progress_bar=false"]
SMALL = {
    "search": ["--model.channels=4", *TINY],
    "train": ["--model.channels=4", "--model.cells=3", *TINY],
    "quickstart": ["--search_epochs=1", "--train_epochs=1", "--search_channels=4", "--train_channels=4"],
    "four-quadrants": ["--generations=2", "--population=6", "--epochs=5"],
}
QUERY = ["--model.trials=2", "--model.oracle.channels=4", "--model.oracle.epochs=1"]


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """The words after `lightning-nas`, of each line of the bash blocks that has it."""
    found = []
    for line in "".join(blocks("bash")).splitlines():
        words = shlex.split(line.split("&&")[-1], comments=True)
        if words and Path(words[0]).name == "lightning-nas":
            found.append(words[1:])
    return found


def test_two_commands_stand_alone() -> None:
    assert blocks("bash")[:2] == [
        "python -m venv .venv && .venv/bin/pip install -e . && .venv/bin/lightning-nas quickstart\n",
        ".venv/bin/pip install -e '.[test]' && .venv/bin/pytest -n 2 --dist worksteal\n",
    ]


@pytest.mark.filterwarnings("ignore:.*log_every_n_steps.*")
def test_python_blocks_run(capsys: pytest.CaptureFixture[str]) -> None:
    namespaces = []
    for number, block in enumerate(blocks("python")):
        namespaces.append({"__name__": "__main__"})
        exec(compile(block, f"README.md, python block {number}", "exec"), namespaces[-1])  # noqa: S102
    dropped_in = next(space for space in namespaces if "BilevelDataModule" in space)
    search = dropped_in["search"]
    assert isinstance(search, DifferentiableSearch)
    assert search.space.format(search.genotype()) in capsys.readouterr().out
    assert search.global_step > 0
    networks = [value for space in namespaces for value in space.values() if isinstance(value, torch.nn.Module)]
    named = [network for network in networks if not isinstance(network, SearchModule)]
    assert [network.num_classes for network in named] == [100, 10]


def test_the_drop_in_is_short() -> None:
    drop_in = next(block for block in blocks("python") if "BilevelDataModule(" in block)
    lines = [line for line in drop_in.splitlines() if line.strip()]
    assert len(lines) <= 20
    for word in ("LightningDataModule)", "L.Trainer(", "DARTS(space=", "trainer.fit(", ".genotype()"):
        assert word in drop_in


def test_every_command_is_shown() -> None:
    assert {words[0] for words in commands()} == {
        "quickstart",
        "search",
        "train",
        "show",
        "list",
        "benchmark",
        "four-quadrants",
    }


def test_commands_run_in_their_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    for words in commands():
        if words[0] == "benchmark":  # needs the official files
            continue
        cli.main(
            [*words, *(QUERY if is_query(words) else SMALL.get(words[0], []))]
        )  # `train` takes the genotype that `search` has left
    out = capsys.readouterr().out
    assert "parameters 3,349,342 " in out
    assert "held-out pictures" in out
    used = yaml.safe_load(Path("runs/derived-digits/version_0/config.yaml").read_text())
    assert Path(used["genotype"]).is_file()


def test_files_that_are_named_exist() -> None:
    named = re.findall(r"`((?:recipes|lightning_nas|tests)/[^`\s]*)`", README)
    assert named
    missing = [name for name in named if not list(ROOT.glob(name.rstrip("/")))]
    allowed = {name for name in missing if name.startswith("tests/conformance/")}  # written with the first new part
    assert set(missing) == allowed


def test_spaces_are_in_the_table() -> None:
    for name in SPACES:
        assert f"| `{name}` |" in README
