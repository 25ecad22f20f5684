from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torchvision
from jsonargparse import ArgumentParser
from sklearn.datasets import load_digits
from torch import Tensor

from lightning_nas.data import (
    ArrayDataModule,
    Augment,
    BilevelDataModule,
    CIFAR10DataModule,
    CIFAR100DataModule,
    DigitsDataModule,
    NPZDataModule,
    PictureDataModule,
    normalize,
)

IMAGES = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(50) % 5


def rows(images: Tensor) -> set[bytes]:
    return {picture.numpy().tobytes() for picture in images}


def trainer(rank: int, world_size: int) -> Any:
    """As much of a trainer as data modules look at."""
    return SimpleNamespace(global_rank=rank, world_size=world_size, overfit_batches=0, training=False)


# --- arrays


def test_validation_pictures_are_held_out() -> None:
    data = ArrayDataModule((IMAGES, LABELS), (IMAGES[:5], LABELS[:5]), val_fraction=0.2, batch_size=8)
    splits = data.splits
    assert splits.val is not None
    assert splits.test is not None
    assert rows(splits.train.images).isdisjoint(rows(splits.val.images))
    assert data.class_counts == (8,) * 5
    assert splits.val.labels.bincount().tolist() == [2] * 5
    assert (data.num_classes, data.in_channels, data.image_size) == (5, 3, 8)
    assert data.train_labels.tolist() == splits.train.labels.tolist()
    assert data.test_labels.tolist() == LABELS[:5].tolist()


def test_loaders() -> None:
    data = ArrayDataModule(
        (IMAGES, LABELS), (IMAGES, LABELS), batch_size=8, eval_batch_size=20, augment=Augment(crop=1)
    )
    data.setup("fit")
    assert len(data.train_dataloader()) == 45 // 8
    first, second = (torch.cat([y for _, y in data.train_dataloader().read(epoch)]) for epoch in range(2))
    assert not torch.equal(first, second)
    x, y = zip(*data.test_dataloader(), strict=True)
    assert [len(part) for part in y] == [20, 20, 10]
    assert torch.equal(torch.cat(y), LABELS)
    assert torch.equal(torch.cat(x), normalize(IMAGES, *data.statistics))  # in order and without augmentation


def test_statistics_are_those_of_the_training_part() -> None:
    data = ArrayDataModule((IMAGES, LABELS), val_fraction=0.5)
    scaled = data.splits.train.images.double() / 255
    assert data.statistics[0] == pytest.approx(scaled.mean((0, 2, 3)).tolist())
    x = torch.cat([x for x, _ in data.train_dataloader()])
    assert x.mean().abs() < 1e-5
    assert x.std(correction=0).item() == pytest.approx(1, abs=1e-3)
    assert ArrayDataModule((IMAGES, LABELS), mean=[0.1] * 3, std=[0.2] * 3).statistics == ((0.1,) * 3, (0.2,) * 3)


def test_given_validation_pictures_are_used() -> None:
    data = ArrayDataModule((IMAGES[:30], LABELS[:30]), val=(IMAGES[30:], LABELS[30:]), val_fraction=0.5)
    assert len(data.train_labels) == 30
    assert len(data.val_dataloader().labels) == 20


def test_fewer_pictures_than_a_batch_are_one_batch() -> None:
    data = ArrayDataModule((IMAGES, LABELS), val_fraction=0.0, batch_size=64)
    (batch,) = data.train_dataloader()
    assert len(batch[1]) == 50


