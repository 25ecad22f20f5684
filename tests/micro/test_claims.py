"""The figures of the claims, from planted runs."""

from __future__ import annotations

from typing import Any

from lightning_nas.micro.claims import claims


def run(skips: tuple[int, ...], sharpness: tuple[float, ...], gap: float) -> dict[str, Any]:
    epochs = [{"genotype": "skip_connect " * k, "lambda_max": value} for k, value in zip(skips, sharpness, strict=True)]
    return {"epochs": epochs, "supernet_acc": 0.5, "vertex_acc": 0.5 - gap}


def test_figures_are_those_of_the_runs() -> None:
    runs = {
        "DARTS": [run((0, 1, 3), (0.1, 0.3, 0.4), 0.2), run((0, 1, 1), (0.3, 0.3, 0.6), 0.3)],
        "DARTS+PT": [run((0, 0, 0), (0.1, 0.2, 0.0), 0.1)],  # 0: nothing is open any more
    }
    rows = {
        "DARTS": {"accuracy": (50.0, 3.0), "runs": 9},
        "DARTS+PT": {"accuracy": (52.5, 4.0), "runs": 4},
    }
    found = claims(runs, rows)
    assert found[0] == "skips grow: DARTS has 0.00 after its first epoch, 1.00 half-way, 2.00 at the end"
    assert found[1] == "DARTS+PT ends better than DARTS: +2.50 ± 2.24 (standard error) points of true accuracy"
    assert "rank correlation 1.00 over 3 runs of all methods" in found[2]
    assert found[3] == "the eigenvalue grows: DARTS from 0.200 to 0.500"
    assert len(found) == 4


def test_claims_about_methods_that_did_not_run_are_left_out() -> None:
    assert claims({}, {}) == []
