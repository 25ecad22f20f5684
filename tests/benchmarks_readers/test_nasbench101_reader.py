"""Readers of NAS-Bench-101: framing and messages of the release, the compact file, queries, NAS-Bench-1Shot1."""

from __future__ import annotations

import base64
import json
import os
import random
import struct
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from lightning_nas.benchmarks import nasbench101_table
from lightning_nas.benchmarks.nasbench101 import NASBench1Shot1, NASBench101, convert101
from lightning_nas.benchmarks.tfrecord import crc32c, payloads, wire_fields
from lightning_nas.spaces import NASBench1Shot1Space
from lightning_nas.spaces.nasbench101 import NASBench101Space, module_hash, to_nasbench101

SPACE = NASBench101Space()
CONV, POOL = "conv3x3-bn-relu", "maxpool3x3"
MODULES = [
    (["010", "001", "000"], ["input", CONV, "output"], 10_177_674),
    (["01", "00"], ["input", "output"], 882_570),
    (["0110", "0001", "0001", "0000"], ["input", POOL, CONV, "output"], 1_000_000),
]
FOLDER = Path(os.environ.get("LIGHTNING_NAS_DATA", Path(__file__).parents[3] / "shared" / "data"))
ONE_SHOT1 = FOLDER / "nb1shot1_ss12.npz"
needs_data = pytest.mark.skipif(not ONE_SHOT1.is_file(), reason=f"no {ONE_SHOT1}; set LIGHTNING_NAS_DATA")


# --- a small release, written here from the description of its formats


