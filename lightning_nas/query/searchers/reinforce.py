"""REINFORCE with independent categorical distributions, one for each decision."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lightning_nas.arch import Genotype
from lightning_nas.query.searcher import Searcher
from lightning_nas.query.searchers.policies import Agenda, Draw, EMABaseline, largest
from lightning_nas.query.trial import Result, Trial
from lightning_nas.spaces import Space

__all__ = ["Adam", "CategoricalPolicy", "Reinforce"]

Array = npt.NDArray[np.float64]


class CategoricalPolicy:
    """A row of logits for each decision of a space; each is drawn by itself.

    A decision that keeps several choices draws one after another without replacement, each in proportion to
    ``exp(logit)`` among those left, and `gradient` is that of the log-probability of this ordered draw. Decisions that
    did not apply, or had nothing to choose, have no gradient.

    Args:
        agenda: The decisions.
        logits: ``(rows, choices)``; entries behind a row's own choices do not count.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> policy = CategoricalPolicy(Agenda(get_space("nasbench201")), np.zeros((6, 5)))
        >>> policy.gradient(((0,),) * 6)[0].round(2).tolist()
        [0.8, -0.2, -0.2, -0.2, -0.2]
    """

    def __init__(self, agenda: Agenda, logits: Array) -> None:
        self.agenda, self.logits = agenda, logits
        self._numbers = np.arange(len(agenda.rows))
        self._single = agenda.static and all(row.keep == 1 for row in agenda.rows)
        closed = np.ones(logits.shape, dtype=np.bool_)
        for index, row in enumerate(agenda.rows):
            closed[index, : len(row.choices)] = False
            if agenda.static:
                closed[index] |= ~np.isin(np.arange(agenda.width), agenda.allowed(row.name, {}))
        self._bar = np.where(closed, -np.inf, 0.0)

    def draw(self, generator: np.random.Generator) -> Draw:
        """Draw each decision."""
        moved = self.logits + self._bar + generator.gumbel(size=self.logits.shape)
        if self._single:
            return tuple((choice,) for choice in moved.argmax(1).tolist())
        picks: dict[str, tuple[int, ...]] = {}
        drawn: list[tuple[int, ...]] = []
        for row, noisy in zip(self.agenda.rows, moved.tolist(), strict=True):
            drawn.append(largest(noisy, self.agenda.allowed(row.name, picks), row.keep))
            if drawn[-1]:
                picks[row.name] = drawn[-1]
        return tuple(drawn)

    def gradient(self, draw: Draw) -> Array:
        """Gradient of the log-probability of a draw in the logits, ``(rows, choices)``."""
        if self._single:  # the same in few calls, for this is most of what a trial takes
            gradient: Array = self.logits + self._bar
            gradient = np.exp(gradient - np.maximum.reduce(gradient, axis=1, keepdims=True))
            gradient /= -np.add.reduce(gradient, axis=1, keepdims=True)
            gradient[self._numbers, [choice for (choice,) in draw]] += 1.0
            return gradient
        total, left = np.zeros_like(self.logits), self.agenda.open(draw).copy()
        for step in range(max(map(len, draw))):
            rows = [r for r, kept in enumerate(draw) if len(kept) > step and left[r].any()]
            picked = [draw[r][step] for r in rows]
            total[rows] -= _softmax(self.logits[rows], left[rows])
            total[rows, picked] += 1.0
            left[rows, picked] = False
        return total

    def entropy_gradient(self, draw: Draw) -> Array:
        """Gradient of the entropies of the first choice of each decision, summed, in the logits."""
        p = _softmax(self.logits, self.agenda.open(draw))
        log_p = np.log(p, out=np.zeros_like(p), where=p > 0)
        surprise = p * log_p
        gradient: Array = p * surprise.sum(1, keepdims=True) - surprise
        return gradient


def _softmax(logits: Array, is_open: npt.NDArray[np.bool_]) -> Array:
    """Softmax over the open entries of each row; zeros in a row without any."""
    shifted = np.where(is_open, logits, -np.inf)
    top = shifted.max(1, keepdims=True)
    weights: Array = np.exp(shifted - np.where(np.isfinite(top), top, 0.0))
    total = weights.sum(1, keepdims=True)
    return weights / np.where(total, total, 1.0)


class Adam:
    """Adam for one array, as torch has it (torch's own takes a multiple of the time of all else on such small arrays).

    Reference: Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015.

    Args:
        shape: Shape of the array.
        lr: Learning rate.

    Example:
        >>> Adam((1,), 0.1).step(np.array([3.0])).round(6).tolist()
        [-0.1]
    """

    def __init__(self, shape: tuple[int, ...], lr: float) -> None:
        self.lr, self.steps = lr, 0
        self.mean, self.square = np.zeros(shape), np.zeros(shape)

    def step(self, gradient: Array) -> Array:
        """What to add to the array for the gradient of a loss."""
        self.steps += 1
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient * gradient
        scale = self.lr / (1 - 0.9**self.steps)
        change: Array = -scale * self.mean / (np.sqrt(self.square / (1 - 0.999**self.steps)) + 1e-8)
        return change


class Reinforce(Searcher):
    r"""A policy gradient on independent logits, a row for each decision; no network.

    Each result moves the logits along :math:`(R - b) \nabla \log \pi(\alpha)`, `b` a moving average of the scores. The
    gradient is that of the policy at the time the result is told. A draw that is no genotype of the space is drawn
    again at no cost, up to 1000 times; then a sample of the space takes its place. The answer is the best architecture
    of the whole history, not the most probable one.

    The defaults are those of NAS-Bench-201 (its first version) but for the learning rate, which NATS-Bench lowered from
    0.5 to 0.01; NAS-Bench-101 has ``optimizer="sgd", lr=0.1, start=0.0``.

    Reference: Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning",
    Machine Learning 1992; Dong and Yang, "NAS-Bench-201", ICLR 2020.

    Args:
        space: Name of a search space, or a space.
        lr: Learning rate.
        optimizer: ``"adam"``, or ``"sgd"`` for plain gradient ascent.
        momentum: Momentum of the baseline.
        baseline: Its convention, see `EMABaseline`.
        entropy: Weight of the policy's entropy in what is maximised.
        start: Standard deviation of the first logits.
        budget: Epochs of each trial; ``None`` for full training.
        seed: Seed of the first logits and of all draws.

    Raises:
        ValueError: If a number is out of its range, or the optimizer is another.

    Example:
        >>> searcher = Reinforce("nasbench201", lr=0.1)
        >>> for trial in searcher.ask(50):
        ...     score = float(trial.genotype.picks["cell/1<-0"] == (3,))
        ...     searcher.tell([Result(trial, score)])
        >>> int(searcher.policy.logits[0].argmax())
        3
    """

    def __init__(
        self,
        space: str | Space = "nasbench201",
        lr: float = 0.01,
        optimizer: Literal["adam", "sgd"] = "adam",
        momentum: float = 0.9,
        baseline: Literal["corrected", "enas"] = "corrected",
        entropy: float = 0.0,
        start: float = 1e-3,
        budget: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(space, seed)
        if lr <= 0 or start < 0 or entropy < 0:
            raise ValueError(f"lr={lr}, start={start}, entropy={entropy}: lr must be positive, the others not negative")
        if optimizer not in ("adam", "sgd"):
            raise ValueError(f"optimizer={optimizer!r}; give 'adam' or 'sgd'")
        self.lr, self.entropy, self.budget = lr, entropy, budget
        self.baseline = EMABaseline(momentum, baseline)
        self.generator = np.random.default_rng(seed)
        agenda = Agenda(self.space)
        logits = start * self.generator.standard_normal((len(agenda.rows), agenda.width))
        self.policy = CategoricalPolicy(agenda, logits)
        self.adam = Adam(logits.shape, lr) if optimizer == "adam" else None
        self.drawn: dict[int, Draw] = {}

    def propose(self) -> Trial:
        """A draw of the policy."""
        draw, genotype = self._valid()
        self.drawn[self.asked] = draw
        return self.trial(genotype, self.budget)

    def _valid(self) -> tuple[Draw, Genotype]:
        """A draw that is a genotype."""
        for _ in range(1000):
            draw = self.policy.draw(self.generator)
            genotype = self.policy.agenda.genotype(draw)
            if genotype is not None:
                return draw, genotype
        genotype = self.space.sample(self.rng)
        return self.policy.agenda.draw_of(genotype), genotype

    def observe(self, result: Result) -> None:
        """One step of the optimizer."""
        draw = self.drawn.pop(result.trial.number)
        gain = self.baseline.advantage(result.score) * self.policy.gradient(draw)
        if self.entropy:
            gain += self.entropy * self.policy.entropy_gradient(draw)
        self.policy.logits += self.lr * gain if self.adam is None else self.adam.step(-gain)

    def observe_failure(self, result: Result) -> None:  # noqa: D102
        super().observe_failure(result)
        self.drawn.pop(result.trial.number)

    def state(self) -> dict[str, Any]:  # noqa: D102
        state: dict[str, Any] = {
            "logits": self.policy.logits.tolist(),
            "baseline": self.baseline.state(),
            "generator": self.generator.bit_generator.state,
            "drawn": [[number, [list(kept) for kept in draw]] for number, draw in self.drawn.items()],
        }
        if self.adam is not None:
            state["adam"] = [self.adam.steps, self.adam.mean.tolist(), self.adam.square.tolist()]
        return state

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        self.policy.logits = np.array(state["logits"])
        self.baseline.load_state(state["baseline"])
        self.generator.bit_generator.state = state["generator"]
        self.drawn = {number: tuple(map(tuple, draw)) for number, draw in state["drawn"]}
        if self.adam is not None:
            self.adam.steps, mean, square = state["adam"]
            self.adam.mean, self.adam.square = np.array(mean), np.array(square)
