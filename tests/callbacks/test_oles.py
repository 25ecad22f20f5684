"""Operation-level early stopping: which operations there are, their cosines, what freezing leaves alone, resume."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from planted import ResumablePairs
from torch import Tensor, nn
from toys import HardGumbel, one_line, quiet_trainer

from lightning_nas.arch import Sample
from lightning_nas.callbacks import OLES
from lightning_nas.callbacks.diagnosis import is_parameter_free
from lightning_nas.callbacks.oles import cosines, find_operations
from lightning_nas.methods import DARTS, DifferentiableSearch, SGDCosine
from lightning_nas.spaces import get_space
from lightning_nas.supernet import build_supernet

pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")


# --- operations and cosines


def test_cosines_are_those_of_all_weights_together() -> None:
    shapes = [(2, 3), (4,), (5, 1, 3), (2,)]
    left, right = ([torch.randn(shape) for shape in shapes] for _ in range(2))
    found = cosines(left, right, [1, 2, 1])
    parts = [(0, 1), (1, 3), (3, 4)]
    flat = [[torch.cat([g.flatten() for g in side[a:b]]) for a, b in parts] for side in (left, right)]
    expected = torch.stack([F.cosine_similarity(a, b, dim=0) for a, b in zip(*flat, strict=True)])
    torch.testing.assert_close(found, expected)
    assert cosines([torch.zeros(3)], [torch.ones(3)], [1]).tolist() == [0.0]


@pytest.mark.parametrize(
    ("name", "cells", "kinds"),
    [("nasbench201", 1, ["cell"] * 3), ("darts", 3, ["normal", "reduce", "reduce"]), ("nasbench1shot1_1", 1, ["ops"])],
)
def test_every_candidate_with_weights_is_an_operation(name: str, cells: int, kinds: list[str]) -> None:
    space = get_space(name)
    supernet = build_supernet(space, 4, cells)
    found, expected = find_operations(supernet), 0
    for kind in kinds:
        for row in space.decisions[kind]:
            expected += sum(not is_parameter_free(op) for op in row.choices)
            expected += kind == "reduce" and row.name.endswith(("<-0", "<-1"))  # a skip of stride 2 has weights
    assert len(found) == expected
    of_operations = {id(weight) for weights in found.values() for weight in weights}
    rest = [n for n, p in supernet.named_parameters() if id(p) not in of_operations]
    assert rest
    assert not [n for n in rest if ".edges." in n or n.count("blocks") > 1]


@pytest.mark.parametrize("name", ["enas_macro", "fbnet"])
def test_chains_have_operations_too(name: str) -> None:
    space = get_space(name)
    found = find_operations(build_supernet(space, 8))
    (rows,) = [rows for group, rows in space.decisions.items() if group in ("ops", "blocks")]
    least = sum(not is_parameter_free(op) for row in rows for op in row.choices)
    assert least <= len(found) <= sum(len(row.choices) for row in rows)


# --- planted gradients


class Lines(nn.Module):
    """The loss is the sum of all operations' weights times the numbers that a picture has for them.

    An operation for which it has zeros is not executed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ops = nn.ModuleList([nn.ParameterList([torch.ones(2)]) for _ in range(3)])  # type: ignore[arg-type]
        self.other = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, sample: Sample) -> Tensor:
        numbers = x.mean(0)[:, :, 0]  # (3, 2)
        executed = [(op[0] * row).sum() for op, row in zip(self.ops, numbers, strict=True) if bool(row.any())]  # type: ignore[index]
        return torch.stack(executed).sum() + self.other.sum() + 0 * sample.weights["cell"].sum()


class Directions(ResumablePairs):
    """Training gradients are (1, 0) for every operation; each validation gradient has a given cosine with it.

    With a cosine above one there is none.
    """

    def __init__(self, turns: Sequence[Sequence[float]]) -> None:
        super().__init__(len(turns))
        self.pairs = []
        for turn in turns:
            cosine = torch.tensor(turn).clamp(max=1.0)
            upper = torch.stack([cosine, (1 - cosine.square()).sqrt()], dim=1)[None, :, :, None]
            upper = upper * (torch.tensor(turn) <= 1.0)[None, :, None, None]
            lower = torch.tensor([1.0, 0.0]).expand(1, 3, 2)[..., None]
            y = torch.zeros(1, dtype=torch.long)
            self.pairs.append({"w": (lower.contiguous(), y), "theta": (3 * upper, y)})


