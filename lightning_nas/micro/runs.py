"""Many small runs: kept line by line in a file that survives a kill, and quiet."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

__all__ = ["append", "quiet", "read"]

QUIET_TRAINER: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
"""Options of a Trainer that leaves and prints nothing."""


def read(log: Path, setting: dict[str, Any]) -> list[dict[str, Any]]:
    """The records of a log; a line cut short by a kill is left out.

    Raises:
        ValueError: If a record was made in another setting.
    """
    found = []
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record["setting"] != setting:
            raise ValueError(f"{log} holds runs of another setting, {record['setting']}; give another out")
        found.append(record)
    return found


def append(log: Path, record: dict[str, Any]) -> None:
    """Write one line so that it survives a kill; a line that a kill has torn is ended first."""
    torn = log.exists() and log.stat().st_size > 0 and not log.read_bytes().endswith(b"\n")
    with log.open("a", encoding="utf-8") as file:
        file.write(("\n" if torn else "") + json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def quiet() -> Iterator[None]:
    """No word of Lightning about each of many small fits, and torch's generator as it was at the end."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), torch.random.fork_rng():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
