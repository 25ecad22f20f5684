"""The sizes of supernets, against those of the published model definitions."""

import pytest
import torch
from torch import nn

from lightning_nas.spaces import get_space
from lightning_nas.supernet import build_supernet


@pytest.mark.parametrize(
    ("space", "channels", "cells", "weights"),
    [
        ("darts", 16, None, 1_930_618),
        ("darts", 36, 20, 19_932_310),
        ("darts", 16, 5, 1_275_834),
        ("darts", 16, 11, 2_585_146),
        ("darts", 16, 17, 3_894_202),
        ("darts_no_none", 16, 8, 1_930_618),
        ("nasbench201", 16, None, 1_686_106),
        ("s1", 16, 8, 405_146),
        ("s2", 16, 8, 665_466),
        ("s3", 16, 8, 665_466),
        ("s4", 16, 8, 624_506),
        ("s5", 16, 8, 1_930_618),
    ],
)
def test_number_of_weights(space: str, channels: int, cells: int | None, weights: int) -> None:
    with torch.device("meta"):
        supernet = build_supernet(get_space(space), channels, cells)
    assert sum(p.numel() for p in supernet.parameters()) == weights


def test_searched_operations_have_no_scale_and_the_skeleton_has_one() -> None:
    supernet = build_supernet(get_space("nasbench201"), channels=4, cells=1)
    searched = [m for name, m in supernet.named_modules() if ".edges." in name and isinstance(m, nn.BatchNorm2d)]
    fixed = [m for name, m in supernet.named_modules() if ".edges." not in name and isinstance(m, nn.BatchNorm2d)]
    assert searched
    assert fixed
    assert not any(norm.affine for norm in searched)
    assert all(norm.affine for norm in fixed)


def test_every_candidate_pooling_of_darts_ends_in_a_batch_normalisation() -> None:
    supernet = build_supernet(get_space("darts"), channels=4, cells=3)
    pools = (nn.MaxPool2d, nn.AvgPool2d)
    owners = [m for m in supernet.modules() if isinstance(m, nn.Sequential) and isinstance(m[0], pools)]
    assert len(owners) == 3 * 14 * 2
    assert all(isinstance(owner[1], nn.BatchNorm2d) and not owner[1].affine for owner in owners)


def test_other_spaces_need_a_supernet_of_their_own() -> None:
    class Other:
        name = "other"

    with pytest.raises(ValueError, match="'other' is no cell space; pass your own supernet"):
        build_supernet(Other())  # type: ignore[arg-type]
