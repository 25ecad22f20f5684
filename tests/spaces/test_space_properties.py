"""What holds for every genotype of every registered space."""

from __future__ import annotations

import copy
import pickle
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_nas.arch import Genotype
from lightning_nas.spaces import GENOTYPES, SPACES, CellSpace, get_space, load_genotype

ALL = {name: get_space(name) for name in SPACES}
NEIGHBORS = {
    # kinds x (kept edges x other operations + kept inputs x sources not taken, over nodes of 2 to 5 sources)
    "darts": 2 * (8 * 6 + 2 * (0 + 1 + 2 + 3)),
    "darts_no_none": 2 * (8 * 6 + 2 * (0 + 1 + 2 + 3)),
    "nasbench201": 6 * 4,
    **dict.fromkeys(("s2", "s3", "s4"), 2 * (8 * 1 + 2 * (0 + 1 + 2 + 3))),
    "s5": 2 * (8 * 6 + 2 * (0 + 1 + 2 + 3)),
}
CELLS = [name for name, space in ALL.items() if isinstance(space, CellSpace)]
examples = settings(max_examples=25, deadline=None, database=None)
any_space = pytest.mark.parametrize("name", list(ALL))
any_cell_space = pytest.mark.parametrize("name", CELLS)


def cell_space(name: str) -> CellSpace:
    space = ALL[name]
    assert isinstance(space, CellSpace)
    return space


@any_space
@examples
@given(seed=st.integers(0, 2**32))
def test_a_sample_is_valid_and_survives_every_text(name: str, seed: int) -> None:
    space = ALL[name]
    genotype = space.sample(random.Random(seed))
    assert space.check(genotype) is genotype
    assert genotype == space.sample(random.Random(seed))
    assert space.parse(space.format(genotype)) == genotype
    assert space.parse(f"  {space.format(genotype)}\n") == genotype
    assert space.from_json(space.to_json(genotype)) == space.parse(space.to_json(genotype)) == genotype
    loaded, back = load_genotype(space.to_json(genotype))
    assert (loaded.name, back) == (name, genotype)
    assert pickle.loads(pickle.dumps(genotype)) == copy.deepcopy(genotype) == genotype
    assert hash(space.parse(space.format(genotype))) == hash(genotype)


@any_cell_space
@examples
@given(seed=st.integers(0, 2**32))
def test_neighbors_differ_in_one_decision(name: str, seed: int) -> None:
    space = cell_space(name)
    genotype = space.sample(random.Random(seed))
    neighbors = list(space.neighbors(genotype))
    assert len(neighbors) == len(set(neighbors)) == NEIGHBORS.get(name, len(neighbors))
    for neighbor in neighbors:
        assert space.check(neighbor) != genotype
        assert decisions_changed(space, genotype, neighbor) == 1
    assert genotype in set(space.neighbors(random.Random(seed).choice(neighbors)))


@any_space
@examples
@given(seed=st.integers(0, 2**32))
def test_a_mutation_is_a_neighbor(name: str, seed: int) -> None:
    space = ALL[name]
    rng = random.Random(seed)
    genotype = space.sample(rng)
    assert space.mutate(genotype, rng) in set(space.neighbors(genotype))


@any_space
@examples
@given(seed=st.integers(0, 2**32))
def test_canonical_is_a_projection_that_keeps_the_space(name: str, seed: int) -> None:
    space = ALL[name]
    canonical = space.canonical(space.sample(random.Random(seed)))
    assert space.check(canonical) == space.canonical(canonical)


@any_cell_space
@examples
@given(seed=st.integers(0, 2**32))
def test_the_vertex_executes_exactly_the_genotype(name: str, seed: int) -> None:
    space = cell_space(name)
    genotype = space.sample(random.Random(seed))
    sample = space.vertex(genotype)
    for kind in space.kinds:
        kept = space.kept_rows(genotype, kind)
        open_rows = sample.open(kind)
        assert open_rows is not None
        for row, choices in enumerate(open_rows):
            weights = sample.weights[kind][row].tolist()
            assert choices == ((kept[row],) if row in kept else ())
            assert weights == [float(k in choices) for k in range(len(weights))]


