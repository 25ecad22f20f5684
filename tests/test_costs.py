"""Tables of costs against the networks themselves, enumeration and files written by hand."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from itertools import permutations, product
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn
from toys import one_line

from lightning_nas.arch import Decision, Genotype, Sample, Support
from lightning_nas.cli import main
from lightning_nas.costs import (
    CostTable,
    Operation,
    cost_table,
    inclusion,
    network_size,
    read_latencies,
    write_latencies,
)
from lightning_nas.costs.layout import lay_out
from lightning_nas.costs.measure import Stopwatch, compare_latencies, measure_latencies
from lightning_nas.derived import DerivedNetwork
from lightning_nas.flops import count_macs, count_parameters
from lightning_nas.relaxations import (
    BinaryGates,
    Controller,
    Dirichlet,
    Gumbel,
    Proximal,
    Relaxation,
    ScorePath,
    Sigmoid,
    Simplex,
    Softmax,
    UniformPath,
)
from lightning_nas.spaces import NetworkSize, ProxylessMobileSpace, SmallSpace, Space, get_space, load_genotype

# --- tables against networks

SIZES: dict[str, tuple[int, int | None, int]] = {
    "nasbench201": (4, 2, 16),
    "darts": (4, 8, 16),
    "darts_no_none": (6, 4, 8),
    "s1": (4, 5, 16),
    "s4": (4, 5, 16),
    "small_sep": (4, 5, 16),
    "small_ops": (8, 3, 8),
    "proxyless_mobile": (8, None, 64),
    "fbnet": (16, None, 64),
    "shufflenet": (16, None, 64),
}


@pytest.mark.parametrize("name", SIZES)
def test_a_table_gives_exactly_what_the_derived_network_has(name: str) -> None:
    (channels, cells, side), space = SIZES[name], get_space(name)
    size = network_size(space, channels, cells, num_classes=7, in_channels=1)
    macs, params = cost_table(space, size, side), cost_table(space, size, cost="params")
    for seed in range(3):
        genotype = space.sample(random.Random(seed))
        with torch.device("meta"):
            network = DerivedNetwork(
                genotype, space=space, channels=channels, cells=size.cells, num_classes=7, in_channels=1
            )
        assert macs.of(genotype) == count_macs(network, (1, side, side))
        assert params.of(genotype) == count_parameters(network)


def test_the_imagenet_stem_counts() -> None:
    space = get_space("darts")
    genotype = space.sample(random.Random(0))
    table = cost_table(space, network_size(space, 8, 5, stem="imagenet"), 64)
    with torch.device("meta"):
        network = DerivedNetwork(genotype, space=space, channels=8, cells=5, stem="imagenet")
    assert table.of(genotype) == count_macs(network, (3, 64, 64))


@pytest.mark.parametrize(
    ("name", "params", "megamacs"),
    [("darts_v2", 3_349_342, 528.4), ("pc_darts_cifar", 3_634_678, 556.7)],
)
def test_published_cells_at_full_size(name: str, params: int, megamacs: float) -> None:
    space, genotype = load_genotype(name)
    assert cost_table(space, NetworkSize(36, 20), cost="params").of(genotype) == params
    assert cost_table(space, NetworkSize(36, 20), 32).of(genotype) / 1e6 == pytest.approx(megamacs, abs=0.05)


def test_the_extremes_of_proxyless() -> None:
    space = get_space("proxyless_mobile")
    table = cost_table(space, network_size(space, num_classes=1000), cost="params")
    rows = table.rows["blocks"].clone()
    assert table.fixed + rows.max(1).values.sum() == 5_103_336
    skipped = torch.stack([row[: len(d.choices)].min() for row, d in zip(rows, space.decisions["blocks"], strict=True)])
    assert table.fixed + skipped.sum() == 2_154_984


def test_identities_and_none_cost_nothing() -> None:
    space = get_space("nasbench201")
    for cost in ("macs", "params"):
        rows = cost_table(space, NetworkSize(4, 1), 16, cost).rows["cell"]  # type: ignore[arg-type]
        assert rows[:, [0, 1, 4]].eq(0).all()
        assert rows[:, [2, 3]].gt(0).all()


# --- the chance to be kept


@pytest.mark.parametrize("keep", [1, 2, 3, 4])
def test_inclusion_is_the_share_of_all_ordered_draws(keep: int) -> None:
    weights = torch.tensor([3.0, 1.0, 0.5, 2.0, 0.0], dtype=torch.float64)
    open_ = weights > 0
    want = [0.0] * 5
    for draw in permutations(range(4), keep):
        chance, left = 1.0, weights.tolist()
        for k in draw:
            chance *= left[k] / sum(left)
            left[k] = 0.0
        for k in draw:
            want[k] += chance
    torch.testing.assert_close(inclusion(weights, open_, keep), torch.tensor(want, dtype=torch.float64))


def test_inclusion_at_a_vertex_and_with_too_few() -> None:
    open_ = torch.tensor([True, True, True, False])
    weights = torch.tensor([1.0, 0.0, 0.0, 0.0], requires_grad=True)
    chance = inclusion(weights, open_, 2)
    assert chance.tolist() == [1.0, 0.5, 0.5, 0.0]
    (slope,) = torch.autograd.grad(chance @ torch.tensor([1.0, 2.0, 3.0, 4.0]), weights)
    assert slope.isfinite().all()
    assert inclusion(torch.ones(4) * open_, open_, 4).tolist() == [1.0, 1.0, 1.0, 0.0]


# --- expected costs against enumeration


class Chain(ProxylessMobileSpace):
    def __init__(self) -> None:
        super().__init__("chain", ((24, 2, 2),), 32)


def all_of_chain(space: Chain) -> Iterator[Genotype]:
    for choices in product(*(range(len(d.choices)) for d in space.rows)):
        yield Genotype(space.name, {d.name: (k,) for d, k in zip(space.rows, choices, strict=True)})


RELAXATIONS: dict[str, Callable[..., Relaxation]] = {
    "Softmax": Softmax,
    "Simplex": Simplex,
    "Dirichlet": Dirichlet,
    "Gumbel": Gumbel,
    "hard Gumbel": lambda *args, **settings: Gumbel(*args, hard=True, **settings),
    "ScorePath": ScorePath,
    "BinaryGates": BinaryGates,
    "Proximal": Proximal,
    "UniformPath": UniformPath,
    "Controller": Controller,
}
every = pytest.mark.parametrize("make", RELAXATIONS.values(), ids=RELAXATIONS)
SPACES = {"small_sep": (SmallSpace("small_sep"), 8), "chain": (Chain(), 8)}
CELLS = {"small_sep": list(SmallSpace("small_sep").cells()), "chain": list(all_of_chain(Chain()))}


def table_of(name: str, cost: str = "macs") -> CostTable:
    space, side = SPACES[name]
    return cost_table(space, network_size(space, 4, 3 if name == "small_sep" else None), side, cost)  # type: ignore[arg-type]


def spread(make: Callable[..., Relaxation], space: Space, groups: tuple[str, ...]) -> Relaxation:
    relaxation = make(space.decisions, groups).double()
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for theta in relaxation.arch_parameters():
            theta.copy_(torch.rand(theta.shape, generator=draw))
    relaxation.project_()
    return relaxation


def chance_of_inputs(weights: Tensor | None, kept: tuple[int, ...], count: int, discrete: bool) -> float:
    """The probability of a pair of two or three inputs, written without `inclusion`."""
    if count == 2:
        return 1.0
    if weights is None:
        return 1 / 3
    if discrete:  # the probability that the one left out is not kept
        (out,) = set(range(3)) - set(kept)
        return 1 - float(weights[out])
    q = (weights[:3] / weights[:3].sum()).tolist()
    i, j = kept
    return q[i] * q[j] / (1 - q[i]) + q[j] * q[i] / (1 - q[j])


def probability(relaxation: Relaxation, genotype: Genotype, discrete: bool) -> float:
    expected, chance = relaxation.mean(), 1.0
    for group, row, decision in relaxation.support.rows():
        kept = genotype.picks.get(decision.name, ())
        if "inputs" in group:
            weights = expected[group][row] if group in expected else None
            chance *= chance_of_inputs(weights, kept, len(decision.choices), discrete)
        elif kept:
            chance *= float(expected[group][row, kept[0]])
    return chance


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("inputs", [False, True], ids=["edges", "edges and inputs"])
@every
def test_the_expected_cost_is_that_of_all_networks(make: Callable[..., Relaxation], inputs: bool, name: str) -> None:
    space, table = SPACES[name][0], table_of(name)
    relaxation = spread(make, space, tuple(space.decisions) if inputs else space.relaxed)
    chances = [probability(relaxation, genotype, relaxation.discrete) for genotype in CELLS[name]]
    assert sum(chances) == pytest.approx(1, rel=1e-5)
    want = sum(chance * table.of(genotype) for chance, genotype in zip(chances, CELLS[name], strict=True))
    got = table.expected(relaxation.expected(), relaxation.support, inclusive=relaxation.discrete)
    assert got.item() == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("inputs", [False, True], ids=["edges", "edges and inputs"])
@every
def test_its_slope_is_that_of_finite_differences(make: Callable[..., Relaxation], inputs: bool) -> None:
    space, table = SPACES["small_sep"][0], table_of("small_sep")
    relaxation = spread(make, space, tuple(space.decisions) if inputs else space.relaxed)

    def cost() -> Tensor:
        return table.expected(relaxation.expected(), relaxation.support, inclusive=relaxation.discrete)

    parameters = relaxation.arch_parameters()
    if not parameters:
        assert not cost().requires_grad
        return
    grads = torch.autograd.grad(cost(), parameters, allow_unused=True, materialize_grads=True)
    assert any(grad.abs().max() > 1 for grad in grads)
    for parameter, grad in zip(parameters, grads, strict=True):
        for k in range(0, parameter.numel(), 1 + parameter.numel() // 12):
            sides = []
            for step in (1e-5, -2e-5):
                with torch.no_grad():
                    parameter.view(-1)[k] += step
                    sides.append(cost().item())
            with torch.no_grad():
                parameter.view(-1)[k] += 1e-5
            want = (sides[0] - sides[1]) / 2e-5
            assert grad.view(-1)[k].item() == pytest.approx(want, rel=1e-4, abs=1e-5 * table.fixed)


def test_candidates_that_do_not_compete_each_count_with_their_weight() -> None:
    space, table = SPACES["small_sep"][0], table_of("small_sep")
    relaxation = spread(Sigmoid, space, space.relaxed)
    sigmoid = 1 / (1 + torch.exp(-relaxation.theta["normal"].detach()))
    gates = torch.tensor([1, 1, 2 / 3, 2 / 3, 2 / 3], dtype=torch.float64)
    want = table.fixed + (gates * (sigmoid * table.rows["normal"]).sum(1)).sum()
    assert table.expected(relaxation.expected(), relaxation.support).item() == pytest.approx(want.item())


@pytest.mark.parametrize("name", ["darts", "nasbench201", "proxyless_mobile"])
def test_the_weights_of_a_vertex_cost_what_its_network_costs(name: str) -> None:
    space = get_space(name)
    side = 32 if name == "proxyless_mobile" else 8
    table = cost_table(space, network_size(space, 4, None if name == "proxyless_mobile" else 2), side)
    for seed in range(3):
        genotype = space.sample(random.Random(seed))
        vertex: Sample = space.vertex(genotype)
        assert table.expected(vertex.weights, Support(space.decisions)).item() == pytest.approx(table.of(genotype))


def test_drawn_inputs_of_a_hard_sample_count_whole() -> None:
    space, table = SPACES["small_sep"][0], table_of("small_sep")
    relaxation = spread(RELAXATIONS["hard Gumbel"], space, tuple(space.decisions))
    for _ in range(5):
        sample = relaxation()
        assert sample.active is not None
        kept = {
            d.name: c for d, c in zip(space.decisions["normal/inputs"], sample.active["normal/inputs"], strict=True)
        }
        rows = {2: 0, 3: 2}
        ops = {
            row: sample.active["normal"][row][0]
            for node, first in rows.items()
            for row in (first + k for k in kept[f"normal/inputs/{node}"])
        }
        want = table.of(space.from_rows({"normal": ops}))
        got = table.expected(sample.weights, relaxation.support, inclusive=relaxation.discrete)
        assert got.item() == pytest.approx(want)


def test_a_narrowed_support_leaves_the_cost_of_what_is_left() -> None:
    space, table = SPACES["small_sep"][0], table_of("small_sep")
    relaxation = spread(Softmax, space, space.relaxed)
    genotype = CELLS["small_sep"][17]
    for group, row, decision in list(relaxation.support.rows()):
        relaxation.support.fix(group, row, *genotype.picks.get(decision.name, (1,)))
    assert table.expected(relaxation.expected(), relaxation.support).item() == pytest.approx(table.of(genotype))


def test_single_precision_and_a_comparison_of_tables() -> None:
    table = table_of("small_sep")
    assert table == table_of("small_sep")
    assert table != table_of("small_sep", "params")
    single = table.to(torch.zeros(()))
    assert {rows.dtype for rows in single.rows.values()} == {torch.float32}
    assert single.to(torch.zeros(())) is single


@pytest.mark.parametrize(
    ("rows", "words"),
    [({"other": torch.zeros(1, 2)}, ("other", "cell")), ({"cell": torch.zeros(2, 2)}, ("(2, 2)", "(1, 2)"))],
)
def test_a_table_must_fit_its_decisions(rows: dict[str, Tensor], words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as error:
        CostTable({"cell": (Decision("edge", ("skip", "conv")),)}, rows, 0.0, "ms")
    one_line(error.value, *words)


@pytest.mark.parametrize(
    ("space", "settings", "words"),
    [
        ("darts", {"cost": "flops"}, ("flops", "macs")),
        ("darts", {"cost": "macs", "image_size": None}, ("image_size",)),
        ("darts", {"cost": "macs", "image_size": 30}, ("30x30", "4")),
        ("enas_micro", {"cost": "params"}, ("enas_micro", "CostTable")),
        ("darts", {"cost": "latency"}, ("lightning-nas latency --space darts --channels 4",)),
    ],
)
def test_a_table_that_cannot_be_made(space: str, settings: dict[str, object], words: tuple[str, ...]) -> None:
    found = get_space(space)
    with pytest.raises(ValueError) as error:
        cost_table(found, network_size(found, 4, 8), **{"image_size": 8} | settings)  # type: ignore[arg-type]
    one_line(error.value, *words)


# --- latencies

HEADER = "op,in_channels,out_channels,height,width,stride,ms"


@pytest.fixture
def latencies() -> dict[Operation, float]:
    layout = lay_out(get_space("nasbench201"), NetworkSize(4, 1), 8)
    found = {c.operation: 0.0 for c in layout.candidates}
    return {operation: 0.25 * k for k, operation in enumerate([*found, layout.operation])}


@pytest.mark.parametrize("ending", [".csv", ".json", ".yaml"])
def test_a_file_of_latencies_is_read_as_it_was_written(
    latencies: dict[Operation, float], ending: str, tmp_path: Path
) -> None:
    path = write_latencies(tmp_path / f"phone{ending}", latencies, {"device": "phone"})
    assert read_latencies(path) == latencies
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_file_written_by_hand(tmp_path: Path) -> None:
    want = {Operation("sep_conv_3x3", 16, 16, 32, 32, 1): 0.5, Operation("skip_connect", 16, 32, 8, 8, 2): 2.0}
    path = tmp_path / "hand.csv"
    path.write_text(
        "# my phone\n\nms, op, stride, height, width, in_channels, out_channels\n"
        "0.5, sep_conv_3x3, 1, 32, 32, 16, 16\n2, skip_connect, 2, 8, 8, 16, 32\n"
    )
    assert read_latencies(path) == want
    entry = {"op": "sep_conv_3x3", "in_channels": 16, "out_channels": 16, "height": 32, "width": 32, "stride": 1}
    for ending, dump in ((".json", json.dumps), (".yml", yaml.safe_dump)):
        path = tmp_path / f"hand{ending}"
        path.write_text(dump([entry | {"ms": 0.5}]))
        assert read_latencies(path) == {Operation("sep_conv_3x3", 16, 16, 32, 32, 1): 0.5}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "", ("holds no latencies", HEADER)),
        ("a.csv", "op,ms\nsep_conv_3x3,1\n", ("entry 1", "in_channels", "stride")),
        ("a.csv", f"{HEADER}\nconv,4,4,8,8,1,\n", ("entry 1", "lacks ms")),
        ("a.csv", f"{HEADER}\nconv,4,4,8,8,1,fast\n", ("entry 1", "fast")),
        ("a.csv", f"{HEADER}\nconv,4,4,8,8,1,nan\n", ("finite",)),
        ("a.csv", f"{HEADER}\nconv,4,4,8,8,1,-1\n", ("negative",)),
        ("a.csv", f"{HEADER}\nconv,4,4,8,8,1,1\nconv,4,4,8,8,1,2\n", ("entry 2", "before")),
        ("a.json", "{", ("a.json", "cannot be read")),
        ("a.yaml", "op: conv", ("list of mappings",)),
        ("a.txt", "", (".csv", ".json", ".yaml")),
        ("missing.csv", None, ("missing.csv", "lightning-nas latency")),
    ],
)
def test_what_is_wrong_with_a_file_is_said(name: str, text: str | None, words: tuple[str, ...], tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError) as error:
        read_latencies(tmp_path / name)
    one_line(error.value, *words)


def test_a_table_of_latencies_adds_up_what_the_file_says(latencies: dict[Operation, float], tmp_path: Path) -> None:
    space = get_space("nasbench201")
    path = write_latencies(tmp_path / "phone.csv", latencies)
    table = cost_table(space, NetworkSize(4, 1), 8, "latency", path)
    genotype = space.parse("|nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|nor_conv_1x1~1|nor_conv_3x3~2|")
    shapes = [(4, 8), (8, 4), (16, 2)]
    skeleton = lay_out(space, NetworkSize(4, 1), 8).operation
    want = latencies[skeleton]
    for op, times in (("nor_conv_3x3", 2), ("nor_conv_1x1", 1), ("skip_connect", 1), ("none", 2)):
        want += times * sum(latencies[Operation(op, c, c, side, side, 1)] for c, side in shapes)
    assert table.of(genotype) == pytest.approx(want)
    assert table.unit == "ms"


def test_a_missing_latency_is_named_with_the_command_that_measures_it(latencies: dict[Operation, float]) -> None:
    space, skeleton = get_space("nasbench201"), lay_out(get_space("nasbench201"), NetworkSize(4, 1), 8).operation
    free = {op: ms for op, ms in latencies.items() if op.op in ("none", "skip_connect")}
    needed = {op: ms for op, ms in latencies.items() if op not in free and op != skeleton}
    assert cost_table(space, NetworkSize(4, 1), 8, "latency", needed).fixed == 0
    del needed[Operation("nor_conv_3x3", 8, 8, 4, 4, 1)], needed[Operation("nor_conv_1x1", 16, 16, 2, 2, 1)]
    with pytest.raises(ValueError) as error:
        cost_table(space, NetworkSize(4, 1), 8, "latency", needed)
    command = "lightning-nas latency --space nasbench201 --channels 4 --cells 1 --image_size 8"
    one_line(error.value, "nor_conv_3x3 from 8 to 8 channels at 4x4 with stride 1 (and 1 more)", command)


class Slow(nn.Module):
    """Counts its calls, each at another speed by a clock of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[tuple[int, ...], int, bool, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append((tuple(x.shape), torch.get_num_threads(), self.training, torch.is_grad_enabled()))
        return x


def test_a_stopwatch_takes_the_median_after_warming_up(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0, 100, 0, 1, 0, 7, 0, 3])  # start and end of each pass; the first is a warm-up
    monkeypatch.setattr("lightning_nas.costs.measure.time.perf_counter", lambda: next(times))
    slow, before = Slow(), torch.get_num_threads()
    assert Stopwatch(batch_size=5, threads=before + 1, repeats=3, warmup=1)(slow, (2, 4, 6)) == 3000
    assert slow.seen == [((5, 2, 4, 6), before + 1, False, False)] * 4
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("settings", [{"repeats": 0}, {"batch_size": 0}, {"threads": 0}, {"device": "abacus"}])
def test_a_stopwatch_refuses(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError) as error:
        Stopwatch(**settings)  # type: ignore[arg-type]
    one_line(error.value, *(f"{name}={value!r}" for name, value in settings.items()))


