from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision import transforms

from lightning_nas.data import Augment, cutout, normalize, random_crop, random_flip

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(batch: int, side: int = 8, channels: int = 3, dtype: torch.dtype = torch.uint8) -> Tensor:
    x = torch.randint(1, 256, (batch, channels, side, side), generator=generator(99))
    return x.to(torch.uint8) if dtype == torch.uint8 else x.to(dtype) / 255


def shifted(picture: Tensor, down: int, right: int, pad: int) -> Tensor:
    """One crop of one padded picture, pixel by pixel."""
    height, width = picture.shape[1:]
    out = torch.zeros_like(picture)
    for row in range(height):
        for column in range(width):
            source = row + down - pad, column + right - pad
            if 0 <= source[0] < height and 0 <= source[1] < width:
                out[:, row, column] = picture[:, source[0], source[1]]
    return out


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
@pytest.mark.parametrize("pad", [1, 3])
def test_crop_is_the_loop_over_pictures(pad: int, dtype: torch.dtype) -> None:
    x = pictures(6, side=5, dtype=dtype)
    top, left = torch.randint(2 * pad + 1, (2, 6), generator=generator(1))
    expected = torch.stack([shifted(x[i], int(top[i]), int(left[i]), pad) for i in range(6)])
    found = random_crop(x, pad, generator(1))
    assert found.dtype == dtype
    assert torch.equal(found, expected)


def test_crop_of_non_square_pictures() -> None:
    x = pictures(4, side=6)[:, :, :4]
    top, left = torch.randint(5, (2, 4), generator=generator(5))
    expected = torch.stack([shifted(x[i], int(top[i]), int(left[i]), 2) for i in range(4)])
    assert torch.equal(random_crop(x, 2, generator(5)), expected)


def test_crop_offsets_are_uniform_and_independent() -> None:
    n, pad = 25_000, 2
    x = torch.zeros(1, 1, 5, 5, dtype=torch.uint8)
    x[0, 0, 2, 2] = 1  # its place after the crop tells the offset
    places = random_crop(x.expand(n, 1, 5, 5), pad, generator()).flatten(1).argmax(1)
    counts = places.bincount(minlength=25).double()
    assert ((counts - n / 25).square() / (n / 25)).sum() < 51.2  # chi-squared, 24 degrees of freedom, p = 0.001


def test_flip_mirrors_about_half_of_the_pictures() -> None:
    x = pictures(1, side=4).expand(10_000, 3, 4, 4)
    found = random_flip(x, generator())
    mirrored = (found == x.flip(-1)).flatten(1).all(1)
    kept = (found == x).flatten(1).all(1)
    assert torch.equal(mirrored, ~kept)
    assert abs(mirrored.sum().item() - 5_000) < 165  # 3.3 standard deviations


@pytest.mark.parametrize("length", [1, 3, 4, 8])
def test_cutout_is_the_loop_over_pictures(length: int) -> None:
    side, batch = 8, 50
    x = pictures(batch, side, dtype=torch.float32)
    drawn = generator(7)
    rows = torch.randint(side, (batch, 1), generator=drawn)
    columns = torch.randint(side, (batch, 1), generator=drawn)
    expected = x.clone()
    for i in range(batch):
        top, left = int(rows[i]) - length // 2, int(columns[i]) - length // 2
        expected[i, :, max(top, 0) : max(top + length, 0), max(left, 0) : max(left + length, 0)] = 0
    assert torch.equal(cutout(x, length, generator(7)), expected)


def test_cutout_of_even_length_is_that_of_the_published_searches() -> None:
    """Theirs: y1, y2 = clip(y - length // 2, 0, h), clip(y + length // 2, 0, h); the same along x."""
    side, length, n = 32, 16, 20_000
    hidden = (cutout(torch.ones(n, 1, side, side), length, generator()) == 0)[:, 0]
    heights = hidden.any(2).sum(1)
    # a centre at y hides min(y + 8, 32) - max(y - 8, 0) rows: 8..15 at one border, 16 inside, 15..9 at the other
    expected = torch.tensor([min(y + 8, side) - max(y - 8, 0) for y in range(side)]).bincount(minlength=17) / side
    assert torch.allclose(heights.bincount(minlength=17) / n, expected, atol=0.012)
    areas = hidden.sum((1, 2))
    assert areas.min() == 64  # a quarter of the square, in a corner
    assert areas.max() == 256


