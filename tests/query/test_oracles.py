"""Tables, scores without training, supernets and routes as oracles."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from toys import one_line, quiet_trainer

from lightning_nas.arch import Genotype
from lightning_nas.benchmarks.base import Benchmark, Record
from lightning_nas.data import BilevelDataModule, DigitsDataModule
from lightning_nas.derived import DerivedNetwork
from lightning_nas.methods import DARTS
from lightning_nas.oracles import (
    FunctionOracle,
    OwnTable,
    RoutedOracle,
    SupernetOracle,
    TableOracle,
    TableSpace,
    ZeroCostOracle,
)
from lightning_nas.oracles.batches import first_batches, give_data
from lightning_nas.query import Evaluator, RandomSearch, RegularizedEvolution, Trial
from lightning_nas.spaces import get_space
from lightning_nas.supernet import build_supernet

SPACE = get_space("nasbench201")
GENOTYPES = [SPACE.sample(random.Random(seed)) for seed in range(6)]


class Runs(Benchmark):
    """Three runs, whose number is the validation accuracy; ten seconds of start and three an epoch.

    The full training is one of its own.
    """

    def __init__(self) -> None:
        self.name, self.space, self.datasets, self.budgets = "runs", SPACE, ("one", "two"), (12,)

    def query(
        self, genotype: Genotype, dataset: str | None = None, epochs: int | None = None, run: int | None = None
    ) -> Record:
        chosen, count = self.choose(dataset, epochs)
        shift = 0.0 if chosen == "one" else 50.0
        return Record(shift + (1.0 if run is None else run % 3), 7.0, 10.0 + 3.0 * count, count)

    def runs(self, genotype: Genotype, dataset: str | None = None, epochs: int | None = None) -> int:
        return 3

    def continues(self, shorter: int, longer: int | None = None, dataset: str | None = None) -> bool:
        return longer is not None

    def genotypes(self) -> Iterator[Genotype]:
        return iter(GENOTYPES)

    def best(self, dataset: str | None = None) -> tuple[float, float]:
        return 1.0, 7.0

    def metrics(self, genotype: Genotype) -> dict[str, float]:
        return {"params_m": 0.5}


# --- tables


def test_a_table_costs_what_the_training_took() -> None:
    oracle = TableOracle(Runs(), run="mean")
    first, on, full = (
        oracle(Trial(0, GENOTYPES[0], 2.0)),
        oracle(Trial(1, GENOTYPES[0], 6.0, continues=0, trained=2.0)),
        oracle(Trial(2, GENOTYPES[0])),
    )
    assert [(r.cost, r.epochs) for r in (first, on, full)] == [(16.0, 2.0), (12.0, 4.0), (46.0, 12.0)]
    own = oracle(Trial(3, GENOTYPES[0], continues=1, trained=6.0))
    assert (own.cost, own.epochs) == (46.0, 12.0)
    assert (full.score, full.test, full.source, dict(full.metrics)) == (1.0, 7.0, "table", {})
    assert dict(TableOracle(Runs(), costs=True)(Trial(0, GENOTYPES[0])).metrics) == {"params_m": 0.5}
    assert TableOracle(Runs(), "two", "mean")(Trial(0, GENOTYPES[0])).score == 51.0
    with pytest.raises(ValueError, match="runs has no data set 'three'; it has one, two"):
        TableOracle(Runs(), "three")(Trial(0, GENOTYPES[0]))


def test_a_random_run_belongs_to_seed_and_trial_and_all_runs_are_as_likely() -> None:
    def drawn(seed: int) -> list[float]:
        oracle = TableOracle(Runs(), seed=seed)
        return [oracle(Trial(number, GENOTYPES[0])).score for number in range(600)]

    scores = drawn(0)
    assert drawn(0) == scores != drawn(1)
    backwards = TableOracle(Runs(), seed=0)
    assert [backwards(Trial(number, GENOTYPES[0])).score for number in reversed(range(600))] == scores[::-1]
    counts = Counter(scores)
    assert set(counts) == {0.0, 1.0, 2.0}
    statistic = sum((count - 200) ** 2 / 200 for count in counts.values())
    assert statistic < 13.8  # chi-squared with two degrees of freedom, 0.1 %


def test_a_run_can_be_named() -> None:
    trials = [Trial(number, GENOTYPES[0]) for number in range(20)]
    assert {TableOracle(Runs(), run=2)(trial).score for trial in trials} == {2.0}
    with pytest.raises(ValueError, match="run='best'; give 'random', 'mean' or the number of a run") as caught:
        TableOracle(Runs(), run="best")  # type: ignore[arg-type]
    one_line(caught.value)


# --- a table of one's own

TEXTS = [SPACE.format(genotype) for genotype in GENOTYPES]
CSV = "genotype,val,test,seconds,epochs\n" + "".join(f"{t},{80 + k}.5,{70 + k},{k},12\n" for k, t in enumerate(TEXTS))


def test_csv_and_npz_are_the_same_table(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(CSV)
    numbers = np.arange(6)
    columns: dict[str, Any] = {"val": numbers + 80.5, "test": numbers + 70, "seconds": numbers, "epochs": [12] * 6}
    np.savez(tmp_path / "table.npz", genotype=TEXTS, **columns)
    tables = [OwnTable.read(tmp_path / f"table.{kind}", SPACE) for kind in ("csv", "npz")]
    assert tables[0].records == tables[1].records
    assert tables[0].query(GENOTYPES[3]) == Record(83.5, 73.0, 3.0, 12.0)
    assert tables[0].best() == (85.5, 75.0)
    assert tables[0].budgets == (12,)
    assert set(tables[0].genotypes()) == {SPACE.canonical(genotype) for genotype in GENOTYPES}


def test_two_columns_will_do_and_other_forms_of_a_genotype_are_found(tmp_path: Path) -> None:
    # edge 0 -> 1 is zero, so whatever comes from node 1 is the same network
    forms = ["|none~0|+|none~0|nor_conv_3x3~1|+|nor_conv_1x1~0|none~1|none~2|"]
    forms.append("|none~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|avg_pool_3x3~1|none~2|")
    first, other = map(SPACE.parse, forms)
    assert first != other
    assert SPACE.canonical(first) == SPACE.canonical(other)
    (tmp_path / "table.csv").write_text(f"genotype,val\n{forms[0]},91\n")
    table = OwnTable.read(tmp_path / "table.csv", "nasbench201")
    assert table.query(other) == Record(91.0, None, 0.0, 0.0)
    result = TableOracle(table)(Trial(0, other))
    assert (result.score, result.test) == (91.0, None)
    with pytest.raises(ValueError, match=r"the table has no row for \|"):
        table.query(GENOTYPES[0])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f"genotype,val\n{TEXTS[0]},90\n{TEXTS[1]},good\n", ["row 2", "'good'", "genotype, val"]),
        (f"genotype,accuracy\n{TEXTS[0]},90\n", ["row 1", "val"]),
        (f"genotype,val\n{TEXTS[0]}\n", ["row 1", "genotype, val"]),
        ("genotype,val\n|conv~0|,90\n", ["row 1", "conv"]),
        ("genotype,val\n", ["has no rows"]),
        ("", ["has no rows"]),
    ],
    ids=["no number", "no column", "short row", "no genotype", "no row", "empty"],
)
def test_wrong_tables_of_text(tmp_path: Path, content: str, words: list[str]) -> None:
    (tmp_path / "table.csv").write_text(content)
    with pytest.raises(ValueError, match="table") as caught:
        OwnTable.read(tmp_path / "table.csv", SPACE)
    one_line(caught.value, *words)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\xff")
    (tmp_path / "text.npz").write_text("genotype,val")
    np.savez(tmp_path / "objects.npz", genotype=np.array([{}, []], dtype=object), val=[1, 2])
    np.savez(tmp_path / "ragged.npz", genotype=TEXTS, val=[90.0, 91.0])
    wrong = {
        "table.txt": "neither .csv nor .npz",
        "absent.csv": "absent.csv is no table",
        "bytes.csv": "bytes.csv is no table",
        "absent.npz": "absent.npz is no .npz file",
        "text.npz": "text.npz is no .npz file",
        "objects.npz": "objects.npz is no .npz file of plain arrays",
        "ragged.npz": "ragged.npz has columns of different lengths",
    }
    for name, words in wrong.items():
        with pytest.raises(ValueError, match=words) as caught:
            OwnTable.read(tmp_path / name, SPACE)
        one_line(caught.value)


def test_a_table_is_made_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(CSV)
    table = OwnTable("nasbench201", path=tmp_path / "table.csv")
    assert table.records == OwnTable.read(tmp_path / "table.csv", SPACE).records
    assert pickle.loads(pickle.dumps(table)).best() == table.best()
    for given in ({}, {"records": table.records, "path": tmp_path / "table.csv"}):
        with pytest.raises(ValueError, match="give the records of a table or the path of its file, and not both"):
            OwnTable(SPACE, **given)  # type: ignore[arg-type]


def test_an_architecture_has_one_row_and_a_number(tmp_path: Path) -> None:
    """Of the first two forms one is the other with another operation on what comes from a zero."""
    forms = ["|none~0|+|none~0|nor_conv_3x3~1|+|nor_conv_1x1~0|none~1|none~2|"]
    forms.append("|none~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|avg_pool_3x3~1|none~2|")
    path = tmp_path / "table.csv"
    path.write_text(f"genotype,val\n{TEXTS[0]},90\n{forms[0]},91\n{forms[1]},91\n")
    with pytest.raises(ValueError, match=r"table\.csv: row 2 and row 3 are one architecture, \|none") as caught:
        OwnTable.read(path, SPACE)
    one_line(caught.value, "give one row for it")
    rows = {SPACE.parse(form): Record(91.0, None, 0.0, 0.0) for form in forms}
    with pytest.raises(ValueError, match=r"the table: '.*' and '.*' are one architecture") as caught:
        OwnTable(SPACE, rows)
    one_line(caught.value, *forms)
    for val in ("nan", "inf", "-inf"):
        path.write_text(f"genotype,val\n{TEXTS[0]},90\n{TEXTS[1]},{val}\n")
        with pytest.raises(ValueError, match=rf"table\.csv, row 2: val is {val}; give a number") as caught:
            OwnTable.read(path, SPACE)
        one_line(caught.value, "leave the row out")
    path.write_text(f"genotype,val,test,seconds,epochs\n{TEXTS[0]},90,nan,nan,12\n{TEXTS[1]},91,0,,nan\n")
    with pytest.raises(ValueError, match="row 2: ValueError epochs is nan"):
        OwnTable.read(path, SPACE)
    path.write_text(f"genotype,val,test\n{TEXTS[0]},90,nan\n{TEXTS[1]},91,0\n")
    assert [record.test for record in OwnTable.read(path, SPACE).records.values()] == [None, 0.0]


def test_a_searcher_on_the_space_of_a_table_keeps_to_its_rows() -> None:
    table = OwnTable(SPACE, {genotype: Record(80.0 + k, None, 1.0, 1) for k, genotype in enumerate(GENOTYPES)})
    for searcher in (RandomSearch(TableSpace(table)), RegularizedEvolution(TableSpace(table), 4, 2)):
        evaluator = Evaluator(TableOracle(table))
        results = [result for _ in range(30) if (result := evaluator.step(searcher)) is not None]
        assert [result.error for result in results] == [None] * 30
        assert {result.trial.genotype for result in results} <= set(table.genotypes())
    with pytest.raises(ValueError, match="1 members"):
        TableSpace(OwnTable(SPACE, {GENOTYPES[0]: Record(80.0, None, 1.0, 1)}))


@pytest.mark.parametrize(("budget", "epochs"), [(4 / 3, 1), (12 - 1e-9, 12), (200.0 + 1e-9, 200), (11.9, 11)])
def test_a_budget_is_that_of_the_last_whole_epoch(budget: float, epochs: int) -> None:
    assert TableOracle(Runs(), run="mean")(Trial(0, GENOTYPES[0], budget)).epochs == epochs


# --- routes


def test_a_route_is_the_budget() -> None:
    oracles = [FunctionOracle(SPACE, lambda genotype, k=k: k) for k in range(3)]
    oracle = RoutedOracle(oracles, up_to=[0, 4])
    answers = {budget: oracle(Trial(0, GENOTYPES[0], budget)).score for budget in (0, 0.5, 4, 4.5, 100, None)}
    assert answers == {0: 0, 0.5: 1, 4: 1, 4.5: 2, 100: 2, None: 2}
    for limits in ([0], [4, 0], [0, 0], [0, 4, 8]):
        with pytest.raises(ValueError, match="3 oracles need 2 ascending budgets"):
            RoutedOracle(oracles, up_to=limits)
    with pytest.raises(ValueError, match="different spaces"):
        RoutedOracle([*oracles[:1], FunctionOracle("darts", lambda genotype: 0.0)], up_to=[0])


def test_data_is_given_to_those_on_the_way_that_have_none() -> None:
    own, data = DigitsDataModule(), DigitsDataModule()
    cheap, dear = (ZeroCostOracle(SPACE, lambda net, x, y: 0.0, given) for given in (None, own))
    with pytest.raises(ValueError, match="the oracle has no data; pass data="):
        cheap(Trial(0, GENOTYPES[0]))
    give_data(RoutedOracle([cheap, dear], up_to=[0]), data)
    assert cheap.data is data
    assert dear.data is own


# --- supernets


def accuracy(supernet: nn.Module, genotype: Genotype, batches: list[tuple[Tensor, Tensor]]) -> float:
    """In percent, by hand."""
    supernet.eval()
    with torch.no_grad():
        right = [supernet(x, SPACE.vertex(genotype)).argmax(1) == y for x, y in batches]
    return 100 * float(torch.cat(right).double().mean())


@pytest.mark.parametrize("count", [1, 2, None])
def test_the_score_of_a_supernet_is_its_accuracy(count: int | None) -> None:
    data = DigitsDataModule(eval_batch_size=50)
    supernet = build_supernet(SPACE, 4, 1, in_channels=1).train()
    oracle = SupernetOracle(SPACE, data, supernet, batches=count)
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    results = [oracle(Trial(k, genotype)) for k, genotype in enumerate(GENOTYPES)]
    assert supernet.training
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())
    batches = first_batches(DigitsDataModule(eval_batch_size=50), count)
    assert len(batches) == (count or 4)
    expected = [accuracy(supernet, genotype, batches) for genotype in GENOTYPES]
    assert [result.score for result in results] == pytest.approx(expected, abs=1e-12)
    assert len(set(expected)) > 1
    assert {(result.source, result.epochs) for result in results} == {("supernet", 0.0)}


def test_the_supernet_of_a_search_is_read_from_its_checkpoint(tmp_path: Path) -> None:
    search = DARTS(SPACE, channels=4, cells=1, in_channels=1)
    keep = ModelCheckpoint(tmp_path, "search")
    options = {"limit_train_batches": 2, "limit_val_batches": 0}
    trainer = quiet_trainer(max_epochs=1, enable_checkpointing=True, callbacks=[keep], **options)
    trainer.fit(search, BilevelDataModule(DigitsDataModule()))
    oracle = SupernetOracle(SPACE, DigitsDataModule(), checkpoint=tmp_path / "search.ckpt", batches=1)
    batches = first_batches(DigitsDataModule(), 1)
    found = [oracle(Trial(k, genotype)).score for k, genotype in enumerate(GENOTYPES)]
    assert found == pytest.approx([accuracy(search.supernet, genotype, batches) for genotype in GENOTYPES], abs=1e-12)
    with pytest.raises(ValueError, match="is of space 'nasbench201', not of 'darts'") as caught:
        SupernetOracle("darts", DigitsDataModule(), checkpoint=tmp_path / "search.ckpt")
    one_line(caught.value, "search.ckpt")
    state = torch.load(tmp_path / "search.ckpt", weights_only=True)
    state["hyper_parameters"]["channels"] = 8
    torch.save(state, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="has no supernet as the space builds it") as caught:
        SupernetOracle(SPACE, DigitsDataModule(), checkpoint=tmp_path / "other.ckpt")
    one_line(caught.value, "pass supernet=")


def test_exactly_one_supernet() -> None:
    supernet = build_supernet(SPACE, 4, 1)
    for given in ({}, {"supernet": supernet, "checkpoint": "search.ckpt"}):
        with pytest.raises(ValueError, match="give a supernet or the checkpoint of a search, and not both"):
            SupernetOracle(SPACE, DigitsDataModule(), **given)  # type: ignore[arg-type]


# --- scores without training


def test_the_network_of_a_score_depends_on_seed_and_genotype_alone() -> None:
    seen: list[dict[str, Tensor]] = []

    def look(network: nn.Module, x: Tensor, y: Tensor) -> float:
        assert isinstance(network, DerivedNetwork)
        assert (x.shape, y.shape) == ((64, 1, 8, 8), (64,))
        seen.append({name: value.clone() for name, value in network.state_dict().items()})
        return 1.0

    def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
        return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)

    first, second = (ZeroCostOracle(SPACE, look, DigitsDataModule(), 4, 1) for _ in range(2))
    first(Trial(0, GENOTYPES[0]))
    first(Trial(1, GENOTYPES[1]))
    torch.manual_seed(123)
    second(Trial(5, GENOTYPES[0], 3.0))
    ZeroCostOracle(SPACE, look, DigitsDataModule(), 4, 1, seed=1)(Trial(0, GENOTYPES[0]))
    assert same(seen[0], seen[2])
    assert not same(seen[0], seen[1])
    assert seen[0].keys() == seen[3].keys()
    assert not same(seen[0], seen[3])


def test_the_function_sees_one_batch_for_all() -> None:
    seen: list[Tensor] = []

    def look(network: nn.Module, x: Tensor, y: Tensor) -> float:
        seen.append(x)
        return float(network(x).detach().sum())

    oracle = ZeroCostOracle(SPACE, look, DigitsDataModule(), 4, 1)
    results = [oracle(Trial(k, genotype, 0.0)) for k, genotype in enumerate(GENOTYPES[:3])]
    assert seen[0] is seen[1] is seen[2]
    assert len({result.score for result in results}) == 3
    assert {(result.source, result.epochs) for result in results} == {("zero-cost", 0.0)}
