"""The search doctor: rules on planted genotypes, the epoch of a collapse, the last safe genotype, no trace, resume."""

from __future__ import annotations

import inspect
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from planted import ResumablePairs
from torch import Tensor, nn
from toys import HardGumbel, UniformPath, one_line, quiet_trainer

from lightning_nas import methods
from lightning_nas.arch import Sample
from lightning_nas.callbacks import CollapseRules, SearchDoctor, SharpnessMonitor, epochs_needed
from lightning_nas.callbacks.diagnosis import (
    COLLAPSING,
    HEALTHY,
    RISKY,
    distribution_figures,
    is_parameter_free,
    judge,
    operations,
)
from lightning_nas.methods import AdamTheta, DifferentiableSearch
from lightning_nas.reports.doctor import plot_health
from lightning_nas.spaces import GENOTYPES, SPACES, get_space, load_genotype

pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
RULES, CONV, SKIP, POOL = CollapseRules(), "sep_conv_3x3", "skip_connect", "max_pool_3x3"


# --- rules


@pytest.mark.parametrize(
    ("kept", "level", "reason"),
    [
        ({"normal": [SKIP] + [CONV] * 7}, HEALTHY, None),
        ({"normal": [SKIP] * 2 + [CONV] * 6}, RISKY, "2 of 8 operations of the normal cell are skip_connect"),
        ({"normal": [SKIP] * 4 + [CONV] * 4}, RISKY, "4 of 8 operations of the normal cell are skip_connect"),
        ({"normal": [SKIP] * 5 + [CONV] * 3}, COLLAPSING, "5 of 8 operations of the normal cell are skip_connect"),
        ({"normal": [POOL] * 5 + [CONV] * 3}, HEALTHY, None),
        ({"normal": [POOL] * 6 + [CONV] * 2}, COLLAPSING, "6 of 8 operations of the normal cell have no parameters"),
        ({"normal": [CONV] * 8, "reduce": [SKIP] * 8}, HEALTHY, None),
        ({"normal/ops": [CONV] * 10, "reduce/ops": [POOL] * 10}, HEALTHY, None),
        ({"cell": [SKIP] * 6}, COLLAPSING, "6 of 6 operations of the cell are skip_connect"),
        ({"cell": ["none"] * 5 + ["nor_conv_3x3"]}, COLLAPSING, "5 of 6 operations of the cell have no parameters"),
        ({"normal": ["noise"] * 7 + [CONV]}, COLLAPSING, "7 of 8 operations of the normal cell have no parameters"),
        ({"blocks": ["skip"] * 6 + ["k3_e6"] * 16}, RISKY, "6 of 22 operations of 'blocks' are skip"),
        ({"normal": []}, HEALTHY, None),
        ({}, HEALTHY, None),
    ],
)
def test_rules(kept: dict[str, list[str]], level: int, reason: str | None) -> None:
    found = judge(kept, (), (), RULES, 0)
    assert found.level == level
    assert found.reasons[:1] == (() if reason is None else (reason,))
    assert found.sharp_since is None


def test_rules_can_be_set() -> None:
    plus = CollapseRules(collapsed_skips=0.25)  # DARTS+
    assert judge({"normal": [SKIP] * 2 + [CONV] * 6}, (), (), plus, 0).level == COLLAPSING
    never = CollapseRules(risky_skips=2.0, collapsed_skips=2.0, parameter_free=2.0)
    assert judge({"normal": [SKIP] * 8}, (), (), never, 0).level == HEALTHY


def test_the_published_cells_are_not_collapsed() -> None:
    for name in GENOTYPES:
        space, genotype = load_genotype(name)
        assert judge(operations(space.decisions, genotype), (), (), RULES, 0).level < COLLAPSING


def test_a_growing_eigenvalue_is_a_collapse() -> None:
    epochs, values = list(range(0, 24, 2)), [1.0] * 8 + [9.0] * 4
    found = judge({}, epochs, values, RULES, 10)
    assert (found.level, found.sharp_since) == (COLLAPSING, 10)
    assert found.reasons == ("the dominant eigenvalue has grown by more than 1.3 since epoch 10",)
    assert judge({}, epochs, values, RULES, 11).level == HEALTHY
    assert judge({}, epochs, values, CollapseRules(sharp_ratio=10.0), 10).level == HEALTHY