def test_normalize_is_that_of_torchvision() -> None:
    x = pictures(5)
    reference = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    expected = torch.stack([reference(picture.permute(1, 2, 0).numpy()) for picture in x])
    assert torch.equal(normalize(x, MEAN, STD), expected)
    assert torch.equal(normalize(x.float() / 255, MEAN, STD), expected)


def test_the_padding_of_a_crop_is_black_and_the_cut_square_is_the_mean_colour() -> None:
    x = torch.full((400, 3, 8, 8), 200, dtype=torch.uint8)
    black, light = normalize(torch.tensor([0, 200], dtype=torch.uint8).expand(1, 3, 1, 2), MEAN, STD)[0, :, 0].T
    cropped = Augment(crop=2)(x, MEAN, STD, generator())
    corner = cropped[:, :, 0, 0]
    assert set(map(tuple, corner.tolist())) == {tuple(black.tolist()), tuple(light.tolist())}
    cut = Augment(cutout=4)(x, MEAN, STD, generator())
    assert set(map(tuple, cut[:, :, 0, 0].tolist())) == {(0.0, 0.0, 0.0), tuple(light.tolist())}


def test_augment_is_its_parts_in_order() -> None:
    x, drawn = pictures(16), generator(3)
    expected = cutout(normalize(random_flip(random_crop(x, 2, drawn), drawn), MEAN, STD), 4, drawn)
    found = Augment(crop=2, flip=True, cutout=4)(x, MEAN, STD, generator(3))
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_pictures_of_a_batch_are_treated_differently() -> None:
    x = pictures(1).expand(64, 3, 8, 8)
    for augment in (Augment(crop=2), Augment(flip=True), Augment(cutout=4)):
        found = augment(x, MEAN, STD, generator())
        assert not torch.equal(found, found[:1].expand_as(found))


def test_augmentation_is_pure() -> None:
    x = pictures(8, dtype=torch.float32)
    before, state = x.clone(), torch.get_rng_state()
    for augment in (Augment(), Augment(crop=1), Augment(flip=True), Augment(cutout=2)):
        first, second = (augment(x, MEAN, STD, generator(4)) for _ in range(2))
        assert torch.equal(first, second)
    for unchanged in (random_crop(x, 0, generator()), cutout(x, 0, generator())):
        assert torch.equal(unchanged, x)
        assert unchanged.data_ptr() != x.data_ptr()
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: random_crop(x, -1, generator()), "crop padding -1 must be a whole number"),
        (lambda x: random_crop(x, 8, generator()), "crop padding 8 can push a 8x8 picture out of sight"),
        (lambda x: random_crop(x[0], 1, generator()), r"must be uint8 or floating point \(B, C, H, W\)"),
        (lambda x: random_flip(x.long(), generator()), "not torch.int64"),
        (lambda x: cutout(x, -2, generator()), "cutout length -2 must be a whole number"),
        (lambda x: cutout(x, 9, generator()), "cutout length 9 is more than the side of a 8x8 picture"),
        (lambda x: normalize(x, [0.5], [0.5]), "mean has 1 and std 1 values, but the pictures have 3 channels"),
        (lambda x: normalize(x, [0.5] * 3, [0.5, 0.0, 0.5]), "must be positive in every channel"),
        (lambda _: Augment(crop=-1), "crop -1 must be a whole number"),
        (lambda _: Augment(cutout=1.5), "cutout 1.5 must be a whole number"),  # type: ignore[arg-type]
        (lambda _: Augment(crop=True), "crop True must be a whole number"),
        (lambda _: Augment(flip=1), "flip=1 must be true or false"),  # type: ignore[arg-type]
        (lambda x: Augment(flip=True)(x, MEAN, STD), "pass a torch.Generator"),
    ],
)
def test_bad_values_are_one_line_errors(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call(pictures(2))  # type: ignore[operator]
    assert "\n" not in str(caught.value)
