"""The entropy of an architecture distribution against its closed form and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_nas.metrics import entropy


@pytest.mark.parametrize("choices", [1, 2, 5, 8])
@pytest.mark.parametrize("rows", [1, 3])
def test_uniform_rows_have_the_logarithm_of_their_choices(rows: int, choices: int) -> None:
    assert entropy(torch.full((rows, choices), 1 / choices)).item() == pytest.approx(math.log(choices), abs=1e-6)


@pytest.mark.parametrize("choices", [1, 2, 7])
def test_a_decided_row_has_none(choices: int) -> None:
    value = entropy(torch.eye(choices))
    assert value.shape == ()
    assert value.item() == 0.0


def test_two_outcomes_follow_the_binary_entropy() -> None:
    for p in (0.1, 0.25, 0.9):
        expected = -p * math.log(p) - (1 - p) * math.log(1 - p)
        assert entropy(torch.tensor([[p, 1 - p]])).item() == pytest.approx(expected, abs=1e-6)


def test_rows_are_averaged() -> None:
    mixed = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    assert entropy(mixed).item() == pytest.approx(math.log(2) / 2, abs=1e-6)


@settings(max_examples=40, deadline=None, database=None)
@given(rows=st.integers(1, 14), choices=st.integers(1, 8), seed=st.integers(0, 2**32 - 1), closed=st.booleans())
def test_any_rows_against_scipy(rows: int, choices: int, seed: int, closed: bool) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(choices, 0.5), size=rows)
    if closed and choices > 1:
        weights[:, rng.integers(choices)] = 0.0
        weights[weights.sum(axis=1) == 0, 0] = 1.0
        weights /= weights.sum(axis=1, keepdims=True)
    expected = scipy.stats.entropy(weights, axis=1).mean()
    for dtype in (torch.float32, torch.float64):
        assert entropy(torch.tensor(weights, dtype=dtype)).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halved_precision_is_summed_in_full(dtype: torch.dtype) -> None:
    value = entropy(torch.tensor([[0.5, 0.25, 0.25, 0.0]], dtype=dtype))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(1.5 * math.log(2), abs=1e-6)


def test_gradient_is_the_closed_form_and_zero_at_closed_choices() -> None:
    weights = torch.tensor([[0.7, 0.3, 0.0], [0.2, 0.0, 0.8]], requires_grad=True)
    entropy(weights).backward()
    expected = torch.where(weights > 0, -(weights.log() + 1) / 2, 0.0)  # two rows share the mean
    assert weights.grad is not None
    torch.testing.assert_close(weights.grad, expected.detach())
