from __future__ import annotations

import pickle
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from lightning_nas.data import ArrayDataModule, BilevelDataModule, PairLoader, ResumableLoader, TensorLoader

N = 60
IMAGES = (
    torch.arange(N, dtype=torch.uint8).reshape(N, 1, 1, 1).expand(N, 1, 8, 8).contiguous()
)  # a value tells a picture
LABELS = torch.arange(N) % 3


def arrays(**changes: Any) -> ArrayDataModule:
    settings: dict[str, Any] = {"batch_size": 6, "val_fraction": 0.0, "mean": [0.0], "std": [1 / 255]}
    return ArrayDataModule((IMAGES, LABELS), (IMAGES, LABELS), **settings | changes)


class Returns(pl.LightningDataModule):
    """A data module without anything but a training loader."""

    def __init__(self, loader: Any) -> None:
        super().__init__()
        self.loader = loader

    def train_dataloader(self) -> Any:
        return self.loader


def torch_data(labels: Tensor | None = LABELS, **options: Any) -> Returns:
    tensors = [IMAGES] if labels is None else [IMAGES, labels]
    return Returns(DataLoader(TensorDataset(*tensors), **{"batch_size": 6, "shuffle": True} | options))


def trainer(**changes: Any) -> Any:
    """As much of a trainer as loaders look at."""
    settings = {"global_rank": 0, "world_size": 1, "overfit_batches": 0, "training": False}
    return SimpleNamespace(**settings | changes)


def parts(pairs: PairLoader) -> tuple[list[int], list[int]]:
    """Which pictures `w` and `theta` are trained on in the next epoch, in order."""
    epoch = list(pairs)
    w, theta = ([int(x) for pair in epoch for x in pair[name][0][:, 0, 0, 0].round()] for name in ("w", "theta"))
    return w, theta


