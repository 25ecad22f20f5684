"""What a predictor promises: learn scores of encoded architectures, say what others will score and how sure it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, Self, TypeVar

import torch
from torch import Tensor

from lightning_nas.query.encoders.base import Encoded, Graphs

__all__ = ["Prediction", "Predictor", "Scale", "features", "graphs", "learned", "over_members"]

T = TypeVar("T")


class Prediction(NamedTuple):
    """What a predictor says of `n` architectures.

    Args:
        mean: ``(n,)`` expected scores; of a ranker, numbers whose order is that of the scores.
        std: ``(n,)`` standard deviations of that belief (never variances); zero where the predictor has none.
        joint: Function that draws all scores together from a generator, ``(n,)``; ``None`` if they are independent
            normal ones.

    Example:
        >>> Prediction(torch.tensor([1.0]), torch.tensor([0.0])).draw(torch.Generator())
        tensor([1.])
    """

    mean: Tensor
    std: Tensor
    joint: Callable[[torch.Generator], Tensor] | None = None

    def draw(self, rng: torch.Generator) -> Tensor:
        """One joint draw of all scores, ``(n,)``."""
        if self.joint is not None:
            return self.joint(rng)
        return self.mean + self.std * torch.randn(self.mean.shape, generator=rng, dtype=self.mean.dtype)


def over_members(outputs: Tensor) -> Prediction:
    """What an ensemble says: mean and deviation over its members; a joint draw is one member.

    Args:
        outputs: ``(members, n)``.

    Example:
        >>> said = over_members(torch.tensor([[1.0, 2.0], [3.0, 2.0]]))
        >>> said.mean.tolist(), said.std.tolist()
        ([2.0, 2.0], [1.0, 0.0])
    """

    def joint(rng: torch.Generator) -> Tensor:
        return outputs[int(torch.randint(len(outputs), (), generator=rng))]

    return Prediction(outputs.mean(dim=0), outputs.std(dim=0, correction=0), joint)


class Predictor(ABC):
    """Learns from encoded architectures and their scores.

    A predictor is deterministic: the same data and the same seed give the same predictions, whatever was learned
    before. It brings scores to a scale of its own and back. A *ranker* promises the order of the means alone.
    """

    @abstractmethod
    def fit(self, x: Encoded, y: Tensor, seed: int = 0) -> Self:
        """Learn anew.

        Args:
            x: `n` encoded architectures.
            y: Their scores ``(n,)``; the larger, the better.
            seed: Seed of all random choices.

        Returns:
            The predictor itself.

        Raises:
            ValueError: If `x` is not of the kind that the predictor works on, or there is nothing to learn from.
        """

    @abstractmethod
    def predict(self, x: Encoded) -> Prediction:
        """What encoded architectures will score.

        Raises:
            ValueError: Before `fit`.
        """


def learned(value: T | None) -> T:
    """What a predictor has learned.

    Raises:
        ValueError: If that is nothing.
    """
    if value is None:
        raise ValueError("the predictor has learned nothing; fit it first")
    return value


class Scale(NamedTuple):
    """Standardised scores: ``(y - shift) / width``.

    Example:
        >>> scale = Scale.of(torch.tensor([1.0, 3.0]))
        >>> scale.to(torch.tensor([2.0])), scale.back(torch.tensor([1.0]))
        (tensor([0.]), tensor([3.]))
    """

    shift: float
    width: float

    @classmethod
    def of(cls, y: Tensor) -> Scale:
        """The scale on which these scores have mean 0 and deviation 1; equal scores keep their width.

        Raises:
            ValueError: If there are none, or some are not finite.
        """
        if not len(y) or not bool(torch.isfinite(y).all()):
            raise ValueError(f"{len(y)} scores, {int((~torch.isfinite(y)).sum())} not finite: nothing to learn from")
        width = float(y.std(correction=0))
        return cls(float(y.mean()), width if width > 0 else 1.0)

    def to(self, y: Tensor) -> Tensor:
        """Scores on the scale."""
        return (y - self.shift) / self.width

    def back(self, z: Tensor) -> Tensor:
        """Scores off the scale."""
        return z * self.width + self.shift


def features(x: Encoded, who: object) -> Tensor:
    """Encoded architectures as features ``(n, d)``.

    Raises:
        ValueError: If they are graphs.
    """
    if isinstance(x, Graphs):
        raise ValueError(f"{type(who).__name__} works on features, not on graphs; give it another encoder")
    return x


def graphs(x: Encoded, who: object) -> Graphs:
    """Encoded architectures as graphs.

    Raises:
        ValueError: If they are features.
    """
    if not isinstance(x, Graphs):
        raise ValueError(f"{type(who).__name__} works on graphs, not on features; give it a GraphEncoder")
    return x