def masked(data: bytes) -> int:
    """The stored checksum: bit by bit, then rotated right by 15 and shifted."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 * (crc & 1))
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32


def record(payload: bytes) -> bytes:
    head = struct.pack("<Q", len(payload))
    return head + struct.pack("<I", masked(head)) + payload + struct.pack("<I", masked(payload))


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def message(moments: list[list[float]], parameters: int) -> bytes:
    """Epoch, seconds, training, validation and test accuracy at each moment."""
    out = b""
    for moment in moments:
        inner = b"".join(bytes([8 * field + 1]) + struct.pack("<d", value) for field, value in enumerate(moment, 1))
        out += b"\x0a" + varint(len(inner)) + inner
    return out + b"\x10" + varint(parameters) + b"\x19" + struct.pack("<d", 99.0)


def accuracies(module: int, epochs: int, run: int) -> tuple[float, float, float]:
    """Seconds, validation and test accuracy; sums of powers of two, which every width holds."""
    return 2.0 * epochs + run, module / 4 + run / 64 + epochs / 1024, module / 4 + run / 32


def training(module: int, epochs: int, run: int) -> bytes:
    matrix, ops, parameters = MODULES[module]
    seconds, val, test = accuracies(module, epochs, run)
    moments = [
        [0, 0.5, 0.1, 0.1, 0.1],
        [epochs / 2, seconds / 2, 0.5, val / 2, test / 2],
        [epochs, seconds, 1, val, test],
    ]
    coded = base64.b64encode(message(moments, parameters)).decode()
    return json.dumps([module_hash(matrix, ops), epochs, "".join(matrix), ",".join(ops), coded]).encode()


@pytest.fixture
def release(tmp_path: Path) -> Path:
    path = tmp_path / "nasbench_tiny.tfrecord"
    order = [(module, epochs, run) for run in range(3) for epochs in (108, 4) for module in range(3)]
    path.write_bytes(b"".join(record(training(*one)) for one in order if one != (2, 4, 2)))
    return path


# --- formats


def test_checksum_of_the_standard_text() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"") == 0
    assert crc32c(bytes(32)) == 0x8A9136AA  # 32 zeros in RFC 3720


def test_payloads_come_back(tmp_path: Path) -> None:
    path, written = tmp_path / "x.tfrecord", [b"", b"one", bytes(range(256)) * 9]
    path.write_bytes(b"".join(map(record, written)))
    assert list(payloads(path)) == list(payloads(path, check_payloads=True)) == written


def test_broken_files_say_where(tmp_path: Path) -> None:
    path = tmp_path / "x.tfrecord"
    good = record(b"one") + record(b"twofold")
    second = len(record(b"one"))
    for broken, words in [
        (good[:-1], f"byte {second}: the file ends before its 7 bytes do"),
        (good[: second + 5], f"byte {second}: the file ends within the record's head"),
        (good[:second] + b"\0" + good[second + 1 :], f"byte {second}: the checksum of its length is wrong"),
        (b"PK\3\4 some other file", "byte 0: the checksum of its length is wrong; this is no TFRecord file"),
    ]:
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=words):
            list(payloads(path))
    path.write_bytes(good.replace(b"twofold", b"twofolD"))
    assert len(list(payloads(path))) == 2
    with pytest.raises(ValueError, match=f"byte {second}: the checksum of its payload is wrong"):
        list(payloads(path, check_payloads=True))
    with pytest.raises(ValueError, match="cannot be read"):
        list(payloads(tmp_path / "none"))


def test_fields_of_a_message() -> None:
    data = message([[1.5, 2.5]], 300) + b"\x25" + struct.pack("<f", 0.25)
    fields = list(wire_fields(data))
    assert fields[1:] == [(2, 300), (3, 99.0), (4, 0.25)]
    assert isinstance(fields[0][1], bytes)
    assert list(wire_fields(fields[0][1])) == [(1, 1.5), (2, 2.5)]
    for broken, words in [
        (data[:-1], "ends before a field of 4 bytes"),
        (b"\x10\xff", "ends within a number"),
        (b"\x13", "kind 3"),
        (b"\x10" + b"\xff" * 11, "more than ten bytes"),
        (b"\x0a\x05abc", "ends before a field of 5 bytes"),
    ]:
        with pytest.raises(ValueError, match=words):
            list(wire_fields(broken))


# --- the release


def test_a_conversion_is_whole_or_leaves_nothing(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "folder"
    convert101(release, folder / "nasbench101.npz")
    assert capsys.readouterr().out.endswith(f"{folder / 'nasbench101.npz'}\n{len(MODULES)} architectures\n")
    before = (folder / "nasbench101.npz").read_bytes()
    with pytest.raises(ValueError, match=r"out='a\.npy' does not end in \.npz"):
        convert101(release, "a.npy")
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(nasbench101_table, "_from_release", lambda *_: pytest.fail("it was read before"))
    with pytest.raises(OSError, match="cannot write to the folder"):
        convert101(release, tmp_path / "file" / "out.npz")
    with pytest.raises(ValueError, match="there is no file"):
        convert101(tmp_path / "absent.tfrecord", folder / "nasbench101.npz")
    monkeypatch.undo()

    def full(path: Path, **_: object) -> None:
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="no space left"):
        convert101(release, folder / "nasbench101.npz")
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("nasbench101.npz", before)]


def test_reading_a_release_shows_how_far_it_is(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[float] = []
    monkeypatch.setattr(Progress, "update", lambda bar, task, completed: done.append(completed))
    monkeypatch.setattr(nasbench101_table, "_STEP", 2)
    NASBench101(release)
    size = release.stat().st_size
    assert done == sorted(done)
    assert 0.5 * size < done[-1] <= size


@pytest.mark.parametrize("compact", [False, True])
def test_queries_of_a_release(release: Path, tmp_path: Path, compact: bool) -> None:
    path = release
    if compact:
        path = tmp_path / "nasbench101.npz"
        convert101(release, path, check_payloads=True)
    table = NASBench101(path)
    assert (table.budgets, table.datasets, table.name) == ((4, 108), ("cifar10",), "nasbench101")
    genotypes = list(table.genotypes())
    assert genotypes == [SPACE.from_cell(*module[:2]) for module in MODULES]
    for module, genotype in enumerate(genotypes):
        for epochs in (4, 108):
            runs = table.runs(genotype, epochs=epochs)
            assert runs == (2 if (module, epochs) == (2, 4) else 3)
            expected = np.array([accuracies(module, epochs, run) for run in range(runs)])
            for run in range(runs):
                got = table.query(genotype, epochs=epochs, run=run)
                assert (got.seconds, got.val / 100, got.test / 100) == tuple(expected[run])  # type: ignore[operator]
                assert got == table.query(genotype, "cifar10", epochs, run + runs)
            mean = table.query(genotype, epochs=epochs)
            assert (mean.seconds, mean.val, mean.test) == pytest.approx(expected.mean(0) * [1, 100, 100], rel=1e-12)
            assert mean.epochs == epochs
            half = table.halfway(genotype, epochs, run=1)
            assert (half.seconds, half.val / 100, half.test / 100) == tuple(expected[1] / 2)  # type: ignore[operator]
            assert half.epochs == epochs / 2
        assert table.query(genotype).epochs == 108
        assert table.parameters(genotype) == MODULES[module][2]
    best = [np.mean([accuracies(2, 108, run)[place] for run in range(3)]) for place in (1, 2)]
    assert table.best() == pytest.approx([100 * value for value in best], rel=1e-12)


def test_a_cell_is_found_in_whatever_order_and_with_whatever_loose_ends(release: Path) -> None:
    table = NASBench101(release)
    stored = SPACE.from_cell(*MODULES[2][:2])
    # the same with the operations in the other order, and vertices 3 and 4 that lead nowhere
    other = SPACE.from_cell(["011010", "000001", "000001", "000010", "000000", "000000"], ["input", CONV, POOL, CONV, CONV, "output"])  # noqa: E501  # fmt: skip
    assert other != stored
    assert table.query(other) == table.query(stored)


def test_questions_without_an_answer(release: Path) -> None:
    table = NASBench101(release)
    genotype = next(table.genotypes())
    missing = SPACE.from_cell(["010", "001", "000"], ["input", POOL, "output"])
    with pytest.raises(ValueError, match=r"lacks the cell .* it has 3"):
        table.query(missing)
    with pytest.raises(ValueError, match="epochs=12 is no budget of nasbench101"):
        table.query(genotype, epochs=12)
    with pytest.raises(ValueError, match="no data set 'cifar100'"):
        table.query(genotype, "cifar100")
    with pytest.raises(ValueError, match="was given to space 'nasbench101'"):
        table.query(NASBench1Shot1Space(1).sample(random.Random(0)))


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"{}", "record 1 is none of NAS-Bench-101"),
        (b"not json", "record 1 is none"),
        (json.dumps(["key", 4, "0100", "input,output", "!"]).encode(), "record 1 is none"),
        (json.dumps(["k", 4, "0100", "input,output", ""]).encode(), "measured 0 times"),
        (training(0, 4, 0).replace(b"010001000", b"010000000").replace(b'["b', b'["a'), "no way leads"),
    ],
)
def test_records_that_are_none(tmp_path: Path, payload: bytes, words: str) -> None:
    path = tmp_path / "x.tfrecord"
    path.write_bytes(record(training(0, 4, 0)) + record(payload))
    with pytest.raises(ValueError, match=words) as error:
        NASBench101(path)
    assert "\n" not in str(error.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    empty, other = tmp_path / "x.tfrecord", tmp_path / "x.npz"
    empty.touch()
    with pytest.raises(ValueError, match="has no records"):
        NASBench101(empty)
    empty.write_bytes(record(training(0, 4, 0).replace(CONV.encode(), POOL.encode())))
    with pytest.raises(ValueError, match="is not the hash of its module"):
        NASBench101(empty)
    np.savez(other, x=np.zeros(3))
    with pytest.raises(ValueError, match="has the arrays x; a table has hashes, "):
        NASBench101(other)
    other.write_bytes(b"neither")
    with pytest.raises(ValueError, match="is no table"):
        NASBench101(other)
    with pytest.raises(ValueError, match=r"no file .*nowhere"):
        NASBench101(tmp_path / "nowhere")


# --- NAS-Bench-1Shot1


@pytest.fixture(scope="module")
def whole() -> NASBench101:
    return NASBench101(ONE_SHOT1)


@needs_data
def test_all_rows_of_one_shot1_are_found(whole: NASBench101) -> None:
    table = whole
    assert table.budgets == (108,)
    with np.load(ONE_SHOT1) as file:
        rows = dict(file)
    names = rows["op_names"].tolist()
    seen: dict[int, set[int]] = {}
    for row in range(len(rows["space"])):
        genotype = SPACE.from_cell(rows["adjacency"][row], [names[k] for k in rows["ops"][row]])
        seen.setdefault(int(rows["graph_id"][row]), set()).add(table.row(genotype))
        if row % 50 == 0:
            record_ = table.query(genotype)
            assert record_.val == pytest.approx(rows["val_acc_108"][row].astype(float).mean(), rel=1e-12)
            assert record_.test == pytest.approx(rows["test_acc_108"][row].astype(float).mean(), rel=1e-12)
            assert np.isnan(record_.seconds)
            assert table.query(genotype, run=1).val == pytest.approx(float(rows["val_acc_108"][row, 1]), rel=1e-12)
    assert len(rows["space"]) == 6096
    assert len(seen) == len(table.table.hashes) == len(set(table.table.hashes.tolist())) == 5385
    assert all(len(found) == 1 for found in seen.values())
    means = [rows[name].astype(float).mean(1).max() for name in ("val_acc_108", "test_acc_108")]
    assert table.best() == pytest.approx(means, rel=1e-9)
    first = next(table.genotypes())
    with pytest.raises(ValueError, match="nothing measured halfway"):
        table.halfway(first)
    with pytest.raises(ValueError, match="no numbers of parameters"):
        table.parameters(first)


@needs_data
@pytest.mark.parametrize(
    ("number", "rows", "test_of_one_run"), [(1, 2487, 94.551), pytest.param(2, 3609, 94.221, marks=pytest.mark.slow)]
)
def test_genotypes_of_one_shot1_reach_the_rows_of_their_space(number: int, rows: int, test_of_one_run: float) -> None:
    table = NASBench1Shot1(number, ONE_SHOT1)
    with np.load(ONE_SHOT1) as file:
        chosen = file["space"] == number
        adjacency, ops, test = file["adjacency"][chosen], file["ops"][chosen], file["test_acc_108"][chosen]
        names = file["op_names"].tolist()
    assert len(ops) == rows
    assert test.max() == pytest.approx(test_of_one_run, abs=1e-3)  # the published best errors: 5.449 and 5.779 %
    keys = {module_hash(a, [names[k] for k in o]) for a, o in zip(adjacency, ops, strict=True)}
    found = {table.row(genotype) for genotype in table.genotypes()}
    assert keys <= {table.table.hashes[row].decode() for row in found}
    means = table.table.metrics[sorted(found), 0, :, 1].mean(axis=1)  # a few are rows of the other space only
    assert table.best() == pytest.approx(100 * means[:, 1:3].max(axis=0), rel=1e-9)


@needs_data
def test_a_one_shot_genotype_has_the_entry_of_its_nasbench101_cell(whole: NASBench101) -> None:
    table = NASBench1Shot1(2, ONE_SHOT1)
    for genotype in islice(table.genotypes(), 0, 400, 40):
        assert table.query(genotype, run=2).val == whole.query(to_nasbench101(table.space, genotype), run=2).val
        assert table.runs(genotype) == 3
    with pytest.raises(ValueError, match="was given to space 'nasbench1shot1_2'"):
        table.query(NASBench1Shot1Space(1).sample(random.Random(0)))
