"""Every relaxation with every hypergradient, every perturbation and PT: two batches, then a decision."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from toys import RELAXATIONS, Pairs, quiet_trainer

from lightning_nas.arch import Decisions
from lightning_nas.callbacks import GenotypeLogger, PerturbationRegularization, PerturbationSelection
from lightning_nas.hypergradients import FiniteDifference, FirstOrder, ScoreFunction, SingleLevel, Unrolled
from lightning_nas.methods import DifferentiableSearch, ExponentiatedGradient
from lightning_nas.relaxations import (
    Relaxation,
    Softmax,
)

FORMS = RELAXATIONS | {"Softmax, auxiliary skip": partial(Softmax, auxiliary_skip=0.5)}
HYPERGRADIENTS: dict[str, Callable[[], Any]] = {
    "FirstOrder": FirstOrder,
    "FiniteDifference": FiniteDifference,
    "Unrolled": Unrolled,
    "SingleLevel": SingleLevel,
    "ScoreFunction": ScoreFunction,
    "weights only": lambda: None,
}
KINDS = ["no perturbation", "random", "adversarial"]
UNROLLABLE = {"Dirichlet": "a Dirichlet draw has one derivative, not two"}
"""Of a draw that has no second derivative, no gradient can be taken through a virtual step of it."""


def scored(make: Callable[..., Relaxation]) -> bool:
    from lightning_nas.spaces import get_space

    space = get_space("small_sep")
    decisions: Decisions = space.decisions
    return make(decisions, space.relaxed)().log_prob is not None


@pytest.mark.filterwarnings("ignore:.*PerturbationSelection needs 7 epochs.*")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hypergradient", HYPERGRADIENTS.values(), ids=HYPERGRADIENTS)
@pytest.mark.parametrize("name", list(FORMS))
def test_two_batches_and_a_decision(name: str, hypergradient: Callable[[], Any], kind: Any) -> None:
    make = FORMS[name]
    if hypergradient is ScoreFunction and not scored(make):
        pytest.skip("it says no log-probability, and a search says so")
    if hypergradient is Unrolled and name in UNROLLABLE:
        pytest.skip(UNROLLABLE[name])
    more: dict[str, Any] = {"theta": ExponentiatedGradient()} if name == "Simplex" else {}
    search = DifferentiableSearch("small_sep", make, hypergradient(), channels=2, cells=3, **more)
    callbacks: list[Any] = [GenotypeLogger(terminal=False), PerturbationSelection(1, 1)]
    callbacks += [] if kind == KINDS[0] else [PerturbationRegularization(kind, 0.1, 0.3)]
    before = [p.detach().clone() for p in search.weights()]
    trainer = quiet_trainer(max_epochs=2, limit_val_batches=1, callbacks=callbacks)
    trainer.fit(search, Pairs(2, batch_size=4))
    assert trainer.global_step == 4
    assert any(not torch.equal(p, b) for p, b in zip(search.weights(), before, strict=True))
    assert all(bool(p.isfinite().all()) for p in search.parameters())
    assert sum(len(row) == 1 for row in search.relaxation.support.open("normal")) == 1
    assert search.space.check(search.genotype())
