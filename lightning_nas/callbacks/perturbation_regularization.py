"""Training of the weights under perturbed mixtures."""

from __future__ import annotations

from typing import Any, Literal

import lightning as L

from lightning_nas.callbacks.schedule import Annealing, Search
from lightning_nas.perturbations import AdversarialSmoothing, Projection, RandomSmoothing

__all__ = ["PerturbationRegularization"]


class PerturbationRegularization(Annealing):
    """Installs a perturbation of the weight step in any search and widens its box. Logs ``arch/eps``.

    The perturbation belongs to the callback: its generator is part of the callback's state, so a resumed fit draws the
    same noise, and checkpoints can be loaded without it. When the fit is over, the search has its own back.

    Reference: Chen and Hsieh, "Stabilizing Differentiable Architecture Search via Perturbation-based Regularization",
    ICML 2020.

    Args:
        kind: ``"random"`` (SDARTS-RS) or ``"adversarial"`` (SDARTS-ADV).
        start: Half the side of the box in the first epoch.
        end: The same at the end, which the epoch after the last would have.
        steps: Steps of an attack.
        projection: ``"published"`` or ``"exact"``, see `RandomSmoothing`.
        epochs: Length of the schedule; ``None`` for the whole fit.
        seed: Seed of all noise.

    Raises:
        ValueError: If a name is unknown or a number is out of range.

    Example:
        >>> [round(PerturbationRegularization("random").value(epoch, 50), 3) for epoch in (0, 25, 50)]
        [0.03, 0.165, 0.3]
    """

    def __init__(
        self,
        kind: Literal["random", "adversarial"] = "random",
        start: float = 0.03,
        end: float = 0.3,
        steps: int = 7,
        projection: Projection = "published",
        epochs: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(start, end, epochs=epochs)
        if kind not in ("random", "adversarial"):
            raise ValueError(f"unknown kind {kind!r}; allowed are 'random' and 'adversarial'")
        if not 0 <= end <= 1:
            raise ValueError(f"end={end} must lie between 0 and 1")
        self.perturbation = (
            RandomSmoothing(start, projection, seed)
            if kind == "random"
            else AdversarialSmoothing(start, steps, projection, seed)
        )
        self._before: dict[str, Any] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Install the perturbation."""
        attributes = vars(pl_module)
        if stage == "fit" and attributes.get("perturbation") is not self.perturbation:
            self._before = {name: attributes[name] for name in ("perturbation",) if name in attributes}
            # not through nn.Module, which would make its state part of the search's
            attributes["perturbation"] = self.perturbation

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give the search its own back."""
        attributes = vars(pl_module)
        if stage == "fit" and attributes.get("perturbation") is self.perturbation:
            del attributes["perturbation"]
            attributes |= self._before

    def set(self, search: Search, value: float) -> None:
        """Set the size of the box."""
        self.perturbation.eps = value
        search.log("arch/eps", value, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)

    def state_dict(self) -> dict[str, Any]:
        """The state of the generator."""
        return {"generator": self.perturbation.get_extra_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the generator."""
        self.perturbation.set_extra_state(state_dict["generator"])
