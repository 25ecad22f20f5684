"""Extrapolation of learning curves by a weighted mixture of parametric families."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import leastsq
from scipy.special import ndtr

__all__ = ["FAMILIES", "Family", "Forecast", "extrapolate"]

Array = NDArray[np.float64]


class Family(NamedTuple):
    """A parametric family of rising curves.

    Args:
        curve: ``(x, p)`` -> accuracies, with `x` the training in percent of the whole and `p` unbounded parameters;
            those that must be positive enter by their logarithm.
        mean: What the parameters are around before a curve has been seen.
        std: How far around.
    """

    curve: Callable[[Array, Array], Any]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def _pow3(x: Array, p: Array) -> Any:
    return p[0] - np.exp(p[1]) * x ** -np.exp(p[2])


def _log_log_linear(x: Array, p: Array) -> Any:
    return np.log(np.maximum(np.exp(p[0]) * np.log(x) + p[1], 1e-3))


def _hill3(x: Array, p: Array) -> Any:
    return p[0] / (1 + (np.exp(p[2]) / x) ** np.exp(p[1]))


def _log_power(x: Array, p: Array) -> Any:
    return p[0] / (1 + (x / np.exp(p[1])) ** -np.exp(p[2]))


def _pow4(x: Array, p: Array) -> Any:
    return p[0] - (np.exp(p[1]) * x + np.exp(p[2])) ** -np.exp(p[3])


def _mmf(x: Array, p: Array) -> Any:
    return p[0] - (p[0] - p[1]) / (1 + (np.exp(p[2]) * x) ** np.exp(p[3]))


def _exp4(x: Array, p: Array) -> Any:
    return p[0] - np.exp(p[1] - np.exp(p[2]) * x ** np.exp(p[3]))


def _janoschek(x: Array, p: Array) -> Any:
    return p[0] - (p[0] - p[1]) * np.exp(-np.exp(p[2]) * x ** np.exp(p[3]))


def _weibull(x: Array, p: Array) -> Any:
    return p[0] - (p[0] - p[1]) * np.exp(-((np.exp(p[2]) * x) ** np.exp(p[3])))


def _ilog2(x: Array, p: Array) -> Any:
    return p[0] - np.exp(p[1]) / np.log(x + 1)


def _vapor_pressure(x: Array, p: Array) -> Any:
    return np.exp(p[0] - np.exp(p[1]) / x + p[2] * np.log(x))


FAMILIES: dict[str, Family] = {
    "pow3": Family(_pow3, (0.8, -0.7, -0.7), (0.3, 1.0, 1.0)),
    "log_log_linear": Family(_log_log_linear, (-2.0, 1.4), (1.0, 0.5)),
    "hill3": Family(_hill3, (0.8, 0.0, 1.5), (0.3, 0.7, 1.5)),
    "log_power": Family(_log_power, (0.8, 1.5, 0.0), (0.3, 1.5, 0.7)),
    "pow4": Family(_pow4, (0.8, -0.7, 0.4, -0.7), (0.3, 1.5, 0.7, 0.7)),
    "mmf": Family(_mmf, (0.8, 0.1, -1.5, 0.0), (0.3, 0.3, 1.5, 0.7)),
    "exp4": Family(_exp4, (0.8, -0.4, -1.5, -0.4), (0.3, 0.5, 1.5, 0.7)),
    "janoschek": Family(_janoschek, (0.8, 0.1, -1.5, -0.4), (0.3, 0.3, 1.5, 0.7)),
    "weibull": Family(_weibull, (0.8, 0.1, -2.5, -0.4), (0.3, 0.3, 1.5, 0.7)),
    "ilog2": Family(_ilog2, (0.9, -0.7), (0.3, 1.0)),
    "vapor_pressure": Family(_vapor_pressure, (-0.3, 0.0, 0.05), (0.4, 1.0, 0.1)),
}
"""The eleven families of the paper."""

_NOISE = 0.02
"""Standard deviation of an accuracy around its curve, as it is expected before the curve has been seen."""
_TRUST = 3.0
"""How many measurements that expectation is worth."""
_NO_FIT = (-1e30, 0.5, 1.0)
"""Log evidence, mean and standard deviation of a family that cannot be fitted: it counts if none can."""


class Forecast(NamedTuple):
    """What a curve will come to, as a mixture of normal distributions.

    Args:
        weights: Probability of each family, ``(families,)``.
        means: Each family's accuracy at the end.
        stds: And its standard deviation.
    """

    weights: Array
    means: Array
    stds: Array

    @property
    def mean(self) -> float:
        """The expected accuracy at the end."""
        return float(self.weights @ self.means)

    def exceeds(self, best: float) -> float:
        """The probability that the accuracy at the end is above `best`."""
        return float(self.weights @ ndtr((self.means - best) / self.stds))


def extrapolate(x: Sequence[float], y: Sequence[float], families: Sequence[str] = tuple(FAMILIES)) -> Forecast:
    r"""The accuracy at the end of training, from the first part of a learning curve.

    The paper samples the parameters and the weights of all families together by a Markov chain. Here each family is
    fitted by least squares under a normal prior of its parameters, its posterior is the normal one around the fit
    (Laplace), the noise is estimated from the residuals, and the families are weighted by their evidence, of which the
    Bayesian information criterion is the rough form. That takes milliseconds instead of minutes and needs no draws; the
    prior is not the paper's, which allows any parameters whose curve stays between 0 and 1.

    Args:
        x: Training done at each measurement in percent of the whole, above 0.
        y: Accuracies there, as fractions.
        families: Names in `FAMILIES`.

    Returns:
        The accuracy measured at 100 percent, its noise included.

    Raises:
        ValueError: If there is no measurement, or a family is unknown.

    Reference: Domhan, Springenberg and Hutter, "Speeding Up Automatic Hyperparameter Optimization of Deep Neural
    Networks by Extrapolation of Learning Curves", IJCAI 2015.

    Example:
        >>> x = [float(percent) for percent in range(2, 41, 2)]
        >>> forecast = extrapolate(x, [0.9 - 0.6 * percent**-0.8 for percent in x])
        >>> abs(forecast.mean - (0.9 - 0.6 * 100**-0.8)) < 0.01, forecast.exceeds(0.95) < 0.05
        (True, True)
    """
    unknown = sorted(set(families) - set(FAMILIES))
    if len(x) == 0 or len(x) != len(y) or min(x) <= 0 or unknown or not families:
        raise ValueError(
            f"{len(x)} points and {len(y)} accuracies, families {list(families)}: give as many of the one as of the"
            f" other, at least one, all above 0 percent, and families of {list(FAMILIES)}"
        )
    with np.errstate(all="ignore"):  # a step of the fit may leave the numbers; it is taken back
        fits = [_fit(FAMILIES[name], np.asarray(x, dtype=float), np.asarray(y, dtype=float)) for name in families]
    evidence, means, stds = np.array(fits).T
    weights = np.exp(evidence - evidence.max())
    return Forecast(weights / weights.sum(), means, stds)


def _fit(family: Family, x: Array, y: Array) -> tuple[float, float, float]:
    """Log evidence, mean and standard deviation at the end of one family."""
    centre, spread = np.array(family.mean), np.array(family.std)
    values, noise, rss = centre, _NOISE, 0.0
    for _ in range(2):  # the second time with the noise that the first one left
        values, covariance, *_ = leastsq(_residuals, values, (family, x, y, noise), full_output=True, maxfev=400)
        if covariance is None:
            return _NO_FIT
        rss = float(((family.curve(x, values) - y) ** 2).sum())
        noise = float(np.sqrt((rss + _TRUST * _NOISE**2) / (len(x) + _TRUST)))
    slope = _slope(family, values)
    mean = float(family.curve(np.array([100.0]), values)[0])
    variance = float(slope @ covariance @ slope) + noise**2
    log_likelihood = -0.5 * (rss + _TRUST * _NOISE**2) / noise**2 - (len(x) + _TRUST) * np.log(noise)
    log_prior = -0.5 * float((((values - centre) / spread) ** 2).sum()) - float(np.log(spread).sum())
    evidence = log_likelihood + log_prior + 0.5 * float(np.linalg.slogdet(covariance)[1])
    return (evidence, mean, float(np.sqrt(variance))) if np.isfinite([evidence, mean, variance]).all() else _NO_FIT


def _residuals(p: Array, family: Family, x: Array, y: Array, noise: float) -> Any:
    """What least squares makes small: misfits over the noise, and parameters over their spread."""
    misfit = np.nan_to_num((family.curve(x, p) - y) / noise, nan=1e6, posinf=1e6, neginf=-1e6)
    return np.concatenate([misfit, (p - family.mean) / family.std])


def _slope(family: Family, p: Array) -> Array:
    """Derivatives of the accuracy at the end with respect to the parameters."""
    end, step = np.array([100.0]), 1e-5
    shifts = step * np.eye(len(p))
    return np.array([(family.curve(end, p + h)[0] - family.curve(end, p - h)[0]) / (2 * step) for h in shifts])
