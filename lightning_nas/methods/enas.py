"""ENAS."""

from functools import partial
from typing import Any

from lightning_nas.callbacks import SupernetSelection
from lightning_nas.hypergradients import ScoreFunction
from lightning_nas.methods.differentiable import DifferentiableSearch
from lightning_nas.optimizers import AdamTheta, ThetaRecipe
from lightning_nas.relaxations import Controller
from lightning_nas.spaces import Space, get_space

__all__ = ["ENAS"]


class ENAS(DifferentiableSearch):
    """A recurrent controller draws paths and is trained by REINFORCE; weights are shared by all paths.

    The published code trains the controller after each epoch of weight steps; here its steps are spread over the epoch,
    one for every `theta_every` batches. The genotype is the best of several that the controller draws at the end.

    Reference: Pham, Guan, Zoph, Le and Dean, "Efficient Neural Architecture Search via Parameter Sharing", ICML 2018.

    Args:
        space: Name of a search space, or a space.
        samples: Draws to one step of the controller.
        entropy: Weight of the entropy in the reward.
        draws: Genotypes drawn and evaluated at the end.
        theta_every: Weight steps to one controller step.
        theta: Optimiser of the controller.
        **settings: All other arguments of `DifferentiableSearch`.

    Example:
        >>> ENAS("nasbench201", channels=4, cells=1).genotype().space
        'nasbench201'
    """

    def __init__(
        self,
        space: str | Space = "enas_micro",
        samples: int = 10,
        entropy: float = 1e-4,
        draws: int = 100,
        theta_every: int = 10,
        theta: ThetaRecipe = AdamTheta(lr=3.5e-3, betas=(0.0, 0.999), weight_decay=0.0),
        **settings: Any,
    ) -> None:
        space = get_space(space)
        super().__init__(
            space,
            relaxation=partial(Controller, order=getattr(space, "order", None)),
            hypergradient=ScoreFunction(samples=samples, reward="accuracy", entropy=entropy),
            theta=theta,
            theta_every=theta_every,
            callbacks=(SupernetSelection(draws, draw="relaxation"),),
            **settings,
        )