@pytest.mark.parametrize("inner", [arrays, torch_data])
@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.8])
def test_parts_are_disjoint_and_stratified(inner: Any, fraction: float) -> None:
    pairs = BilevelDataModule(inner(), val_fraction=fraction).train_dataloader()
    assert isinstance(pairs.w, TensorLoader if inner is arrays else ResumableLoader)
    w = {int(x) for batch in pairs.w for x in batch[0][:, 0, 0, 0].round()}
    theta = {int(x) for batch in pairs.theta for x in batch[0][:, 0, 0, 0].round()}
    assert w.isdisjoint(theta)
    assert len(w) == round(60 * (1 - fraction))
    assert len(theta) == round(60 * fraction)
    for part in (w, theta):
        assert LABELS[list(part)].bincount().tolist() == [len(part) // 3] * 3


def test_the_split_is_a_function_of_the_seed_not_of_the_kind_of_loader() -> None:
    first = BilevelDataModule(arrays(seed=4), seed=1).train_dataloader()
    other = BilevelDataModule(torch_data(), seed=1).train_dataloader()
    assert isinstance(first.w, TensorLoader)
    assert isinstance(other.w, ResumableLoader)
    assert first.w.images[:, 0, 0, 0].tolist() == other.w.indices.tolist()
    changed = BilevelDataModule(arrays(), seed=2).train_dataloader()
    assert isinstance(changed.w, TensorLoader)
    assert not torch.equal(first.w.images, changed.w.images)


def test_both_parts_are_shuffled_apart() -> None:
    w, theta = parts(BilevelDataModule(arrays()).train_dataloader())
    places = [sorted(part).index(x) for part in (w, theta) for x in part]
    assert places[:30] != places[30:]


@pytest.mark.parametrize("inner", [arrays, lambda: torch_data(drop_last=True)])
def test_ranks_split_alike_and_share_nothing(inner: Any) -> None:
    found = []
    for rank in range(2):
        data = BilevelDataModule(inner())
        data.trainer = trainer(global_rank=rank, world_size=2)
        found.append(parts(data.train_dataloader()))
    assert [len(part) for rank in found for part in rank] == [12] * 4
    (w0, theta0), (w1, theta1) = found
    assert not set(w0) & set(w1)
    assert not set(theta0) & set(theta1)
    assert not {*w0, *w1} & {*theta0, *theta1}


def test_without_labels_the_split_is_plain() -> None:
    pairs = BilevelDataModule(torch_data(labels=None)).train_dataloader()
    (x,) = next(iter(pairs))["w"]
    assert x.shape == (6, 1, 8, 8)


def test_loader_options_of_the_user_reach_both_parts() -> None:
    pairs = BilevelDataModule(torch_data(drop_last=True, batch_size=7)).train_dataloader()
    assert (len(pairs), len(pairs.theta)) == (4, 4)
    assert all(len(pair["w"][1]) == 7 for pair in pairs)


def test_overfitting_keeps_the_order() -> None:
    for inner in (arrays, torch_data):
        data = BilevelDataModule(inner())
        data.trainer = trainer(overfit_batches=2)
        pairs = data.train_dataloader()
        w, _ = parts(pairs)
        assert w == sorted(w)


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        (lambda: Returns({"a": torch_data().loader}), "training loader is a dict, which cannot be split"),
        (lambda: Returns([torch_data().loader]), "training loader is a list, which cannot be split"),
        (lambda: torch_data(labels=torch.ones(N, dtype=torch.long)), "all 60 training samples are of class 1"),
        (lambda: Returns(DataLoader(Stream())), "data set Stream can only be read in its own order"),
        (lambda: Returns(DataLoader(TensorDataset(IMAGES[:0]), 4)), "0 samples in batches of 4"),
        (lambda: Returns(DataLoader(Subset(TensorDataset(IMAGES), []), 4)), "0 samples in batches of 4"),
        (lambda: arrays(batch_size=31), "leaves 30 samples for the weights and 30 for the architecture"),
        (lambda: torch_data(batch_size=31), "less than a batch of 31 on 1 process"),
    ],
)
def test_training_data_that_cannot_be_split(inner: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        BilevelDataModule(inner()).train_dataloader()
    assert "\n" not in str(caught.value)


class Stream(IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter(range(10))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, 1.5, float("nan")])
def test_val_fraction_must_leave_something_for_both(fraction: float) -> None:
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        BilevelDataModule(arrays(), val_fraction=fraction)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="seed=-1"):
        BilevelDataModule(arrays(), seed=-1)


def test_attributes_of_the_inner_module() -> None:
    data = BilevelDataModule(arrays())
    assert (data.num_classes, data.in_channels, data.image_size) == (3, 1, 8)
    bare = BilevelDataModule(torch_data())
    for name in ("num_classes", "in_channels", "image_size"):
        assert not hasattr(bare, name)
    assert data.datamodule.trainer is None
    data.trainer = trainer()
    assert data.datamodule.trainer is data.trainer


