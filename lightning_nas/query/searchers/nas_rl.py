"""The search of NAS-RL: a recurrent controller with skip connections by attention, trained by REINFORCE."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_nas.query.searchers.controller_search import ControllerSearch
from lightning_nas.query.searchers.lstm_policy import LSTMPolicy
from lightning_nas.query.searchers.policies import Agenda, EMABaseline
from lightning_nas.query.trial import Result
from lightning_nas.spaces import Space, get_space
from lightning_nas.spaces.nas_rl import NASRLSpace

__all__ = ["NASRL", "SkipPolicy"]


class SkipPolicy(LSTMPolicy):
    r"""A recurrent policy whose skip connections are decided by attention.

    All skips into a layer are decided in one step, its anchor, whose output is `h`. Layer `j` feeds layer `i` with the
    probability :math:`\sigma(v^T \tanh(W_{prev} h_j + W_{curr} h_i))`, each independently. The first layer, which has
    no skips, has the output of its last step as anchor. Skip decisions are those named ``"skips/{i}<-{j}"`` with the
    choices `no` and `yes`; every other decision has a softmax.

    Args:
        agenda, size, layers, init, frozen, seed: As for `LSTMPolicy`.

    Example:
        >>> policy = SkipPolicy(Agenda(get_space("enas_macro")), size=8)
        >>> policy.steps[:4], policy.steps[-1] == list(range(67, 78))
        ([[0], [1], [2], [3]], True)
    """

    def layout(self) -> list[list[int]]:
        """One step for all skips into a layer, and one for each other decision."""
        skips: dict[int, tuple[int, int]] = {}
        steps: list[list[int]] = []
        for index, row in enumerate(self.agenda.rows):
            if row.name.startswith("skips/") and row.choices == ("no", "yes"):
                target, source = map(int, row.name.removeprefix("skips/").split("<-"))
                skips[index] = (target, source)
            before = skips.get(index - 1)
            if index in skips and before is not None and before[0] == skips[index][0]:
                steps[-1].append(index)
            else:
                steps.append([index])
        self._skips = skips
        self._anchors = self._anchor_steps(steps)
        return steps

    def _anchor_steps(self, steps: list[list[int]]) -> dict[int, int]:
        """Layer -> its last step."""
        found = {}
        for step, rows in enumerate(steps):
            layer = self.agenda.rows[rows[0]].name.rpartition("/")[2].partition("<-")[0]
            if layer.isdigit():
                found[int(layer)] = step
        return found

    def extend(self, size: int) -> None:
        """The parameters of the attention."""
        self.previous = nn.Parameter(torch.empty(size, size))
        self.current = nn.Parameter(torch.empty(size, size))
        self.vector = nn.Parameter(torch.empty(size))

    def scores(self, rows: Sequence[int], outputs: Tensor) -> Tensor:
        """The logits of some rows; those of a skip are zero for `no` and the attention for `yes`."""
        logits = super().scores(rows, outputs)
        at = [k for k, row in enumerate(rows) if row in self._skips]
        if not at:
            return logits
        pairs = [self._skips[rows[k]] for k in at]
        targets, sources = ([self._anchors[pair[side]] for pair in pairs] for side in (0, 1))
        bent = torch.tanh(outputs[:, sources] @ self.previous + outputs[:, targets] @ self.current) @ self.vector
        attention = torch.zeros_like(logits[:, at])
        attention[..., 1] = bent
        return logits.index_copy(1, torch.tensor(at), attention)


class NASRL(ControllerSearch):
    r"""A controller of two LSTM layers, updated by REINFORCE from `batch` children at a time.

    The reward is the cube of the accuracy, :math:`(score / 100)^3`; the published accuracy is the largest of the last
    five epochs, which is for the oracle to report. In `NASRLSpace` the depth is not the controller's: it starts at the
    smallest and grows by 2 layers after every `grow_every` trials. In other spaces skips are decided by attention if
    there are any, see `SkipPolicy`.

    Reference: Zoph and Le, "Neural Architecture Search with Reinforcement Learning", ICLR 2017.

    Args:
        space: Name of a search space, or a space; ``None`` for `NASRLSpace` as published.
        lr: Learning rate of Adam.
        batch: Children for an update.
        momentum: Momentum of the baseline, which is corrected for its start.
        entropy: Weight of the summed entropies of the decisions; none as published.
        size: Units of each of the two layers.
        grow_every: Trials of one depth.
        budget: Epochs of each trial; ``None`` for full training.
        seed: Seed of the controller's start and of all draws.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> searcher = NASRL(grow_every=2, batch=1)
        >>> depths = []
        >>> for _ in range(4):
        ...     trials = searcher.ask()
        ...     depths.append(len(searcher.space.wiring(trials[0].genotype).inputs))
        ...     searcher.tell([Result(trials[0], score=80.0)])
        >>> depths
        [6, 6, 8, 8]
    """

    def __init__(
        self,
        space: str | Space | None = None,
        lr: float = 6e-4,
        batch: int = 8,
        momentum: float = 0.9,
        entropy: float = 0.0,
        size: int = 35,
        grow_every: int = 1600,
        budget: float | None = None,
        seed: int = 0,
    ) -> None:
        if grow_every < 1 or entropy < 0:
            raise ValueError(f"grow_every={grow_every}, entropy={entropy}: at least 1, and not negative")
        own = NASRLSpace() if space is None else get_space(space)
        frozen = ("depth",) if isinstance(own, NASRLSpace) else ()
        policy = SkipPolicy(Agenda(own), size, layers=2, init=0.08, frozen=frozen, seed=seed)
        super().__init__(policy, EMABaseline(momentum), lr, batch, budget=budget, seed=seed)
        self.entropy, self.grow_every = entropy, grow_every

    def reward(self, result: Result) -> float:
        """The cube of the accuracy as a fraction."""
        return (result.score / 100) ** 3

    def fixed(self) -> dict[str, int]:
        """The depth that it is the time for."""
        if not isinstance(self.space, NASRLSpace):
            return {}
        return {"depth": min(self.asked // self.grow_every, (self.space.layers - self.space.start) // 2)}

    def loss(self, log_prob: Tensor, entropy: Tensor, old: Tensor, advantage: Tensor) -> Tensor:
        """The mean of the advantage times the log-probability, and the entropy bonus, negated."""
        return -(advantage * log_prob.sum(1) + self.entropy * entropy.sum(1)).mean()
