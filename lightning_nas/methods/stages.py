"""From one stage of a progressive search to the next."""

from __future__ import annotations

from lightning_nas.methods.differentiable import DifferentiableSearch

__all__ = ["grow"]


def grow(old: DifferentiableSearch, new: DifferentiableSearch) -> None:
    """Start a stage with the operations that the stage before has left; weights and `theta` start anew.

    Args:
        old: The search that was pruned.
        new: The next, maybe deeper or wider; its Support is changed.

    Raises:
        ValueError: If they search different spaces.

    Example:
        >>> small = DifferentiableSearch("nasbench201", channels=4, cells=1)
        >>> deep = DifferentiableSearch("nasbench201", channels=4, cells=2)
        >>> small.relaxation.support.drop("cell", 0, 1)
        >>> grow(small, deep)
        >>> deep.relaxation.support.open("cell") == small.relaxation.support.open("cell")
        True
    """
    if old.space.name != new.space.name:
        raise ValueError(f"a stage in {new.space.name!r} cannot follow one in {old.space.name!r}; use one space")
    new.relaxation.support.load_state_dict(old.relaxation.support.state_dict())
