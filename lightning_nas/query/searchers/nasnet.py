"""The search of NASNet: a recurrent controller trained by proximal policy optimisation."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_nas.query.searchers.controller_search import ControllerSearch
from lightning_nas.query.searchers.lstm_policy import LSTMPolicy
from lightning_nas.query.searchers.policies import Agenda, EMABaseline
from lightning_nas.spaces import Space, get_space

__all__ = ["NASNetPPO", "clipped_surrogate"]


def clipped_surrogate(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    r"""The objective of proximal policy optimisation, :math:`\min(r A, \text{clip}(r, 1 - c, 1 + c) A)`.

    Args:
        ratio: Probabilities now over those when the actions were taken, ``(batch, actions)``.
        advantage: Of each trajectory, ``(batch,)``.
        clip: How far a ratio may gain from leaving one.

    Returns:
        ``(batch, actions)``, to be maximised.

    Reference:
        Schulman, Wolski, Dhariwal, Radford and Klimov, "Proximal Policy Optimization Algorithms", 2017.

    Example:
        >>> clipped_surrogate(torch.tensor([[1.5], [0.5]]), torch.tensor([1.0, -1.0]), 0.2)
        tensor([[ 1.2000],
                [-0.8000]])
    """
    gain = advantage.unsqueeze(1)
    return torch.minimum(ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain)


class NASNetPPO(ControllerSearch):
    """An LSTM takes all decisions and is updated from 20 children at a time by proximal policy optimisation.

    The ratio is that of each decision, and the objective is summed over decisions and averaged over children. The
    reward is ``score / 100``. The clip and the number of steps are the usual ones and not published for this search.

    Reference: Zoph, Vasudevan, Shlens and Le, "Learning Transferable Architectures for Scalable Image Recognition",
    CVPR 2018.

    Args:
        space: Name of a search space, or a space.
        lr: Learning rate of Adam.
        batch: Children for an update.
        epochs: Steps of the optimizer in an update.
        clip: See `clipped_surrogate`.
        entropy: Weight of the summed entropies of the decisions.
        momentum: Momentum of the baseline, which is corrected for its start.
        size: Units of the LSTM.
        budget: Epochs of each trial; ``None`` for full training.
        seed: Seed of the controller's start and of all draws.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> from lightning_nas.query import Result
        >>> searcher = NASNetPPO("nasbench201", size=16)
        >>> before = searcher.policy.bias.clone()
        >>> searcher.tell([Result(trial, score=float(trial.number)) for trial in searcher.ask(20)])
        >>> bool((searcher.policy.bias != before).any())
        True
    """

    def __init__(
        self,
        space: str | Space = "nasbench201",
        lr: float = 3.5e-4,
        batch: int = 20,
        epochs: int = 4,
        clip: float = 0.2,
        entropy: float = 1e-5,
        momentum: float = 0.95,
        size: int = 100,
        budget: float | None = None,
        seed: int = 0,
    ) -> None:
        if not 0 < clip < 1 or entropy < 0:
            raise ValueError(f"clip={clip}, entropy={entropy}: clip is between 0 and 1, entropy not negative")
        policy = LSTMPolicy(Agenda(get_space(space)), size, layers=1, init=0.1, seed=seed)
        super().__init__(policy, EMABaseline(momentum), lr, batch, epochs, budget, seed)
        self.clip, self.entropy = clip, entropy

    def loss(self, log_prob: Tensor, entropy: Tensor, old: Tensor, advantage: Tensor) -> Tensor:
        """The clipped surrogate and the entropy bonus, negated."""
        surrogate = clipped_surrogate((log_prob - old).exp(), advantage, self.clip)
        return -(surrogate + self.entropy * entropy).sum(1).mean()
