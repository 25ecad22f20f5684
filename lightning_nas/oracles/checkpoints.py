"""Whose a checkpoint is: a digest of the settings that a training depends on, and the reading of what was saved."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning as L
import numpy as np
import torch

__all__ = ["read_checkpoint", "settings_digest"]

_WHERE = frozenset(
    {
        "accelerator",
        "default_root_dir",
        "devices",
        "enable_model_summary",
        "enable_progress_bar",
        "log_every_n_steps",
        "logger",
        "num_workers",
        "persistent_workers",
        "pin_memory",
        "profiler",
    }
)
"""Settings of a Trainer and of data modules that say where and how visibly a training runs, and not what it learns."""
_DEPTH, _LENGTH = 6, 1000
_BROKEN = (OSError, EOFError, RuntimeError, ValueError, TypeError, AttributeError, LookupError, pickle.UnpicklingError)
"""What torch raises on a file that was cut off or is something else."""


def settings_digest(settings: Mapping[str, Any]) -> str:
    """Twelve characters that differ for trainings of different settings, and are the same in every process.

    Numbers and texts count, also those within lists, data classes and objects; of functions and classes the name, of
    tensors and arrays nothing.

    Args:
        settings: Name -> value; values may be data modules, callbacks or functions.

    Example:
        >>> one, same, other = ({"training": {"lr": lr}} for lr in (0.1, 0.1, 0.2))
        >>> settings_digest(one) == settings_digest(same) != settings_digest(other)
        True
    """
    return hashlib.sha256(json.dumps(_plain(settings), sort_keys=True).encode()).hexdigest()[:12]


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """What a training saved; ``None``, with a warning, if the file cannot be read, and ``None`` if there is none."""
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
            return state
        reason = "it is no checkpoint of a training"
    except _BROKEN as error:
        reason = f"{type(error).__name__} {next(iter(str(error).splitlines()), '')}".strip()
    warnings.warn(f"{path} cannot be read ({reason}); it is taken as absent", stacklevel=2)
    return None


def _plain(value: Any, depth: int = 0) -> Any:
    """A value as what JSON can write."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, os.PathLike | complex | bytes | torch.dtype | torch.device):
        return str(value)
    if isinstance(value, torch.Tensor | np.ndarray | L.Trainer) or depth > _DEPTH:
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(item, depth + 1) for key, item in value.items() if key not in _WHERE}
    if isinstance(value, set | frozenset):
        return sorted(json.dumps(_plain(item, depth + 1)) for item in value)
    if isinstance(value, list | tuple):
        return [len(value), *(_plain(item, depth + 1) for item in value[:_LENGTH])]
    if isinstance(value, partial):
        return _plain([value.func, value.args, value.keywords], depth + 1)
    if isinstance(value, Enum | type) or hasattr(value, "__qualname__"):
        owner = getattr(value, "__self__", None)  # of a method
        return [_name(value), None if isinstance(owner, ModuleType) else _plain(owner, depth + 1)]
    return [_name(type(value)), _plain(_attributes(value), depth + 1)]


def _name(value: Any) -> str:
    return str(value) if isinstance(value, Enum) else f"{getattr(value, '__module__', '')}.{value.__qualname__}"


def _attributes(value: Any) -> dict[str, Any]:
    """What an object was given; without what it computed for itself when it was first asked."""
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    own = getattr(value, "__dict__", {})
    names = {name for name in own if not isinstance(getattr(type(value), name, None), cached_property)}
    if not isinstance(value, L.LightningDataModule):
        return {name: own[name] for name in names}
    names -= set(vars(L.LightningDataModule())) | {"_hparams", "_hparams_initial", "_hparams_name", "_log_hyperparams"}
    return {name: own[name] for name in names} | dict(own.get("_hparams", {}))