def test_ranks_share_no_picture() -> None:
    seen: dict[str, list[list[int]]] = {"train": [], "test": []}
    for rank in range(3):
        data = ArrayDataModule((IMAGES, LABELS), (IMAGES, torch.arange(50)), num_classes=50, batch_size=4)
        data.trainer = trainer(rank, 3)
        seen["train"].append([len(y) for _, y in data.train_dataloader()])
        seen["test"].append([label for _, y in data.test_dataloader() for label in y.tolist()])
    assert seen["train"] == [[4] * 3] * 3
    assert sorted(label for part in seen["test"] for label in part) == list(range(50))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": (IMAGES[:0], LABELS[:0])}, "train pictures is empty"),
        ({"train": (IMAGES, LABELS * 0 + 3)}, "all 50 training samples are of class 3"),
        ({"train": (IMAGES, LABELS - 1)}, "train labels go from -1"),
        ({"train": (IMAGES, LABELS), "num_classes": 3}, "train labels go from 0 to 4; with 3 classes, 0..2"),
        ({"train": (IMAGES, LABELS[:-1])}, "50 train pictures but 49 labels"),
        ({"train": (IMAGES.float() / torch.nan, LABELS)}, "train pictures holds NaN"),
        ({"train": (IMAGES.int(), LABELS)}, "train pictures is torch.int32"),
        ({"train": (IMAGES[:, :, :4], LABELS)}, "pictures are 4x8; make them square"),
        ({"test": (IMAGES, LABELS + 1)}, "test labels go from 1 to 5; with 5 classes, 0..4"),
        ({"test": (IMAGES[:, :1], LABELS)}, r"test pictures are \(1, 8, 8\), training ones \(3, 8, 8\)"),
        ({"val": (IMAGES[:, :, :6, :6], LABELS)}, r"validation pictures are \(3, 6, 6\)"),
        ({"val_fraction": 0.999}, "cannot hold out 50 of 50 training pictures"),
        ({"val_fraction": 1.0}, r"must be a fraction in \[0, 1\)"),
        ({"val_fraction": -0.1}, r"must be a fraction in \[0, 1\)"),
        ({"batch_size": 0}, "batch_size=0 and eval_batch_size=256 must be at least 1"),
        ({"seed": -3}, "seed=-3"),
        ({"mean": [0.5] * 3}, "give both, or neither"),
        ({"mean": [0.5], "std": [0.5]}, "mean has 1 and std 1 values, but the pictures have 3 channels"),
        ({"mean": [0.5] * 3, "std": [0.0] * 3}, "must be positive in every channel"),
    ],
)
def test_bad_arrays_are_one_line_errors(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        ArrayDataModule(**{"train": (IMAGES, LABELS)} | change).setup("fit")
    assert "\n" not in str(caught.value)


def test_parts_that_are_not_there() -> None:
    data = ArrayDataModule((IMAGES, LABELS), val_fraction=0.0)
    assert data.test_labels.tolist() == []
    with pytest.raises(ValueError, match="has no test pictures"):
        data.test_dataloader()
    with pytest.raises(ValueError, match="has no validation pictures"):
        data.val_dataloader()


# --- digits


def test_digits_are_those_of_scikit_learn() -> None:
    data = DigitsDataModule()
    splits = data.splits
    assert splits.val is not None
    assert splits.test is not None
    assert [len(part.labels) for part in (splits.train, splits.val, splits.test)] == [1257, 180, 360]  # type: ignore[union-attr]
    source = load_digits()
    found = torch.cat([part.images for part in splits if part is not None])[:, 0].double() * 16 / 255
    assert rows(found.round()) == rows(torch.as_tensor(source.images))
    pictures = {picture.tobytes(): label for picture, label in zip(source.images, source.target, strict=True)}
    for part in splits:
        assert part is not None
        decoded = (part.images[:, 0].double() * 16 / 255).round().numpy()
        assert [pictures[picture.tobytes()] for picture in decoded] == part.labels.tolist()
        share = part.labels.bincount() - torch.as_tensor(np.bincount(source.target)) * len(part.labels) / 1797
        assert share.abs().max() < 2


def test_the_test_digits_are_the_same_for_every_seed() -> None:
    first, second = DigitsDataModule(seed=0).splits, DigitsDataModule(seed=1, val_fraction=0.3).splits
    assert first.test is not None
    assert second.test is not None
    assert torch.equal(first.test.images, second.test.images)
    assert first.val is not None
    assert second.val is not None
    assert not torch.equal(first.val.images[:180], second.val.images[:180])
    for splits in (first, second):
        parts = [rows(part.images) for part in splits if part is not None]
        assert sum(map(len, parts)) == len(set().union(*parts)) == 1797


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_digits_can_be_enlarged(interpolation: Any) -> None:
    data = DigitsDataModule(image_size=16, interpolation=interpolation, augment=Augment(crop=2))
    small = DigitsDataModule().splits.train.images
    large = data.splits.train.images
    assert data.image_size == large.shape[-1] == 16
    assert next(iter(data.train_dataloader()))[0].shape == (64, 1, 16, 16)
    if interpolation == "nearest":
        assert torch.equal(large[..., ::2, ::2], small)
        assert torch.equal(large[..., 1::2, 1::2], small)
    else:
        assert (large.double().mean((1, 2, 3)) - small.double().mean((1, 2, 3))).abs().max() < 20


@pytest.mark.parametrize("size", [0, 4, 12, -8])
def test_digits_of_impossible_sizes(size: int) -> None:
    with pytest.raises(ValueError, match=f"image_size={size} must be a multiple of 8"):
        DigitsDataModule(image_size=size)
    with pytest.raises(ValueError, match="must be bilinear or nearest"):
        DigitsDataModule(interpolation="cubic")  # type: ignore[arg-type]


# --- CIFAR


class FakeCIFAR:
    """Stands in for torchvision's data sets: the same two attributes."""

    asked: list[tuple[str, bool, bool]] = []  # noqa: RUF012
    classes = 10

    def __init__(self, root: str, train: bool, download: bool) -> None:
        self.asked.append((root, train, download))
        number = 200 if train else 40
        self.data = np.random.default_rng(train).integers(0, 256, (number, 32, 32, 3), np.uint8)
        self.targets = [index % self.classes for index in range(number)]


class FakeCIFAR100(FakeCIFAR):
    classes = 100


@pytest.fixture
def cifar(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool, bool]]:
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", FakeCIFAR)
    monkeypatch.setattr(torchvision.datasets, "CIFAR100", FakeCIFAR100)
    monkeypatch.setattr(FakeCIFAR, "asked", [])
    return FakeCIFAR.asked