@any_cell_space
@examples
@given(seed=st.integers(0, 2**32))
def test_graphs_hold_every_kept_edge_once(name: str, seed: int) -> None:
    space = cell_space(name)
    genotype = space.sample(random.Random(seed))
    for kind, graph in space.graphs(genotype).items():
        labelled = [edge for edge in graph.edges if edge[2]]
        assert len(labelled) == len(set(labelled)) == len(space.kept_rows(genotype, kind))
        assert all(source < target < len(graph.nodes) for source, target, _ in graph.edges)
        assert graph.nodes[-1] == "output"


@pytest.mark.parametrize("name", ["darts", "darts_no_none"])
@examples
@given(seed=st.integers(0, 2**32))
def test_darts_samples_and_neighbors_leave_none_out(name: str, seed: int) -> None:
    space = ALL[name]
    genotype = space.sample(random.Random(seed))
    assert all("'none'" not in space.format(g) for g in (genotype, *space.neighbors(genotype)))


def test_samples_are_uniform_over_the_cells_of_nasbench201() -> None:
    """Each operation on each edge within five standard deviations of its share."""
    space, rng, draws = cell_space("nasbench201"), random.Random(0), 4000
    counts = [[0] * 5 for _ in range(6)]
    for _ in range(draws):
        for row, choice in space.kept_rows(space.sample(rng), "cell").items():
            counts[row][choice] += 1
    deviation = (draws * 0.2 * 0.8) ** 0.5
    assert all(abs(count - draws / 5) < 5 * deviation for row in counts for count in row)


def test_an_edge_moves_where_its_operation_is_unknown() -> None:
    """In S1: from skip on 3<-0, whose list is {skip, dil5}, to 3<-2 with {skip, dil3}; and into 5<-3, {dil3, dil5}."""
    space = cell_space("s1")
    pairs = "('skip_connect', 0), ('skip_connect', 1)"
    rest = ", ".join(["('max_pool_3x3', 0), ('max_pool_3x3', 1)"] * 2 + ["('max_pool_3x3', 0), ('sep_conv_3x3', 1)"])
    reduce = f"[{rest}, ('max_pool_3x3', 0), ('max_pool_3x3', 1)]"
    genotype = space.parse(f"Genotype(normal=[{', '.join([pairs] * 4)}], reduce={reduce})")
    moved = [
        {row: space.op_name("normal", row, k) for row, k in space.kept_rows(neighbor, "normal").items()}
        for neighbor in space.neighbors(genotype)
    ]
    rows = {edge: row for row, edge in enumerate(space.topology.edges)}
    assert {cell[rows[3, 2]] for cell in moved if rows[3, 2] in cell and rows[3, 0] not in cell} == {
        "skip_connect",
        "dil_conv_3x3",
    }
    assert {cell[rows[5, 3]] for cell in moved if rows[5, 3] in cell} == {"dil_conv_3x3", "dil_conv_5x5"}


@pytest.mark.parametrize("name", list(GENOTYPES))
def test_published_genotypes_round_trip(name: str) -> None:
    space, genotype = load_genotype(name)
    assert space.name == "darts"
    text = space.format(genotype)
    assert space.parse(text) == genotype == load_genotype(text)[1]
    assert space.format(space.parse(text)) == text
    for kind in ("normal", "reduce"):
        assert sum(key.startswith(f"{kind}/") and "inputs" not in key for key in genotype.picks) == 8


def decisions_changed(space: CellSpace, one: Genotype, other: Genotype) -> int:
    """How many decisions differ; an edge that moves takes its operation along and counts once."""
    changed = 0
    for kind in space.kinds:
        before, after = space.kept_rows(one, kind), space.kept_rows(other, kind)
        changed += sum(before[row] != after[row] for row in set(before) & set(after))
        gone, new = sorted(set(before) - set(after)), sorted(set(after) - set(before))
        for old_row, new_row in zip(gone, new, strict=True):
            assert space.topology.edges[old_row][0] == space.topology.edges[new_row][0]
            ops = space.op_name(kind, old_row, before[old_row]), space.op_name(kind, new_row, after[new_row])
            lists = [space.decisions[kind][row].choices for row in (new_row, old_row)]
            assert ops[0] == ops[1] or any(op not in choices for op, choices in zip(ops, lists, strict=True))
        changed += len(gone)
    return changed
