"""The files that a run leaves, and the list of them."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lightning_nas.arch import Genotype
from lightning_nas.reports.cells import save_drawing
from lightning_nas.reports.files import write_whole
from lightning_nas.spaces import Space

__all__ = ["list_artifacts", "require_writable", "write_genotype", "write_json", "write_report", "write_summary"]


def require_writable(folder: Path) -> Path:
    """Create a folder, if it is not there, and try to write in it.

    Raises:
        OSError: If it cannot be created or written; the message names the folder and the reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"cannot write to the folder {str(folder)!r} ({reason}); choose another folder") from None


def write_genotype(space: Space, genotype: Genotype, folder: Path) -> list[Path]:
    """Write ``genotype.json``, ``cell.svg`` and ``cell.png`` to a folder.

    Returns:
        The paths of the files.
    """
    require_writable(folder)
    text = space.to_json(genotype) + "\n"
    path = write_whole(folder / "genotype.json", lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return [path, *save_drawing(space, genotype, folder / "cell")]


def write_summary(folder: Path, summary: Mapping[str, Any]) -> Path:
    """Write ``summary.json`` to a folder, see `write_json`."""
    require_writable(folder)
    return write_json(folder / "summary.json", summary)


def write_json(path: Path, value: Mapping[str, Any]) -> Path:
    """Write a file of JSON; a number that JSON does not have (NaN, infinity) becomes null."""
    text = json.dumps(_plain(value), indent=2, allow_nan=False) + "\n"
    return write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_report(stem: Path, lines: Sequence[str], values: Mapping[str, Any], picture: Figure) -> None:
    """Write a report as text (``.md``), figures (``.json``) and picture (``.png``), print the text and the paths.

    Args:
        stem: The files without their endings.
        lines: The text.
        values: The figures, see `write_json`.
        picture: The picture.
    """
    text = "\n".join(lines)
    paths = (
        write_whole(stem.with_suffix(".md"), lambda new: new.write_text(text + "\n", encoding="utf-8")),
        write_json(stem.with_suffix(".json"), values),
        write_whole(stem.with_suffix(".png"), lambda new: picture.savefig(new, dpi=150, bbox_inches="tight")),
    )
    print(text, *paths, sep="\n")


def list_artifacts(folder: Path) -> str:
    """Every file below a folder with its size, a line each.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "a.txt").write_text("abc")
        >>> print(list_artifacts(folder))
               3 B  a.txt
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return "\n".join(f"{_size(path.stat().st_size):>10}  {path.relative_to(folder)}" for path in files)


def _plain(value: Any) -> Any:
    """A value as JSON has it: tensors and arrays as numbers, no NaN."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return _plain(value.tolist()) if hasattr(value, "tolist") else value


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
