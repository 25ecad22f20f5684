"""Supernets against the plain loop over edges and candidates: ``python tests/benchmarks/bench_supernet.py``.

Each row compares one variant with a reference on the same weights and pictures, after a check that their outputs agree.
All ratios are ours / reference: below one is better.

- Time: one search step (architecture gradient and weight gradients, without the optimisers), variant and reference in
  turn, the first of a pair alternating; the median of the ratios of the pairs, with the least and the greatest. The
  loop does what the published code does: a full backward pass for either loss, on contiguous pictures.
- Memory: each side in a fresh process, on one thread. The growth of the peak resident set over a step, gradients of the
  weights included, with an allocator that returns what is freed; and the peak of the bytes of live tensors.
- Calls: operators that no other operator calls, and those among them that a device would have to start a kernel for:
  neither views nor bare allocations.

A side of a row is a `Task`; a case is a function that gives its rows. Linux only (the peak is read from ``/proc``).
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from loops import as_given, loop_supernet

from lightning_nas.arch import Bilevel, Sample
from lightning_nas.hypergradients import FirstOrder
from lightning_nas.methods import DifferentiableSearch
from lightning_nas.ops import OPS
from lightning_nas.relaxations import Softmax
from lightning_nas.spaces import CellSpace, get_space
from lightning_nas.spaces.darts import DARTSSpace
from lightning_nas.supernet import build_supernet, evaluate_samples

FRUGAL = {"MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_MMAP_THRESHOLD_": "65536", "KINETO_LOG_LEVEL": "99"}
AGREE = 1e-3
"""Greatest difference of the outputs, over their greatest value, in single precision through a whole network."""
STARTS_NOTHING = {
    *("view", "reshape", "permute", "transpose", "t", "slice", "select", "narrow", "split", "split_with_sizes"),
    *("chunk", "unbind", "expand", "expand_as", "detach", "detach_", "alias", "as_strided", "unsqueeze", "squeeze"),
    *("flatten", "unflatten", "view_as", "_unsafe_view", "_reshape_alias", "movedim", "contiguous", "to"),
    *("empty", "empty_like", "empty_strided", "new_empty", "result_type"),
}
"""Operators that start no kernel unless they copy."""


@dataclass(frozen=True)
class Setting:
    """A supernet and its pictures."""

    space: str = "darts"
    channels: int = 16
    cells: int = 8
    side: int = 32
    batch: int = 16
    partial: int = 1
    nodes: int = 4  # of a DARTS cell
    candidates: int = 0  # copies of one operation on every edge of a DARTS cell; 0 for the space's own operations

    def make_space(self) -> CellSpace:
        if self.candidates:
            names = ["sep_conv_3x3", *(f"sep_conv_3x3_{k}" for k in range(1, self.candidates))]
            OPS.update(dict.fromkeys(names, OPS["sep_conv_3x3"]))
            return DARTSSpace("copies", tuple(names), self.nodes)
        if self.space == "darts":
            return DARTSSpace(nodes=self.nodes)
        space = get_space(self.space)
        assert isinstance(space, CellSpace)
        return space

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """One for the architecture, one for the weights."""
        rng = torch.Generator().manual_seed(1)
        shape = (self.batch, 3, self.side, self.side)
        return [(torch.randn(shape, generator=rng), torch.arange(self.batch) % 10) for _ in range(2)]


DARTS, DARTS_SMALL = Setting(), Setting(channels=4, cells=3, side=8, batch=4, nodes=2)
NB201, NB201_SMALL = Setting("nasbench201", cells=5), Setting("nasbench201", 4, 1, 8, 4)


class Task(NamedTuple):
    """One side of a comparison: what is measured, as often as asked (the number of the turn seeds its draws)."""

    network: nn.Module
    parameters: Sequence[nn.Parameter]
    step: Callable[[int], object]
    outputs: Callable[[], Tensor]


class Row(NamedTuple):
    """A comparison."""

    case: str
    label: str
    against: str
    ours: Callable[[], Task]
    reference: Callable[[], Task]


# --- the two sides


Draw = Callable[[int], Sample]


def one_path(space: CellSpace, theta: nn.ParameterDict, turn: int) -> Sample:
    """One candidate of each edge, never `none`; its weight is one and has the gradient of the softmax."""
    rng, weights, active = random.Random(turn), {}, {}
    for group in space.relaxed:
        names = [d.choices for d in space.decisions[group]]
        picks = [rng.choice([k for k, name in enumerate(row) if name != "none"]) for row in names]
        if space.name == "copies":
            picks = [0] * len(picks)  # the same weights for any number of candidates
        soft = theta[group].softmax(dim=1)
        weights[group] = F.one_hot(torch.tensor(picks), soft.shape[1]).float() + soft - soft.detach()
        active[group] = tuple((k,) for k in picks)
    return Sample(weights, active)


def forget(parameters: Sequence[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None


def ours(setting: Setting, path: bool = False, contiguous: bool = False, checkpoint: bool = False) -> Task:
    """The supernet, stepped as `DifferentiableSearch` does."""
    space, (for_theta, for_w) = setting.make_space(), setting.batches()
    torch.manual_seed(0)
    network = build_supernet(space, setting.channels, setting.cells, partial=setting.partial, checkpoint=checkpoint)
    network = as_given(network) if contiguous else network
    search = DifferentiableSearch(space, supernet=network, relax_inputs=setting.partial > 1)
    relaxation = search.relaxation
    draw: Draw = (lambda turn: one_path(space, relaxation.theta, turn)) if path else lambda turn: relaxation()
    weights = search.weights()

    def step(turn: int) -> None:
        def loss(w: Sequence[Tensor] | None = None) -> Tensor:
            return search._loss(for_theta, draw(2 * turn), w)

        FirstOrder()(Bilevel(loss, loss, weights, search.arch_parameters()))
        with torch.no_grad():
            sample = draw(2 * turn + 1).detach()
        forget(weights)
        search._loss(for_w, sample).backward()  # type: ignore[no-untyped-call]

    return Task(network, weights, step, lambda: network(for_w[0], draw(0)))


def loop(setting: Setting, discrete: bool = False) -> Task:
    """The loop, with two full backward passes; `discrete`: the network of a path, in channels-last, without weights."""
    space, batches = setting.make_space(), setting.batches()
    torch.manual_seed(0)
    network = loop_supernet(space, setting.channels, setting.cells, setting.partial)
    relaxation = Softmax(space.decisions, tuple(space.decisions) if setting.partial > 1 else space.relaxed)
    if discrete:
        batches = [(x.contiguous(memory_format=torch.channels_last), y) for x, y in batches]
    draws = [Sample({}, one_path(space, relaxation.theta, turn).active) for turn in range(64)]
    draw: Draw = (lambda turn: draws[turn % 64]) if discrete else lambda turn: relaxation()
    parameters = [*network.parameters(), *relaxation.parameters()]

    def step(turn: int) -> None:
        for part, (x, y) in enumerate(batches):
            forget(parameters)
            F.cross_entropy(network(x, draw(2 * turn + part)), y).backward()  # type: ignore[no-untyped-call]

    return Task(network, parameters, step, lambda: network(batches[1][0], draw(0)))


def one_by_one(network: nn.Module, x: Tensor, samples: Sequence[Sample]) -> Tensor:
    """``(samples, N, classes)``: the logits of one batch under each sample, one after the other."""
    with torch.no_grad():
        return torch.stack([network(x, sample) for sample in samples])


def evaluated(setting: Setting, looped: bool, masked: bool, count: int = 8) -> Task:
    """Evaluation without a graph of random genotypes, or of the mixture without one candidate (PT scores these)."""
    space, x = setting.make_space(), setting.batches()[0][0]
    build = loop_supernet if looped else build_supernet
    torch.manual_seed(0)
    network = build(space, setting.channels, setting.cells)
    rng = random.Random(0)
    samples = [space.vertex(space.sample(rng)) for _ in range(0 if masked else count)]
    if masked:
        relaxation, group = Softmax(space.decisions, space.relaxed), space.relaxed[0]
        width = len(space.decisions[group][0].choices)
        for number in range(count):  # edge by edge
            row, choice = divmod(number, width)
            opened = relaxation.support.open(group)[row]
            relaxation.support.drop(group, row, choice)
            samples.append(relaxation.mean_sample())
            relaxation.support.set_row(group, row, opened)
    evaluate = one_by_one if looped else evaluate_samples
    return Task(network, (), lambda turn: evaluate(network, x, samples), lambda: evaluate(network, x, samples))  # type: ignore[operator]


# --- the cases


def dense(case: str, setting: Setting) -> list[Row]:
    label = f"{setting.cells} cells, {setting.channels} ch, {setting.side}x{setting.side}, batch {setting.batch}"
    return [Row(case, label, "loop, NCHW", lambda: ours(setting), lambda: loop(setting))]


def paths(settings: Sequence[Setting]) -> list[Row]:
    def row(s: Setting) -> Row:
        return Row("one-path", s.space, "discrete, NHWC", lambda: ours(s, path=True), lambda: loop(s, discrete=True))

    return [row(setting) for setting in settings]


def candidates(setting: Setting, counts: Sequence[int]) -> list[Row]:
    def row(count: int) -> Row:
        few, more = replace(setting, candidates=2), replace(setting, candidates=count)
        name = f"{count} candidates, one path"
        if count == 2:
            return Row("candidates", name, "discrete, NHWC", lambda: ours(few, True), lambda: loop(few, discrete=True))
        return Row("candidates", name, "ours, 2 candidates", lambda: ours(more, True), lambda: ours(few, True))

    return [row(count) for count in counts]


def evaluations(settings: Sequence[Setting]) -> list[Row]:
    def row(s: Setting, masked: bool) -> Row:
        label = f"{s.space}, 8 {'masked' if masked else 'discrete'} samples"
        sides = (lambda: evaluated(s, False, masked)), (lambda: evaluated(s, True, masked))
        return Row("many", label, "loop, NCHW, 1 by 1", *sides)

    return [row(setting, masked) for setting in settings for masked in (False, True)]


def formats(settings: Sequence[Setting]) -> list[Row]:
    def row(s: Setting) -> Row:
        label = f"{s.space}, {s.channels} ch, {s.side}x{s.side}: NHWC"
        return Row("formats", label, "ours, NCHW", lambda: ours(s), lambda: ours(s, contiguous=True))

    return [row(setting) for setting in settings]


def checkpointed(settings: Sequence[Setting]) -> list[Row]:
    def row(s: Setting) -> Row:
        return Row("checkpoint", f"{s.space}: checkpointed", "ours", lambda: ours(s, checkpoint=True), lambda: ours(s))

    return [row(setting) for setting in settings]


def cases(small: bool) -> dict[str, list[Row]]:
    """The rows of every case; with `small` of a size for a test."""
    darts, nb201 = (DARTS_SMALL, NB201_SMALL) if small else (DARTS, NB201)
    lean = replace(nb201, channels=2) if small else Setting("nasbench201", 8, 1, 16, 64)
    return {
        "darts": dense("darts", darts),
        "nb201": dense("nb201", nb201),
        "nb201-small": dense("nb201-small", lean),
        "partial": dense("partial", replace(darts, partial=4, channels=8 if small else 16)),
        "one-path": paths((darts, nb201)),
        "candidates": candidates(darts, (2, 4) if small else (2, 4, 8, 16)),
        "many": evaluations((nb201,) if small else (darts, nb201)),
        "checkpoint": checkpointed((nb201,) if small else (darts, nb201)),
        "formats": formats((nb201,) if small else (darts, nb201, lean)),
    }


# --- what is measured


@dataclass(frozen=True)
class Cost:
    """What one step takes besides time."""

    resident: int
    live: int
    calls: int
    kernels: int


def cost(case: str, index: int, side: str, small: bool) -> Cost:
    """The cost of one side of a row, measured in a process of its own."""
    torch.set_num_threads(1)
    row = cases(small)[case][index]
    task: Task = row.ours() if side == "ours" else row.reference()
    task.step(0)  # code is loaded, plans are made
    resident = _resident(task)
    forget(task.parameters)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        task.step(0)
    events = [e for e in seen.events() if e.name.startswith("aten::")]
    outer = [e for e in events if not _inside(e)]
    kernels = [e for e in outer if e.name.removeprefix("aten::") not in STARTS_NOTHING or _copies(e)]
    return Cost(resident, _live(seen), len(outer), len(kernels))


def _resident(task: Task) -> int:
    forget(task.parameters)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = _status("VmRSS")
    task.step(0)
    return _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


def _live(seen: profile) -> int:
    """The peak of the bytes allocated since the start less those freed."""
    assert seen.profiler is not None
    assert seen.profiler.kineto_results is not None
    changes = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    total = peak = 0
    for change in sorted(changes, key=lambda e: e.start_ns()):
        total += change.nbytes()  # type: ignore[attr-defined]
        peak = max(peak, total)
    return peak


def _inside(event: torch.autograd.profiler_util.FunctionEvent) -> bool:
    above = event.cpu_parent
    while above is not None and not above.name.startswith("aten::"):
        above = above.cpu_parent
    return above is not None


def _copies(event: torch.autograd.profiler_util.FunctionEvent) -> bool:
    return event.name == "aten::copy_" or any(_copies(child) for child in event.cpu_children)


def costs(row: Row, index: int, small: bool, processes: ProcessPoolExecutor) -> tuple[Cost, Cost]:
    futures = [processes.submit(cost, row.case, index, side, small) for side in ("ours", "reference")]
    return futures[0].result(), futures[1].result()


def difference(mine: Task, reference: Task) -> float:
    """Load the reference's weights and compare the outputs."""
    found = mine.network.load_state_dict(reference.network.state_dict(), strict=False)
    if found.unexpected_keys:
        raise ValueError(f"the reference has weights of its own: {found.unexpected_keys[:3]}")
    with torch.no_grad():
        theirs = reference.outputs()
        off = float((mine.outputs() - theirs).abs().max() / theirs.abs().max())
    if not off < AGREE:
        raise ValueError(f"the outputs differ by {off:.1e} of their greatest value; allowed is {AGREE:.0e}")
    return off