class Everything(pl.LightningDataModule):
    """A data module with every hook, which writes down its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.prepare_data_per_node = False
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.calls: list[str] = []
        self.restored: dict[str, Any] = {}

    def prepare_data(self) -> None:
        self.calls.append("prepare_data")

    def setup(self, stage: str) -> None:
        assert self.trainer is not None
        self.calls.append(f"setup {TrainerFn(stage).value}")

    def teardown(self, stage: str) -> None:
        self.calls.append(f"teardown {TrainerFn(stage).value}")

    def _loader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(IMAGES.float(), LABELS), batch_size=10)

    train_dataloader = val_dataloader = test_dataloader = predict_dataloader = _loader

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        x, y = batch
        return x + 1, y

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        x, y = batch
        return x.to(device), y.to(device)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        x, y = batch
        return x * 1000, y

    def state_dict(self) -> dict[str, Any]:
        return {"answer": 42}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.restored = state_dict


class Model(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.automatic_optimization = False
        self.seen: list[tuple[str, Any]] = []

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.seen.append(("train", batch))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.seen.append(("val", batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.seen.append(("test", batch))

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        return batch[0]  # type: ignore[no-any-return]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def real_trainer(**options: Any) -> pl.Trainer:
    settings = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(**settings | {"max_epochs": 1, "enable_checkpointing": False} | options)


def test_everything_but_training_is_the_inner_modules(tmp_path: Any) -> None:
    inner, model, fitting = Everything(), Model(), real_trainer(num_sanity_val_steps=0)
    data = BilevelDataModule(inner)
    assert not data.prepare_data_per_node
    assert data.allow_zero_length_dataloader_with_multiple_devices
    fitting.fit(model, data)
    assert inner.calls == ["prepare_data", "setup fit", "teardown fit"]
    kinds = [kind for kind, _ in model.seen]
    assert kinds == ["train"] * 3 + ["val"] * 6
    for kind, batch in model.seen:
        for x, y in batch.values() if kind == "train" else [batch]:
            pictures = x[:, 0, 0, 0] / 1000 - 1  # both hooks ran, once, on each part
            assert torch.equal(LABELS[pictures.long()], y)
    assert len(fitting.test(model, data, verbose=False)) == 1
    assert len(fitting.predict(model, data)) == 6  # type: ignore[arg-type]
    fitting.save_checkpoint(tmp_path / "inner.ckpt")
    again = BilevelDataModule(Everything())
    real_trainer(max_epochs=2).fit(Model(), again, ckpt_path=tmp_path / "inner.ckpt", weights_only=True)
    assert isinstance(again.datamodule, Everything)
    assert again.datamodule.restored == {"answer": 42}


def test_hooks_the_inner_module_lacks_are_lacking_here() -> None:
    data = BilevelDataModule(torch_data())
    names = ["prepare_data", "val_dataloader", "test_dataloader", "predict_dataloader", "on_before_batch_transfer"]
    names += ["transfer_batch_to_device", "on_after_batch_transfer", "on_exception"]
    assert [name for name in names if is_overridden(name, data)] == []
    everything = BilevelDataModule(Everything())
    assert [name for name in names if not is_overridden(name, everything)] == ["on_exception"]


@pytest.mark.filterwarnings("ignore:You have overridden `on_after_batch_transfer`:UserWarning")
def test_without_validation_loader_validation_is_skipped() -> None:
    class Shifting(Model):
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return {"shifted": True, **batch}

    model = Shifting()
    with pytest.warns(UserWarning, match="have no `val_dataloader`"):  # what Lightning says without the outer module
        real_trainer().fit(model, BilevelDataModule(torch_data()))
    assert {kind for kind, _ in model.seen} == {"train"}
    assert all(batch["shifted"] for _, batch in model.seen)  # the model's own hook is still in force
    for silent in (arrays(), BilevelDataModule(arrays())):  # known only after setup that there are no pictures
        model = Model()
        real_trainer().fit(model, silent)
        assert {kind for kind, _ in model.seen} == {"train"}


def test_a_module_made_from_data_sets() -> None:
    dataset = TensorDataset(IMAGES.float(), LABELS)
    inner = pl.LightningDataModule.from_datasets(dataset, val_dataset=dataset, batch_size=10)
    data, model = BilevelDataModule(inner), Model()
    with pytest.warns(UserWarning, match="pin_memory") if not torch.accelerator.is_available() else nullcontext():
        real_trainer().fit(model, data)
    assert [kind for kind, _ in model.seen].count("train") == 3
    assert [kind for kind, _ in model.seen].count("val") == 2 + 6  # the sanity check and the epoch


def test_it_can_be_sent_to_another_process() -> None:
    data = pickle.loads(pickle.dumps(BilevelDataModule(Everything(), seed=5)))
    assert data.seed == 5
    assert data.on_after_batch_transfer((2, 0), 0) == (2000, 0)


def test_a_real_run_of_two_parts_of_unequal_length() -> None:
    model = Model()
    real_trainer(max_epochs=3).fit(model, BilevelDataModule(arrays(), val_fraction=0.2))
    theta = torch.cat([batch["theta"][0][:, 0, 0, 0] for _, batch in model.seen]).round().int().tolist()
    assert len(model.seen) == 3 * 8
    assert {theta.count(picture) for picture in theta} == {12}  # 24 batches of 6, twelve times each of 12 pictures
