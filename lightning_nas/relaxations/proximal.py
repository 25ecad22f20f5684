"""The one-hot weights of NASP."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_nas.arch import Decisions, Sample
from lightning_nas.relaxations import paths
from lightning_nas.relaxations.base import Relaxation

__all__ = ["Proximal"]


class Proximal(Relaxation):
    r"""The vertex nearest to the continuous :math:`\alpha \in [0, 1]`; the gradient at the vertex moves :math:`\alpha`.

    The weights are one for the largest entry of each row and zero else. Where nodes keep some of their inputs (a group
    ``"<kind>/inputs"`` beside the edges ``"<kind>/<target><-<source>"``) and these have no parameters of their own,
    only the edges of the largest entries survive, as many as a node keeps; the rows of the others are zero.

    An architecture step runs all candidates, for their gradients: :math:`\partial L / \partial \bar\alpha` at the
    vertex :math:`\bar\alpha` goes straight through to :math:`\alpha`, which `project_` clips to [0, 1] after the step.
    A weight step runs the surviving path alone.

    `expected` is what the published derivation ranks by, the softmax of :math:`\alpha`; it is not the average of
    samples.

    Reference: Yao, Xu, Tu and Zhu, "Efficient Neural Architecture Search via Proximal Iterations", AAAI 2020.

    Args:
        decisions: The space's decisions, by group.
        groups: The groups that get architecture parameters; ``None`` for all.
        init_std: Standard deviation of the start around 0.5. As published it is zero, and the first choice of each
            row is the first path.
        seed: Seed of the start.

    Example:
        >>> from lightning_nas.arch import Decision
        >>> relaxation = Proximal({"cell": (Decision("edge", ("skip", "conv")),)})
        >>> sample = relaxation()
        >>> sample.weights["cell"].tolist(), sample.active, relaxation.weight_sample().active
        ([[1.0, 0.0]], None, {'cell': ((0,),)})
    """

    needs_unused_parameters = True
    simplex = False
    discrete = True
    exact_mean = False

    def __init__(
        self, decisions: Decisions, groups: Sequence[str] | None = None, *, init_std: float = 0.0, seed: int = 0
    ) -> None:
        super().__init__(decisions, groups, init_std=init_std, seed=seed)
        with torch.no_grad():
            for theta in self.theta.values():
                theta.add_(0.5).clamp_(0.0, 1.0)

    def forward(self) -> Sample:
        """The vertex, with the gradient straight through to all open choices."""
        weights = {}
        for group, theta in self.theta.items():
            through = (theta - theta.detach()).masked_fill(~self.support.mask(group), 0.0)
            weights[group] = paths.k_hot(self._path(group), theta) + through
        return Sample(weights, self.support.active())

    @torch.no_grad()
    def weight_sample(self) -> Sample:
        """The vertex, of which only the surviving path is executed."""
        choices = {group: self._path(group) for group in self.theta}
        weights = {group: paths.k_hot(choices[group], theta) for group, theta in self.theta.items()}
        active = {group: paths.ascending(rows) for group, rows in choices.items()}
        return Sample(weights, {**(self.support.active() or {}), **active})

    def expected(self) -> dict[str, Tensor]:
        """The softmax; where a decision keeps more choices, their probabilities to be drawn from it."""
        return {group: paths.inclusion(self.support, group, theta) for group, theta in self.theta.items()}

    @torch.no_grad()
    def project_(self) -> None:
        """Clip to [0, 1]."""
        for theta in self.theta.values():
            theta.clamp_(0.0, 1.0)

    def _path(self, group: str) -> paths.Choices:
        """The best choices of each row; none on the edges that do not survive."""
        theta, rows = self.theta[group].detach(), self.support.decisions[group]
        choices = paths.best(theta, self.support.mask(group), [row.keep for row in rows])
        inputs, nodes = f"{group}/inputs", paths.ends(rows)
        if inputs in self.theta or inputs not in self.support.decisions or not nodes:
            return choices
        strength = theta.masked_fill(~self.support.mask(group), -torch.inf).amax(-1).tolist()
        alive: set[int] = set()
        for node, is_open in zip(self.support.decisions[inputs], self.support.open(inputs), strict=True):
            into = nodes[node.name.rpartition("/")[2]]
            edges = [into[node.choices[k]] for k in is_open]
            alive |= set(sorted(edges, key=lambda row: -strength[row])[: node.keep])
        return tuple(row if index in alive else () for index, row in enumerate(choices))
