"""The health of a search, epoch by epoch."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning_utilities.core.rank_zero import rank_zero_warn

from lightning_nas.callbacks.diagnosis import (
    COLLAPSING,
    HEALTHY,
    CollapseRules,
    Finding,
    distribution_figures,
    is_parameter_free,
    is_skip,
    judge,
    operations,
)
from lightning_nas.callbacks.terminal import print_above_bar
from lightning_nas.callbacks.watching import Watched, fix_earlier, is_last_batch, measure_sharpness
from lightning_nas.reports.doctor import plot_health
from lightning_nas.reports.files import run_folder

__all__ = ["SearchDoctor"]

NAMES = ("healthy", "at risk", "collapsing")


class SearchDoctor(Callback):
    """Watches for the collapse of a differentiable search, says so in the terminal, and keeps the last safe genotype.

    After the last batch of each epoch it looks at the present genotype (skips and operations without weights of each
    kind of cell), at the architecture distribution (entropy, margin between first and second choice) and, if asked to,
    at the dominant eigenvalue of the alpha-Hessian; then it logs ``doctor/...`` and applies its `rules`. The verdict is
    printed when it changes. It never changes a search unless told to: it only computes, on copies, and leaves all
    generators alone.

    Logs, for each group: ``doctor/skips/<group>``, ``doctor/parameter_free/<group>`` (a share),
    ``doctor/entropy/<group>``, ``doctor/margin/<group>``; ``doctor/level`` (0 healthy, 1 at risk, 2 collapsing);
    ``doctor/lambda_max``; ``doctor/gap/loss`` (validation minus training) and, where the search logs a training
    accuracy, ``doctor/gap/acc`` (training minus validation).

    A search without architecture parameters (uniformly drawn paths) has nothing to judge; only the gap is logged.

    Args:
        rules: When a search is in danger; a dictionary sets some of the `CollapseRules`, ``None`` none. DARTS+ is
            ``SearchDoctor({"collapsed_skips": 0.25}, min_epoch=0, stop=True)``.
        min_epoch: First epoch that is judged: alpha starts at random. ``None`` for a fifth of the fit, as in Zela et
            al., ICLR 2020 (10 of 50).
        sharpness_every: Epochs between two evaluations of the eigenvalue; 0 for none. One costs about as much as fifty
            to seventy architecture steps on as many pictures.
        pictures: Pictures of the last batch on which it is taken.
        stop: Whether a collapse stops the search and fixes the last safe genotype in its Support.
        terminal: Whether to print.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> import lightning as L
        >>> trainer = L.Trainer(callbacks=[SearchDoctor()], logger=False, enable_progress_bar=False, accelerator="cpu")
    """

    def __init__(
        self,
        rules: CollapseRules | dict[str, float] | None = None,
        min_epoch: int | None = None,
        sharpness_every: int = 0,
        pictures: int = 16,
        stop: bool = False,
        terminal: bool = True,
    ) -> None:
        if sharpness_every < 0 or pictures < 1 or (min_epoch is not None and min_epoch < 0):
            raise ValueError(
                f"min_epoch={min_epoch}, sharpness_every={sharpness_every}, pictures={pictures}: give numbers of at"
                " least 0, and at least one picture"
            )
        self.rules = rules if isinstance(rules, CollapseRules) else CollapseRules(**(rules or {}))  # type: ignore[arg-type]
        self.min_epoch, self.sharpness_every, self.pictures = min_epoch, sharpness_every, pictures
        self.stop, self.terminal = stop, terminal
        self._state: dict[str, Any] = {"epochs": [], "genotypes": [], "history": {}, "lambda_epochs": []}
        self._state |= {"lambda_max": [], "level": HEALTHY, "reasons": [], "since": None, "last_safe": None}
        self._state |= {"judged": False, "stopped": False}
        self._gap: dict[str, float] = {}
        self._blank = False

    @property
    def last_safe(self) -> str | None:
        """The text of the last genotype that showed no collapse; ``None`` before the first epoch has ended."""
        safe: str | None = self._state["last_safe"]
        return safe

    @property
    def verdict(self) -> str:
        """How the search does, in a line."""
        state = self._state
        if self._blank:
            return "nothing to judge: the search has no architecture parameters"
        if not state["judged"]:
            return "too early to tell"
        if state["level"] == HEALTHY:
            return NAMES[HEALTHY]
        return f"{NAMES[state['level']]} since epoch {state['since']}: {'; '.join(state['reasons'])}"

    def report(self) -> dict[str, Any]:
        """All that is known, as plain values: verdict, last safe genotype, rules, and the figures of each epoch."""
        return {"verdict": self.verdict, "rules": asdict(self.rules), "gap": dict(self._gap)} | self.state_dict()

    # --- each epoch

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """See whether there is anything to judge; a search that had stopped stays so after a resume."""
        self._blank = not getattr(pl_module, "arch_parameters", list)()
        if self._state["stopped"]:
            trainer.should_stop = True

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Examine the search at the last batch of an epoch."""
        if self._blank or self._state["stopped"] or not is_last_batch(trainer, batch_idx):
            return
        search: Watched = pl_module  # type: ignore[assignment]
        self._forget(trainer.current_epoch)
        kept = self._note(trainer.current_epoch, search)
        if self.sharpness_every and trainer.current_epoch % self.sharpness_every == 0:
            self._measure(trainer.current_epoch, search, batch)
        first = self._first(trainer)
        if trainer.current_epoch >= first:
            found = judge(kept, self._state["lambda_epochs"], self._state["lambda_max"], self.rules, first)
            self._conclude(trainer, search, found)
        else:
            self._state["last_safe"] = self._state["genotypes"][-1]
        figures = {f"doctor/{name}": values[-1] for name, values in self._state["history"].items()}
        figures["doctor/level"] = float(self._state["level"])
        if trainer.current_epoch in self._state["lambda_epochs"][-1:]:
            figures["doctor/lambda_max"] = self._state["lambda_max"][-1]
        pl_module.log_dict(figures, on_step=False, on_epoch=True, batch_size=1)

    def _first(self, trainer: L.Trainer) -> int:
        """The first epoch that is judged."""
        if self.min_epoch is not None:
            return self.min_epoch
        return 10 if trainer.max_epochs in (None, -1) else int(trainer.max_epochs or 0) // 5

    def _forget(self, epoch: int) -> None:
        """Drop what is known of this epoch and later ones: a search may have been led back to it."""
        state = self._state
        count = sum(known < epoch for known in state["epochs"])
        for values in (state["epochs"], state["genotypes"], *state["history"].values()):
            del values[count:]
        count = sum(known < epoch for known in state["lambda_epochs"])
        del state["lambda_epochs"][count:], state["lambda_max"][count:]

    def _note(self, epoch: int, search: Watched) -> dict[str, list[str]]:
        """Write down the figures of an epoch; returns the operations kept."""
        genotype, support = search.genotype(), search.relaxation.support
        mean = search.relaxation.mean()
        kept = operations(search.space.decisions, genotype)
        figures = distribution_figures(mean, {group: support.mask(group) for group in mean})
        for group, names in kept.items():
            figures[f"skips/{group}"] = float(sum(map(is_skip, names)))
            figures[f"parameter_free/{group}"] = sum(map(is_parameter_free, names)) / max(len(names), 1)
        self._state["epochs"].append(epoch)
        self._state["genotypes"].append(search.space.format(genotype))
        for name, value in figures.items():
            self._state["history"].setdefault(name, []).append(value)
        return kept

    def _measure(self, epoch: int, search: Watched, batch: Any) -> None:
        try:
            value = measure_sharpness(search, batch, pictures=self.pictures).value
        except ValueError:  # a sampled path whose gradient comes from its score alone
            return
        self._state["lambda_epochs"].append(epoch)
        self._state["lambda_max"].append(value)

    def _conclude(self, trainer: L.Trainer, search: Watched, found: Finding) -> None:
        """Compare with the verdict before; say what is new, and stop if that is wanted."""
        state, epoch = self._state, trainer.current_epoch
        changed = found.level != state["level"]
        state["judged"], state["level"], state["reasons"] = True, found.level, list(found.reasons)
        if changed:
            state["since"] = None if found.level == HEALTHY else epoch
        if found.level < COLLAPSING:
            state["last_safe"] = state["genotypes"][-1]
        elif changed and found.sharp_since is not None:
            state["last_safe"] = state["genotypes"][state["epochs"].index(found.sharp_since)]
        if changed and self.terminal and trainer.is_global_zero:
            safe = f"\nlast safe genotype: {self.last_safe}" if found.level == COLLAPSING and self.last_safe else ""
            print_above_bar(trainer, f"search doctor, epoch {epoch}: {self.verdict}{safe}")
        if self.stop and found.level == COLLAPSING and self.last_safe is not None:
            state["stopped"] = trainer.should_stop = True
            fix_earlier(search, self.last_safe)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the gap between training and validation, where both are known."""
        known = {name: float(value) for name, value in trainer.callback_metrics.items()}
        upper = "val/loss" if "val/loss" in known else "arch/loss"
        self._gap = {}
        if {"train/loss", upper} <= set(known):
            self._gap["loss"] = known[upper] - known["train/loss"]
        if {"train/acc", "val/acc"} <= set(known):
            self._gap["acc"] = known["train/acc"] - known["val/acc"]
        pl_module.log_dict({f"doctor/gap/{name}": value for name, value in self._gap.items()}, sync_dist=True)

    # --- what is left of a run

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the figures over the epochs into the folder of the run, if it has one."""
        if trainer.logger is None or trainer.logger.save_dir is None or getattr(trainer, "fast_dev_run", False):
            return
        folder = run_folder(trainer)  # in every process: Lightning lets them agree
        if not trainer.is_global_zero:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            plot_health(self.report(), folder / "doctor.png")
        except OSError as error:
            rank_zero_warn(f"the search doctor could not draw into {str(folder)!r}: {error}")

    def state_dict(self) -> dict[str, Any]:
        """Everything but the gap, as plain types."""
        state = self._state
        lists = {name: list(value) for name, value in state.items() if isinstance(value, list)}
        return state | lists | {"history": {name: list(values) for name, values in state["history"].items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with it."""
        self._state = dict(state_dict)
