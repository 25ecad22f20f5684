"""Where files go, and that they are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import lightning as L

__all__ = ["run_folder", "write_whole"]


def write_whole(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary file beside `path`, then put it in its place; on an error nothing is left.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_whole(folder / "a.txt", lambda path: path.write_text("whole")).read_text()
        'whole'
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def run_folder(trainer: L.Trainer) -> Path:
    """Where a run leaves its artefacts: beside its checkpoints, which Lightning keeps by name and version.

    Example:
        >>> run_folder(L.Trainer(logger=False, default_root_dir="runs", accelerator="cpu")).name
        'runs'
    """
    logger = trainer.logger
    if logger is not None and getattr(logger, "log_dir", None) is None and logger.save_dir is not None:
        return Path(logger.save_dir, str(logger.name), str(logger.version))
    return Path(trainer.log_dir or trainer.default_root_dir)
