"""Selection of the genotype that does best with the weights of the supernet."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from lightning_nas.arch import Genotype, Sample
from lightning_nas.callbacks.race import merit
from lightning_nas.callbacks.schedule import Search
from lightning_nas.callbacks.terminal import print_above_bar
from lightning_nas.callbacks.validation import evaluation, logits_of, require_validation, validation_batches
from lightning_nas.training import planned_epochs

__all__ = ["SupernetSelection"]

TOGETHER = 32
"""Genotypes evaluated side by side on a batch."""


class SupernetSelection(Callback):
    """At the end of a fit, draws genotypes, tries each in the supernet, and fixes the Support to the best.

    Each is scored by its accuracy on some validation batches, the best of them again on all. This ends random search
    with weight sharing (Li and Talwalkar, UAI 2019: 1000 samples, 10 batches, 10 again), SETN (Dong and Yang, ICCV
    2019) and ENAS (Pham et al., ICML 2018) with draws of the relaxation, and SPOS without its evolution.

    It works at the end of the last epoch, when the validation of that epoch is over and before the search logs its
    figures and `ModelCheckpoint` saves, so that the last checkpoint has the winner; a checkpoint that is saved right
    after validation (``check_val_every_n_epoch`` other than 1, ``save_on_train_epoch_end=False``) is older. A fit that
    is stopped elsewhere, by ``max_time`` for instance, gets its winner when training ends, after the last checkpoint.

    Args:
        samples: Genotypes drawn; of equal ones one is tried.
        batches: Validation batches that each is scored on.
        top: How many are scored again on all batches.
        draw: ``"uniform"`` among the open choices, or ``"relaxation"``: what the space reads off draws of the
            relaxation, or off its expected weights under Gumbel noise where its draws are all alike.
        seed: Seed of the draws.

    Attributes:
        history: The genotypes scored on all batches, as text, with their accuracy, best first.

    Raises:
        ValueError: If a number is not positive or `draw` unknown; at the start of a fit, if it has no validation data.

    Example:
        >>> SupernetSelection(samples=100, draw="relaxation").top
        10
    """

    def __init__(
        self,
        samples: int = 1000,
        batches: int = 10,
        top: int = 10,
        draw: Literal["uniform", "relaxation"] = "uniform",
        seed: int = 0,
    ) -> None:
        if min(samples, batches, top) < 1:
            raise ValueError(f"samples={samples}, batches={batches}, top={top} must all be at least 1")
        if draw not in ("uniform", "relaxation"):
            raise ValueError(f"unknown draw {draw!r}; allowed are 'uniform' and 'relaxation'")
        self.samples, self.batches, self.top, self.draw, self.seed = samples, batches, top, draw, seed
        self.history: list[dict[str, Any]] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check that there is validation data."""
        if stage == "fit":
            require_validation(trainer, type(self).__name__)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Select, if the epoch is the last."""
        epochs = planned_epochs(trainer)
        steps_are_over = trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps
        if trainer.should_stop or steps_are_over or (epochs is not None and trainer.current_epoch + 1 >= epochs):
            self._select(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Select, if the fit ended in another way."""
        if not self.history:
            self._select(trainer, pl_module)

    def _select(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        search: Search = pl_module  # type: ignore[assignment]
        drawn = draw_genotypes(search, self.samples, self.draw, self.seed)
        with evaluation(trainer, search.supernet):
            first = list(validation_batches(trainer, self.batches))
            rough = [acc for part in _parts(drawn) for acc in _accuracies(search, part, first)]
            order = sorted(range(len(drawn)), key=lambda k: -rough[k])[: self.top]
            best = [drawn[k] for k in order]
            exact = _accuracies(search, best, validation_batches(trainer))
        ranked = sorted(zip(exact, best, strict=True), key=lambda pair: -pair[0])
        self.history = [{"genotype": search.space.format(genotype), "acc": acc} for acc, genotype in ranked]
        acc, winner = ranked[0]
        fix(search, winner)
        if trainer.is_global_zero:
            print_above_bar(
                trainer, f"supernet selection: accuracy {acc:.4f}, the best of {len(drawn)} genotypes in the supernet"
            )

    def state_dict(self) -> dict[str, Any]:
        """The history."""
        return {"history": [dict(entry) for entry in self.history]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it."""
        self.history = list(state_dict["history"])


def fix(search: Search, genotype: Genotype) -> None:
    """Leave open what a genotype keeps; rows that it says nothing about stay as they are."""
    support = search.relaxation.support
    for group, row, decision in list(support.rows()):
        if decision.name in genotype.picks:
            support.fix(group, row, *genotype.picks[decision.name])


def draw_genotypes(search: Search, count: int, draw: str, seed: int) -> list[Genotype]:
    """So many draws, of equal ones the first."""
    space, relaxation = search.space, search.relaxation
    if draw == "uniform" and relaxation.support.active() is None:
        rng = random.Random(seed)  # noqa: S311
        return list(dict.fromkeys(space.sample(rng) for _ in range(count)))
    generator = torch.Generator().manual_seed(seed)
    drawn = (space.discretize(_scores(search, draw, generator)) for _ in range(count))
    return list(dict.fromkeys(drawn))


def _scores(search: Search, draw: str, generator: torch.Generator) -> dict[str, Tensor]:
    """Scores of all choices, those of closed ones minus infinity, from which the space reads a genotype."""
    relaxation = search.relaxation
    support = relaxation.support
    weights: dict[str, Tensor] = {}
    if draw == "relaxation":
        weights = dict(relaxation.weight_sample().weights if relaxation.stochastic else relaxation.mean())
    scores = {}
    for group in support.decisions:
        mask = support.mask(group).cpu()
        noise = torch.rand(mask.shape, generator=generator)
        if group in weights and relaxation.stochastic:
            score = weights[group].cpu().float() + 1e-6 * noise  # the noise lets none of equals come first
        elif group in weights:
            score = (weights[group].cpu().float().log() - (-noise.log()).log()).exp()
        else:
            score = (1 + 1e-6 * noise) if weights else noise
        scores[group] = score.masked_fill(~mask, -torch.inf)
    return scores


def _parts(genotypes: Sequence[Genotype]) -> list[Sequence[Genotype]]:
    return [genotypes[k : k + TOGETHER] for k in range(0, len(genotypes), TOGETHER)]


def _accuracies(search: Search, genotypes: Sequence[Genotype], batches: Iterable[tuple[Tensor, Tensor]]) -> list[float]:
    """The accuracy of each genotype on the batches of all processes."""
    device = next(search.supernet.parameters()).device
    samples = [_to(search.space.vertex(genotype), device) for genotype in genotypes]
    right, count = torch.zeros(len(samples), device=device), 0
    for x, y in batches:
        right += merit(logits_of(search.supernet, x, samples), y, "acc").sum(-1)
        count += len(y)
    *sums, total = search.agreed(torch.cat([right, right.new_tensor([count])])).tolist()
    if not total:
        raise ValueError("the validation data has no batches; give it some, or raise limit_val_batches")
    return [each / total for each in sums]


def _to(sample: Sample, device: torch.device) -> Sample:
    return sample._replace(weights={group: rows.to(device) for group, rows in sample.weights.items()})
