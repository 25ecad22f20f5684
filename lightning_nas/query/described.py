"""What searchers and oracles were made with, as plain values that a history can compare."""

from __future__ import annotations

import inspect
import json
import math
import zlib
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

from lightning_nas.spaces import Space

__all__ = ["Described", "differences"]

_PLACES = {"folder", "root", "accelerator", "devices", "num_nodes", "strategy", "logger"}
_WORKERS = {"threads", "workers", "num_workers", "pin_memory", "persistent_workers", "prefetch_factor"}
_SHOWN = {"enable_checkpointing", "enable_progress_bar", "enable_model_summary"}
_LOOSE = _PLACES | _WORKERS | _SHOWN | {"generations"}
"""Settings that change no answer: where and how fast something runs, and for how long a search may go on."""


class Described:
    """Base of what a history knows again: it remembers what its constructor was given.

    Example:
        >>> class Ruler(Described):
        ...     def __init__(self, length, unit="cm"):
        ...         self.inches = length / 2.54
        >>> Ruler(30).describe()
        {'class': 'Ruler', 'length': 30, 'unit': 'cm'}
    """

    _given: Mapping[str, Any] = {}

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Take note of the arguments."""
        made = super().__new__(cls)
        with suppress(TypeError, ValueError):  # arguments that do not fit: the constructor itself says so
            bound = inspect.signature(cls.__init__).bind_partial(made, *args, **kwargs)
            bound.apply_defaults()
            values = list(bound.arguments.items())[1:]
            made._given = {name: _plain(value, late=True) for name, value in values}
        return made

    def describe(self) -> dict[str, Any]:
        """Class and settings as plain values; a search on a history of other settings is refused.

        What was not given at first is looked up among the attributes. A class whose settings say nothing about its
        answers returns fewer.
        """
        plain: dict[str, Any] = {"class": type(self).__qualname__}
        for name, value in self._given.items():
            if name not in _LOOSE and value not in ((), [], {}):
                plain[name] = _plain(vars(self).get(name) if value is None else value)
        return plain


def _plain(value: Any, late: bool = False) -> Any:
    """A value as JSON has it; of an object without a description its class and its plain settings.

    Args:
        value: The value.
        late: Whether objects that describe themselves stay as they are, to be asked later.
    """
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a scalar of NumPy or torch
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Space | Path):
        return value.name
    if isinstance(value, Described):
        return value if late else value.describe()
    if isinstance(value, Mapping | list | tuple):
        return _collection(value, late)
    if isinstance(value, partial):
        return [_plain(part, late) for part in (value.func, value.args, value.keywords)]
    return str(value.__qualname__) if callable(value) and hasattr(value, "__qualname__") else _object(value)


def _collection(value: Mapping[Any, Any] | list[Any] | tuple[Any, ...], late: bool) -> Any:
    """The entries of a short collection; a checksum of a long one."""
    entries: Any
    if isinstance(value, Mapping):
        entries = {str(key): _plain(entry, late) for key, entry in value.items() if str(key) not in _LOOSE}
    else:
        entries = [_plain(entry, late) for entry in value]
    if len(entries) <= 100:
        return entries
    return f"{len(entries)} entries, checksum {zlib.crc32(json.dumps(entries, default=str).encode()):08x}"


def _object(value: Any) -> dict[str, Any]:
    """The class of an object, and those settings of its constructor that it keeps as plain attributes."""
    plain: dict[str, Any] = {"class": type(value).__qualname__}
    with suppress(TypeError, ValueError):
        kept = getattr(value, "__dict__", {})
        for name in inspect.signature(type(value).__init__).parameters:
            if name not in _LOOSE and isinstance(kept.get(name), bool | int | float | str | Space | Path):
                plain[name] = _plain(kept[name])
    return plain


def differences(there: Any, here: Any, name: str = "") -> list[str]:
    """What two descriptions have differently, by name; what only one of them has does not count.

    Example:
        >>> differences({"seed": 0, "space": "darts"}, {"seed": 5, "space": "darts", "new": 1}, "searcher")
        ['searcher.seed was 0 and is 5']
    """
    if isinstance(there, dict) and isinstance(here, dict):
        both = [key for key in here if key in there]
        return [line for key in both for line in differences(there[key], here[key], f"{name}.{key}".lstrip("."))]
    return [] if there == here else [f"{name} was {there!r} and is {here!r}"]
