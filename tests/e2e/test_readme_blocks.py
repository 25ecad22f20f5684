"""What the README shows is executed."""

import re
import shlex
from pathlib import Path

import pytest

from lightning_nas.cli import main

pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("ignore:Found .* in eval mode")]


def blocks(project: Path, language: str) -> list[str]:
    text = (project / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_python_blocks_run(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = blocks(project, "python")
    assert len(found) >= 2
    assert "trainer.fit(search, BilevelDataModule(" in found[0]
    assert len(found[0].strip().splitlines()) <= 20
    for block in found:
        exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})  # noqa: S102  (our own README)
    assert "Genotype(normal=" in capsys.readouterr().out


def test_the_two_commands_are_there(project: Path) -> None:
    bash = "".join(blocks(project, "bash"))
    assert "python -m venv .venv && .venv/bin/pip install -e . && .venv/bin/lightning-nas quickstart\n" in bash
    assert ".venv/bin/pip install -e '.[test]' && .venv/bin/pytest\n" in bash


def test_shown_commands_run(project: Path) -> None:
    lines = [line for block in blocks(project, "bash") for line in block.splitlines() if line.startswith("lightning-nas")]
    assert len(lines) >= 4
    Path("recipes").symlink_to(project / "recipes")
    short = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--model.channels=4", "--model.cells=3"]
    for line in lines:
        command = shlex.split(line, comments=True)[1:]
        main([*command, *(short if command[0] in ("search", "train") else [])])
