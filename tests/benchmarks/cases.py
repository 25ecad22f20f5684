"""What the benchmarks of two sides share: the command line, medians and their ratio, and the file of figures."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

Case = Callable[[argparse.Namespace], Any]


def compared(ours: Iterable[float], reference: Iterable[float]) -> dict[str, Any]:
    """Medians of interleaved times, their ratio, and the range of the ratios turn by turn."""
    ours, reference = list(ours), list(reference)
    faster = sorted(b / a for a, b in zip(ours, reference, strict=True))
    found = {"ours_s": statistics.median(ours), "reference_s": statistics.median(reference)}
    return found | {"times": found["reference_s"] / found["ours_s"], "spread": (faster[0], faster[-1])}


def described(found: Mapping[str, Any]) -> str:
    """The figures of a case as a line: two sides, one run alone, or why there are none."""
    if "skipped" in found:
        return f"skipped: {found['skipped']}"
    if "times" not in found:
        return f"{found['ours_s']:.1f} s of CPU time, one run"
    low, high = found["spread"]
    off = f"   off {found['off']:.1e}" if "off" in found else ""
    figures = f"ours {found['ours_s']:.3f} s   reference {found['reference_s']:.3f} s{off}"
    return f"{figures}   {found['times']:.2f} times faster ({low:.2f} to {high:.2f})"


def run_cases(
    doc: str | None,
    cases: Mapping[str, Case],
    measure: Callable[[Any, int], dict[str, Any]],
    sizes: Callable[[argparse.Namespace], None],
    argv: list[str] | None = None,
) -> None:
    """Measure the cases that the command line names, print a line for each, and write the file it asks for."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--cases", default=",".join(cases))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="tiny sizes")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    given = parser.parse_args(argv)
    sizes(given)
    unknown = set(given.cases.split(",")) - set(cases)
    if unknown:
        parser.error(f"unknown cases {sorted(unknown)}; known are {', '.join(cases)}")
    torch.set_num_threads(given.threads)
    rows = {}
    for name in given.cases.split(","):
        rows[name] = found = measure(cases[name](given), given.repeats)
        print(f"{name:8} {described(found)}", flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps({"threads": given.threads, "rows": rows}, indent=1))