@pytest.mark.parametrize(("module", "classes"), [(CIFAR10DataModule, 10), (CIFAR100DataModule, 100)])
def test_cifar(module: type[CIFAR10DataModule], classes: int, cifar: list[tuple[str, bool, bool]]) -> None:
    data = module(root="somewhere", val_size=100, batch_size=20)
    data.prepare_data()
    assert (data.num_classes, data.in_channels, data.image_size) == (classes, 3, 32)
    assert cifar == []  # nothing is read before it is needed, and nothing downloaded unasked
    data.setup("fit")
    assert cifar == [("somewhere", True, False), ("somewhere", False, False)]
    assert data.splits.val is not None
    assert data.splits.val.labels.bincount().tolist() == [100 // classes] * classes
    original = FakeCIFAR("", train=False, download=False).data
    (batch,) = data.test_dataloader()
    expected = normalize(torch.as_tensor(original).permute(0, 3, 1, 2), *data.statistics)
    assert torch.equal(batch[0], expected)
    assert data.statistics == ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    assert data.train_dataloader().augment == Augment(crop=4, flip=True)


def test_cifar_downloads_where_asked(cifar: list[tuple[str, bool, bool]]) -> None:
    data = CIFAR10DataModule(download=True, val_size=0)
    data.prepare_data()
    assert cifar == [("data", True, True)]
    assert data.splits.val is None
    assert len(data.train_labels) == 200


def test_cifar_that_is_not_there(tmp_path: Path) -> None:
    data = CIFAR10DataModule(root=str(tmp_path))
    with pytest.raises(ValueError, match=r"cannot read CIFAR10 at root=.*; set download=true") as caught:
        data.setup("fit")
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_cifar_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", unreachable)
    with pytest.raises(ValueError, match=r"download=True.*check the network"):
        CIFAR10DataModule(download=True).prepare_data()


@pytest.mark.parametrize("size", [-1, 200])
def test_cifar_validation_of_impossible_size(size: int, cifar: list[tuple[str, bool, bool]]) -> None:
    with pytest.raises(ValueError, match=f"{size}"):
        CIFAR10DataModule(val_size=size).setup("fit")


# --- npz files


def save(path: Path, **changes: Any) -> str:
    arrays = {"x_train": IMAGES.numpy(), "y_train": LABELS.numpy(), "x_test": IMAGES.numpy(), "y_test": LABELS.numpy()}
    np.savez(path, **{key: value for key, value in (arrays | changes).items() if value is not None})
    return str(path)


def test_npz(tmp_path: Path) -> None:
    data = NPZDataModule(save(tmp_path / "a.npz"), batch_size=10, val_fraction=0.2)
    assert (data.num_classes, data.in_channels, data.image_size, data.class_counts) == (5, 3, 8, (8,) * 5)
    expected = normalize(IMAGES, *data.statistics)
    assert torch.equal(torch.cat([x for x, _ in data.test_dataloader()]), expected)


def test_npz_with_its_own_validation_part(tmp_path: Path) -> None:
    data = NPZDataModule(save(tmp_path / "a.npz", x_val=IMAGES[:7].numpy() / 255, y_val=LABELS[:7].numpy()))
    assert len(data.train_labels) == 50
    assert torch.equal(data.val_dataloader().images, IMAGES[:7])


def test_npz_in_either_layout(tmp_path: Path) -> None:
    last = {key: IMAGES.permute(0, 2, 3, 1).numpy() for key in ("x_train", "x_test")}
    first, second = NPZDataModule(save(tmp_path / "a.npz")), NPZDataModule(save(tmp_path / "b.npz", **last))
    assert torch.equal(first.splits.train.images, second.splits.train.images)
    told = NPZDataModule(save(tmp_path / "c.npz", **last), layout="NHWC", num_classes=7)
    assert told.num_classes == 7
    assert torch.equal(first.splits.train.images, told.splits.train.images)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_train": None, "x_test": None}, "lacks y_train, x_test; it holds x_train, y_test"),
        ({"x_val": IMAGES.numpy()}, "lacks y_val; it holds x_test, x_train, x_val, y_test, y_train"),
        ({"x_train": None, "y_train": None, "x_test": None, "y_test": None}, "it holds nothing"),
        ({"x_train": np.array([{}] * 50, dtype=object)}, "is not an .npz file of plain arrays"),
        ({"x_train": np.zeros((50, 8))}, r"a.npz: train pictures has shape \(50, 8\)"),
        ({"y_test": LABELS.numpy() + 5}, "a.npz: test labels go from 5 to 9; with 5 classes"),
        ({"y_train": LABELS.numpy() * 0}, "all 50 training samples are of class 0"),
        ({"x_test": np.full((50, 8, 8), np.nan)}, "a.npz: test pictures holds NaN"),
    ],
)
def test_bad_npz_contents(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    settings = {"val_fraction": 0.0}
    with pytest.raises(ValueError, match=message) as caught:
        NPZDataModule(save(tmp_path / "a.npz", **changes), **settings).setup("fit")  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a zip file", b"PK\x03\x04broken", b"\x93NUMPY"])
def test_files_that_are_no_npz(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"is not an .npz file of plain arrays") as caught:
        NPZDataModule(str(tmp_path / "a.npz")).setup("fit")
    assert "\n" not in str(caught.value)


def test_one_array_is_no_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"is not an .npz file"):
        NPZDataModule(str(tmp_path / "a.npy")).setup("fit")


