"""The claims about search methods, each as figures of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

__all__ = ["claims"]

Record = dict[str, Any]

_SOFTMAX = {"DARTS", "DARTS 2nd", "SDARTS-RS", "SDARTS-ADV", "DARTS-", "beta-DARTS"}


def claims(runs: Mapping[str, Sequence[Record]], rows: Mapping[str, Record]) -> list[str]:
    """What the runs say to each claim; one that needs methods which are not there is left out.

    Args:
        runs: Name of a method -> its records.
        rows: Name of a method -> its figures as `summarise` gives them.

    Returns:
        A line for each.
    """
    lines = []
    if "DARTS" in runs:
        first, middle, last = (_skips(runs["DARTS"], place) for place in (0.0, 0.5, 1.0))
        lines.append(
            f"skips grow: DARTS has {first:.2f} after its first epoch, {middle:.2f} half-way, {last:.2f} at the end"
        )
    lines += [
        f"{better} ends better than {worse}: {_difference(rows, better, worse)} points of true accuracy"
        for worse, better in (
            ("DARTS", "DARTS+PT"),
            ("DARTS", "PT, alpha fixed"),
            ("SDARTS-RS", "SDARTS-RS+PT"),
            ("random search, shared weights", "few-shot"),
        )
        if {worse, better} <= set(rows)
    ]
    for who, chosen in (
        ("all methods", set(runs)),
        ("the methods of one parametrisation, softmax", _SOFTMAX & set(runs)),
    ):
        pairs = [(_sharpness(run), run["supernet_acc"] - run["vertex_acc"]) for name in chosen for run in runs[name]]
        known = np.array([pair for pair in pairs if np.isfinite(pair[0])])
        if len(known) > 2:
            found = spearmanr(known[:, 0], known[:, 1])
            lines.append(
                f"the eigenvalue goes with the loss at discretisation: rank correlation {found.statistic:.2f} over"
                f" {len(known)} runs of {who} (p = {found.pvalue:.1e})"
            )
    grown = [(_sharpness(run, first=True), _sharpness(run)) for run in runs.get("DARTS", [])]
    if grown:
        early, late = np.mean(grown, axis=0)
        lines.append(f"the eigenvalue grows: DARTS from {early:.3f} to {late:.3f}")
    low = [name for name in ("SDARTS-RS", "SDARTS-ADV", "DrNAS") if name in rows and "DARTS" in rows]
    lines += [
        f"{name} keeps it low: {rows[name]['lambda_max'][0]:.3f}, DARTS {rows['DARTS']['lambda_max'][0]:.3f}; gap"
        f" {rows[name]['gap'][0]:.1f}, DARTS {rows['DARTS']['gap'][0]:.1f} points"
        for name in low
    ]
    if {"few-shot", "random search, shared weights"} <= set(rows):
        one, few = rows["random search, shared weights"], rows["few-shot"]
        lines.append(
            f"splitting repairs the ranking: tau {one['tau'][0]:.2f} ± {one['tau'][1]:.2f} of one supernet,"
            f" {few['tau'][0]:.2f} ± {few['tau'][1]:.2f} of the split one; within parts"
            f" {one['tau in parts'][0]:.2f} and {few['tau in parts'][0]:.2f}"
        )
    return lines


def _skips(runs: Sequence[Record], place: float) -> float:
    """Mean skips of the genotype at a place of the search."""
    at = [run["epochs"][round(place * (len(run["epochs"]) - 1))] for run in runs]
    return float(np.mean([epoch["genotype"].count("skip_connect") for epoch in at]))


def _difference(rows: Mapping[str, Record], better: str, worse: str) -> str:
    (one, s), (other, t) = rows[better]["accuracy"], rows[worse]["accuracy"]
    error = np.sqrt(s**2 / rows[better]["runs"] + t**2 / rows[worse]["runs"])
    return f"{one - other:+.2f} ± {error:.2f} (standard error)"


def _sharpness(run: Record, first: bool = False) -> float:
    """The last (or first) eigenvalue that was measured while architecture parameters were open."""
    values = [epoch["lambda_max"] for epoch in run["epochs"] if epoch.get("lambda_max", 0) > 0]
    return float(values[0 if first else -1]) if values else float("nan")