def timed(mine: Task, reference: Task, threads: int, repeats: int) -> list[tuple[float, float]]:
    """Milliseconds of either side, in pairs."""
    torch.set_num_threads(threads)
    mine.step(0)
    reference.step(0)
    pairs = []
    for turn in range(1, repeats + 1):
        spent = [0.0, 0.0]
        for side in (0, 1) if turn % 2 else (1, 0):
            start = time.perf_counter()
            (mine, reference)[side].step(turn)
            spent[side] = 1e3 * (time.perf_counter() - start)
        pairs.append((spent[0], spent[1]))
    return pairs


Entry = dict[str, Any]
"""A row as plain figures."""


def entry(row: Row, threads: int, pairs: list[tuple[float, float]], spent: tuple[Cost, Cost], off: float) -> Entry:
    ratios = [a / b for a, b in pairs]
    found: Entry = {"case": row.case, "label": row.label, "reference": row.against, "threads": threads}
    found |= {"ours_ms": statistics.median(a for a, _ in pairs), "reference_ms": statistics.median(b for _, b in pairs)}
    found |= {"ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios)}
    found |= {"ratios": ratios, "pairs_ms": pairs, "outputs_differ": off}
    mine, theirs = map(asdict, spent)
    for name in mine:
        both = {"ours": mine[name], "reference": theirs[name]}
        found[name] = both | {"ratio": mine[name] / theirs[name] if theirs[name] else math.nan}
    return found


# --- the table


def table(entries: Sequence[Entry]) -> Table:
    result = Table(title="ours / reference; memory on one thread")
    result.add_column("case", no_wrap=True)
    result.add_column("of")
    result.add_column("reference")
    columns = ("threads", "ours ms", "ref. ms", "time ratio", "min..max", "RSS MB", "ratio", "live MB", "ratio")
    for name in (*columns, "calls", "ratio", "kernels", "ratio"):
        result.add_column(name, justify="right", no_wrap=True)
    for e in entries:
        cells = [str(e["threads"]), f"{e['ours_ms']:.1f}", f"{e['reference_ms']:.1f}", f"{e['ratio']:.3f}"]
        cells += [f"{e['ratio_min']:.2f}..{e['ratio_max']:.2f}"]
        for name, unit in (("resident", 2**20), ("live", 2**20), ("calls", 1), ("kernels", 1)):
            digits = 1 if unit > 1 else 0
            cells += [f"{e[name]['ours'] / unit:.{digits}f}/{e[name]['reference'] / unit:.{digits}f}"]
            cells += [f"{e[name]['ratio']:.3f}"]
        result.add_row(e["case"], e["label"], e["reference"], *cells)
    return result


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    known = list(cases(small=True))
    parser.add_argument("--cases", default=",".join(known), help=f"some of {','.join(known)}")
    parser.add_argument("--threads", default="1,2", help="numbers of threads, for the times")
    parser.add_argument("--repeats", type=int, default=None, help="pairs of runs (7; small: 1)")
    parser.add_argument("--small", action="store_true", help="tiny networks")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    given = parser.parse_args(argv)
    given.cases, given.threads = given.cases.split(","), [int(n) for n in given.threads.split(",")]
    given.repeats = given.repeats or (1 if given.small else 7)
    unknown = set(given.cases) - set(known)
    if unknown:
        parser.error(f"unknown cases {sorted(unknown)}; known are {', '.join(known)}")
    return given


def main(argv: Sequence[str] | None = None) -> None:
    given, entries = arguments(argv), list[Entry]()
    os.environ.update(FRUGAL)  # read by the processes that measure memory as they start; not by this one
    fresh = get_context("forkserver")  # imports once, then forks a process for each side
    fresh.set_forkserver_preload(["lightning_nas.methods", "rich.table", "torch.profiler"])
    with ProcessPoolExecutor(max_workers=1, mp_context=fresh, max_tasks_per_child=1) as processes:
        for case in given.cases:
            for index, row in enumerate(cases(given.small)[case]):
                spent = costs(row, index, given.small, processes)
                mine, reference = row.ours(), row.reference()
                off = difference(mine, reference)
                for threads in given.threads:
                    print(f"{row.case}: {row.label}, threads {threads}", file=sys.stderr, flush=True)
                    pairs = timed(mine, reference, threads, given.repeats)
                    entries += [entry(row, threads, pairs, spent, off)]
    Console(width=190).print(table(entries))
    about = {"torch": torch.__version__, "machine": platform.machine(), "cpus": os.cpu_count(), "small": given.small}
    if given.json is not None:
        given.json.write_text(json.dumps(about | {"repeats": given.repeats, "rows": entries}, indent=1))


if __name__ == "__main__":
    main()