def test_npz_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no file .*missing.npz"):
        NPZDataModule(str(tmp_path / "missing.npz")).setup("fit")


def test_published_pictures(benchmark_data: Path) -> None:
    path = benchmark_data / "cifar10_small.npz"
    if not path.is_file():
        pytest.skip(f"no pictures at {path}")
    data = NPZDataModule(str(path), augment=Augment(crop=4, flip=True, cutout=16))
    assert (data.num_classes, data.in_channels, data.image_size) == (10, 3, 32)
    assert data.class_counts == (900,) * 10
    assert len(data.test_labels) == 2000
    assert data.statistics[0] == pytest.approx((0.4914, 0.4822, 0.4465), abs=0.01)
    assert data.statistics[1] == pytest.approx((0.2470, 0.2435, 0.2616), abs=0.01)
    x, y = next(iter(BilevelDataModule(data).train_dataloader()))["theta"]
    assert (x.shape, y.shape) == ((64, 3, 32, 32), (64,))


# --- the command line

CONFIGS = {
    "digits": (
        """
class_path: lightning_nas.data.DigitsDataModule
init_args: {batch_size: 32, image_size: 16, augment: {crop: 2, cutout: 4}}
""",
        lambda data: (data.batch_size, data.image_size, data.augment) == (32, 16, Augment(crop=2, cutout=4)),
    ),
    "cifar": (
        """
class_path: lightning_nas.data.CIFAR10DataModule
init_args:
  root: somewhere
  val_size: 0
  augment: {crop: 4, flip: true, cutout: 16}
  mean: [0.5, 0.5, 0.5]
""",
        lambda data: (data.root, data.augment) == ("somewhere", Augment(4, True, 16)),
    ),
    "npz": (
        """
class_path: lightning_nas.data.NPZDataModule
init_args: {path: some.npz, layout: NCHW, num_classes: 10, std: [0.2], mean: [0.1]}
""",
        lambda data: (data.path, data.layout, data.num_classes) == ("some.npz", "NCHW", 10),
    ),
    "bilevel": (
        """
class_path: lightning_nas.data.BilevelDataModule
init_args:
  datamodule:
    class_path: lightning_nas.data.CIFAR100DataModule
    init_args: {batch_size: 96, augment: {crop: 4, flip: true, cutout: 16}}
  val_fraction: 0.4
  seed: 3
""",
        lambda data: (
            (data.datamodule.batch_size, data.datamodule.augment, data.val_fraction, data.seed, data.num_classes)
            == (96, Augment(4, True, 16), 0.4, 3, 100)
        ),
    ),
    "defaults": (
        "class_path: lightning_nas.data.CIFAR10DataModule",
        lambda data: (data.augment, data.held_out, data.batch_size) == (Augment(crop=4, flip=True), 5000, 64),
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_from_a_configuration_file(name: str, tmp_path: Path) -> None:
    text, as_written = CONFIGS[name]
    (tmp_path / "data.yaml").write_text(text)
    parser = ArgumentParser()
    parser.add_subclass_arguments(pl.LightningDataModule, "data")
    config = parser.parse_args(["--data", str(tmp_path / "data.yaml")])
    data = parser.instantiate_classes(config).data
    assert as_written(data)
    again = parser.parse_string(parser.dump(config))  # what a run writes down is what it was given
    assert as_written(parser.instantiate_classes(again).data)


def test_from_the_command_line() -> None:
    parser = ArgumentParser()
    parser.add_subclass_arguments(pl.LightningDataModule, "data")
    arguments = ["--data=lightning_nas.data.CIFAR10DataModule", "--data.augment.cutout=16", "--data.download=true"]
    data = parser.instantiate_classes(parser.parse_args(arguments)).data
    assert isinstance(data, PictureDataModule)
    assert data.augment == Augment(crop=4, flip=True, cutout=16)
    arguments = [
        "--data=lightning_nas.data.BilevelDataModule",
        "--data.datamodule=lightning_nas.data.DigitsDataModule",
        "--data.datamodule.batch_size=16",
        "--data.val_fraction=0.3",
    ]
    data = parser.instantiate_classes(parser.parse_args(arguments)).data
    assert data.datamodule.batch_size == 16
    assert len(next(iter(data.train_dataloader()))["w"][1]) == 16
