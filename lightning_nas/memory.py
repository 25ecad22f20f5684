"""How much memory tensors, the process and the machine have."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["LiveBytes", "free", "resident", "tensors_in"]

LOOK_EVERY = 32
"""Operations between two looks at the memory of the process."""


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that are alive, after every operation that runs in its context.

    Storages count once, however many tensors look at them, from the operation that makes them until they are freed.

    Args:
        tensors: Tensors that are there before.

    Attributes:
        timeline: Bytes at the start and after each operation.
        resident: The most memory the process was seen to hold, 0 where it cannot be asked.

    Example:
        >>> with LiveBytes([]) as live:
        ...     x = torch.ones(1000)
        ...     y = x.view(10, 100) + 1
        >>> max(live.timeline)
        8000
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._alive: dict[int, weakref.ref[Any]] = {}
        self._bytes = 0
        self._add(tensors)
        self.timeline, self.resident = [self._bytes], resident() or 0

    def _add(self, tensors: Any) -> None:
        for tensor in tensors:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._alive:
                    self._count(storage, storage._cdata, storage.nbytes())

    def _count(self, storage: torch.UntypedStorage, key: int, size: int) -> None:
        def freed(_: Any) -> None:
            self._bytes -= size
            del self._alive[key]

        self._bytes += size
        self._alive[key] = weakref.ref(storage, freed)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self._add(out if isinstance(out, list | tuple) else (out,))
        self.timeline.append(self._bytes)
        if len(self.timeline) % LOOK_EVERY == 0:
            self.resident = max(self.resident, resident() or 0)
        return out


def resident() -> int | None:
    """Bytes of memory that the process holds, where Linux says so."""
    return _from_proc("/proc/self/status", "VmRSS:")


def free(device: torch.device) -> int | None:
    """Bytes of memory that are free on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return _from_proc("/proc/meminfo", "MemAvailable:") if device.type == "cpu" else None


def _from_proc(path: str, name: str) -> int | None:
    try:
        lines = Path(path).read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """All tensors in nested collections and in the state of optimisers, with their gradients.

    Example:
        >>> [len(tensor) for tensor in tensors_in({"x": torch.zeros(2), "more": [torch.zeros(3)]})]
        [2, 3]
    """
    if isinstance(tree, Tensor):
        yield tree
        if tree.is_leaf and tree.grad is not None:
            yield tree.grad
    elif isinstance(tree, Optimizer):
        yield from tensors_in(list(tree.state.values()))
    elif isinstance(tree, dict | list | tuple):
        for child in tree.values() if isinstance(tree, dict) else tree:
            yield from tensors_in(child)
