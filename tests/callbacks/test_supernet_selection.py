"""The genotype that does best in the supernet: a planted best, the draws, and where it lands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from planted import Planted, ResumablePairs, signals
from torch import Tensor
from toys import one_line, quiet_trainer

from lightning_nas.callbacks import GenotypeLogger, SupernetSelection
from lightning_nas.callbacks.supernet_selection import draw_genotypes
from lightning_nas.methods import DifferentiableSearch
from lightning_nas.optimizers import SGDCosine
from lightning_nas.relaxations import Relaxation, UniformPath
from lightning_nas.spaces import get_space
from lightning_nas.spaces.small import SmallSpace

SPACE = SmallSpace("small_sep")
GAINS = torch.tensor([[3.0, 40.0], [50.0, 5.0], [8.0, 45.0], [4.0, 7.0], [60.0, 6.0]])
BEST = {"normal/2<-0": (1,), "normal/2<-1": (0,), "normal/3<-0": (1,), "normal/3<-2": (0,)}


def planted(**settings: Any) -> tuple[DifferentiableSearch, Planted]:
    supernet = Planted(SPACE, {"normal": GAINS})
    settings = {"w": SGDCosine(lr=1e-9), **settings}
    return DifferentiableSearch(SPACE, supernet=supernet, num_classes=2, **settings), supernet


def fit(search: DifferentiableSearch, *callbacks: L.Callback, ckpt_path: Path | None = None, **more: Any) -> L.Trainer:
    held_out = more.pop("held_out", None) or signals(6, 200, scale=0.005)
    settings: dict[str, Any] = {"max_epochs": 2, **more}
    trainer = quiet_trainer(callbacks=list(callbacks), **settings)
    trainer.fit(search, ResumablePairs(2, held_out, classes=search.num_classes), ckpt_path=ckpt_path)
    return trainer


@pytest.mark.parametrize("draw", ["uniform", "relaxation"])
@pytest.mark.parametrize("relaxation", [None, UniformPath], ids=["mixture", "paths"])
def test_it_finds_the_planted_best(draw: Any, relaxation: type[Relaxation] | None) -> None:
    search, _ = planted(**({"relaxation": relaxation, "hypergradient": None} if relaxation else {}))
    selection = SupernetSelection(samples=400, batches=2, top=5, draw=draw)
    fit(search, selection)
    picks = search.genotype().picks
    assert {name: kept for name, kept in picks.items() if "inputs" not in name} == BEST
    assert picks["normal/inputs/3"] == (0, 2)
    accs = [entry["acc"] for entry in selection.history]
    assert len(accs) == 5
    assert accs == sorted(accs, reverse=True)
    assert selection.history[0]["genotype"] == SPACE.format(search.genotype())


def test_scores_are_accuracies_on_some_batches_and_then_on_all() -> None:
    search, supernet = planted()
    held_out = signals(6, 50, scale=0.01)
    selection = SupernetSelection(samples=300, batches=2, top=3)
    fit(search, selection, held_out=held_out, max_epochs=1)
    vertices = [sample for sample in supernet.seen if sample.active is not None]
    assert len(vertices) == 48 * 2 + 3 * 6  # each of the 48 cells once on two batches, three on all six
    for entry in selection.history:
        vertex = SPACE.vertex(SPACE.parse(entry["genotype"]))
        right = sum(int((supernet(x, vertex).argmax(-1) == y).sum()) for x, y in held_out)
        assert entry["acc"] == pytest.approx(right / 300)

    def rough(genotype: Any) -> int:
        return sum(int((supernet(x, SPACE.vertex(genotype)).argmax(-1) == y).sum()) for x, y in held_out[:2])

    ranked = sorted((rough(cell) for cell in SPACE.cells()), reverse=True)
    assert sorted((rough(SPACE.parse(e["genotype"])) for e in selection.history), reverse=True) == ranked[:3]


def test_the_winner_is_in_the_last_checkpoint_and_in_the_last_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search, _ = planted()
    selection = SupernetSelection(samples=200, batches=1)
    saved = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    fit(search, GenotypeLogger(), saved, enable_checkpointing=True)  # without it
    before = search.genotype()
    search, _ = planted(callbacks=(selection,))
    fit(search, ModelCheckpoint(tmp_path / "with", filename="{epoch}", save_top_k=-1), enable_checkpointing=True)
    winner = search.genotype()
    assert winner != before
    first = torch.load(tmp_path / "with" / "epoch=0.ckpt", weights_only=True)
    last = torch.load(tmp_path / "with" / "epoch=1.ckpt", weights_only=True)
    assert first["genotype"] == SPACE.format(before)
    assert last["genotype"] == SPACE.format(winner)
    again, _ = planted()
    again.load_state_dict(last["state_dict"])
    assert again.genotype() == winner
    assert "supernet selection: accuracy" in capsys.readouterr().out


@pytest.mark.parametrize("way", ["max_steps", "stopped early", "max_time"])
def test_any_end_of_a_fit_is_an_end(way: str) -> None:
    class Stop(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
            trainer.should_stop = way == "stopped early"

    search, _ = planted()
    settings: dict[str, Any] = {"max_epochs": 50}
    if way == "max_steps":
        settings = {"max_epochs": -1, "max_steps": 3}
    if way == "max_time":
        settings = {"max_epochs": 10**6, "max_time": {"seconds": 1}}
    trainer = fit(search, SupernetSelection(samples=200, batches=1), Stop(), **settings)
    picks = {name: kept for name, kept in search.genotype().picks.items() if "inputs" not in name}
    assert picks == BEST
    assert trainer.current_epoch < 10**6


def test_draws_among_narrowed_choices_stay_within_them() -> None:
    search, _ = planted()
    support = search.relaxation.support
    support.fix("normal", 0, 0)
    support.drop("normal/inputs", 1, 2)
    for draw in ("uniform", "relaxation"):
        drawn = draw_genotypes(search, 200, draw, seed=0)
        assert len(drawn) == 2**3  # edges 2<-1, 3<-0, 3<-1
        assert all(g.picks["normal/2<-0"] == (0,) and g.picks["normal/inputs/3"] == (0, 1) for g in drawn)


def test_uniform_draws_are_uniform() -> None:
    search, _ = planted()
    counts = dict.fromkeys(SPACE.cells(), 0)
    for seed in range(4800):
        (genotype,) = draw_genotypes(search, 1, "uniform", seed)
        counts[genotype] += 1
    chi2 = sum((count - 100) ** 2 / 100 for count in counts.values())
    assert chi2 < 90  # 47 degrees of freedom: mean 47, deviation 9.7


def test_draws_of_a_mixture_follow_its_weights() -> None:
    """With noise on the logarithm of the weights the largest is a draw in proportion to them."""
    search = DifferentiableSearch("nasbench201", channels=4, cells=1)
    with torch.no_grad():
        search.relaxation.theta["cell"].copy_(torch.randn(6, 5, generator=torch.Generator().manual_seed(1)))
    counts = torch.zeros(6, 5)
    for seed in range(3000):
        (genotype,) = draw_genotypes(search, 1, "relaxation", seed)
        for row, decision in enumerate(search.space.decisions["cell"]):
            counts[row, genotype.picks[decision.name][0]] += 1
    expected: Tensor = search.relaxation.mean()["cell"]
    deviation = (expected * (1 - expected) / 3000).sqrt()
    assert bool(((counts / 3000 - expected).abs() < 4.5 * deviation).all())


def test_paths_that_say_nothing_about_inputs_get_any() -> None:
    space = get_space("darts_no_none")
    search = DifferentiableSearch(space, relaxation=UniformPath, hypergradient=None, channels=4, cells=3)
    pairs = {g.picks["normal/inputs/5"] for g in draw_genotypes(search, 300, "relaxation", seed=0)}
    assert len(pairs) == 10


def test_a_real_supernet() -> None:
    search = DifferentiableSearch("nasbench201", channels=4, cells=1)
    selection = SupernetSelection(samples=40, batches=1, top=2)
    fit(search, selection, held_out=ResumablePairs(1).held_out, max_epochs=1)
    support = search.relaxation.support
    assert support.resolved
    assert support.genotype("nasbench201") == search.genotype()


def test_it_needs_validation_data() -> None:
    with pytest.raises(ValueError) as error:
        fit(planted()[0], SupernetSelection(), limit_val_batches=0)
    one_line(error.value, "SupernetSelection", "val_dataloader")


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"samples": 0}, ("samples=0", "at least 1")), ({"draw": "best"}, ("'best'", "uniform", "relaxation"))],
)
def test_bad_arguments(settings: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as error:
        SupernetSelection(**settings)
    one_line(error.value, *words)
