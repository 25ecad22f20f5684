"""The training logs of NAS-Bench-301: configurations and genotypes, runs, sizes, and logs that are none."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path
from typing import Any

import pytest

from lightning_nas.arch import Genotype
from lightning_nas.benchmarks import NASBench301Logs
from lightning_nas.benchmarks.nasbench301 import from_config, to_config
from lightning_nas.oracles import TableOracle
from lightning_nas.query.trial import Trial
from lightning_nas.spaces import get_space
from lightning_nas.spaces.restricted import RestrictedSpace

SPACE = get_space("darts")
PREFIX = "NetworkSelectorDatasetInfo:darts:"
CONFIG = {
    "edge_normal_0": "skip_connect",
    "edge_normal_1": "sep_conv_3x3",
    "inputs_node_normal_3": "0_1",
    "edge_normal_2": "sep_conv_3x3",
    "edge_normal_3": "dil_conv_5x5",
    "inputs_node_normal_4": "0_2",
    "edge_normal_5": "dil_conv_3x3",
    "edge_normal_7": "avg_pool_3x3",
    "inputs_node_normal_5": "1_4",
    "edge_normal_10": "sep_conv_5x5",
    "edge_normal_13": "max_pool_3x3",
    "edge_reduce_0": "max_pool_3x3",
    "edge_reduce_1": "avg_pool_3x3",
    "inputs_node_reduce_3": "1_2",
    "edge_reduce_3": "dil_conv_5x5",
    "edge_reduce_4": "sep_conv_3x3",
    "inputs_node_reduce_4": "1_3",
    "edge_reduce_6": "skip_connect",
    "edge_reduce_8": "sep_conv_5x5",
    "inputs_node_reduce_5": "2_3",
    "edge_reduce_11": "sep_conv_3x3",
    "edge_reduce_12": "dil_conv_3x3",
}
TEXT = (
    "Genotype(normal=[('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('dil_conv_5x5', 1), "
    "('dil_conv_3x3', 0), ('avg_pool_3x3', 2), ('sep_conv_5x5', 1), ('max_pool_3x3', 4)], normal_concat=range(2, 6), "
    "reduce=[('max_pool_3x3', 0), ('avg_pool_3x3', 1), ('dil_conv_5x5', 1), ('sep_conv_3x3', 2), ('skip_connect', 1), "
    "('sep_conv_5x5', 3), ('sep_conv_3x3', 2), ('dil_conv_3x3', 3)], reduce_concat=range(2, 6))"
)


def full(config: dict[str, str]) -> dict[str, str]:
    return {PREFIX + key: value for key, value in config.items()}


def genotypes(count: int) -> list[Genotype]:
    return [SPACE.sample(random.Random(seed)) for seed in range(count)]


def log(genotype: Genotype, val: float, test: float = 94.0, runtime: float = 7000, **more: Any) -> dict[str, Any]:
    """A log as it is released."""
    config: dict[str, Any] = {
        "CreateImageDataLoader:batch_size": 96,
        "ImageAugmentation:cutout": "True",
        "NetworkSelectorDatasetInfo:network": "darts",
        PREFIX + "auxiliary": "True",
        PREFIX + "init_channels": more.pop("channels", 32),
        PREFIX + "layers": more.pop("cells", 8),
        "OptimizerSelector:sgd:learning_rate": 0.025,
        "SimpleLearningrateSchedulerSelector:cosine_annealing:T_max": more.get("budget", 100),
    }
    info = {"train_accuracy": 90.0, "val_accuracy": val, "epochs": 98, "model_parameters": 1_500_000}
    whole = {"budget": 100, "final_metric_score": -val, "info": [info], "test_accuracy": test, "runtime": runtime}
    return whole | {"optimized_hyperparamater_config": config | to_config(genotype)} | more


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


# --- configurations


def test_a_known_configuration() -> None:
    genotype = from_config(full(CONFIG) | {"OptimizerSelector:optimizer": "sgd"})
    assert SPACE.format(genotype) == TEXT
    assert to_config(SPACE.parse(TEXT)) == full(CONFIG)


def test_configurations_come_back() -> None:
    drawn = genotypes(200)
    assert [from_config(to_config(genotype)) for genotype in drawn] == drawn
    assert len({json.dumps(to_config(genotype), sort_keys=True) for genotype in drawn}) == len(set(drawn)) == 200
    edges = {key.rsplit("_", 1)[1] for g in drawn for key in to_config(g) if "edge_normal" in key}
    assert edges == set(map(str, range(14)))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("edge_normal_1", "none", "edge_normal_1 is 'none'; allowed are max_pool_3x3, .*dil_conv_5x5$"),
        ("edge_normal_13", None, "edge_normal_13 is 'None'; allowed are"),
        ("inputs_node_normal_3", "0_3", "inputs_node_normal_3 is '0_3'; allowed are 0_1, 0_2, 1_2$"),
        ("inputs_node_reduce_5", "3_2", "inputs_node_reduce_5 is '3_2'; allowed are"),
        ("inputs_node_reduce_5", None, "inputs_node_reduce_5 is 'None'; allowed are"),
    ],
)
def test_configurations_that_are_none(key: str, value: str | None, message: str) -> None:
    config = full(CONFIG | {key: value}) if value else {k: v for k, v in full(CONFIG).items() if k != PREFIX + key}
    with pytest.raises(ValueError, match=message):
        from_config(config)


def test_none_and_other_spaces_have_no_configuration() -> None:
    with pytest.raises(ValueError, match="edge 0 of 'normal' is 'none', which NAS-Bench-301 does not have"):
        to_config(SPACE.parse(TEXT.replace("skip_connect', 0", "none', 0")))
    with pytest.raises(ValueError, match="'nasbench201' was given to space 'darts'"):
        to_config(get_space("nasbench201").sample(random.Random(0)))


# --- the reader


@pytest.mark.parametrize(
    "place", ["run_{}/results_fidelity_0/results_{}.json", "rs/results_{}{}.json", "results_{}{}.json"]
)
def test_runs_and_their_mean(place: str, tmp_path: Path) -> None:
    first, second = genotypes(2)
    logs = [log(first, 94.0, 93.0, 7000), log(second, 95.0, 92.5, 8000), log(first, 94.5, 93.5, 7200)]
    for number, content in enumerate(logs):
        write(tmp_path / place.format(number, number), content)
    write(tmp_path / "rs" / "config.json", "not a log")
    table = NASBench301Logs(tmp_path)
    assert (table.budgets, table.datasets, len(table)) == ((100,), ("cifar10",), 2)
    assert list(table.genotypes()) == [first, second]
    assert (table.runs(first), table.runs(second)) == (2, 1)
    mean, runs = table.query(first), [table.query(first, run=run) for run in range(3)]
    assert (mean.val, mean.test, mean.seconds, mean.epochs) == (94.25, 93.25, 7100.0, 100)
    assert [(r.val, r.test, r.seconds) for r in runs] == [(94.0, 93.0, 7000), (94.5, 93.5, 7200), (94.0, 93.0, 7000)]
    assert table.best() == (95.0, 93.25)
    assert table.metrics(first) == {"params_m": 1.5}
    assert pickle.loads(pickle.dumps(table)).query(first) == mean


def test_numbers_at_the_top_and_numbers_that_lack(tmp_path: Path) -> None:
    first, second = genotypes(2)
    top = log(first, 0.0) | {"val_accuracy": 93.0, "test_accuracy": 92.0, "runtime": 60}
    del top["info"], top["budget"]
    write(tmp_path / "rs/results_0.json", top)
    inside = log(second, 91.0) | {"info": [{"val_accuracy": 91.0, "test_accuracy": 90.0, "runtime": 30}]}
    del inside["test_accuracy"], inside["runtime"]
    write(tmp_path / "rs/results_1.json", inside)
    table = NASBench301Logs(tmp_path / "rs")
    assert (table.query(first).val, table.query(first).test, table.query(first).seconds) == (93.0, 92.0, 60.0)
    assert (table.query(second).val, table.query(second).test, table.query(second).seconds) == (91.0, 90.0, 30.0)
    del inside["info"][0]["test_accuracy"], inside["info"][0]["runtime"]
    write(tmp_path / "rs/results_1.json", inside)
    record = NASBench301Logs(tmp_path).query(second)
    assert record.test is None
    assert record.seconds != record.seconds


def test_other_sizes_and_budgets_are_kept_apart(tmp_path: Path) -> None:
    genotype, other = genotypes(2)
    write(tmp_path / "run_0/results_fidelity_0/results_0.json", log(genotype, 94.0))
    write(tmp_path / "run_0/results_fidelity_1/results_0.json", log(genotype, 80.0, budget=50))
    write(
        tmp_path / "run_0/results_fidelity_6/results_0.json", log(genotype, 97.68, budget=1500, channels=50, cells=20)
    )
    write(tmp_path / "run_1/results_fidelity_1/results_0.json", log(other, 99.0, budget=50))
    table = NASBench301Logs(tmp_path)
    assert table.budgets == (50, 100)
    assert (table.query(genotype).val, table.query(genotype, epochs=50).val) == (94.0, 80.0)
    assert table.best() == (94.0, 94.0)
    large = NASBench301Logs(tmp_path, channels=50, cells=20)
    assert (large.budgets, large.query(genotype).val, len(large)) == ((1500,), 97.68, 1)
    with pytest.raises(
        ValueError, match=r"16 channels and 8 cells, but networks of \(channels, cells\) \[\(32, 8\), \(50, 20"
    ):
        NASBench301Logs(tmp_path, channels=16)
    with pytest.raises(ValueError, match=r"epochs=100 is no budget of this architecture; nasbench301_logs has \[50\]"):
        table.query(other)


def test_questions_without_an_answer(tmp_path: Path) -> None:
    known, unknown = genotypes(2)
    write(tmp_path / "rs/results_0.json", log(known, 94.0))
    table = NASBench301Logs(tmp_path)
    with pytest.raises(ValueError, match=r"no log of Genotype\(.*it has 1 architectures, ask for one of genotypes\(\)"):
        table.query(unknown)
    with pytest.raises(ValueError, match="no data set 'cifar100'; it has cifar10"):
        table.query(known, "cifar100")
    with pytest.raises(ValueError, match="epochs=0 is no budget"):
        table.query(known, epochs=0)
    with pytest.raises(ValueError, match="'nasbench201' was given to space 'darts'"):
        table.query(get_space("nasbench201").sample(random.Random(0)))
    with pytest.raises(ValueError, match="there is no folder 'nowhere'"):
        NASBench301Logs("nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"but no file results_\*\.json"):
        NASBench301Logs(tmp_path / "empty")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "TypeError"),
        ({"info": []}, "KeyError 'optimized_hyperparamater_config'"),
        (log(genotypes(1)[0], float("nan")), "val_accuracy is no number"),
        (log(genotypes(1)[0], 94.0) | {"info": []}, "KeyError 'val_accuracy'"),
        (log(genotypes(1)[0], 94.0) | {"optimized_hyperparamater_config": {}}, "edge_normal_0 is 'None'"),
    ],
)
def test_logs_that_are_none(content: Any, message: str, tmp_path: Path) -> None:
    write(tmp_path / "rs/results_7.json", content)
    with pytest.raises(ValueError, match=rf"results_7\.json is no training log of NAS-Bench-301: .*{message}") as error:
        NASBench301Logs(tmp_path)
    assert "\n" not in str(error.value)


def test_an_oracle_and_a_part_of_the_space_on_top(tmp_path: Path) -> None:
    drawn = genotypes(5)
    for number, genotype in enumerate(drawn):
        write(tmp_path / f"rs/results_{number}.json", log(genotype, 90.0 + number, runtime=100 * number))
    table = NASBench301Logs(tmp_path)
    oracle = TableOracle(table, costs=True)
    result = oracle(Trial(0, drawn[3]))
    assert (result.score, result.test, result.cost, result.metrics) == (93.0, 94.0, 300.0, {"params_m": 1.5})
    part = RestrictedSpace(table.space, table.genotypes())
    assert {oracle(Trial(k, part.sample(random.Random(k)))).score for k in range(60)} == {90.0, 91.0, 92.0, 93.0, 94.0}
