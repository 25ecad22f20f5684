"""What `lightning-nas search` does for a search by queries."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar

import yaml

from lightning_nas.methods import QuerySearch
from lightning_nas.oracles import give_data
from lightning_nas.reports import draw_text, plot_regret, write_genotype
from lightning_nas.runs import RunCLI, run_search

__all__ = ["QueryCLI", "is_query", "run_either_search", "run_query"]


def is_query(args: list[str]) -> bool:
    """Whether the options, or the last configuration file among them, name a `QuerySearch`.

    Raises:
        ValueError: If a configuration file is not YAML.

    Example:
        >>> is_query(["--model", "lightning_nas.methods.QuerySearch"]), is_query(["--model", "DARTS"])
        (True, False)
    """
    following = zip(args, [*args[1:], ""], strict=False)
    pairs = [arg.split("=", 1) if "=" in arg else [arg, after] for arg, after in following]
    names = [value for option, value in pairs if option in ("--model", "--model.class_path")]
    for option, value in pairs:
        if option in ("--config", "-c") and Path(value).is_file():
            found = _read(Path(value))
            model = found.get("model") if isinstance(found, dict) else None
            names.append(str(model.get("class_path") if isinstance(model, dict) else model))
    return any(name.rsplit(".", 1)[-1] == "QuerySearch" for name in names)


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML ({error}); mend the file, or give another") from None


class QueryCLI(RunCLI):
    """`lightning-nas search` with a `QuerySearch`: the data module, if there is one, is the oracle's."""

    command: ClassVar[str] = "search"
    fits_data: ClassVar[bool] = False

    def __init__(self, args: list[str]) -> None:
        super().__init__(QuerySearch, args, subclass_mode_model=True)
        if self.datamodule is not None:
            give_data(self.model.oracle, self.datamodule)


def run_query(args: list[str]) -> None:
    """Fit a search by queries; write its genotype, its regret curve and a summary.

    A resumed run goes on from a checkpoint (``--ckpt_path``), or, if the search has a history, simply from that.
    """
    cli = QueryCLI(args)
    start = time.perf_counter()
    cli.trainer.fit(cli.model, ckpt_path=cli.ckpt_path)
    search: QuerySearch = cli.model
    best = search.searcher.best
    if best is None:
        reasons = {result.error for result in search.evaluator.history}
        raise ValueError(f"no trial succeeded; reasons: {sorted(map(str, reasons))[:3]}")
    text = search.space.format(best.trial.genotype)
    print(f"\n{draw_text(search.space, best.trial.genotype)}\n{text}")
    print(f"best validation score {best.score:.3f} in {len(search.evaluator.history)} trials")
    if not cli.leaves_files:
        return
    paths = write_genotype(search.space, best.trial.genotype, cli.folder)
    plot_regret(search.columns(), cli.folder / "regret.png")
    summary: dict[str, Any] = {"space": search.space.name, "genotype": text, "searcher": type(search.searcher).__name__}
    summary |= {"score": best.score, "test": best.test, "trial": best.trial.number, "spent": dict(search.spent)}
    failed = {str(result.trial.number): result.error for result in search.evaluator.history if not result.ok}
    cli.finish(summary | {"failed": failed, "search_seconds": time.perf_counter() - start})
    oracles = (search.oracle, *getattr(search.oracle, "oracles", ()))
    for path in (search.history_path, *(getattr(oracle, "folder", None) for oracle in oracles)):
        if path is not None:
            print(path)
    print(f"\ntrain it: lightning-nas train --config recipes/derived/... --genotype {paths[0]}")


def run_either_search(args: list[str]) -> None:
    """The search that the options name: one by queries, or a differentiable one."""
    (run_query if is_query(args) else run_search)(args)
