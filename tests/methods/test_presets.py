"""Every published method: a short preset with the published settings, and any callback goes with it."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from toys import Pairs, quiet_trainer

from lightning_nas import hypergradients, methods, relaxations
from lightning_nas.callbacks import (
    ArchitectureWarmup,
    GenotypeLogger,
    PerturbationRegularization,
    PerturbationSelection,
    TemperatureAnnealing,
    epochs_needed,
)
from lightning_nas.methods import DifferentiableSearch

SMALL: dict[str, Any] = {"channels": 4, "cells": 3}
PRESETS: dict[str, Callable[..., DifferentiableSearch]] = {
    name: value
    for name, value in vars(methods).items()
    if inspect.isclass(value) and issubclass(value, DifferentiableSearch) and value is not DifferentiableSearch
}
SAMPLERS: dict[str, dict[str, Any]] = {"ENAS": {"draws": 4}, "RandomSearchWS": {"samples": 4}, "SPOS": {"samples": 4}}
SAMPLERS["DARTSPT"] = {"start_epoch": 1, "every_n_epochs": 1}
SAMPLERS["FewShotNAS"] = {"samples": 4, "split_epoch": 1}
every = pytest.mark.parametrize("name", list(PRESETS))


def make(name: str, space: str = "small_sep", **more: Any) -> DifferentiableSearch:
    return PRESETS[name](space, **SMALL, **SAMPLERS.get(name, {}), **more)


class State(Callback):
    """Keeps whether the supernet's weights and the architecture parameters have moved."""

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self.before = {
            k: v.clone() for k, v in pl_module.state_dict().items() if "mask" not in k and torch.is_tensor(v)
        }

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        after = pl_module.state_dict()
        self.moved = {k for k, v in self.before.items() if not torch.equal(v, after[k])}


@every
def test_it_trains_validates_and_says_a_genotype(name: str) -> None:
    search, state = make(name), State()
    epochs = epochs_needed(search.space, 1, 1) if name == "DARTSPT" else 2
    trainer = quiet_trainer(max_epochs=epochs, limit_val_batches=1, callbacks=[state, GenotypeLogger(terminal=False)])
    trainer.fit(search, Pairs(3))
    assert trainer.global_step == 3 * epochs
    assert any(key.startswith("supernet") for key in state.moved)
    assert search.space.check(search.genotype())
    assert all(bool(p.isfinite().all()) for p in search.parameters())
    values = {k: v for k, v in trainer.callback_metrics.items() if k.endswith(("loss", "acc"))}
    assert {"train/loss", "val/loss", "val/acc"} <= set(values)
    assert all(bool(v.isfinite()) for v in values.values())


@every
def test_its_architecture_parameters_move_unless_it_has_none_or_they_rest(name: str) -> None:
    search, state = make(name), State()
    warmed = [c for c in search.own_callbacks if isinstance(c, ArchitectureWarmup)]
    rest: list[Callback] = [ArchitectureWarmup(0)] if warmed else []
    callbacks = [state, GenotypeLogger(terminal=False), *rest]
    quiet_trainer(max_epochs=7 if name == "DARTSPT" else 1, limit_val_batches=1, callbacks=callbacks).fit(
        search, Pairs(3)
    )
    trained = {f"relaxation.{k}" for k, p in search.relaxation.named_parameters()}
    moves = search.hypergradient is not None and bool(trained)
    assert bool(state.moved & trained) == moves, state.moved


@every
def test_perturbation_and_selection_go_with_it(name: str) -> None:
    """SDARTS and DARTS-PT are callbacks: every method takes both, or says in a line why it cannot."""
    search = make(name)
    smoothing = PerturbationRegularization("random", 0.03, 0.3)
    extra: list[Callback] = [PerturbationSelection(1, 1), smoothing, GenotypeLogger(terminal=False)]
    trainer = quiet_trainer(max_epochs=7, limit_val_batches=1, callbacks=extra)
    trainer.fit(search, Pairs(1))
    assert search.relaxation.support.resolved
    assert search.space.check(search.genotype())