@pytest.mark.parametrize("name", list(SPACES))
def test_every_space_has_something_to_say(name: str) -> None:
    space, rng = get_space(name), random.Random(0)
    for _ in range(5):
        genotype = space.sample(rng)
        kept = operations(space.decisions, genotype)
        assert kept
        assert all(names and not any(choice.isdigit() for choice in names) for names in kept.values())
        judge(kept, (), (), RULES, 0)
    picks = {d.name: d.choices for rows in space.decisions.values() for d in rows}
    assert any(
        not is_parameter_free(choice) for choices in picks.values() for choice in choices if not choice.isdigit()
    )


def test_entropy_and_margin() -> None:
    mean = {"a": torch.tensor([[0.6, 0.3, 0.1], [2.0, 2.0, 9.0]]), "b": torch.tensor([[0.7]])}
    masks = {"a": torch.tensor([[True, True, True], [True, True, False]]), "b": torch.tensor([[True]])}
    found = distribution_figures(mean, masks)
    first = -sum(p * torch.tensor(p).log().item() for p in (0.6, 0.3, 0.1))
    assert found["entropy/a"] == pytest.approx((first + torch.tensor(2.0).log().item()) / 2, rel=1e-6)
    assert found["margin/a"] == pytest.approx((0.3 + 0.0) / 2, rel=1e-6)
    assert found["entropy/b"] == pytest.approx(0.0)
    assert found["margin/b"] == pytest.approx(1.0)


# --- fits in which the genotype is set