class Weights(L.Callback):
    """The operations' weights after each step."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        self.seen.append(torch.stack([op[0].detach().clone() for op in pl_module.supernet.ops]))


def fit(
    callback: OLES, turns: Sequence[Sequence[float]], epochs: int = 1, path: Path | None = None, **more: Any
) -> tuple[list[Tensor], Any]:
    weights, recipe = Weights(), SGDCosine(lr=0.1, weight_decay=0.1, momentum=0.9, clip=1e9)
    search = DifferentiableSearch("nasbench201", supernet=Lines(), loss=lambda out, y: out, w=recipe)
    callbacks = [callback, weights, *more.pop("callbacks", [])]
    trainer = quiet_trainer(max_epochs=epochs, limit_val_batches=0, callbacks=callbacks, **more)
    trainer.fit(search, Directions(turns), ckpt_path=path, weights_only=None if path is None else True)
    return weights.seen, trainer


def moved(seen: list[Tensor]) -> list[list[bool]]:
    """For each step, which operations it moved."""
    steps = [torch.ones(3, 2), *seen]
    return [(after != before).any(dim=1).tolist() for before, after in pairwise(steps)]


def test_operations_below_the_threshold_stay_from_the_end_of_the_window_on(capsys: Any) -> None:
    callback = OLES(threshold=0.4, window=3)
    seen, trainer = fit(callback, [[0.9, 0.39, -1.0]] * 5)
    assert moved(seen) == [[True] * 3] * 2 + [[True, False, False]] * 3
    assert callback.frozen.tolist() == [False, True, True]
    assert "2 operations frozen, 2 of 3 in all" in capsys.readouterr().out
    assert float(trainer.logged_metrics["oles/frozen"]) == 2


def test_the_mean_of_a_window_counts_and_windows_do_not_overlap() -> None:
    # windows of two: operation 0 never below 0.4 in the mean, 1 in the first window, 2 in the second; 0 is below it
    # in the mean of steps 2 and 3
    turns = [[0.9, 0.0, 0.5], [0.0, 0.7, 0.5], [0.1, 1.0, 0.5], [0.8, 1.0, 0.2]]
    seen, _ = fit(OLES(threshold=0.4, window=2), turns)
    assert moved(seen) == [[True, True, True], [True, False, True], [True, False, True], [True, False, False]]


def test_an_operation_is_judged_after_a_window_of_its_own_steps() -> None:
    turns = [[-1.0, -1.0, 2.0], [-1.0, 2.0, 2.0], [-1.0, -1.0, 2.0], [-1.0, -1.0, -1.0]]
    seen, _ = fit(OLES(threshold=0.4, window=2), turns)
    assert moved(seen) == [[True, True, True], [False, True, True], [False, False, True], [False, False, True]]


def test_other_weights_move_as_ever() -> None:
    class Other(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
            self.value = pl_module.supernet.other.detach().clone()

    values = []
    for threshold in (-1.0, 1.0):
        other = Other()
        fit(OLES(threshold, window=1), [[0.5] * 3] * 3, callbacks=[other])
        values.append(other.value)
    assert torch.equal(*values)
    assert float(values[0]) < 1


def test_a_resume_within_a_window_goes_on_exactly(tmp_path: Path) -> None:
    turns = [[0.9, 0.39, 0.41], [0.9, 0.3, 0.3], [0.2, 0.9, 0.5], [0.3, 0.5, 0.5]]
    saved = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    whole = OLES(window=3)
    seen, _ = fit(whole, turns, epochs=2, callbacks=[saved], enable_checkpointing=True)
    assert 0 < int(whole.frozen.sum()) < 3
    for step in (1, 2, 3, 4, 5, 7):
        again = OLES(window=3)
        rest, _ = fit(again, turns, 2, tmp_path / f"step={step}.ckpt")
        assert len(rest) == 8 - step
        assert all(torch.equal(a, b) for a, b in zip(rest, seen[step:], strict=True))
        assert torch.equal(again.frozen, whole.frozen)


# --- real searches


def run(*callbacks: L.Callback, epochs: int = 1, **more: Any) -> tuple[Any, dict[str, Any]]:
    torch.manual_seed(0)
    search = DifferentiableSearch(**({"space": "nasbench201", "channels": 4, "cells": 1} | more))
    before = {name: value.clone() for name, value in search.supernet.named_parameters()}
    quiet_trainer(max_epochs=epochs, limit_val_batches=0, callbacks=[*callbacks]).fit(search, ResumablePairs(2))
    state = dict(search.state_dict()) | {"rng": torch.get_rng_state()}
    state["moved"] = {n for n, p in search.supernet.named_parameters() if not torch.equal(p, before[n])}
    return search, state


@pytest.mark.parametrize(
    "more",
    [{}, {"relaxation": HardGumbel}, {"space": "s4", "channels": 2, "cells": 3}],
    ids=["softmax", "path", "noise"],
)
def test_a_search_takes_no_notice_until_something_is_frozen(more: dict[str, Any]) -> None:
    (_, with_it), (_, without) = run(OLES(threshold=-1.0, window=1), **more), run(**more)
    moved_with, moved_without = with_it.pop("moved"), without.pop("moved")
    assert moved_with == moved_without
    assert moved_with
    assert all(torch.equal(value, without[name]) for name, value in with_it.items())


def test_frozen_operations_stay_and_the_rest_moves() -> None:
    callback = OLES(threshold=1.0, window=1)
    search, state = run(callback)
    operations = {id(weight) for weights in find_operations(search.supernet).values() for weight in weights}
    inner = {name for name, p in search.supernet.named_parameters() if id(p) in operations}
    assert bool(callback.frozen.all())
    assert not state["moved"] & inner
    assert {"classifier.weight", "stem.conv.0.weight"} <= state["moved"]


def test_the_cosine_is_that_of_the_two_gradients() -> None:
    class Gradients(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            sample, weights = pl_module.relaxation().detach(), pl_module.weights()
            losses = [F.cross_entropy(pl_module.supernet(x, sample), y) for x, y in (batch["w"], batch["theta"])]
            grads = [dict(zip(map(id, weights), torch.autograd.grad(loss, weights), strict=True)) for loss in losses]
            self.found = [
                F.cosine_similarity(*(torch.cat([g[id(w)].flatten() for w in ws]) for g in grads), dim=0)
                for ws in find_operations(pl_module.supernet).values()
            ]

    callback, gradients = OLES(window=5), Gradients()
    search = DARTS("nasbench201", channels=4, cells=1, order="w_first")
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0, callbacks=[gradients, callback])
    trainer.fit(search, ResumablePairs(1))
    torch.testing.assert_close(callback.state_dict()["total"], torch.stack(gradients.found), rtol=1e-4, atol=1e-5)


def test_only_steps_count_in_which_both_paths_have_the_operation() -> None:
    dense, path = OLES(threshold=-1.0, window=100), OLES(threshold=-1.0, window=100)
    run(dense, epochs=4)
    run(path, epochs=4, relaxation=HardGumbel)
    assert set(dense.state_dict()["count"]) == {8}
    assert 0 < sum(path.state_dict()["count"]) < 8 * 36 / 4  # one in twenty-five by chance


# --- what is refused


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"threshold": 1.5}, ["threshold=1.5", "[-1, 1]"]), ({"window": 0}, ["window=0", "at least one"])],
)
def test_bad_arguments(settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        OLES(**settings)
    one_line(error.value, *words)


def test_a_supernet_without_such_names() -> None:
    search = DARTS("nasbench201", channels=4, cells=1)
    trainer = quiet_trainer(max_epochs=1, limit_val_batches=0, callbacks=[OLES(operations="mine")])
    with pytest.raises(MisconfigurationException) as error:
        trainer.fit(search, ResumablePairs(1))
    one_line(error.value, "'mine'", "no operations", "operations=")
