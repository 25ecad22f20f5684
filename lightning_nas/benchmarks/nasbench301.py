"""The training logs of NAS-Bench-301: networks of the DARTS space that were really trained."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from lightning_nas.arch import Genotype
from lightning_nas.benchmarks.base import Benchmark, Record
from lightning_nas.spaces.darts import DARTSSpace

__all__ = ["NASBench301Logs", "from_config", "to_config"]

_PREFIX = "NetworkSelectorDatasetInfo:darts:"
_EPOCHS = "SimpleLearningrateSchedulerSelector:cosine_annealing:T_max"
_PATTERNS = ("results_*.json", "*/results_*.json", "run_*/results_fidelity_*/results_*.json")
_DARTS = DARTSSpace()


class _Run(NamedTuple):
    val: float
    test: float
    seconds: float
    params_m: float


class _Log(NamedTuple):
    genotype: Genotype
    size: tuple[int | None, int | None]
    epochs: int
    run: _Run


class NASBench301Logs(Benchmark):
    """The logs of NAS-Bench-301's trainings on CIFAR-10: what was measured, of some 60,000 of the 10^18 DARTS cells.

    This is the data to which the benchmark's surrogate models were fitted. The models themselves are not read here: the
    logs answer for their own architectures only, as they are written there (cells with their nodes in another order are
    others). For a search among them take a `RestrictedSpace` of `genotypes`.

    Each log is a run, and logs of the same network are its runs. Where a log lacks them, the test accuracy is ``None``
    and the seconds and the parameters are NaN. Accuracies are in percent, those of the end of the training.

    Reference: Zela, Siems, Zimmer, Lukasik, Keuper and Hutter, "Surrogate NAS Benchmarks: Going Beyond the Limited
    Search Spaces of Tabular NAS Benchmarks", ICLR 2022, arXiv 2008.09777.

    Args:
        folder: The folder of the logs, with ``run_*/results_fidelity_*/results_*.json`` or, as released,
            ``<optimizer>/results_*.json``; or the folder of one optimizer.
        channels: Channels of the networks' first cell. Logs of other networks are left out.
        cells: Cells of the networks.

    Raises:
        ValueError: If there is no such folder, it has no log of such networks, or a log is not as published.

    Example:
        >>> import tempfile
        >>> from lightning_nas.spaces import load_genotype
        >>> _, genotype = load_genotype("darts_v2")
        >>> log = {"optimized_hyperparamater_config": to_config(genotype), "budget": 100, "test_accuracy": 94.0}
        >>> log |= {"info": [{"val_accuracy": 94.5}], "runtime": 7200}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "results_0.json").write_text(json.dumps(log))
        ...     table = NASBench301Logs(folder)
        >>> table.query(genotype)
        Record(val=94.5, test=94.0, seconds=7200.0, epochs=100)
    """

    name = "nasbench301_logs"
    datasets = ("cifar10",)

    def __init__(self, folder: str | os.PathLike[str], channels: int = 32, cells: int = 8) -> None:
        self.folder, self.channels, self.cells = Path(folder).absolute(), channels, cells
        self.space: DARTSSpace = DARTSSpace()
        if not self.folder.is_dir():
            raise ValueError(f"there is no folder {os.fspath(folder)!r}; give that of NAS-Bench-301's training logs")
        paths = sorted({path for pattern in _PATTERNS for path in self.folder.glob(pattern)})
        self._runs: dict[Genotype, dict[int, list[_Run]]] = {}
        others: set[tuple[int | None, ...]] = set()
        for log in map(_read, paths):
            if all(size in (None, own) for size, own in zip(log.size, (channels, cells), strict=True)):
                self._runs.setdefault(log.genotype, {}).setdefault(log.epochs, []).append(log.run)
            else:
                others.add(log.size)
        if not self._runs:
            has = f"networks of (channels, cells) {sorted(others, key=str)}" if others else "no file results_*.json"
            raise ValueError(
                f"{self.folder} has no log of networks with {channels} channels and {cells} cells, but {has}; give"
                " their channels and cells, or the folder of the logs"
            )
        self.budgets = tuple(sorted({epochs for budgets in self._runs.values() for epochs in budgets}))

    def query(
        self, genotype: Genotype, dataset: str | None = None, epochs: int | None = None, run: int | None = None
    ) -> Record:
        """What the training of an architecture came to.

        Args:
            genotype: An architecture of the logs.
            dataset: ``"cifar10"``, the only one.
            epochs: One of `budgets`; ``None`` for the largest.
            run: Number of one run, modulo the number that `runs` says; ``None`` for the mean over all runs.

        Raises:
            ValueError: If there is no such log.
        """
        budget, logged = self._logged(genotype, dataset, epochs)
        val, test, seconds, _ = _mean(logged if run is None else [logged[run % len(logged)]])
        return Record(val, test if test == test else None, seconds, budget)

    def runs(self, genotype: Genotype, dataset: str | None = None, epochs: int | None = None) -> int:  # noqa: D102
        return len(self._logged(genotype, dataset, epochs)[1])

    def genotypes(self) -> Iterator[Genotype]:
        """All architectures that have a log, by the path of their first."""
        return iter(self._runs)

    def best(self, dataset: str | None = None) -> tuple[float, float]:  # noqa: D102
        _, budget = self.choose(dataset, None)
        means = [_mean(logged[budget]) for logged in self._runs.values() if budget in logged]
        return max(mean.val for mean in means), max((m.test for m in means if m.test == m.test), default=float("nan"))

    def metrics(self, genotype: Genotype) -> dict[str, float]:
        """``params_m``, the parameters of the network in millions.

        Raises:
            ValueError: If the architecture has no log.
        """
        return {"params_m": _mean([run for logged in self._budgets(genotype).values() for run in logged]).params_m}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder, self.channels, self.cells)

    def __len__(self) -> int:
        return len(self._runs)

    def _budgets(self, genotype: Genotype) -> dict[int, list[_Run]]:
        if genotype not in self._runs:
            text = self.space.format(self.space.check(genotype))
            raise ValueError(
                f"{self.name} has no log of {text}; it has {len(self)} architectures, ask for one of genotypes()"
            )
        return self._runs[genotype]

    def _logged(self, genotype: Genotype, dataset: str | None, epochs: int | None) -> tuple[int, list[_Run]]:
        _, budget = self.choose(dataset, epochs)
        logged = self._budgets(genotype)
        if budget not in logged:
            raise ValueError(f"epochs={budget} is no budget of this architecture; {self.name} has {sorted(logged)}")
        return budget, logged[budget]


def from_config(config: Mapping[str, Any]) -> Genotype:
    """The genotype of the space ``darts`` that a configuration of NAS-Bench-301 writes.

    Args:
        config: ``"NetworkSelectorDatasetInfo:darts:edge_normal_0": "sep_conv_3x3"`` and so on. A cell has the edges 0
            to 13, node by node; the first node takes both inputs, the others those of ``inputs_node_normal_3``.

    Raises:
        ValueError: If it is no such configuration; the message names the key.

    Example:
        >>> import random
        >>> genotype = DARTSSpace().sample(random.Random(0))
        >>> from_config(to_config(genotype)) == genotype
        True
    """
    rows: dict[str, dict[int, int]] = {}
    for kind in _DARTS.kinds:
        rows[kind] = {}
        for node in range(2, 6):
            for source in (0, 1) if node == 2 else _inputs(config, f"inputs_node_{kind}_{node}", node):
                row = _DARTS.topology.rows_into(node)[source]
                choices, key = _DARTS.decisions[kind][row].choices, f"edge_{kind}_{row}"
                op = config.get(_PREFIX + key)
                if op not in choices[1:]:
                    raise ValueError(f"{_PREFIX}{key} is {str(op)[:60]!r}; allowed are {', '.join(choices[1:])}")
                rows[kind][row] = choices.index(op)
    return _DARTS.from_rows(rows)


def to_config(genotype: Genotype) -> dict[str, str]:
    """What `from_config` reads.

    Raises:
        ValueError: If the genotype is not of the space ``darts``, or has the operation `none`.
    """
    _DARTS.check(genotype)
    config: dict[str, str] = {}
    for kind in _DARTS.kinds:
        for row, choice in _DARTS.kept_rows(genotype, kind).items():
            if choice == 0:
                raise ValueError(f"edge {row} of {kind!r} is 'none', which NAS-Bench-301 does not have; take another")
            config[f"{_PREFIX}edge_{kind}_{row}"] = _DARTS.op_name(kind, row, choice)
        for node in range(3, 6):
            kept = genotype.picks[f"{kind}/inputs/{node}"]
            config[f"{_PREFIX}inputs_node_{kind}_{node}"] = "_".join(map(str, kept))
    return config


def _inputs(config: Mapping[str, Any], key: str, node: int) -> tuple[int, int]:
    allowed = {f"{i}_{j}": (i, j) for j in range(node) for i in range(j)}
    given = config.get(_PREFIX + key)
    if given not in allowed:
        raise ValueError(f"{_PREFIX}{key} is {str(given)[:60]!r}; allowed are {', '.join(allowed)}")
    return allowed[given]


def _read(path: Path) -> _Log:
    try:
        log = json.loads(path.read_text(encoding="utf-8"))
        config = log["optimized_hyperparamater_config"]
        known = {**log, **(log["info"][0] if log.get("info") else {})}
        test, seconds, parameters = (
            float(known.get(k, "nan")) for k in ("test_accuracy", "runtime", "model_parameters")
        )
        run = _Run(float(known["val_accuracy"]), test, seconds, parameters / 1e6)
        if run.val != run.val:
            raise ValueError("val_accuracy is no number")
        size = config.get(_PREFIX + "init_channels"), config.get(_PREFIX + "layers")
        return _Log(from_config(config), size, int(log.get("budget", config.get(_EPOCHS, 100))), run)
    except (OSError, KeyError, TypeError, AttributeError, IndexError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is no training log of NAS-Bench-301: {type(error).__name__} {error}; take it away, or get it again"
        ) from None


def _mean(runs: list[_Run]) -> _Run:
    return _Run(*map(fmean, zip(*runs, strict=True)))
