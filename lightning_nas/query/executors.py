"""Executors for trials in other processes and on other machines."""

from __future__ import annotations

import os
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Executor, Future, InvalidStateError, ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from threading import Thread
from typing import Any, Generic, TypeVar

__all__ = ["Processes", "RayExecutor", "Shared", "end"]

T = TypeVar("T")

_HERE: dict[str, Any] = {}
"""What a worker was sent once."""


class Shared(ABC, Generic[T]):
    """A small stand-in for a large value, which each worker is sent once."""

    @abstractmethod
    def value(self) -> T:
        """The value, in a worker."""


class Processes(ProcessPoolExecutor):
    """A pool of processes that are started anew, as torch needs them.

    A worker that dies is replaced. With a `timeout` of the `Evaluator` one that hangs ends itself. All of them end with
    the process that started them, even if that is killed.

    Args:
        workers: Number of processes.

    Example:
        >>> from functools import partial
        >>> make = partial(Processes, workers=2)  # what Evaluator(executor=...) takes
    """

    def __init__(self, workers: int = 2) -> None:
        self._parcel = _Parcel()
        super().__init__(workers, mp_context=get_context("spawn"), initializer=_begin, initargs=(self._parcel,))

    def share(self, value: T) -> Shared[T]:
        """Send a value along with each worker that is started from now on.

        Raises:
            TypeError: If the value does not pickle.
        """
        try:
            self._parcel.content = pickle.dumps(value)
        except Exception as error:  # whatever the value's own methods raise
            raise TypeError(
                f"{type(value).__name__} cannot be sent to other processes ({type(error).__name__}: {error}); give one"
                " that pickles (no lambda, no class inside a function), or leave out the executor"
            ) from None
        return _Sent()


class _Parcel:
    """What a worker gets at its start."""

    content: bytes | None = None


class _Sent(Shared[Any]):
    """The value that came along with this worker: bytes that the process which started it wrote, never a file."""

    def value(self) -> Any:
        if "value" not in _HERE:
            _HERE["value"] = pickle.loads(_HERE["parcel"].content)  # noqa: S301
            _HERE["parcel"].content = None
        return _HERE["value"]


def _begin(parcel: _Parcel) -> None:
    """What a worker does first: keep what was sent along, and watch the process that started it."""
    _HERE["parcel"] = parcel
    parent = parent_process()
    if parent is not None:
        Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def end(executor: Executor) -> None:
    """Begin no more tasks; end the processes of those under way, if it has any."""
    processes = getattr(executor, "_processes", None) if isinstance(executor, ProcessPoolExecutor) else None
    workers = list((processes or {}).values())
    executor.shutdown(wait=False, cancel_futures=True)
    for worker in workers:
        with suppress(ValueError):  # it has ended already
            worker.kill()


class RayExecutor(Executor):
    """Tasks of Ray: on this machine, or on a cluster by its address.

    Needs the extra ``lightning-nas[ray]``. A task whose worker dies fails and is not tried again; one that is given up
    is killed.

    Args:
        workers: Tasks at once on this machine; ``None`` for one a core. Ignored with an address.
        address: Address of a running cluster, ``"host:port"`` (``"auto"`` to find one on this machine); ``None`` to
            start Ray here. Its machines must have this package and what the oracle needs, and where the cluster
            asks for a token, ``RAY_AUTH_MODE`` and ``RAY_AUTH_TOKEN`` must be set as there. Where Ray is connected in
            this process already, it is used as it is.
        cpus: Cores that a task reserves.
        gpus: Accelerators that a task reserves.

    Raises:
        ModuleNotFoundError: If Ray is not installed.

    Example:
        >>> from functools import partial
        >>> make = partial(RayExecutor, workers=2)  # what Evaluator(executor=...) takes
    """

    def __init__(
        self, workers: int | None = None, address: str | None = None, cpus: float = 1.0, gpus: float = 0.0
    ) -> None:
        try:
            import ray
        except ModuleNotFoundError:
            raise ModuleNotFoundError("RayExecutor needs Ray: pip install 'lightning-nas[ray]'") from None
        self._ray = ray
        if not ray.is_initialized():
            local: dict[str, Any] = {} if address else {"num_cpus": workers, "include_dashboard": False}
            ray.init(address=address or "local", log_to_driver=False, configure_logging=False, **local)
        self._task: Any = ray.remote(_call).options(num_cpus=cpus, num_gpus=gpus, max_retries=0)

    def share(self, value: T) -> Shared[T]:
        """Put a value where each worker gets it once."""
        return _Put(self._ray.put(value))

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Start a task."""
        reference = self._task.remote(fn, args, kwargs)
        future: _RayFuture[T] = _RayFuture(lambda: self._ray.cancel(reference, force=True))
        reference.future().add_done_callback(future.copy)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing: Ray itself stays up for others in this process, and ends with it."""


class _Put(Shared[Any]):
    """A value among the objects of Ray; a worker keeps the last one that it got."""

    def __init__(self, reference: Any) -> None:
        self.reference = reference

    def value(self) -> Any:
        import ray

        if _HERE.get("reference") != self.reference.hex():
            _HERE.update(value=ray.get(self.reference), reference=self.reference.hex())
        return _HERE["value"]


class _RayFuture(Future[T]):
    """A future whose cancellation kills the task."""

    def __init__(self, kill: Callable[[], None]) -> None:
        super().__init__()
        self._kill = kill

    def copy(self, done: Future[T]) -> None:
        """Take over what a task's own future has come to."""
        with suppress(InvalidStateError):  # cancelled in the meantime
            error = done.exception()
            if error is None:
                self.set_result(done.result())
            else:
                self.set_exception(error)

    def cancel(self) -> bool:
        """Kill the task."""
        self._kill()
        return super().cancel()


def _call(fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
    return fn(*args, **kwargs)
