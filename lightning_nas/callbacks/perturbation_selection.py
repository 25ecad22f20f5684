"""Selection by what the supernet loses without each choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch.optim.lr_scheduler import CosineAnnealingLR

from lightning_nas import strategy
from lightning_nas.arch import Sample, Support
from lightning_nas.callbacks.race import Metric, decide
from lightning_nas.callbacks.schedule import EpochSchedule, Search
from lightning_nas.callbacks.terminal import print_above_bar
from lightning_nas.callbacks.validation import require_validation
from lightning_nas.spaces import Space

__all__ = ["PerturbationSelection", "epochs_needed", "without"]


class PerturbationSelection(EpochSchedule):
    r"""Decides one edge after the other by what the supernet loses without each operation (DARTS-PT).

    From `start_epoch` on, every `every_n_epochs` epochs, before the first batch, in each group of operations: of an
    undecided edge drawn at random, each open operation in turn loses its weight, the others keep theirs, and the
    validation data is evaluated; the operation without which it goes worst becomes the edge's only one. When all edges
    are decided, the inputs of nodes follow in the same rhythm: of an undecided node drawn at random, the input without
    which it goes best is removed until as many remain as the node keeps. In between the supernet is tuned at a constant
    learning rate, and the architecture parameters of undecided edges go on as before. Decisions are edits of the
    Support, so the search's genotype is what they have come to, and any relaxation whose rows sum to one gives a
    decided edge the weight one.

    As published, evaluation uses the statistics of the batch, and of equal scores the first operation is fixed and the
    last input removed. Operations that the space never derives (`none` of DARTS) are not candidates, a deviation. The
    groups of operations are those that the space relaxes and that keep one choice a row; all other groups are inputs.

    `race` evaluates growing parts of the validation data (one, two, four, ... batches) and after each drops the
    candidates that are surely not the choice: with the differences `d` between a candidate's and the leader's scores on
    the same pictures, those with :math:`|\sum d| > 4 \sqrt{\sum d^2}`, which happens by chance with a probability of at
    most :math:`e^{-8}` if differences of either sign are alike. What is left at the end, or alone, is the choice.

    The learning rate follows the search's cosine as if it ended at `start_epoch`, and is `lr_scale` times its initial
    value from there on.

    Reference: Wang, Cheng, Chen, Tang and Hsieh, "Rethinking Architecture Selection in Differentiable NAS", ICLR 2021.

    Args:
        start_epoch: Epoch of the first decision.
        every_n_epochs: Epochs between two decisions.
        lr_scale: The learning rate of the tuning, as a share of the initial one.
        metric: ``"acc"`` or ``"loss"`` (cross-entropy).
        seed: Seed of the order of edges and nodes.
        batches: Validation batches of a decision; ``None`` for all.
        race: Whether candidates that are surely not the choice are dropped early.
        fixed_alpha: Whether the architecture parameters are never trained.

    Attributes:
        history: One entry for each candidate removed and each operation fixed: ``epoch``, ``group``, ``decision``,
            ``scores`` (choice -> score of the supernet without it), and ``fixed`` or ``removed``.

    Raises:
        ValueError: If an argument is out of range; at the start of a fit, if it has no validation data.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> epochs_needed(get_space("nasbench201"), start_epoch=100)
        126
        >>> selection = PerturbationSelection(start_epoch=100)
    """

    def __init__(
        self,
        start_epoch: int,
        every_n_epochs: int = 5,
        lr_scale: float = 0.1,
        metric: Metric = "acc",
        seed: int = 0,
        batches: int | None = None,
        race: bool = False,
        fixed_alpha: bool = False,
    ) -> None:
        if start_epoch < 0 or every_n_epochs < 1 or lr_scale <= 0 or (batches is not None and batches < 1):
            raise ValueError(
                f"start_epoch={start_epoch}, every_n_epochs={every_n_epochs}, lr_scale={lr_scale}, batches={batches}:"
                " start_epoch must not be negative, the others must be positive"
            )
        if metric not in ("acc", "loss"):
            raise ValueError(f"unknown metric {metric!r}; allowed are 'acc' and 'loss'")
        self.start_epoch, self.every_n_epochs, self.lr_scale = start_epoch, every_n_epochs, lr_scale
        self.metric, self.batches, self.race, self.fixed_alpha = metric, batches, race, fixed_alpha
        self.generator = torch.Generator().manual_seed(seed)
        self.history: list[dict[str, Any]] = []
        self._decided_at, self._told = -1, False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check what the decisions need."""
        if stage == "fit":
            require_validation(trainer, type(self).__name__)
            strategy.require_unused_parameters(trainer, True, type(self).__name__)

    def at_epoch(self, trainer: L.Trainer, search: Search, epoch: int, epochs: int | None) -> None:
        """Set the learning rate, and decide if a decision is due."""
        if self.fixed_alpha:
            search.theta_frozen = True
        for config in trainer.lr_scheduler_configs:
            self._set_rate(config.scheduler, epoch)
        needed = epochs_needed(search.space, self.start_epoch, self.every_n_epochs)
        if epochs is not None and epochs < needed and not self._told:
            rank_zero_warn(
                f"PerturbationSelection needs {needed} epochs to decide everything, the fit has {epochs}; raise"
                " max_epochs, or lower start_epoch or every_n_epochs"
            )
            self._told = True
        since = epoch - self.start_epoch
        if since >= 0 and since % self.every_n_epochs == 0 and epoch != self._decided_at:
            self._decide(trainer, search, epoch)
            self._decided_at = epoch

    def _set_rate(self, scheduler: Any, epoch: int) -> None:
        """Let the cosine end at the first decision; from there on, let it start and end at the rate of the tuning."""
        if not isinstance(scheduler, CosineAnnealingLR):
            return
        if epoch < self.start_epoch:
            scheduler.T_max = self.start_epoch
            return
        for number, group in enumerate(scheduler.optimizer.param_groups):
            group["lr"] = scheduler.eta_min = scheduler.base_lrs[number] = self.lr_scale * group["initial_lr"]

    def _decide(self, trainer: L.Trainer, search: Search, epoch: int) -> None:
        """One decision in each group of operations or, when these are all decided, of inputs."""
        support = search.relaxation.support
        for groups, resolve in zip(groups_of(search.space), (self._fix, self._cut), strict=True):
            due = [group for group in groups if undecided(support, group)]
            for group in due:
                rows = undecided(support, group)
                row = rows[int(torch.randint(len(rows), (1,), generator=self.generator))]
                resolve(trainer, search, epoch, group, row)
            if due:
                return

    def _fix(self, trainer: L.Trainer, search: Search, epoch: int, group: str, row: int) -> None:
        """Keep the operation without which it goes worst."""
        support = search.relaxation.support
        choices, is_open = support.decisions[group][row].choices, support.open(group)[row]
        never: Sequence[str] = getattr(search.space, "exclude", ())
        candidates = [k for k in is_open if choices[k] not in never] or list(is_open)
        kept, scores = self._compare(trainer, search, group, row, candidates, worst=True)
        support.fix(group, row, kept)
        self._note(trainer, epoch, support, group, row, scores, fixed=choices[kept])

    def _cut(self, trainer: L.Trainer, search: Search, epoch: int, group: str, row: int) -> None:
        """Remove the inputs without which it goes best, one by one."""
        support = search.relaxation.support
        decision = support.decisions[group][row]
        while len(support.open(group)[row]) > decision.keep:
            gone, scores = self._compare(trainer, search, group, row, support.open(group)[row], worst=False)
            support.drop(group, row, gone)
            self._note(trainer, epoch, support, group, row, scores, removed=decision.choices[gone])

    def _compare(
        self, trainer: L.Trainer, search: Search, group: str, row: int, candidates: Sequence[int], worst: bool
    ) -> tuple[int, dict[int, float]]:
        if len(candidates) == 1:
            return candidates[0], {}
        sample, support = search.relaxation.mean_sample(), search.relaxation.support
        samples = [without(sample, support, group, row, k) for k in candidates]
        choice, figures = decide(trainer, search, samples, self.metric, worst, self.batches, self.race)
        return candidates[choice], dict(zip(candidates, figures, strict=True))

    def _note(
        self,
        trainer: L.Trainer,
        epoch: int,
        support: Support,
        group: str,
        row: int,
        scores: dict[int, float],
        **outcome: str,
    ) -> None:
        decision = support.decisions[group][row]
        named = {decision.choices[k]: score for k, score in scores.items()}
        self.history.append({"epoch": epoch, "group": group, "decision": decision.name, "scores": named, **outcome})
        if trainer.is_global_zero:
            (done, choice), *_ = outcome.items()
            figures = ", ".join(f"{name} {score:.4f}" for name, score in named.items())
            print_above_bar(trainer, f"pt/decision {decision.name}: {done} {choice}; {self.metric} without {figures}")

    def state_dict(self) -> dict[str, Any]:
        """The history, the epoch of the last decision and the state of the generator."""
        history = [dict(entry) for entry in self.history]
        return {"history": history, "decided_at": self._decided_at, "generator": self.generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them."""
        self.history, self._decided_at = list(state_dict["history"]), state_dict["decided_at"]
        self.generator.set_state(state_dict["generator"].cpu())


def epochs_needed(space: Space, start_epoch: int, every_n_epochs: int = 5) -> int:
    """Epochs of a fit in which `PerturbationSelection` decides everything, its last decision before the last epoch.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> epochs_needed(get_space("darts"), 50)  # 14 + 3 decisions
        131
    """
    support = Support(space.decisions)
    rounds = sum(max((len(undecided(support, group)) for group in part), default=0) for part in groups_of(space))
    return start_epoch + max((rounds - 1) * every_n_epochs + 1, 0)


def groups_of(space: Space) -> tuple[list[str], list[str]]:
    """The groups of operations, and those of inputs."""
    ops = [group for group in space.relaxed if all(row.keep == 1 for row in space.decisions[group])]
    return ops, [group for group in space.decisions if group not in ops]


def undecided(support: Support, group: str) -> list[int]:
    """The rows of a group that have more open choices than they keep."""
    rows = zip(support.decisions[group], support.open(group), strict=True)
    return [row for row, (decision, is_open) in enumerate(rows) if len(is_open) > decision.keep]


def without(sample: Sample, support: Support, group: str, row: int, choice: int) -> Sample:
    """A sample without one choice; what the others weigh stays as it is.

    Example:
        >>> from lightning_nas.arch import Decision
        >>> support = Support({"cell": (Decision("edge", ("skip", "conv")),)})
        >>> without(Sample({"cell": torch.tensor([[0.25, 0.75]])}), support, "cell", 0, 1).weights["cell"].tolist()
        [[0.25, 0.0]]
    """
    if group in sample.weights:
        weights = sample.weights[group].clone()
        weights[row, choice] = 0.0
        return sample._replace(weights={**sample.weights, group: weights})
    rows = list(support.open(group))
    rows[row] = tuple(k for k in rows[row] if k != choice)
    return sample._replace(active={**(sample.active or {}), group: tuple(rows)})
