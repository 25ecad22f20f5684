"""The restricted unpickler: it reads what benchmark files hold, and runs nothing that they name."""

from __future__ import annotations

import bz2
import functools
import io
import os
import pickle
import subprocess
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published import invented, write_folder

from lightning_nas.benchmarks.official import open_official
from lightning_nas.benchmarks.unpickle import RestrictedUnpickler, load_pickle, load_torch


class Calls:
    """An object whose unpickling calls a function."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


HOSTILE = [
    (os.system, ("touch ran",)),
    (os.mkdir, ("ran",)),
    (eval, ("__import__('os').mkdir('ran')",)),
    (exec, ("import os; os.mkdir('ran')",)),
    (subprocess.Popen, (["touch", "ran"],)),
    (getattr, ("text", "upper")),
    (__import__, ("os",)),
    (open, ("ran", "w")),
    (functools.partial, (len, "ran")),
    (torch.load, ("ran",)),
    (np.load, ("ran",)),
    (dict.fromkeys, ("ab",)),
    (Path, ("ran",)),
]


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(("function", "args"), HOSTILE, ids=lambda value: getattr(value, "__qualname__", ""))
def test_a_function_is_refused_by_name_and_not_called(function: Any, args: Any, protocol: int, tmp_path: Path) -> None:
    data = pickle.dumps({"train_acc1es": [1.0, Calls(function, *args)]}, protocol=protocol)
    path = tmp_path / "table.pickle"
    path.write_bytes(data)
    with pytest.raises(
        ValueError, match=r"table\.pickle is not a benchmark file: it asks for '\S+', which no"
    ) as error:
        load_pickle(path)
    if "." not in function.__qualname__:
        assert function.__name__ in str(error.value)
    elif protocol == 2:
        assert "getattr" in str(error.value)
    assert not Path("ran").exists()


@pytest.mark.parametrize("suffix", [".pickle", ".bz2", ".pbz2"])
def test_refusal_and_reading_with_each_packing(suffix: str, tmp_path: Path) -> None:
    pack = (lambda data: data) if suffix == ".pickle" else bz2.compress
    good, bad = tmp_path / f"good{suffix}", tmp_path / f"bad{suffix}"
    value = OrderedDict([("12", {("cifar10", 777): [1, 2.5, None, True, "x", b"\xff", {3}]})])
    good.write_bytes(pack(pickle.dumps(value)))
    bad.write_bytes(pack(pickle.dumps(Calls(os.mkdir, "ran"))))
    assert load_pickle(good) == value
    with pytest.raises(ValueError, match="mkdir"):
        load_pickle(bad)
    assert not Path("ran").exists()


@pytest.mark.parametrize("zipped", [False, True])
def test_files_of_torch(zipped: bool, tmp_path: Path) -> None:
    value = {"meta_archs": ["a"], "arch2infos": {0: OrderedDict(x=np.float64(0.1))}, "evaluated_indexes": {0}}
    torch.save(value, tmp_path / "good.pth", _use_new_zipfile_serialization=zipped)
    assert load_torch(tmp_path / "good.pth") == value
    for name, wrong in {"call": Calls(os.mkdir, "ran"), "tensor": torch.ones(2)}.items():
        torch.save({"x": wrong}, tmp_path / f"{name}.pth", _use_new_zipfile_serialization=zipped)
        with pytest.raises(ValueError, match=rf"{name}\.pth is not a benchmark file: it asks for"):
            load_torch(tmp_path / f"{name}.pth")
    assert not Path("ran").exists()


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_numbers_and_arrays_of_numpy(protocol: int) -> None:
    square = np.arange(6, dtype=">i4").reshape(2, 3)
    values = {
        "double": np.float64(0.1),
        "single": np.float32(94.37),
        "whole": np.int64(-7),
        "flag": np.bool_(True),
        "swapped": square,
        "columns": np.asfortranarray(square.astype(float)),
        "empty": np.zeros(0),
    }
    read = RestrictedUnpickler(io.BytesIO(pickle.dumps(values, protocol=protocol))).load()
    for name, value in values.items():
        assert np.array_equal(read[name], value)
    assert type(read["single"]) is np.float32
    assert read["swapped"] == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    "value",
    [np.array([{}], dtype=object), np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]), np.datetime64("2020-01-01")],
    ids=["objects", "records", "dates"],
)
def test_other_numpy_types_are_refused(value: Any) -> None:
    with pytest.raises(pickle.UnpicklingError, match="no plain numbers"):
        RestrictedUnpickler(io.BytesIO(pickle.dumps(value, protocol=2))).load()


def test_no_other_codec_is_run() -> None:
    with pytest.raises(pickle.UnpicklingError, match="rot13"):
        RestrictedUnpickler(io.BytesIO(b"c_codecs\nencode\n(Vabc\nVrot13\ntR.")).load()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",
        b"not a pickle",
        pickle.dumps({"a": 1})[:-2],
        bz2.compress(b"x" * 99)[:-9],
        b"(lp0\n0.",
        b"\x80\x04N",
    ],
)
@pytest.mark.parametrize("name", ["a.pickle", "a.pickle.pbz2", "a.pth"])
def test_broken_files_raise_one_line_with_their_name(data: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.\S+ is not a benchmark file: .") as error:
        (load_torch if name.endswith("pth") else load_pickle)(tmp_path / name)
    assert "\n" not in str(error.value)


def test_other_files_of_torch_and_missing_ones(tmp_path: Path) -> None:
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps({"meta_archs": []}))
    np.savez(tmp_path / "numpy", x=np.zeros(2))
    (tmp_path / "numpy.npz").rename(tmp_path / "numpy.pth")
    for name in ("pickle", "numpy"):
        with pytest.raises(ValueError, match=r"not one of torch\.save"):
            load_torch(tmp_path / f"{name}.pth")
    for load in (load_pickle, load_torch):
        with pytest.raises(ValueError, match="there is no file"):
            load(tmp_path / "absent.pth")


def test_a_hostile_file_in_an_official_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "nats", *invented(["8:8:8:8:8", "8:8:8:8:16"], ["01", "12", "90"]))
    (folder / "000001.pickle.pbz2").write_bytes(bz2.compress(pickle.dumps({"12": Calls(os.mkdir, "ran")})))
    table = open_official(folder)
    assert len(list(table.trainings(0))) > 0
    with pytest.raises(ValueError, match=r"000001\.pickle\.pbz2 is not a benchmark file: it asks for '\w+\.mkdir'"):
        list(table.trainings(1))
    assert not Path("ran").exists()