@every
def test_its_constructor_is_short(name: str) -> None:
    source = inspect.getsource(inspect.getmodule(PRESETS[name]))  # type: ignore[arg-type]
    tree = ast.parse(source)
    (preset,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    (init,) = (node for node in preset.body if isinstance(node, ast.FunctionDef))
    assert [node.name for node in preset.body if isinstance(node, ast.FunctionDef)] == ["__init__"]
    assert init.end_lineno is not None
    assert init.end_lineno - init.lineno < 40


PUBLISHED: dict[str, tuple[float, float, float, tuple[float, float], float | None]] = {
    # lr of w, its end, lr of theta, betas, clip of w
    "DARTS": (0.025, 0.001, 3e-4, (0.5, 0.999), 5.0),
    "SNAS": (0.025, 0.001, 3e-4, (0.5, 0.999), 5.0),
    "GDAS": (0.025, 0.001, 3e-4, (0.5, 0.999), 5.0),
    "DSNAS": (0.025, 0.001, 1e-3, (0.5, 0.999), 5.0),
    "DrNAS": (0.1, 0.0, 6e-4, (0.5, 0.999), 5.0),
    "PCDARTS": (0.1, 0.0, 6e-4, (0.5, 0.999), 5.0),
    "PDARTS": (0.025, 0.0, 6e-4, (0.5, 0.999), 5.0),
    "NASP": (0.025, 0.001, 3e-4, (0.5, 0.999), 5.0),
    "SDARTS": (0.025, 0.001, 3e-4, (0.5, 0.999), 5.0),
    "ProxylessNAS": (0.025, 0.0, 1e-3, (0.0, 0.999), None),
    "FairDARTS": (0.005, 0.001, 3e-3, (0.9, 0.999), 5.0),
    "BetaDARTS": (0.025, 0.001, 3e-4, (0.5, 0.999), 5.0),
    "DARTSPT": (0.025, 0.001, 3e-4, (0.5, 0.999), 5.0),
}


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_its_defaults_are_the_published_ones(name: str) -> None:
    search, (lr, end, theta, betas, clip) = make(name), PUBLISHED[name]
    assert (search.w.lr, search.w.lr_min, search.w.clip) == (lr, end, clip)
    assert (search.theta.lr, search.theta.betas) == (theta, betas)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "more", "part"),
    [
        ("DARTS", {"gradient": "first"}, hypergradients.FirstOrder),
        ("DARTS", {"gradient": "second"}, hypergradients.FiniteDifference),
        ("DARTS", {"gradient": "exact"}, hypergradients.Unrolled),
        ("GAEA", {"single_level": True}, hypergradients.SingleLevel),
        ("ProxylessNAS", {"reinforce": True}, hypergradients.ScoreFunction),
        ("GDAS", {}, relaxations.Gumbel),
        ("DrNAS", {"kl": 1e-3}, relaxations.Dirichlet),
    ],
)
def test_options_choose_parts(name: str, more: dict[str, Any], part: type) -> None:
    search = make(name, **more)
    assert isinstance(search.hypergradient, part) or isinstance(search.relaxation, part)
    quiet_trainer(max_epochs=2, limit_val_batches=0, callbacks=[GenotypeLogger(terminal=False)]).fit(search, Pairs(2))


def test_a_callback_of_the_users_takes_the_place_of_the_methods_own() -> None:
    search, own = make("GDAS"), TemperatureAnnealing(3.0, 3.0)
    quiet_trainer(max_epochs=1, limit_val_batches=0, callbacks=[own]).fit(search, Pairs(1))
    assert search.relaxation.tau == 3.0  # type: ignore[union-attr]


def test_an_unknown_gradient_is_refused() -> None:
    with pytest.raises(ValueError, match="allowed are first, second, exact"):
        make("DARTS", gradient="third")


def test_every_preset_has_a_row_in_the_readme() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert [name for name in PRESETS if f"`{name}`" not in readme] == []
