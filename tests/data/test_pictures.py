from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lightning_nas.data import as_images, as_pictures, channel_statistics

UINT8 = np.arange(2 * 6 * 5 * 3, dtype=np.uint8).reshape(2, 6, 5, 3)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_all_layouts_mean_the_same_pictures(kind: Any) -> None:
    expected = torch.as_tensor(UINT8).permute(0, 3, 1, 2)
    for array in (UINT8, UINT8.transpose(0, 3, 1, 2)):
        found = as_images(kind(array))
        assert torch.equal(found, expected)
        assert found.is_contiguous()
    assert torch.equal(as_images(kind(UINT8[..., 0])), expected[:, :1])
    assert torch.equal(as_images(UINT8[:, :3], "NCHW"), torch.as_tensor(UINT8[:, :3]))
    assert torch.equal(as_images(UINT8[:, :3], "NHWC"), expected[:, :, :3])


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_fractions_are_rounded_to_256_steps(kind: Any) -> None:
    values = np.linspace(0, 1, 256).astype(kind).reshape(1, 16, 16)
    assert as_images(values).flatten().tolist() == list(range(256))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 3), np.uint8), r"pictures has shape \(3, 3\)"),
        (np.zeros((0, 8, 8), np.uint8), "is empty"),
        (np.zeros((2, 8, 8, 0), np.uint8), "is empty"),
        (np.zeros((2, 3, 8, 3), np.uint8), "in which the channels cannot be told; give layout"),
        (np.zeros((2, 8, 8, 8), np.uint8), "in which the channels cannot be told; give layout"),
        (np.zeros((2, 8, 8), np.int32), "is torch.int32; give uint8"),
        (np.zeros((2, 8, 8), bool), "is torch.bool; give uint8"),
        (np.full((2, 8, 8), 255.0), "holds 255 to 255; floating point pictures must lie in 0..1"),
        (np.array([[[0.5, np.nan]]]), "holds NaN"),
        (np.array([[[0.5, np.inf]]]), "holds 0.5 to inf"),
        (np.array([[["a"]]]), "must be an array of numbers, not <U1"),
    ],
)
def test_bad_pictures(array: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        as_images(array, name="pictures")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(3, np.int64), "2 val pictures but 3 labels"),
        (np.zeros((2, 1), np.int64), r"val labels are torch.int64 \(2, 1\); give whole numbers"),
        (np.zeros(2), "val labels are torch.float64"),
        (np.array([0, 4]), "val labels go from 0 to 4; with 4 classes, 0..3"),
        (np.array([-1, 2]), "val labels go from -1 to 2"),
        (np.array(["cat", "dog"]), "val labels must be an array of numbers"),
    ],
)
def test_bad_labels(labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        as_pictures(UINT8, labels, num_classes=4, name="val")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int64, np.uint64])
def test_labels_of_any_whole_type(kind: Any) -> None:
    assert as_pictures(UINT8, np.array([3, 0], kind), num_classes=4).labels.dtype == torch.int64
    assert as_pictures(UINT8, [3, 0], num_classes=4).labels.tolist() == [3, 0]  # type: ignore[arg-type]


@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_statistics_are_those_of_numpy(chunk: int) -> None:
    images = torch.randint(256, (20, 3, 9, 9), dtype=torch.uint8)
    mean, std = channel_statistics(images, chunk)
    scaled = images.numpy() / 255
    assert np.allclose(mean, scaled.mean((0, 2, 3)))
    assert np.allclose(std, scaled.std((0, 2, 3)))


def test_a_constant_channel_has_no_deviation() -> None:
    images = torch.randint(256, (4, 3, 5, 5), dtype=torch.uint8)
    images[:, 1] = 77
    with pytest.raises(ValueError, match=r"channel\(s\) \[1\] have the same value"):
        channel_statistics(images)
