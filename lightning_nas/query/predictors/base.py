"""What a predictor promises: learn scores of encoded architectures, say what others will score and how sure it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, Self, TypeVar

import torch
from torch import Tensor

from lightning_nas.query.encoders.base import KINDS, Encoded, Encoder, Graphs, Kind

__all__ = ["Prediction", "Predictor", "Scale", "check_pair", "features", "graphs", "learned", "over_members"]

T = TypeVar("T")

_ENCODERS: dict[Kind, str] = {
    "features": "AdjacencyEncoder or PathEncoder",
    "graphs": "GraphEncoder",
    "tokens": "TokenEncoder",
}
_PREDICTORS: dict[Kind, str] = {
    "features": "MLPEnsemble or GaussianProcess()",
    "graphs": "Ranker or NeuralPredictor",
    "tokens": "LSTMPredictor or NAOPredictor",
}


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

    A subclass begins `fit` with `checked_scores` and `predict` with `checked_rows`, which check what was given.

    Attributes:
        takes: What it learns from, so that a search can refuse an encoder that makes something else.
    """

    takes: tuple[Kind, ...] = KINDS
    _known_form: str | None = None

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
            ValueError: If `x` is not of the kind that the predictor works on, there is nothing to learn from, a score
                is not finite, or there is not one score for each architecture.
        """

    @abstractmethod
    def predict(self, x: Encoded) -> Prediction:
        """What encoded architectures will score.

        Raises:
            ValueError: Before `fit`, or if `x` is not as wide as what was learned from.
        """

    def checked_scores(self, x: Encoded, y: Tensor) -> Tensor:
        """The scores as floating-point numbers, if there is a finite one for each of the architectures.

        Raises:
            ValueError: If there is not.
        """
        if y.ndim != 1 or len(x) != len(y):
            raise ValueError(
                f"{len(x)} architectures and scores of shape {tuple(y.shape)}; give {type(self).__name__} one score for"
                f" each, of shape ({len(x)},)"
            )
        scores = _finite(y if y.is_floating_point() else y.double())
        self._known_form = _form(x)
        return scores

    def checked_rows(self, x: Encoded) -> Encoded:
        """Architectures to be predicted, if they are as wide as those that were learned from.

        Raises:
            ValueError: If they are not.
        """
        if self._known_form not in (None, _form(x)):
            raise ValueError(
                f"{type(self).__name__} has learned from {self._known_form} and cannot predict {_form(x)}; encode both"
                " with the same encoder"
            )
        return x


def _form(x: Encoded) -> str:
    """How wide encoded architectures are, in words."""
    if isinstance(x, Graphs):
        return f"graphs with {x.kinds} kinds of vertices"
    if x.ndim != 2:
        raise ValueError(f"encoded architectures of shape {tuple(x.shape)}; give a row for each, (n, features)")
    return f"rows of {x.shape[1]} numbers"


def _finite(y: Tensor) -> Tensor:
    """Scores, if there are any and all are finite."""
    if not len(y) or not bool(torch.isfinite(y).all()):
        raise ValueError(f"{len(y)} scores, {int((~torch.isfinite(y)).sum())} not finite: nothing to learn from")
    return y


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
        width = float(_finite(y).std(correction=0))
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


def check_pair(encoder: Encoder, predictor: Predictor) -> None:
    """Check that a predictor learns from what an encoder makes.

    Args:
        encoder: The encoder.
        predictor: The predictor.

    Raises:
        ValueError: If it does not.
    """
    if encoder.makes not in predictor.takes:
        one, other = type(encoder).__name__, type(predictor).__name__
        raise ValueError(
            f"{one} makes {encoder.makes}, but {other} takes {' or '.join(predictor.takes)}; give {other} an encoder"
            f" such as {' or '.join(_ENCODERS[kind] for kind in predictor.takes)}, or {one} a predictor such as"
            f" {_PREDICTORS[encoder.makes]}"
        )
