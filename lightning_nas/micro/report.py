"""What a study says: a table of methods, the claims about them, and a picture over the epochs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from scipy.stats import kendalltau, spearmanr

from lightning_nas.arch import Genotype
from lightning_nas.micro.claims import claims
from lightning_nas.micro.runs import read
from lightning_nas.micro.table import MicroTable
from lightning_nas.reports import write_report

__all__ = ["random_search", "report_study", "summarise"]

Record = dict[str, Any]


def summarise(runs: Sequence[Record], table: MicroTable) -> Record:
    """Mean and standard deviation over the runs of one method.

    Args:
        runs: Records of `run_contestant`.
        table: The truth.

    Returns:
        Name of a figure -> ``(mean, deviation)`` or, for what is the same in all runs, a value.
    """
    space = table.setting.network_space
    cells = [space.parse(run["genotype"]) for run in runs]
    last = [run["epochs"][-1] for run in runs]
    figures: dict[str, list[float]] = {
        "accuracy": [table.accuracy(cell) for cell in cells],
        "regret": [table.regret(cell) for cell in cells],
        "rank": [table.rank(cell) for cell in cells],
        "skips": [float(run["genotype"].count("skip_connect")) for run in runs],
        "lambda_max": [_last(run, "lambda_max") for run in runs],
        "gap": [100 * (run["supernet_acc"] - run["vertex_acc"]) for run in runs],
        "tau": [_tau(run["cells"], table) for run in runs],
        "tau in parts": [_tau_in_parts(run["cells"], table) for run in runs],
        "seconds": [run["seconds"] for run in runs],
    }
    out: Record = {name: _mean(values) for name, values in figures.items()}
    return out | {"runs": len(runs), "epochs": last[0]["epoch"] + 1, "genotypes": [run["genotype"] for run in runs]}


def random_search(table: MicroTable, draws: int, repeats: int = 1000) -> Record:
    """Plain random search: the best of some cells by the validation accuracy of one training each, many times.

    Args:
        table: The truth.
        draws: Cells drawn in a search.
        repeats: Searches.
    """
    rng = np.random.default_rng(0)
    space = table.setting.network_space
    cells = [space.canonical(cell) for cell in space.cells()]
    found = []
    for _ in range(repeats):
        drawn = [cells[k] for k in rng.choice(len(cells), draws, replace=False)]
        seeds = rng.integers(len(table.val[cells[0]]), size=draws)
        found.append(max(zip(drawn, seeds, strict=True), key=lambda pair: table.val[pair[0]][pair[1]])[0])
    seconds = draws * float(np.mean(list(table.seconds.values())))
    figures: dict[str, Callable[[Genotype], float]] = {
        "accuracy": table.accuracy,
        "regret": table.regret,
        "rank": table.rank,
        "skips": lambda cell: float(space.format(cell).count("skip_connect")),
    }
    out: Record = {name: _mean([figure(cell) for cell in found]) for name, figure in figures.items()}
    return out | {"seconds": (seconds, 0.0), "runs": repeats, "epochs": table.setting.epochs}


def edge_correlations(run: Record, table: MicroTable) -> dict[str, float]:
    """Rank correlations, over edges and operations, of architecture weights and PT's drops with the truth.

    The truth of an operation on an edge is the mean accuracy of all cells that have it there, less the mean over the
    cells that keep the edge.
    """
    space = table.setting.network_space
    truth = {}
    rows = space.decisions["normal"]
    kept = {cell: space.kept_rows(cell, "normal") for cell in space.cells()}
    for row, decision in enumerate(rows):
        on = {cell: picks[row] for cell, picks in kept.items() if row in picks}
        means = [
            np.mean([table.accuracy(c) for c, k in on.items() if k == choice])
            for choice in range(len(decision.choices))
        ]
        for choice, mean in enumerate(means):
            truth[row, choice] = float(mean - np.mean(means))
    found = {}
    last = run["epochs"][-1]["mean"].get("normal")
    if last:
        found["alpha"] = _correlation({(row, k): last[row][k] for row, k in truth}, truth)
    drops: dict[tuple[int, int], float] = {}
    row_of = {decision.name: row for row, decision in enumerate(rows)}
    for entry in run["scores"].get("PerturbationSelection", []):
        if entry["decision"] in row_of:  # how much worse it is without an operation than without the others
            row, mean = row_of[entry["decision"]], np.mean(list(entry["scores"].values()))
            for op, score in entry["scores"].items():
                drops[row, rows[row].choices.index(op)] = float(mean - score)
    if drops:
        found["drop"] = _correlation(drops, {key: truth[key] for key in drops})
    return {name: value for name, value in found.items() if not np.isnan(value)}


def report_study(log: Path, setting: Mapping[str, Any], source: str, folder: Path) -> None:
    """Write ``study.json``, ``study.md`` and ``study.png`` and print the table.

    Args:
        log: The records.
        setting: In which they were made.
        source: Name or file of the table.
        folder: Where to write.
    """
    table = MicroTable.load(source)
    runs: dict[str, list[Record]] = {}
    for record in read(log, dict(setting)):
        runs.setdefault(record["method"], []).append(record)
    rows = {name: summarise(records, table) for name, records in runs.items()}
    rows["random search, trained alone"] = random_search(table, 5)
    correlations = {name: [edge_correlations(run, table) for run in records] for name, records in runs.items()}
    columns = ("accuracy", "regret", "rank", "skips", "lambda_max", "gap", "tau", "tau in parts", "seconds")
    lines = [
        f"Ruler {table.setting.space}: {len(table.test)} cells, spread {table.spread:.1f} points, deviation over seeds"
        f" {table.deviation:.2f}. Mean ± standard deviation over the runs.",
        "",
        "| method | runs | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for name, row in sorted(rows.items(), key=lambda item: -item[1]["accuracy"][0]):
        lines.append(f"| {name} | {row['runs']} | " + " | ".join(_cell(row.get(column)) for column in columns) + " |")
    lines += ["", "| method | correlation of alpha with the truth | of PT's drop |", "|---|---|---|"]
    for name, found in correlations.items():
        parts = [_cell(_mean([f[key] for f in found if key in f])) for key in ("alpha", "drop")]
        lines.append(f"| {name} | {parts[0]} | {parts[1]} |")
    found_claims = claims(runs, rows)
    lines += ["", *(f"* {line}" for line in found_claims)]
    values = {"table": rows, "correlations": correlations, "claims": found_claims, "setting": setting}
    write_report(folder / "study", lines, values, _picture(runs, table))
    print(folder / log.name)


def _picture(runs: Mapping[str, Sequence[Record]], table: MicroTable) -> Figure:
    """Over the epochs: accuracy of the genotype trained alone, its skips, the dominant eigenvalue."""
    figure = Figure(figsize=(15, 5))
    space = table.setting.network_space
    curves: dict[str, Callable[[Record], float]] = {
        "true accuracy of the genotype (%)": lambda e: table.accuracy(space.parse(e["genotype"])),
        "skips in the genotype": lambda e: float(e["genotype"].count("skip_connect")),
        "dominant eigenvalue": lambda e: e.get("lambda_max") or np.nan,
    }
    for index, (title, value) in enumerate(curves.items(), 1):
        axes = figure.add_subplot(1, 3, index)
        for number, (name, records) in enumerate(runs.items()):
            length = min(len(run["epochs"]) for run in records)
            values = np.array([[value(e) for e in run["epochs"][:length]] for run in records], dtype=float)
            mean = values.mean(axis=0)
            shown = ~np.isnan(mean)
            axes.plot(np.arange(length)[shown], mean[shown], color=colormaps["tab20"](number % 20), label=name)
        axes.set_xlabel("epoch")
        axes.set_title(title)
        if index == 3:
            axes.set_yscale("symlog", linthresh=1e-2)
            axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _tau(cells: Mapping[str, float], table: MicroTable) -> float:
    """Kendall's tau of the supernet's accuracies of all cells with the truth."""
    space = table.setting.network_space
    return float(kendalltau(list(cells.values()), [table.accuracy(space.parse(cell)) for cell in cells]).statistic)


def _tau_in_parts(cells: Mapping[str, float], table: MicroTable) -> float:
    """The mean of Kendall's tau over the cells of each part of a few-shot supernet, here for any supernet.

    A part has the cells with one operation on the first edge, which is the edge that few-shot NAS splits.
    """
    space = table.setting.network_space
    parts: dict[int | None, dict[str, float]] = {}
    for cell, value in cells.items():
        parts.setdefault(space.kept_rows(space.parse(cell), space.relaxed[0]).get(0), {})[cell] = value
    return float(np.nanmean([_tau(part, table) for part in parts.values()]))


def _correlation(one: Mapping[Any, float], other: Mapping[Any, float]) -> float:
    """Spearman's; NaN where all values are the same."""
    keys = list(one)
    if len(set(one.values())) == 1 or len(set(other.values())) == 1:
        return float("nan")
    return float(spearmanr([one[k] for k in keys], [other[k] for k in keys]).statistic)


def _last(run: Record, name: str) -> float:
    """The last value that is not 0: once a selection has fixed everything there is nothing to measure."""
    return next((float(e[name]) for e in reversed(run["epochs"]) if e.get(name)), float("nan"))


def _mean(values: Sequence[float]) -> tuple[float, float]:
    known = [v for v in values if not np.isnan(v)]
    if not known:
        return float("nan"), float("nan")
    return float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else 0.0


def _cell(value: tuple[float, float] | None) -> str:
    if value is None or np.isnan(value[0]):
        return ""
    digits = 2 if abs(value[0]) < 100 else 0
    return f"{value[0]:.{digits}f} ± {value[1]:.{digits}f}"
