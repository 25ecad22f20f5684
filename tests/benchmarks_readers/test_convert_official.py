"""From published files to compact tables: what comes out is what went in."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from published import REAL, VALIDATION_SECONDS, cells, invented, real, write_folder, write_pth

from lightning_nas.benchmarks.convert import convert
from lightning_nas.benchmarks.nasbench201 import NASBench201
from lightning_nas.benchmarks.nats import NATSSize
from lightning_nas.spaces import NASBench201Space


@pytest.fixture
def files(benchmark_data: Path) -> Path:
    for name in ("nb201.npz", "nb201_runs.npz", "nb201_curves_3archs.npz"):
        if not (benchmark_data / name).is_file():
            pytest.skip(f"no benchmark table {benchmark_data / name}; set LIGHTNING_NAS_DATA to a folder with it")
    return benchmark_data


@pytest.mark.parametrize("form", ["folder", "pth", "zipped"])
def test_the_round_trip_of_three_architectures(files: Path, tmp_path: Path, form: str) -> None:
    archs, infos = real(files)
    if form == "folder":
        source = write_folder(tmp_path / "nats", archs, infos)
    else:
        source = write_pth(tmp_path / "nb201.pth", archs, infos, zipped=form == "zipped")
    convert(str(source), str(tmp_path / "out.npz"))
    with np.load(tmp_path / "out.npz", allow_pickle=False) as file:
        made = {name: file[name] for name in file.files}
    rows = list(REAL)
    with np.load(files / "nb201.npz", allow_pickle=False) as file:
        assert set(file.files) <= set(made)
        for name in file.files:
            if name in ("op_names", "iso_rep"):
                continue
            assert made[name].dtype == file[name].dtype
            np.testing.assert_allclose(made[name], file[name][rows], rtol=1e-6, err_msg=name)
        assert made["op_names"].tolist() == file["op_names"].tolist()
    assert made["iso_rep"].tolist() == [0, 1, 2]
    with np.load(files / "nb201_runs.npz", allow_pickle=False) as file:
        assert made["c10_val_correct_of_25000"].tolist() == file["c10_val_correct_of_25000"][rows].tolist()


def test_curves_of_validation_accuracy_and_none_of_test_accuracy(files: Path, tmp_path: Path) -> None:
    archs, infos = real(files)
    convert(str(write_folder(tmp_path / "nats", archs, infos)), str(tmp_path / "out.npz"))
    table = NASBench201(tmp_path / "out.npz")
    genotype = table.space.parse(archs[1])
    results = infos[1]["200"]["all_results"]
    seeds = [seed for dataset, seed in results if dataset == "cifar10-valid"]
    for epochs in (1, 11, 13, 100, 199):
        runs = [results["cifar10-valid", seed]["eval_acc1es"][f"x-valid@{epochs - 1}"] for seed in seeds]
        record = table.query(genotype, epochs=epochs)
        assert record.val == pytest.approx(np.mean(runs), rel=1e-6)
        assert record.test is None
        assert record.seconds == pytest.approx(epochs * 12.462057 + VALIDATION_SECONDS, rel=1e-6)
        assert record.epochs == epochs
        for dataset in ("cifar100", "ImageNet16-120"):
            with pytest.raises(ValueError, match="test set only"):
                table.query(genotype, dataset, epochs)
    short = table.curve(genotype, "cifar10", 12)
    assert short[-1] == pytest.approx(table.query(genotype, epochs=12).val)
    assert table.curve(genotype)[11] != pytest.approx(short[11])
    assert table.curve(genotype)[-1] == pytest.approx(table.query(genotype).val)
    assert "ori" not in "".join(np.load(tmp_path / "out.npz").files)


def test_seconds_of_a_query_are_training_and_one_validation(tmp_path: Path) -> None:
    archs, infos = invented(cells(2), ["12", "200"])
    convert(str(write_folder(tmp_path / "nats", archs, infos)), str(tmp_path / "out.npz"))
    table = NASBench201(tmp_path / "out.npz")
    genotype = table.space.parse(archs[0])
    for dataset, epoch in {"cifar10": 2.0, "cifar100": 4.0, "ImageNet16-120": 12.0}.items():
        for epochs in (12, 200):
            assert table.query(genotype, dataset, epochs).seconds == epochs * epoch + VALIDATION_SECONDS
    assert table.query(genotype, epochs=7).seconds == pytest.approx(7 * 2.0 + VALIDATION_SECONDS)


def test_invented_records_come_back(tmp_path: Path) -> None:
    archs, infos = invented(cells(4), ["12", "200"])
    convert(str(write_folder(tmp_path / "nats", archs, infos)), str(tmp_path / "out.npz"))
    table = NASBench201(tmp_path / "out.npz")
    for arch, info in zip(archs, infos, strict=True):
        genotype = table.space.parse(arch)
        long, short = info["200"]["all_results"], info["12"]["all_results"]
        runs = [long["cifar10-valid", seed]["eval_acc1es"]["x-valid@199"] for seed in (777, 888)]
        assert table.runs(genotype) == 2
        assert [table.query(genotype, run=run).val for run in range(2)] == pytest.approx(runs)
        tests = [long["cifar10", seed]["eval_acc1es"]["ori-test@199"] for seed in (777, 888)]
        assert table.query(genotype).test == pytest.approx(np.mean(tests))
        assert table.query(genotype, "cifar100", 12).test == pytest.approx(
            short["cifar100", 111]["eval_acc1es"]["x-test@11"]
        )
        curve = table.curve(genotype, "cifar100", 12)
        expected = [short["cifar100", 111]["eval_acc1es"][f"x-valid@{epoch}"] for epoch in range(12)]
        assert curve == pytest.approx(expected)
        with pytest.raises(ValueError, match="test set only"):
            table.curve(genotype, "cifar100")


def test_the_curve_of_the_short_training_answers_when_it_is_chosen(tmp_path: Path) -> None:
    """The budgets of the published BOHB are epochs 1, 4 and 12 of the training of 12."""
    archs, infos = invented(cells(3), ["12", "200"])
    convert(str(write_folder(tmp_path / "nats", archs, infos)), str(tmp_path / "out.npz"))
    table, usual = NASBench201(tmp_path / "out.npz", training=12), NASBench201(tmp_path / "out.npz")
    genotype, short = table.space.parse(archs[1]), infos[1]["12"]["all_results"]
    for dataset, name, seeds in (("cifar10-valid", "cifar10", (111, 777)), ("ImageNet16-120",) * 2 + ((111,),)):
        for epochs in (1, 4, 12):
            runs = [short[dataset, seed]["eval_acc1es"][f"x-valid@{epochs - 1}"] for seed in seeds]
            record = table.query(genotype, name, epochs)
            assert record.val == pytest.approx(np.mean(runs))
            assert (record.test is None, record.epochs) == (epochs < 12, epochs)
            assert table.runs(genotype, name, epochs) == len(seeds)
            found = [table.query(genotype, name, epochs, run).val for run in range(len(seeds) + 1)]
            assert found == pytest.approx([*runs, runs[0]])
            epoch = {"cifar10": 2.0, "ImageNet16-120": 12.0}[name]
            assert record.seconds == pytest.approx(epochs * epoch + VALIDATION_SECONDS)
    assert table.query(genotype, epochs=12) == usual.query(genotype, epochs=12)
    assert table.query(genotype) == usual.query(genotype)
    assert table.query(genotype, epochs=4) != usual.query(genotype, epochs=4)
    assert table.query(genotype, epochs=50) == usual.query(genotype, epochs=50)
    assert pickle.loads(pickle.dumps(table)).query(genotype, epochs=4) == table.query(genotype, epochs=4)
    assert [table.continues(*pair) for pair in ((1, 4), (4, 12), (12, 200), (12, 50), (50, 200))] == [
        *(True, True, False, False, True)
    ]
    assert [usual.continues(*pair) for pair in ((1, 4), (4, 12), (12, 200), (50, None))] == [True, False, False, True]
    with pytest.raises(ValueError, match=r"test set only; for the curve of 12 epochs give training=12$"):
        usual.query(genotype, "cifar100", 4)


def test_the_long_training_answers_for_all_budgets_when_it_is_chosen(tmp_path: Path) -> None:
    archs, infos = invented(cells(2), ["12", "200"])
    convert(str(write_folder(tmp_path / "nats", archs, infos)), str(tmp_path / "out.npz"))
    table = NASBench201(tmp_path / "out.npz", training=200)
    genotype, long = table.space.parse(archs[0]), infos[0]["200"]["all_results"]
    runs = [long["cifar10-valid", seed]["eval_acc1es"]["x-valid@11"] for seed in (777, 888)]
    assert table.query(genotype, epochs=12).val == pytest.approx(np.mean(runs))
    assert table.continues(12, 200)
    assert table.runs(genotype, epochs=12) == 1
    with pytest.raises(ValueError, match=r"training=100; nasbench201 has trainings of \(12, 200\) epochs"):
        NASBench201(tmp_path / "out.npz", training=100)


def test_the_short_training_of_three_architectures(files: Path, tmp_path: Path) -> None:
    """As recorded: the curves of CIFAR-10's two runs of 12 epochs; the others are of the whole test set only."""
    archs, infos = real(files)
    convert(str(write_folder(tmp_path / "nats", archs, infos)), str(tmp_path / "out.npz"))
    table = NASBench201(tmp_path / "out.npz", training=12)
    for arch, info in zip(archs, infos, strict=True):
        genotype, short = table.space.parse(arch), info["12"]["all_results"]
        seeds = sorted(seed for dataset, seed in short if dataset == "cifar10-valid")
        assert table.runs(genotype, epochs=4) == len(seeds) == 2
        found = [table.query(genotype, epochs=epochs, run=run).val for epochs in (1, 4, 12) for run in (0, 1)]
        evaluated = [short["cifar10-valid", seed]["eval_acc1es"] for seed in seeds]
        assert found == pytest.approx([e[f"x-valid@{at}"] for at in (0, 3, 11) for e in evaluated])
    assert table.has_curve("cifar10", 12)
    assert not table.has_curve("cifar100", 200)


