"""Reading pickled benchmark files without running what a pickle may name."""

from __future__ import annotations

import bz2
import collections
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["RestrictedUnpickler", "load_pickle", "load_torch"]

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The number that opens a file of `torch.save` in its first format."""


def _latin1(text: str, encoding: str) -> bytes:
    """What the second pickle protocol makes of bytes: text to be encoded, and no other codec than this one."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding!r}")
    return text.encode("latin1")


class _Kind:
    """A NumPy data type of plain numbers. Its text is checked, and no state from a file reaches NumPy itself."""

    def __init__(self, code: str, *_: object) -> None:
        if not re.fullmatch(r"[<>|=]?[biufc]\d{1,2}", code):
            raise pickle.UnpicklingError(f"it holds NumPy data of type {code[:20]!r}, which are no plain numbers")
        self.code, self.order = code.lstrip("<>|="), "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = ">" if state[1] == ">" else "="

    def numbers(self, data: bytes) -> NDArray[Any]:
        return np.frombuffer(data, self.order + self.code)


class _Array(list[Any]):
    """A NumPy array of plain numbers, as nested lists."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, by_columns, data = state
        self[:] = kind.numbers(data).reshape(shape, order="F" if by_columns else "C").tolist()


def _scalar(kind: _Kind, data: bytes) -> Any:
    return kind.numbers(data)[0]


def _array(*_: object) -> _Array:
    return _Array()


def _allowed() -> dict[tuple[str, str], Callable[..., Any]]:
    """The names that a file may use: plain containers and numbers, and those of NumPy under its old and new paths."""
    plain = (dict, list, tuple, set, frozenset, int, float, complex, bool, str, bytes, bytearray)
    names: dict[tuple[str, str], Callable[..., Any]] = {("_codecs", "encode"): _latin1}
    names |= {(module, kind.__name__): kind for module in ("builtins", "__builtin__") for kind in plain}
    names |= {("collections", kind.__name__): kind for kind in (collections.OrderedDict, collections.defaultdict)}
    names |= {("numpy", "dtype"): _Kind, ("numpy", "ndarray"): _Array}
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        names |= {(module, "scalar"): _scalar, (module, "_reconstruct"): _array}
    return names


_ALLOWED = _allowed()


class RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that knows containers and numbers, and refuses every other name. NumPy arrays come as lists.

    Raises:
        pickle.UnpicklingError: On loading, if the pickle names any other class or function; it is not called.

    Example:
        >>> import io
        >>> RestrictedUnpickler(io.BytesIO(pickle.dumps({"acc": np.float64(94.37)}))).load()["acc"]
        np.float64(94.37)
        >>> RestrictedUnpickler(io.BytesIO(pickle.dumps(len))).load()
        Traceback (most recent call last):
        _pickle.UnpicklingError: it asks for 'builtins.len', which no benchmark file needs
    """

    def find_class(self, module_name: str, global_name: str) -> Any:
        """The class or function of an allowed name."""
        try:
            return _ALLOWED[module_name, global_name]
        except KeyError:
            name = f"{module_name}.{global_name}"[:120]
            raise pickle.UnpicklingError(f"it asks for {name!r}, which no benchmark file needs") from None


def load_pickle(path: str | os.PathLike[str]) -> Any:
    """Read a pickle of containers, numbers and arrays; ``.bz2`` and ``.pbz2`` are decompressed.

    Args:
        path: The file.

    Returns:
        The object, made of dicts, lists, tuples, sets, text and numbers; NumPy arrays come as nested lists.

    Raises:
        ValueError: If the file is missing, is no pickle, or names a class that no benchmark file needs.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.pickle.pbz2").write_bytes(bz2.compress(pickle.dumps({"seed": 777})))
        ...     load_pickle(Path(folder, "a.pickle.pbz2"))
        {'seed': 777}
    """
    packed = Path(path).suffix in (".bz2", ".pbz2")
    return _read(path, (lambda file: _unpickle(bz2.BZ2File(file))) if packed else _unpickle)


def load_torch(path: str | os.PathLike[str]) -> Any:
    """Read what `torch.save` made of containers, numbers and arrays, in its first format or as a zip archive.

    Args:
        path: The file, usually ``.pth``.

    Returns:
        The object.

    Raises:
        ValueError: If the file is missing, not of this kind, holds tensors, or names a class that no benchmark file
            needs.
    """
    return _read(path, _from_zip if Path(path).is_file() and zipfile.is_zipfile(path) else _from_legacy)


def _from_zip(file: IO[bytes]) -> Any:
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(names) != 1:
            raise pickle.UnpicklingError("it is a zip archive, but not one of torch.save")
        with archive.open(names[0]) as member:
            return _unpickle(member)


def _from_legacy(file: IO[bytes]) -> Any:
    """Five pickles in a row: a magic number, a version, the writer's integer sizes, the object, the tensors' keys."""
    if _unpickle(file) != _LEGACY_MAGIC:
        raise pickle.UnpicklingError("it is a pickle, but not one of torch.save")
    _unpickle(file), _unpickle(file)
    return _unpickle(file)


def _unpickle(file: IO[bytes]) -> Any:
    return RestrictedUnpickler(file).load()


def _read(path: str | os.PathLike[str], read: Callable[[IO[bytes]], Any]) -> Any:
    if not Path(path).is_file():
        raise ValueError(f"there is no file {os.fspath(path)!r}; give the path of a published benchmark file")
    try:
        with Path(path).open("rb") as file:
            return read(file)
    except (pickle.UnpicklingError, zipfile.BadZipFile, *_BROKEN) as error:
        raise ValueError(f"{os.fspath(path)} is not a benchmark file: {error or type(error).__name__}") from None


_BROKEN = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    OverflowError,
    MemoryError,
    RuntimeError,
)
"""What unpickling and decompression raise on bytes that are something else."""
