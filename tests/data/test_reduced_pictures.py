"""`image_size` of an .npz file: pictures are the means of whole blocks of pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lightning_nas.data import NPZDataModule


@pytest.fixture
def file(tmp_path: Path) -> Path:
    x = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x_train=x, y_train=np.arange(20) % 2, x_test=x[:4], y_test=np.arange(4) % 2)
    return tmp_path / "a.npz"


@pytest.mark.parametrize("size", [8, 4, 2])
def test_pixels_are_means_of_blocks(file: Path, size: int) -> None:
    whole, data = (NPZDataModule(str(file), image_size=s, val_fraction=0.0) for s in (None, size))
    assert data.image_size == size
    for part, full in ((data.splits.train, whole.splits.train), (data.splits.test, whole.splits.test)):
        assert part is not None
        assert full is not None
        blocks = full.images.numpy().reshape(len(full.images), 3, size, 8 // size, size, 8 // size)
        np.testing.assert_array_equal(part.images.numpy(), np.round(blocks.mean(axis=(3, 5))))
        np.testing.assert_array_equal(part.labels, full.labels)


@pytest.mark.parametrize("size", [0, 3, 16])
def test_other_sizes_are_refused(file: Path, size: int) -> None:
    with pytest.raises(ValueError, match=f"image_size={size} does not divide the pictures' 8 pixels; give a divisor"):
        _ = NPZDataModule(str(file), image_size=size).splits
