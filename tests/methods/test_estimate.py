"""What the estimate of a step says, and that it leaves no trace in the search."""

from __future__ import annotations

import copy
import random
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import FiniteDifference, HardGumbel, Pairs, UniformPath, Unrolled, quiet_trainer

from lightning_nas.arch import Bilevel, Sample
from lightning_nas.cli import main
from lightning_nas.hypergradients import FirstOrder
from lightning_nas.memory import LiveBytes, free, resident, tensors_in
from lightning_nas.methods import AdamTheta, DifferentiableSearch, SGDCosine
from lightning_nas.methods import estimate as room
from lightning_nas.methods.alone import alone
from lightning_nas.methods.estimate import Estimate, StepEstimate, estimate, extrapolate

TINY: dict[str, Any] = {"space": "nasbench201", "channels": 4, "cells": 1}
SMALL = {
    "darts": ({"space": "darts", "channels": 4, "cells": 3}, (3, 16, 16), 16),
    "nasbench201": ({"space": "nasbench201", "channels": 8, "cells": 1}, (3, 16, 16), 24),
}


def pair(size: int = 8, shape: tuple[int, ...] = (3, 8, 8), theta: int | None = None) -> dict[str, Any]:
    return Pairs(1, shape, size).pairs[0] | {"theta": Pairs(1, shape, theta or size).pairs[0]["theta"]}


def real_timeline(search: DifferentiableSearch, batch: dict[str, Any]) -> list[int]:
    """Bytes of all tensors after each operation of the second step of a fit."""
    found: list[int] = []

    class Track(StepEstimate):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 1:
                held = [batch, trainer.optimizers, list(pl_module.parameters()), list(pl_module.buffers())]
                self.live = LiveBytes(tensors_in(held))
                self.live.__enter__()

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 1:
                self.live.__exit__(None, None, None)
                found.extend(self.live.timeline)

    data = Pairs(2)
    data.pairs = [copy.deepcopy(batch), copy.deepcopy(batch)]
    quiet_trainer(max_epochs=1, limit_val_batches=0, callbacks=[Track()]).fit(search, data)
    return found


# --- bytes


def test_live_bytes_of_a_linear_layer_are_those_counted_by_hand() -> None:
    layer, x = nn.Linear(100, 50), torch.randn(10, 100)
    held = 4 * (100 * 50 + 50 + 10 * 100)
    with LiveBytes(tensors_in([x, list(layer.parameters())])) as live:
        y = layer(x)
        assert live.timeline[-1] == held + 4 * 10 * 50
        z = y.relu()
        del y  # neither layer nor relu keeps it
        total = z.sum()
        assert live.timeline[-1] == held + 4 * 10 * 50 + 4
        del z  # relu keeps its own result for its gradient
        x + 0
        assert live.timeline[-1] == held + 4 * (10 * 50 + 1 + 1000)
        total.backward()
    assert live.timeline[0] == held
    assert layer.weight.grad is not None
    del total
    with LiveBytes(tensors_in([x, list(layer.parameters())])) as after:  # the gradients are held now
        pass
    assert after.timeline == [held + 4 * (100 * 50 + 50)]


def test_live_bytes_forget_what_is_freed_and_count_views_once() -> None:
    with LiveBytes([]) as live:
        for _ in range(5):
            x = torch.zeros(256)
            x[:10], x.view(16, 16), x.detach()
            del x
        torch.zeros(256).chunk(4)
    assert max(live.timeline) == 1024


def test_states_of_the_optimisers_and_gradients_are_held() -> None:
    search = DifferentiableSearch(**TINY)
    twin = alone(search)
    held = sum(t.nbytes for t in tensors_in([twin.own_optimizers, list(twin.parameters())]))
    w, theta = (sum(p.nbytes for p in part) for part in (search.weights(), search.arch_parameters()))
    steps = 4 * len(search.arch_parameters())  # Adam's counters
    assert held == 3 * w + 3 * theta + steps  # weight, gradient, momentum; theta and two moments


# --- linear in the batch


def test_the_largest_of_lines_is_found_where_the_largest_value_is_no_line() -> None:
    def bytes_at(n: int) -> list[int]:
        return [1000, 10 + 7 * n, 400 + 3 * n]

    assert extrapolate((2, 5), (bytes_at(2), bytes_at(5)), 300) == max(bytes_at(300)) == 2110
    assert max(bytes_at(2)) == max(bytes_at(5)) == 1000  # so the line through the peaks would say 1000
    assert extrapolate((2, 4), ([1, 8, 3], [9, 10]), 8) == 14  # no correspondence: the line through the peaks