class Plain(nn.Module):
    """A line whose curvature in alpha, in the reduction cell, is `scale` times a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(3, 10)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: Tensor, sample: Sample) -> Tensor:
        out: Tensor = self.line(x.mean((2, 3)))
        return out + self.scale * torch.eye(10)[0] * sample.weights["reduce"][:, 3].sum()


class Script(L.Callback):
    """Sets how many of the eight operations of the normal cell are skips, and the curvature, by the epoch."""

    def __init__(self, skips: Callable[[int], int], scale: Callable[[int], float] = lambda epoch: 1.0) -> None:
        self.skips, self.scale, self.genotypes = skips, scale, list[str]()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        epoch, theta = trainer.current_epoch, pl_module.relaxation.theta["normal"]
        choices, rows = pl_module.space.decisions["normal"][0].choices, [0, 1, 2, 3, 5, 6, 9, 10]
        with torch.no_grad():
            theta.zero_()
            for place, row in enumerate(rows):
                name = SKIP if place < self.skips(epoch) else CONV if place % 5 else ("dil_conv_3x3", CONV)[epoch % 2]
                theta[row, choices.index(name)] = 3.0
        pl_module.supernet.scale.fill_(self.scale(epoch))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.genotypes.append(pl_module.space.format(pl_module.genotype()))


SKIPS = [0, 1, 0, 1, 0, 0, 0, 1, 3, 4, 5, 6, 8, 5, 1, 0]
"""At risk in epochs 8 and 9, collapsing from 10 to 13."""


def fit(
    doctor: SearchDoctor, script: Script, epochs: int = len(SKIPS), path: Path | None = None, **more: Any
) -> tuple[Any, L.Trainer]:
    search = DifferentiableSearch("darts", supernet=Plain(), theta=AdamTheta(lr=1e-9))
    callbacks = [script, doctor, *more.pop("callbacks", [])]
    trainer = quiet_trainer(**({"max_epochs": epochs, "limit_val_batches": 1, "callbacks": callbacks} | more))
    trainer.fit(search, ResumablePairs(1), ckpt_path=path, weights_only=None if path is None else True)
    return search, trainer


def lines(capsys: Any) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("search doctor")]


def test_a_planted_collapse_is_seen_in_its_epoch(capsys: Any) -> None:
    script, doctor = Script(lambda epoch: SKIPS[epoch]), SearchDoctor()
    fit(doctor, script, epochs=12, max_epochs=12)
    reason = "6 of 8 operations of the normal cell"
    assert doctor.verdict == f"collapsing since epoch 10: {reason} are skip_connect; {reason} have no parameters"
    assert doctor.last_safe == script.genotypes[9] != script.genotypes[10]
    start = "search doctor, epoch"
    assert lines(capsys) == [
        f"{start} 8: at risk since epoch 8: 3 of 8 operations of the normal cell are skip_connect",
        f"{start} 10: collapsing since epoch 10: 5 of 8 operations of the normal cell are skip_connect",
    ]


def test_a_search_may_recover(capsys: Any) -> None:
    script, doctor = Script(lambda epoch: SKIPS[epoch]), SearchDoctor()
    fit(doctor, script)
    assert doctor.verdict == "healthy"
    assert doctor.last_safe == script.genotypes[-1]
    assert [line.split()[3] for line in lines(capsys)] == ["8:", "10:", "14:"]


def test_the_first_fifth_is_not_judged(capsys: Any) -> None:
    script, doctor = Script(lambda epoch: 8), SearchDoctor()
    fit(doctor, script, epochs=10, callbacks=[early := Verdicts(doctor)])
    assert early.verdicts == ["too early to tell"] * 2 + ["collapsing since epoch 2: " + early.verdicts[2][26:]] * 8
    assert doctor.last_safe == script.genotypes[1]
    assert len(lines(capsys)) == 1


class Verdicts(L.Callback):
    def __init__(self, doctor: SearchDoctor) -> None:
        self.doctor, self.verdicts = doctor, list[str]()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.verdicts.append(self.doctor.verdict)


def test_a_growing_eigenvalue_leads_back_to_the_epoch_before() -> None:
    script = Script(lambda epoch: 0, lambda epoch: 1.0 if epoch < 9 else 4.0)
    doctor = SearchDoctor(sharpness_every=1, min_epoch=0)
    fit(doctor, script, callbacks=[verdicts := Verdicts(doctor)])
    begun = next(epoch for epoch, verdict in enumerate(verdicts.verdicts) if verdict != "healthy")
    assert 9 <= begun <= 11
    since = begun - 6  # two for the middle of the window, four between the means
    reason = f"the dominant eigenvalue has grown by more than 1.3 since epoch {since}"
    assert verdicts.verdicts[begun] == f"collapsing since epoch {begun}: {reason}"
    report = doctor.report()
    assert report["lambda_epochs"] == list(range(len(SKIPS)))
    assert min(report["lambda_max"]) > 0
    assert len(script.genotypes) == len(SKIPS)


def test_the_safe_genotype_is_that_before_the_growth() -> None:
    script = Script(lambda epoch: 0, lambda epoch: 1.0 if epoch < 9 else 4.0)
    doctor = SearchDoctor(sharpness_every=1, min_epoch=0, stop=True)
    search, trainer = fit(doctor, script)
    begun = trainer.current_epoch - 1
    assert doctor.last_safe == script.genotypes[begun - 6] == search.space.format(search.genotype())
    assert script.genotypes[begun - 7] != script.genotypes[begun - 6]


def test_it_stops_only_if_told_to() -> None:
    watching, script = SearchDoctor(), Script(lambda epoch: SKIPS[epoch])
    search, trainer = fit(watching, script)
    assert trainer.current_epoch == len(SKIPS)
    assert search.relaxation.support.active() is None
    stopping, script = SearchDoctor(stop=True), Script(lambda epoch: SKIPS[epoch])
    search, trainer = fit(stopping, script)
    assert trainer.current_epoch == 11
    assert search.space.format(search.genotype()) == stopping.last_safe == script.genotypes[9]


def test_epochs_that_are_done_again_are_counted_once() -> None:
    class Curved(Script):
        def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
            super().on_train_batch_start(trainer, pl_module)
            self.seen = [*getattr(self, "seen", []), trainer.current_epoch]

    script = Curved(lambda epoch: 0, lambda epoch: 1.0 if epoch < 9 else 4.0)
    doctor = SearchDoctor(min_epoch=0)
    monitor = SharpnessMonitor(1, stop_ratio=1.3, min_epoch=0, adapt=2.0, max_weight_decay=6e-4)
    search = DifferentiableSearch("darts", supernet=Plain(), theta=AdamTheta(lr=1e-9))
    trainer = quiet_trainer(max_epochs=14, limit_val_batches=0, callbacks=[script, monitor, doctor])
    trainer.fit(search, ResumablePairs(1))
    assert len(script.seen) > 14
    report = doctor.report()
    assert report["epochs"] == list(range(14))
    assert all(len(values) == 14 for values in report["history"].values())


# --- what it logs and leaves


def test_figures_and_gap_are_logged(tmp_path: Path) -> None:
    doctor = SearchDoctor(sharpness_every=2)
    search, trainer = fit(doctor, Script(lambda epoch: 3), 3, logger=CSVLogger(tmp_path), log_every_n_steps=1)
    logged = {name: float(value) for name, value in trainer.logged_metrics.items()}
    assert logged["doctor/skips/normal"] == 3
    assert logged["doctor/parameter_free/normal"] == 3 / 8
    assert logged["doctor/level"] == RISKY
    mean = dict(search.relaxation.mean())
    figures = distribution_figures(mean, {group: search.relaxation.support.mask(group) for group in mean})
    assert {name: logged[f"doctor/{name}"] for name in figures} == pytest.approx(figures, rel=1e-5)
    gap = logged["val/loss"] - logged["train/loss"]
    assert logged["doctor/gap/loss"] == pytest.approx(gap, rel=1e-5) == doctor.report()["gap"]["loss"]
    assert logged["doctor/lambda_max"] == pytest.approx(doctor.report()["lambda_max"][-1], rel=1e-6)
    assert doctor.report()["lambda_epochs"] == [0, 2]


def test_a_picture_is_left_in_the_folder_of_the_run(tmp_path: Path) -> None:
    fit(SearchDoctor(), Script(lambda epoch: 0), 2, logger=CSVLogger(tmp_path, "run", "7"))
    with Image.open(tmp_path / "run" / "7" / "doctor.png") as picture:
        assert min(picture.size) > 200
    fit(SearchDoctor(), Script(lambda epoch: 0), 2, default_root_dir=tmp_path / "other")
    assert not list((tmp_path / "other").rglob("*.png"))
    fit(SearchDoctor(), Script(lambda epoch: 0), 2, logger=CSVLogger(tmp_path, "dev", "0"), fast_dev_run=True)
    assert not list((tmp_path / "dev").rglob("*.png"))


@pytest.mark.parametrize("sharp", [False, True])
def test_the_picture_has_a_panel_for_each_figure(sharp: bool, tmp_path: Path) -> None:
    history = {"skips/normal": [0.0, 5.0], "parameter_free/normal": [0.0, 0.6], "entropy/normal": [1.0, 0.5]}
    report = {"epochs": [0, 1], "history": history, "verdict": "collapsing", "since": 1}
    report |= {"lambda_epochs": [0, 1] if sharp else [], "lambda_max": [0.1, 0.2] if sharp else []}
    written = plot_health(report, tmp_path / "a.png")
    assert written is not None
    with Image.open(written) as picture:
        assert picture.size == (600 * (4 if sharp else 3), 480)
    assert plot_health(report | {"epochs": []}, tmp_path / "b.png") is None


def test_a_folder_that_cannot_be_written_is_no_more_than_a_warning(tmp_path: Path, monkeypatch: Any) -> None:
    def full(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("lightning_nas.callbacks.search_doctor.plot_health", full)
    with pytest.warns(UserWarning, match="could not draw.*no space left"):
        fit(SearchDoctor(), Script(lambda epoch: 0), 1, logger=CSVLogger(tmp_path))


def test_the_report_is_plain() -> None:
    doctor = SearchDoctor({"risky_skips": 0.5}, sharpness_every=1)
    assert doctor.verdict == "too early to tell"
    fit(doctor, Script(lambda epoch: 2), 2)
    report = json.loads(json.dumps(doctor.report(), allow_nan=False))
    assert report["rules"]["risky_skips"] == 0.5
    assert report["verdict"] == "healthy"
    assert report["last_safe"] == doctor.last_safe


# --- no trace, resume


@pytest.mark.parametrize("more", [{}, {"relaxation": HardGumbel}], ids=["softmax", "path"])
@pytest.mark.parametrize("space", ["small_sep", "nasbench201"])
def test_a_search_takes_no_notice(space: str, more: dict[str, Any]) -> None:
    def run(*callbacks: L.Callback) -> dict[str, Any]:
        torch.manual_seed(0)
        search = DifferentiableSearch(space, channels=4, cells=1, **more)
        quiet_trainer(max_epochs=1, limit_val_batches=0, callbacks=[*callbacks]).fit(search, ResumablePairs(2))
        return dict(search.state_dict()) | {"rng": torch.get_rng_state()}

    doctor = SearchDoctor(sharpness_every=1, pictures=4)
    with_it, without = run(doctor), run()
    assert doctor.report()["lambda_max"][0] > 0
    assert all(torch.equal(value, without[name]) for name, value in with_it.items())


def test_resumes_exactly(tmp_path: Path) -> None:
    def settings() -> SearchDoctor:
        return SearchDoctor(sharpness_every=2)

    saved = [
        ModelCheckpoint(tmp_path / "steps", every_n_train_steps=1, save_top_k=-1, filename="{step}"),
        ModelCheckpoint(tmp_path / "epochs", monitor="val/acc", mode="max", save_top_k=-1, filename="{step}"),
    ]
    whole = settings()
    fit(whole, Script(lambda epoch: SKIPS[epoch]), 12, callbacks=saved, enable_checkpointing=True)
    assert len(list(tmp_path.rglob("step=*.ckpt"))) == 24
    for folder, step in [("steps", 3), ("steps", 9), ("steps", 11), ("epochs", 4), ("epochs", 10)]:
        again = settings()
        fit(again, Script(lambda epoch: SKIPS[epoch]), 12, tmp_path / folder / f"step={step}.ckpt")
        assert again.state_dict() == whole.state_dict()
        assert again.verdict == whole.verdict


def test_a_stopped_search_stays_stopped_after_a_resume(tmp_path: Path) -> None:
    saved = ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=1)
    doctor, script = SearchDoctor(stop=True), Script(lambda epoch: SKIPS[epoch])
    _, trainer = fit(doctor, script, callbacks=[saved], enable_checkpointing=True)
    again = SearchDoctor(stop=True)
    search, resumed = fit(again, Script(lambda epoch: SKIPS[epoch]), path=tmp_path / "last.ckpt")
    assert resumed.global_step == trainer.global_step
    assert search.space.format(search.genotype()) == again.last_safe == doctor.last_safe


# --- searches that are not mixtures


def test_drawn_paths_without_parameters_are_not_judged() -> None:
    doctor = SearchDoctor(min_epoch=0, sharpness_every=1)
    search = DifferentiableSearch("nasbench201", relaxation=UniformPath, hypergradient=None, channels=4, cells=1)
    trainer = quiet_trainer(max_epochs=1, callbacks=[doctor])
    trainer.fit(search, ResumablePairs(2))
    assert doctor.verdict == "nothing to judge: the search has no architecture parameters"
    assert doctor.last_safe is None
    assert "doctor/gap/loss" in trainer.logged_metrics
    json.dumps(doctor.report())


def test_a_path_without_a_gradient_has_no_eigenvalue() -> None:
    class ScoreOnly(HardGumbel):
        def forward(self) -> Sample:
            return super().forward().detach()

    doctor = SearchDoctor(min_epoch=0, sharpness_every=1)
    search = DifferentiableSearch("nasbench201", relaxation=ScoreOnly, hypergradient=None, channels=4, cells=1)
    quiet_trainer(max_epochs=1, limit_val_batches=0, callbacks=[doctor]).fit(search, ResumablePairs(1))
    assert doctor.report()["lambda_max"] == []
    assert doctor.report()["epochs"] == [0]


# --- what is refused


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SearchDoctor(pictures=0), ["pictures=0", "at least one picture"]),
        (lambda: SearchDoctor(sharpness_every=-1), ["sharpness_every=-1", "at least 0"]),
        (lambda: SearchDoctor(min_epoch=-1), ["min_epoch=-1"]),
        (lambda: SearchDoctor({"risky_skips": 0.0}), ["risky_skips=0.0", "above 0"]),
        (lambda: CollapseRules(sharp_ratio=1.0), ["sharp_ratio=1.0", "above 1"]),
        (lambda: CollapseRules(window=0), ["window=0", "at least 1"]),
    ],
)
def test_bad_arguments(make: Callable[[], object], words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        make()
    one_line(error.value, *words)


# --- every method


PRESETS = [
    name
    for name, value in vars(methods).items()
    if inspect.isclass(value) and issubclass(value, DifferentiableSearch) and value is not DifferentiableSearch
]
MORE: dict[str, dict[str, Any]] = {"ENAS": {"draws": 2}, "RandomSearchWS": {"samples": 2}, "SPOS": {"samples": 2}}
MORE |= {"FewShotNAS": {"samples": 2, "split_epoch": 1}, "DARTSPT": {"start_epoch": 1, "every_n_epochs": 1}}


@pytest.mark.parametrize("name", PRESETS)
def test_it_examines_every_method(name: str) -> None:
    search = getattr(methods, name)("small_sep", channels=4, cells=3, **MORE.get(name, {}))
    doctor = SearchDoctor(min_epoch=0, sharpness_every=1, pictures=4)
    epochs = epochs_needed(search.space, 1, 1) if name == "DARTSPT" else 2
    trainer = quiet_trainer(max_epochs=epochs, limit_val_batches=1, callbacks=[doctor])
    trainer.fit(search, ResumablePairs(1))
    report = doctor.report()
    json.dumps(report, allow_nan=False)
    assert report["epochs"] == ([] if "nothing to judge" in doctor.verdict else list(range(epochs)))
    assert doctor.verdict == "healthy" or " " in doctor.verdict
