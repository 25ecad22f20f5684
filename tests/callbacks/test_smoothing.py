"""The callback that smooths the weight step of any search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from planted import ResumablePairs
from toys import one_line, quiet_trainer

from lightning_nas.callbacks import PerturbationRegularization
from lightning_nas.methods import DifferentiableSearch
from lightning_nas.perturbations import AdversarialSmoothing, RandomSmoothing


def search(seed: int = 0, **settings: Any) -> DifferentiableSearch:
    torch.manual_seed(seed)
    return DifferentiableSearch("nasbench201", channels=4, cells=1, seed=seed, **settings)


def fit(module: DifferentiableSearch, *callbacks: L.Callback, ckpt_path: Path | None = None, **more: Any) -> L.Trainer:
    settings: dict[str, Any] = {"max_epochs": 2, "limit_val_batches": 0, **more}
    trainer = quiet_trainer(callbacks=list(callbacks), **settings)
    trainer.fit(module, ResumablePairs(2), ckpt_path=ckpt_path)
    return trainer


class Sizes(L.Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []
        self.kinds: set[type] = set()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        self.seen.append(pl_module.perturbation.eps)
        self.kinds.add(type(pl_module.perturbation))


@pytest.mark.parametrize(
    ("kind", "expected"), [("random", RandomSmoothing), ("adversarial", AdversarialSmoothing)], ids=["RS", "ADV"]
)
def test_it_installs_a_perturbation_and_widens_its_box(kind: Any, expected: type) -> None:
    module, sizes = search(), Sizes()
    trainer = fit(module, PerturbationRegularization(kind, 0.03, 0.3, steps=2), sizes, max_epochs=3)
    assert sizes.kinds == {expected}
    assert sizes.seen == pytest.approx([0.03, 0.03, 0.12, 0.12, 0.21, 0.21])
    assert trainer.callback_metrics["arch/eps"].item() == pytest.approx(0.21)


def test_the_search_has_its_own_perturbation_back() -> None:
    own = RandomSmoothing(0.5)
    for module, before in ((search(), None), (search(perturbation=own), own)):
        names = set(module.state_dict())
        fit(module, PerturbationRegularization())
        assert module.perturbation is before
        assert set(module.state_dict()) == names


def test_a_box_of_no_size_is_a_search_without_it() -> None:
    plain, smooth, rough = search(), search(), search()
    fit(plain)
    fit(smooth, PerturbationRegularization("adversarial", 0.0, 0.0))
    fit(rough, PerturbationRegularization("random", 0.3, 0.3))
    same = zip(plain.state_dict().values(), smooth.state_dict().values(), rough.state_dict().values(), strict=True)
    equal = [(torch.equal(a, b), torch.equal(a, c)) for a, b, c in same]
    assert all(smooth for smooth, _ in equal)
    assert not all(rough for _, rough in equal)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.parametrize("kind", ["random", "adversarial"])
def test_a_resumed_fit_draws_the_same_noise(kind: Any, tmp_path: Path) -> None:
    saved = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    whole, resumed = search(), search(1)
    fit(whole, PerturbationRegularization(kind, 0.1, 0.3), saved, enable_checkpointing=True)
    path = tmp_path / "step=3.ckpt"
    fit(resumed, PerturbationRegularization(kind, 0.1, 0.3, seed=5), ckpt_path=path)
    for (name, one), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_a_checkpoint_loads_without_the_callback(tmp_path: Path) -> None:
    module = search()
    trainer = fit(module, PerturbationRegularization())
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    search(1).load_state_dict(torch.load(tmp_path / "end.ckpt", weights_only=True)["state_dict"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "gaussian"}, ("'gaussian'", "random", "adversarial")),
        ({"start": -0.1}, ("eps=-0.1", "between 0 and 1")),
        ({"end": 2.0}, ("end=2.0", "between 0 and 1")),
        ({"kind": "adversarial", "steps": 0}, ("steps=0", "at least 1")),
    ],
)
def test_bad_arguments(settings: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as error:
        PerturbationRegularization(**settings)
    one_line(error.value, *words)