@pytest.mark.parametrize(
    ("settings", "theta"),
    [
        ({}, None),
        ({}, 20),
        ({"hypergradient": Unrolled()}, None),
        ({"hypergradient": FiniteDifference()}, None),
        ({"hypergradient": None}, None),
        ({"relaxation": HardGumbel}, None),
        ({"relaxation": UniformPath}, None),
        ({"order": "w_first", "w": SGDCosine(clip=None)}, None),
        ({"space": "darts", "cells": 2}, None),
    ],
    ids=[
        "first-order",
        "unequal",
        "unrolled",
        "finite-difference",
        "weights-only",
        "gumbel",
        "path",
        "w-first",
        "darts",
    ],
)
def test_extended_bytes_are_those_of_the_whole_batch(settings: dict[str, Any], theta: int | None) -> None:
    search, batch = DifferentiableSearch(**TINY | settings), pair(40, theta=theta)
    exact = room._run(alone(search), batch, nullcontext).peak
    assert estimate(search, batch).tensor_bytes == pytest.approx(exact, rel=0.005)


@pytest.mark.parametrize("space", SMALL)
def test_bytes_are_those_of_a_step_in_a_trainer(space: str) -> None:
    settings, shape, size = SMALL[space]
    search, batch = DifferentiableSearch(**settings), pair(size, shape)
    found = estimate(search, batch)
    real = max(real_timeline(search, batch))
    assert found.tensor_bytes == pytest.approx(real, rel=0.05)
    assert found.memory_bytes >= found.tensor_bytes
    assert found.batch_size == size


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_small_batches(size: int) -> None:
    search, batch = DifferentiableSearch(**TINY), pair(size)
    exact = room._run(alone(search), batch, nullcontext).peak
    assert estimate(search, batch).tensor_bytes == pytest.approx(exact, rel=0.005)


# --- no trace


def everything(search: DifferentiableSearch) -> list[Any]:
    numpy = np.random.get_state()
    state = [value.clone() for value in search.state_dict().values()]
    state += [torch.get_rng_state(), search.relaxation.generator.get_state()]
    return [*state, str(numpy), random.getstate(), [p.grad for p in search.parameters()], search.training]


class Drawing(nn.Module):
    """A supernet that draws from every global generator and moves its buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 10), nn.BatchNorm1d(10))

    def forward(self, x: Tensor, sample: Sample) -> Tensor:
        noise = torch.rand(1) + random.random() + np.random.rand()
        out: Tensor = self.layers(x + noise) + sum(rows.sum() for rows in sample.weights.values())
        return out


@pytest.mark.parametrize("relaxation", [HardGumbel, UniformPath])
@pytest.mark.parametrize("own", [False, True])
def test_search_and_generators_stay_as_they_were(relaxation: Any, own: bool) -> None:
    search = DifferentiableSearch(**TINY, relaxation=relaxation, supernet=Drawing() if own else None)
    before = everything(search)
    estimate(search, pair())
    for first, second in zip(before, everything(search), strict=True):
        assert torch.equal(first, second) if isinstance(first, Tensor) else first == second


@pytest.mark.parametrize("own", [False, True])
def test_a_search_is_the_same_to_the_bit_with_and_without(own: bool, capsys: pytest.CaptureFixture[str]) -> None:
    states = []
    for callbacks in ([], [StepEstimate()]):
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)
        search = DifferentiableSearch(
            **TINY, relaxation=HardGumbel, theta=AdamTheta(lr=0.1), supernet=Drawing() if own else None
        )
        quiet_trainer(max_epochs=2, callbacks=callbacks).fit(search, Pairs(3))
        states.append([*search.state_dict().values(), torch.rand(1), torch.tensor(random.random() + np.random.rand())])
        assert ("estimate: " in capsys.readouterr().out) is bool(callbacks)
    assert all(torch.equal(first, second) for first, second in zip(*states, strict=True))


def test_generators_come_back_after_an_error() -> None:
    class Fails(Drawing):
        def forward(self, x: Tensor, sample: Sample) -> Tensor:
            super().forward(x, sample)
            raise RuntimeError("no")

    search = DifferentiableSearch(**TINY, supernet=Fails())
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="no"):
        estimate(search, pair())
    assert torch.equal(before, torch.get_rng_state())


# --- what is run, and when


def test_the_copy_takes_the_steps_of_the_search() -> None:
    calls: list[str] = []

    class Counts(FirstOrder):
        def __call__(self, problem: Bilevel) -> list[Tensor]:
            assert all(buffer is not None for buffer in problem.momentum_buffers)
            calls.append("theta")
            return super().__call__(problem)

    search = DifferentiableSearch(
        **TINY, hypergradient=Counts(), perturbation=lambda sample, _: calls.append("w") or sample
    )
    search.theta_frozen = True  # for now: a whole step is asked for
    estimate(search, pair())
    assert calls == ["theta", "w"] * 4
    assert search.theta_frozen


def test_one_line_before_the_first_step(capsys: pytest.CaptureFixture[str]) -> None:
    search, seen = DifferentiableSearch(**TINY), []

    class Watch(StepEstimate):
        def on_train_batch_end(self, *args: Any) -> None:
            seen.append(capsys.readouterr().out)

    trainer = quiet_trainer(max_epochs=2, limit_val_batches=0, callbacks=[Watch()])
    trainer.fit(search, Pairs(2))
    lines = [line for text in seen for line in text.splitlines() if "estimate" in line]
    assert len(lines) == 1
    assert lines[0] in seen[0]
    for word in ("estimate: ", " MB at the peak (+ ", " s a step (batch 8)"):
        assert word in lines[0]


class Locked(Drawing):
    """Cannot be copied: it holds a lock."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def test_a_supernet_that_cannot_be_copied_is_searched_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    trainer = quiet_trainer(max_epochs=1, limit_val_batches=0, callbacks=[StepEstimate()])
    trainer.fit(DifferentiableSearch(**TINY, supernet=Locked()), Pairs(2))
    assert trainer.global_step == 2
    lines = [line for line in capsys.readouterr().out.splitlines() if "estimate" in line]
    assert lines == ["no estimate: TypeError: cannot pickle '_thread.lock' object"]


