"""Penalties of the architecture distribution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from lightning_nas.arch import Sample
from lightning_nas.metrics import entropy
from lightning_nas.relaxations import Relaxation

__all__ = ["BetaDecay", "DirichletKL", "Entropy", "ZeroOne", "dirichlet_kl"]


class Entropy:
    """Mean entropy of the rows of a sample times a factor; a positive factor sharpens the mixture.

    Args:
        weight: The factor.

    Example:
        >>> import torch
        >>> from lightning_nas.arch import Decision
        >>> from lightning_nas.relaxations import Softmax
        >>> relaxation = Softmax({"cell": (Decision("edge", ("skip", "conv")),)}, init_std=0.0)
        >>> round(Entropy(2.0)(relaxation, relaxation()).item(), 4)
        1.3863
    """

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, relaxation: Relaxation, sample: Sample) -> Tensor:
        """The weighted entropy, averaged over the groups."""
        weights: Mapping[str, Tensor] = sample.weights
        terms = [entropy(rows) for rows in weights.values()]
        return self.weight * sum(terms[1:], start=terms[0]) / len(terms)


def dirichlet_kl(concentration: Tensor, mask: Tensor) -> Tensor:
    r"""Divergence of Dirichlet distributions from the flat one, each over the open choices of its row.

    .. math::
        \mathrm{KL}(\mathrm{Dir}(\beta) \| \mathrm{Dir}(1)) = \log \Gamma(S) - \sum_k \log \Gamma(\beta_k)
        - \log \Gamma(K) + \sum_k (\beta_k - 1) (\psi(\beta_k) - \psi(S)), \quad S = \sum_k \beta_k

    Args:
        concentration: ``(rows, choices)``, positive.
        mask: The open choices, boolean.

    Returns:
        ``(rows,)``.

    Example:
        >>> dirichlet_kl(torch.tensor([[1.0, 1.0, 9.0]]), torch.tensor([[True, True, False]])).item()
        0.0
    """
    beta = torch.where(mask, concentration, 1.0)  # what is closed gives no summand
    total = torch.where(mask, concentration, 0.0).sum(-1)
    flat = torch.lgamma(mask.sum(-1).to(concentration))
    slopes = (beta - 1) * (torch.digamma(beta) - torch.digamma(total).unsqueeze(-1))
    return torch.lgamma(total) - torch.lgamma(beta).sum(-1) - flat + slopes.sum(-1)


class DirichletKL:
    """The divergence of the architecture distribution from the flat Dirichlet, summed over rows, times a factor.

    It keeps a search exploring, see `dirichlet_kl`.

    Reference: Chen, Wang, Cheng, Tang and Hsieh, "DrNAS: Dirichlet Neural Architecture Search", ICLR 2021.

    Args:
        weight: The factor.

    Raises:
        ValueError: In a call, if the relaxation has no concentrations.

    Example:
        >>> from lightning_nas.arch import Decision
        >>> from lightning_nas.relaxations import Dirichlet
        >>> relaxation = Dirichlet({"cell": (Decision("edge", ("skip", "conv")),)}, init_std=0.0)
        >>> DirichletKL()(relaxation, relaxation()).item()
        0.0
    """

    def __init__(self, weight: float = 1e-3) -> None:
        self.weight = weight

    def __call__(self, relaxation: Relaxation, sample: Sample) -> Tensor:
        """The weighted divergence."""
        concentration = getattr(relaxation, "concentration", None)
        if concentration is None:
            raise ValueError(f"DirichletKL needs a relaxation with concentrations, not {type(relaxation).__name__}")
        masks = {group: relaxation.support.mask(group) for group in relaxation.groups}
        terms = [dirichlet_kl(concentration(group), mask).sum() for group, mask in masks.items()]
        return self.weight * torch.stack(terms).sum()


class BetaDecay:
    r"""The log-sum-exp of the open logits, averaged over all rows, times a factor.

    Its slope is :math:`\lambda\, \mathrm{softmax}(\alpha_e) / E` for `E` rows: a decay of each logit in proportion to
    its probability. As published the factor grows linearly from 0 to 50 over the search.

    Reference: Ye et al., "beta-DARTS: Beta-Decay Regularization for Differentiable Architecture Search", CVPR 2022.

    Args:
        weight: The factor.

    Raises:
        ValueError: In a call, if the relaxation has no logits `theta`.

    Example:
        >>> from lightning_nas.arch import Decision
        >>> from lightning_nas.relaxations import Softmax
        >>> relaxation = Softmax({"cell": (Decision("edge", ("skip", "conv")),)}, init_std=0.0)
        >>> round(BetaDecay(1.0)(relaxation, relaxation()).item(), 4)
        0.6931
    """

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, relaxation: Relaxation, sample: Sample) -> Tensor:
        """The weighted mean."""
        rows = [
            theta.masked_fill(~relaxation.support.mask(group), -torch.inf).logsumexp(-1)
            for group, theta in relaxation.theta.items()
        ]
        if not rows:
            raise ValueError(f"BetaDecay needs a relaxation with logits, which {type(relaxation).__name__} has not")
        return self.weight * torch.cat(rows).mean()


class ZeroOne:
    r"""Pushes expected weights away from one half, towards zero or one: the factor times :math:`-(w - 0.5)^2`.

    It is averaged over the open choices of all rows. The weights are meant to be those of `Sigmoid`.

    Reference: Chu, Zhou, Zhang and Li, "Fair DARTS: Eliminating Unfair Advantages in Differentiable Architecture
    Search", ECCV 2020.

    Args:
        weight: The factor.
        norm: ``"l2"`` as above, or ``"l1"`` for the other form of the paper, :math:`-|w - 0.5|`.

    Raises:
        ValueError: If the norm is neither.

    Example:
        >>> from lightning_nas.arch import Decision
        >>> from lightning_nas.relaxations import Sigmoid
        >>> relaxation = Sigmoid({"cell": (Decision("edge", ("skip", "conv")),)})
        >>> _ = relaxation.theta["cell"].data.copy_(torch.tensor([[100.0, 0.0]]))
        >>> ZeroOne(8.0)(relaxation, relaxation()).item()
        -1.0
    """

    def __init__(self, weight: float = 10.0, norm: Literal["l2", "l1"] = "l2") -> None:
        if norm not in ("l2", "l1"):
            raise ValueError(f"norm={norm!r} is unknown; allowed are 'l2' and 'l1'")
        self.weight, self.norm = weight, norm

    def __call__(self, relaxation: Relaxation, sample: Sample) -> Tensor:
        """The weighted mean."""
        away = [rows[relaxation.support.mask(group)] - 0.5 for group, rows in relaxation.expected().items()]
        distance = torch.cat(away)
        return -self.weight * (distance.square() if self.norm == "l2" else distance.abs()).mean()
