"""The command `lightning-nas`: search, train, show, list, latency, micro, study, benchmark, quickstart and others."""

import argparse
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli
from lightning.fabric.utilities.exceptions import MisconfigurationException

import lightning_nas
from lightning_nas.benchmarks.convert import convert
from lightning_nas.benchmarks.nasbench101_table import convert101
from lightning_nas.compare import compare
from lightning_nas.costs.command import latency
from lightning_nas.derived import DerivedNetwork
from lightning_nas.flops import count_macs, count_parameters
from lightning_nas.label_study import run_race, run_taus, write_scores
from lightning_nas.methods.query_limits import NothingSucceededError
from lightning_nas.micro import build_micro, run_study
from lightning_nas.mistakes import one_line
from lightning_nas.protocol import run_protocol
from lightning_nas.query.miller import four_quadrants
from lightning_nas.query_runs import run_either_search
from lightning_nas.quickstart import quickstart
from lightning_nas.reports import draw_text, require_writable, save_drawing
from lightning_nas.runs import run_train
from lightning_nas.spaces import GENOTYPES, SPACES, load_genotype
from lightning_nas.training import NonFiniteLossError

__all__ = ["main"]

_MISTAKES = (
    ValueError,
    TypeError,
    OSError,
    ModuleNotFoundError,  # of an extra that is not installed
    sqlite3.Error,
    MisconfigurationException,
    NonFiniteLossError,
    NothingSucceededError,
)


def show(
    genotype: str, out: str | None = None, image_size: int = 32, channels: int | None = None, cells: int | None = None
) -> None:
    """Draw a genotype and print the size of its network.

    Args:
        genotype: Published name, text, or file of a genotype.
        out: Where to write the drawing, without ending; None for the genotype's name in the present folder.
        image_size: Height and width of the pictures for which operations are counted.
        channels: Channels of the network; None for the published number.
        cells: Cells of the network; None for the published number.
    """
    space, found = load_genotype(genotype)
    with torch.device("meta"):
        network = DerivedNetwork(found, space=space, channels=channels, cells=cells)
    is_text = genotype.strip().startswith(("|", "Genotype", "{"))
    name = genotype if genotype in GENOTYPES else "cell" if is_text else Path(genotype).stem
    stem = Path(out or name)
    require_writable(stem.parent)
    print(draw_text(space, found))
    print(space.format(found))
    print(f"parameters {count_parameters(network):,}   MACs {count_macs(network, (3, image_size, image_size)):,}")
    for path in save_drawing(space, found, stem):
        print(path)


def list_parts() -> None:
    """Print methods, spaces, published genotypes and the recipes below the present folder."""
    parts = vars(lightning_nas.methods)
    methods = [
        name for name in lightning_nas.methods.__all__ if hasattr(parts[name], "genotype") and name != "SearchModule"
    ]
    recipes = sorted(str(path) for path in Path("recipes").rglob("*.yaml"))
    for title, names in (
        ("methods", methods),
        ("spaces", list(SPACES)),
        ("genotypes", list(GENOTYPES)),
        ("recipes", recipes or ["(none below the present folder; see recipes/ in the source)"]),
    ):
        print(f"{title}:")
        for name in names:
            print(f"  {name}")


def search() -> None:
    """Search an architecture: `lightning-nas search --config recipes/search/digits.yaml`; `search --help` for more."""


def train() -> None:
    """Train a genotype: `lightning-nas train --config recipes/derived/digits.yaml --genotype FILE`."""


def main(argv: list[str] | None = None) -> None:
    """Run the command line.

    A mistake of the user ends in one line and exit code 1; set ``LIGHTNING_NAS_TRACEBACK=1`` for the whole trace.
    """
    args = sys.argv[1:] if argv is None else argv
    commands = {"search": run_either_search, "train": run_train}
    try:
        if args and args[0] in commands:
            commands[args[0]](args[1:])
        else:
            parts: dict[str, Any] = {
                "quickstart": quickstart,
                "search": search,
                "train": train,
                "show": show,
                "list": list_parts,
                "latency": latency,
                "micro": build_micro,
                "study": run_study,
                "compare": compare,
                "benchmark": {
                    "convert": convert,
                    "convert101": convert101,
                    "protocol": run_protocol,
                    "race": run_race,
                    "taus": run_taus,
                    "scores": write_scores,
                },
                "four-quadrants": four_quadrants,
            }
            auto_cli(parts, args=args, prog="lightning-nas", as_positional=True)
    except _MISTAKES as error:
        if os.environ.get("LIGHTNING_NAS_TRACEBACK"):
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        raise SystemExit(1) from None
    except argparse.ArgumentError as error:
        print(f"error: {one_line(error)}; see lightning-nas {args[0]} --help", file=sys.stderr)
        raise SystemExit(2) from None
