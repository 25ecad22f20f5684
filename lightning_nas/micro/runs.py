"""Many small runs, kept line by line in a file that survives a kill."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

__all__ = ["append", "read"]


def read(log: Path, setting: dict[str, Any]) -> list[dict[str, Any]]:
    """The records of a log; a line cut short by a kill is left out.

    Raises:
        ValueError: If a record was made in another setting.
    """
    found = []
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record["setting"] != setting:
            raise ValueError(f"{log} holds runs of another setting, {record['setting']}; give another out")
        found.append(record)
    return found


def append(log: Path, record: dict[str, Any]) -> None:
    """Write one line so that it survives a kill; a line that a kill has torn is ended first."""
    torn = log.exists() and log.stat().st_size > 0 and not log.read_bytes().endswith(b"\n")
    with log.open("a", encoding="utf-8") as file:
        file.write(("\n" if torn else "") + json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())