def test_a_supernet_that_waits_for_other_processes_is_not_tried() -> None:
    supernet = nn.SyncBatchNorm.convert_sync_batchnorm(Drawing())
    with pytest.raises(ValueError, match="SyncBatchNorm waits"):
        estimate(DifferentiableSearch(**TINY, supernet=supernet), pair())


def test_half_precision_is_that_of_the_trainer(capsys: pytest.CaptureFixture[str]) -> None:
    kinds: set[torch.dtype] = set()

    class Watches(Drawing):
        def forward(self, x: Tensor, sample: Sample) -> Tensor:
            kinds.add(self.layers[:2](x).dtype)
            return super().forward(x, sample)

    settings = {"precision": "bf16-mixed", "max_epochs": 1, "limit_val_batches": 0, "limit_train_batches": 0}
    trainer = quiet_trainer(**settings)
    search = DifferentiableSearch(**TINY, supernet=Watches())
    trainer.strategy.connect(search)
    StepEstimate().on_train_batch_start(trainer, search, pair(), 0)
    assert kinds == {torch.bfloat16}
    assert capsys.readouterr().out.startswith("estimate: ")


def test_without_room_nothing_large_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    class Watches(Drawing):
        def forward(self, x: Tensor, sample: Sample) -> Tensor:
            sizes.append(len(x))
            return super().forward(x, sample)

    search, batch = DifferentiableSearch(**TINY, supernet=Watches()), pair(64)
    ample = estimate(search, batch)
    assert set(sizes) == {2, 32}
    assert ample.seconds is not None
    sizes.clear()
    monkeypatch.setattr(room, "free", lambda _: 1000)
    tight = estimate(search, batch)
    assert set(sizes) == {2, 3}
    assert tight.tensor_bytes == ample.tensor_bytes
    assert "time not measured (batch 64); only 0 MB are free: choose a smaller batch" in str(tight)


def test_what_it_says() -> None:
    assert str(Estimate(1_500_000_000, 12.34, 64, 1)) == (
        "estimate: 1.5 GB at the peak of tensors, 12.3 s a step (batch 64)"
    )
    assert "0.003 s a step" in str(Estimate(1, 0.0031, 1, 1))


def test_the_process_is_asked_and_where_it_cannot_be_tensors_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = resident()
    if before is None:
        pytest.skip("no /proc")
    block = torch.ones(64, 1024, 1024)
    after, room_left = resident(), free(torch.device("cpu"))
    assert after is not None
    assert room_left is not None
    assert 200e6 < after - before < 400e6
    assert room_left > 0
    del block
    monkeypatch.setattr(room, "resident", lambda: None)
    found = estimate(DifferentiableSearch(**TINY), pair())
    assert found.program_bytes is None
    assert found.memory_bytes == found.tensor_bytes


# --- on the command line


@pytest.mark.parametrize(("option", "lines"), [([], 1), (["--estimate=true"], 1), (["--estimate=false"], 0)])
def test_option_of_the_command(
    option: list[str], lines: int, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = f"--config={project}/recipes/search/digits_nasbench201.yaml"
    tiny = ["--model.channels=4", "--model.cells=1", "--trainer.max_epochs=1", "--trainer.limit_train_batches=1"]
    main(["search", recipe, *tiny, *option])
    said = [line for line in capsys.readouterr().out.splitlines() if "estimate: " in line]
    assert len(said) == lines
    assert all(line.startswith("estimate: ") and line.endswith("s a step (batch 64)") for line in said)