def test_isomorphic_cells_name_the_first_of_their_class(tmp_path: Path) -> None:
    space = NASBench201Space()
    texts = ["nor_conv_3x3", "none", "skip_connect"]
    cell = "|{0}~0|+|{1}~0|{2}~1|+|{1}~0|{1}~1|{2}~2|"
    archs = [
        cell.format(*texts),
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
        "|none~0|+|nor_conv_3x3~0|none~1|+|none~0|none~1|skip_connect~2|",
    ]
    assert space.canonical(space.parse(archs[0])) == space.canonical(space.parse(archs[2]))
    convert(str(write_folder(tmp_path / "nats", *invented(archs, ["12", "200"]))), str(tmp_path / "out.npz"))
    assert np.load(tmp_path / "out.npz")["iso_rep"].tolist() == [0, 1, 0]


def test_a_file_that_lacks_short_trainings(tmp_path: Path) -> None:
    """The first version of NAS-Bench-201 has 12 epochs on half of CIFAR-10 only, and may lack seconds."""
    archs, infos = invented(cells(2), ["12", "200"])
    for info in infos:
        short = info["12"]["all_results"]
        for key in [key for key in short if key[0] != "cifar10-valid"]:
            del short[key]
    for results in infos[1].values():
        for result in results["all_results"].values():
            result["train_times"] = result["eval_times"] = None
    del infos[1]["200"]["all_results"]["cifar100", 777]["eval_acc1es"]["x-valid@199"]
    del infos[1]["200"]["all_results"]["cifar100", 888]["eval_acc1es"]["x-valid@199"]
    convert(str(write_pth(tmp_path / "v1.pth", archs, infos)), str(tmp_path / "out.npz"))
    table = NASBench201(tmp_path / "out.npz")
    first, second = table.genotypes()
    assert table.query(first, epochs=12).test is None
    assert np.isnan(table.query(second).seconds)
    with pytest.raises(ValueError, match="no validation accuracy on cifar100 after 12"):
        table.query(first, "cifar100", 12)
    with pytest.raises(ValueError, match="no accuracy of"):
        table.query(second, "cifar100")