ONCE = Stopwatch(repeats=1, warmup=0)


@pytest.mark.parametrize("name", ["nasbench201", "darts", "fbnet"])
def test_everything_that_a_table_needs_is_measured_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    space = get_space(name)
    size, side = network_size(space, 16 if name == "fbnet" else 4, None if name == "fbnet" else 3), 32
    built: list[str] = []
    monkeypatch.setattr(Stopwatch, "__call__", lambda self, module, shape: built.append(str(module)) or 2.0)
    lines: list[str] = []
    latencies = measure_latencies(space, size, side, ONCE, lines.append)
    assert len(lines) == len(built) == sum(ms > 0 for ms in latencies.values())
    assert lines[-1].startswith(f"{len(lines)}/{len(lines)}")
    table = cost_table(space, size, side, "latency", latencies)
    layout = lay_out(space, size, side)
    assert table.fixed == latencies[layout.operation] == 2
    for c in layout.candidates:
        is_free = c.operation.op in ("none", "Zero") or isinstance(c.build(), nn.Identity)
        is_free |= c.operation.op == "skip" and c.shortcut
        assert latencies[c.operation] == (0 if is_free else 2)


def test_whole_networks_are_compared_with_their_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    space, size = get_space("nasbench201"), NetworkSize(4, 1)
    genotypes = [space.sample(random.Random(seed)) for seed in range(2)]
    seen: list[tuple[Genotype, tuple[int, ...]]] = []
    monkeypatch.setattr(Stopwatch, "__call__", lambda self, net, shape: seen.append((net.genotype, shape)) or 4.0)
    table = cost_table(space, size, 8)
    assert compare_latencies(space, size, 8, table, genotypes, ONCE) == [(table.of(g), 4.0) for g in genotypes]
    assert seen == [(genotype, (3, 8, 8)) for genotype in genotypes]


def test_the_command_writes_a_file_that_a_table_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "latency.csv"
    size = ["--channels=4", "--cells=1", "--image_size=8"]
    main(["latency", "--space=nasbench201", *size, "--repeats=2", "--networks=2", f"--out={path}"])
    out = capsys.readouterr().out
    assert "1/10" in out
    assert str(path) in out
    assert "network 2:" in out
    assert "# torch: " in path.read_text()
    space = get_space("nasbench201")
    table = cost_table(space, NetworkSize(4, 1), 8, "latency", path)
    assert 0 < table.fixed < math.inf


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--out=latency.txt"], ".csv"),
        (["--space=enas_macro"], "enas_macro"),
        (["--channels=3"], "channels=3"),
        (["--networks=-1"], "networks=-1"),
    ],
)
def test_the_command_says_what_is_wrong(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["latency", f"--out={tmp_path}/latency.csv", *options])
    assert end.value.code == 1
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
