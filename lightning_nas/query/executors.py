"""Executors for trials in other processes and on other machines."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

__all__ = ["Processes", "RayExecutor"]

T = TypeVar("T")


class Processes(ProcessPoolExecutor):
    """A pool of processes that are started anew, as torch needs them.

    A worker that dies is replaced. One that hangs cannot be ended and keeps its place; use `RayExecutor` where trials
    may hang.

    Args:
        workers: Number of processes.

    Example:
        >>> from functools import partial
        >>> make = partial(Processes, workers=2)  # what Evaluator(executor=...) takes
    """

    def __init__(self, workers: int = 2) -> None:
        super().__init__(workers, mp_context=get_context("spawn"))


class RayExecutor(Executor):
    """Tasks of Ray: on this machine, or on a cluster by its address.

    Needs the extra ``lightning-nas[ray]``. A task whose worker dies fails and is not tried again; one that is given up
    is killed.

    Args:
        workers: Tasks at once on this machine; ``None`` for one a core. Ignored with an address.
        address: Address of a running cluster, ``"host:port"`` (``"auto"`` to find one on this machine); ``None`` to
            start Ray here. Its machines must have this package and what the oracle needs. Where Ray is connected in
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
            ray.init(address=address, log_to_driver=False, configure_logging=False, **local)
        self._task: Any = ray.remote(_call).options(num_cpus=cpus, num_gpus=gpus, max_retries=0)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Start a task."""
        reference = self._task.remote(fn, args, kwargs)
        future: _RayFuture[T] = _RayFuture(lambda: self._ray.cancel(reference, force=True))
        reference.future().add_done_callback(future.copy)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing: Ray itself stays up for others in this process, and ends with it."""


class _RayFuture(Future[T]):
    """A future whose cancellation kills the task."""

    def __init__(self, kill: Callable[[], None]) -> None:
        super().__init__()
        self._kill = kill

    def copy(self, done: Future[T]) -> None:
        """Take over what a task's own future has come to."""
        if not self.done():
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
