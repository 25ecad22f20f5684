"""What every space promises to relaxations and supernets. A new one is covered by its line in `SPACES`."""

from __future__ import annotations

import random
import re

import pytest
import torch
from toys import HardGumbel, Pairs, UniformPath, quiet_trainer

from lightning_nas.arch import Sample
from lightning_nas.methods import DARTS
from lightning_nas.relaxations import Softmax
from lightning_nas.selection import Magnitude
from lightning_nas.spaces import SPACES, CellNetwork, Space
from lightning_nas.spaces.operation_graph import cell_graph, cell_kinds
from lightning_nas.supernet import build_supernet

every = pytest.mark.parametrize("name", SPACES)
WITHOUT_SUPERNET = {"nasbench101"}
with_supernet = pytest.mark.parametrize("name", [name for name in SPACES if name not in WITHOUT_SUPERNET])
FIXED_DEPTH = {"enas_macro", "proxyless_mobile", "fbnet", "shufflenet"}
"""Spaces whose decisions are those of one depth."""


def depth(name: str) -> int | None:
    return None if name in FIXED_DEPTH else 2


def parts(name: str) -> tuple[Space, CellNetwork]:
    torch.manual_seed(0)
    space = SPACES[name]()
    return space, build_supernet(space, channels=4, cells=depth(name))


def logits(supernet: CellNetwork, sample: Sample) -> torch.Tensor:
    side = max(16, 2**supernet.reductions)
    x = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)  # for candidates that draw
    out: torch.Tensor = supernet(x, sample)
    assert out.shape == (4, 10)
    assert bool(out.isfinite().all())
    return out


@every
def test_names_and_groups_hang_together(name: str) -> None:
    space = SPACES[name]()
    assert space.name == name
    names = [d.name for rows in space.decisions.values() for d in rows]
    assert len(set(names)) == len(names)
    assert set(space.relaxed) <= set(space.decisions)
    genotype = space.sample(random.Random(0))
    assert set(genotype.picks) <= set(names)


@every
def test_graphs_have_the_labels_that_encoders_read(name: str) -> None:
    space, rng = SPACES[name](), random.Random(0)
    kinds = cell_kinds(space)
    for _ in range(20):
        cells = space.graphs(space.sample(rng))
        assert tuple(cells) == kinds
        for cell in cells.values():
            inputs = 2 if cell.nodes[0] == "c_{k-2}" else 1
            assert cell.nodes[:inputs] == (("input",) if inputs == 1 else ("c_{k-2}", "c_{k-1}"))
            assert cell.nodes[-1] == "output"
            assert all(re.fullmatch(r"\d+(: .+)?", node) for node in cell.nodes[inputs:-1])
            assert all(0 <= source < target < len(cell.nodes) for source, target, _ in cell.edges)
            labels = cell_graph(cell, prune=True).labels
            assert [label.split()[0] for label in labels[:inputs]] == ["input"] * inputs
            assert labels.count("output") == 1


@with_supernet
def test_the_supernet_runs_every_kind_of_sample(name: str) -> None:
    """Dense, narrowed, a vertex, a sampled path, without weights: in training and in evaluation."""
    space, supernet = parts(name)
    narrowed = Softmax(space.decisions, space.relaxed)
    rng = random.Random(0)
    for group, row, decision in list(narrowed.support.rows()):
        is_open = narrowed.support.open(group)[row]
        if len(is_open) > decision.keep:
            narrowed.support.drop(group, row, rng.choice(is_open))
    vertex = space.vertex(space.sample(rng))
    samples = [
        Softmax(space.decisions, space.relaxed)(),
        Softmax(space.decisions)(),
        narrowed(),
        vertex,
        Sample({}, vertex.active),
        HardGumbel(space.decisions, space.relaxed)(),
        UniformPath(space.decisions)(),
    ]
    outputs = [logits(supernet.train(), sample) for sample in samples]
    for sample, output in zip(samples, outputs, strict=True):
        assert torch.equal(logits(supernet.eval(), sample), output)
    assert not torch.allclose(outputs[0], outputs[3])


@with_supernet
def test_no_weight_is_left_out_by_a_dense_sample(name: str) -> None:
    space, supernet = parts(name)
    logits(supernet, Softmax(space.decisions, space.relaxed)()).square().sum().backward()
    assert [path for path, p in supernet.named_parameters() if p.grad is None] == []


@with_supernet
def test_a_vertex_reaches_fewer_weights_and_every_kept_operation_has_a_weight_of_one(name: str) -> None:
    space, supernet = parts(name)
    genotype = space.sample(random.Random(3))
    vertex = space.vertex(genotype)
    assert vertex.active is not None
    for group, rows in vertex.weights.items():
        assert torch.equal(rows, rows.bool().float())
        active = vertex.active[group]
        assert [tuple(row.nonzero().flatten().tolist()) for row in rows] == list(active)
    logits(supernet, vertex).square().sum().backward()
    assert any(p.grad is None for p in supernet.parameters())


@every
def test_reading_off_a_vertex_gives_its_genotype(name: str) -> None:
    space = SPACES[name]()
    for seed in range(5):
        genotype = space.sample(random.Random(seed))
        relaxation = Softmax(space.decisions, space.relaxed)
        with torch.no_grad():
            for group, theta in relaxation.theta.items():
                theta.copy_(10 * space.vertex(genotype).weights[group])
        assert Magnitude().pick(space, relaxation) == genotype


@with_supernet
def test_a_search_runs_in_it(name: str) -> None:
    search = DARTS(name, channels=4, cells=depth(name))
    trainer = quiet_trainer(max_epochs=1)
    side = max(8, 2**search.supernet.reductions)
    trainer.fit(search, Pairs(2, (3, side, side)))
    assert trainer.global_step == 2
    assert search.space.parse(search.space.format(search.genotype())) == search.genotype()


@pytest.mark.parametrize("name", sorted(WITHOUT_SUPERNET))
def test_a_space_without_a_supernet_says_so(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name!r} is no cell space; pass your own supernet"):
        parts(name)