def test_the_size_space(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archs, infos = invented(["64:8:16:24:32", "8:8:8:8:8"], ["01", "12", "90"])
    convert(str(write_folder(tmp_path / "sss", archs, infos)), str(tmp_path / "nats_size.npz"))
    table = NATSSize(tmp_path)
    assert [table.space.format(genotype) for genotype in table.genotypes()] == archs
    genotype = table.space.parse(archs[0])
    results = infos[0]["90"]["all_results"]
    expected = [results["ImageNet16-120", seed]["eval_acc1es"]["x-valid@89"] for seed in (777, 888)]
    assert table.query(genotype, "ImageNet16-120").val == pytest.approx(np.mean(expected))
    short = infos[0]["01"]["all_results"]["cifar10-valid", 111]["eval_acc1es"]
    assert table.query(genotype, epochs=1).val == pytest.approx(short["x-valid@0"])
    assert table.query(genotype, epochs=12).epochs == 12
    assert table.runs(genotype) == 2
    assert table.metrics(genotype) == pytest.approx({"params_m": 0.1, "flops_m": 10.0})
    assert len(table.curve(genotype)) == 90
    chosen = NATSSize(tmp_path, training=12)
    early = infos[0]["12"]["all_results"]["cifar10-valid", 777]["eval_acc1es"]
    assert [chosen.query(genotype, epochs=e, run=1).val for e in (1, 12)] == pytest.approx(
        [early["x-valid@0"], early["x-valid@11"]]
    )
    assert (chosen.continues(1, 12), table.continues(1, 12), table.continues(12, 90)) == (True, False, False)
    out = capsys.readouterr().out
    val, test = table.best("cifar100")
    assert f"{tmp_path / 'nats_size.npz'}\n2 architectures" in out
    assert f"cifar100: best validation {val:.4f}, best test {test:.4f}" in out


def test_a_conversion_that_fails_leaves_nothing(tmp_path: Path) -> None:
    archs, infos = invented(cells(2), ["12", "200"])
    folder, out = write_folder(tmp_path / "nats", archs, infos), tmp_path / "out.npz"
    with pytest.raises(ValueError, match=r"does not end in \.npz"):
        convert(str(folder), str(tmp_path / "out.pt"))
    with pytest.raises(ValueError, match="there is no file"):
        convert(str(tmp_path / "absent"), str(out))
    (folder / "000001.pickle.pbz2").write_bytes(b"broken")
    with pytest.raises(ValueError, match="not a benchmark file"):
        convert(str(folder), str(out))
    (folder / "000001.pickle.pbz2").unlink()
    with pytest.raises(ValueError, match="lacks 1 of 2 architectures, the first is number 1"):
        convert(str(folder), str(out))
    assert [path.name for path in tmp_path.iterdir()] == ["nats"]
