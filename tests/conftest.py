"""Every test runs on the CPU, offline, in its own folder, and leaves the process as it found it."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
import torch.distributed

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("LIGHTNING_NAS_DATA", ROOT.parent / "shared" / "data"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runslow", action="store_true", help="run the studies marked slow as well")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--runslow"):
        return
    skip = pytest.mark.skip(reason="a study of many minutes; run with --runslow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Seeds, an empty working folder, no network, and no process group left behind."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
    torch.use_deterministic_algorithms(False)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.fixture
def benchmark_data() -> Path:
    """The folder of published tables, or a skip that says where it was looked for."""
    if not DATA.is_dir():
        pytest.skip(f"no benchmark tables at {DATA}; set LIGHTNING_NAS_DATA to their folder")
    return DATA


@pytest.fixture
def project() -> Path:
    """The root of the checkout."""
    return ROOT
