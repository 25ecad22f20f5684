"""Sizes of published supernets, obtained from the published model definitions."""

from __future__ import annotations

import pytest
import torch

from lightning_nas.flops import count_parameters
from lightning_nas.spaces import get_space
from lightning_nas.supernet import build_supernet


@pytest.mark.parametrize(
    ("space", "cells", "channels", "weights"),
    [
        ("darts", 8, 16, 1_930_618),
        ("darts", 20, 36, 19_932_310),
        ("darts", 5, 16, 1_275_834),
        ("darts", 11, 16, 2_585_146),
        ("darts", 17, 16, 3_894_202),
        ("darts_no_none", 8, 16, 1_930_618),
        ("nasbench201", 5, 16, 1_686_106),
    ],
)
def test_supernets_have_the_published_number_of_weights(space: str, cells: int, channels: int, weights: int) -> None:
    with torch.device("meta"):
        supernet = build_supernet(get_space(space), channels=channels, cells=cells)
    assert count_parameters(supernet) == weights


@pytest.mark.parametrize(("space", "weights"), [("darts", 1_930_618), ("nasbench201", 1_686_106)])
def test_the_published_depth_is_the_default(space: str, weights: int) -> None:
    with torch.device("meta"):
        assert count_parameters(build_supernet(get_space(space))) == weights
