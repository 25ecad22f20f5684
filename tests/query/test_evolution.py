"""Evolution: the known answer of the authors' toy, the queue, the extremes of selection, mutations and tournaments."""

from __future__ import annotations

import io
import random
from collections import Counter
from collections.abc import Callable
from statistics import fmean

import pytest
import torch

from lightning_nas.arch import Decision, Genotype
from lightning_nas.query import RandomSearch, RegularizedEvolution, Result, Searcher, Trial
from lightning_nas.query.mutations import EachDecision, crossover, get_mutation
from lightning_nas.query.searchers.cgp import CGP
from lightning_nas.query.searchers.genetic import GeneticCNN
from lightning_nas.query.searchers.hierarchical import HierarchicalEvolution
from lightning_nas.query.searchers.local_search import LocalSearch
from lightning_nas.query.searchers.nsga import NSGA2
from lightning_nas.query.searchers.tournament import TournamentEvolution
from lightning_nas.spaces import get_space
from lightning_nas.spaces.cgp import CGPSpace
from lightning_nas.spaces.independent import IndependentSpace
from lightning_nas.spaces.nasbench101 import NASBench101Space
from lightning_nas.spaces.nasbench201 import NASBench201Space


class Bits(IndependentSpace):
    """A hundred bits, ten of them to a decision, so that a genotype is small; a mutation flips one bit."""

    def __init__(self) -> None:
        words = tuple(f"{word:010b}" for word in range(1024))
        super().__init__("bits", {"bits": tuple(Decision(f"bits/{k}", words) for k in range(10))})

    def mutate(self, genotype: Genotype, rng: random.Random) -> Genotype:
        name = f"bits/{rng.randrange(10)}"
        flipped = genotype.picks[name][0] ^ (1 << rng.randrange(10))
        return Genotype(self.name, {**genotype.picks, name: (flipped,)})

    def canonical(self, genotype: Genotype) -> Genotype:
        return genotype

    format = IndependentSpace.to_json
    parse = IndependentSpace.from_json
    graphs = None  # type: ignore[assignment]


def ones(genotype: Genotype) -> int:
    return sum(word.bit_count() for (word,) in genotype.picks.values())


Bits.__abstractmethods__ = frozenset()
BITS = Bits()


def onemax(make: Callable[[int], Searcher], seed: int) -> int:
    """Ones of the individual that a search of 1,000 noisy evaluations gives back."""
    searcher, noise = make(seed), random.Random(seed + 10_000)
    for _ in range(1000):
        (trial,) = searcher.ask()
        score = min(max(ones(trial.genotype) / 100 + noise.gauss(0, 0.01), 0.0), 1.0)
        searcher.tell([Result(trial, score)])
    return ones(searcher.genotype())


def aging(dies: str = "oldest") -> Callable[[int], Searcher]:
    return lambda seed: RegularizedEvolution(BITS, 100, 10, dies=dies, seed=seed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "mean", "tolerance"),
    [
        (aging(), 89.25, 1.25),
        (aging("worst"), 88.9, 1.6),
        (lambda seed: RandomSearch(BITS, seed=seed), 65.5, 1.3),
    ],
    ids=["oldest dies", "worst dies", "random"],
)
def test_the_toy_of_the_authors_has_its_known_answer(
    make: Callable[[int], Searcher], mean: float, tolerance: float
) -> None:
    assert fmean(onemax(make, seed) for seed in range(20)) == pytest.approx(mean, abs=tolerance)


@pytest.mark.slow
def test_the_toy_over_200_runs() -> None:
    assert fmean(onemax(aging(), seed) for seed in range(200)) == pytest.approx(89.1, abs=0.5)
    assert fmean(onemax(aging("worst"), seed) for seed in range(200)) == pytest.approx(88.9, abs=0.55)


def tell(searcher: Searcher, score: Callable[[Trial], float]) -> Trial:
    (trial,) = searcher.ask()
    searcher.tell([Result(trial, score(trial), metrics={"params_m": float(trial.number % 7)})])
    return trial


def test_the_queue_keeps_its_length_and_the_oldest_leaves() -> None:
    searcher, scores = RegularizedEvolution(population=8, sample=3, seed=1), random.Random(0)
    for number in range(60):
        tell(searcher, lambda _: scores.random())
        alive = [result.trial.number for result in searcher.population]
        assert alive == list(range(max(0, number - 7), number + 1))


def test_the_worst_leaves_where_asked() -> None:
    searcher, scores = RegularizedEvolution(population=8, sample=3, dies="worst", seed=1), random.Random(0)
    told: list[float] = []
    for _ in range(60):
        told.append(scores.random())
        tell(searcher, lambda _: told[-1])
        assert sorted(result.score for result in searcher.population) == sorted(told)[-8:]


def parents(sample: float, replace: bool, children: int) -> Counter[int]:
    """How often the individual of each rank is the parent, in a population that stays as it is."""
    searcher = RegularizedEvolution(population=5, sample=sample, replace=replace, mutate="nasbench201", seed=3)
    searcher.tell([Result(trial, float(trial.number)) for trial in searcher.ask(5)])
    return Counter(int(trial.note["parent"]) for trial in searcher.ask(children))


def test_a_sample_of_one_is_a_random_walk_and_a_large_one_is_greedy() -> None:
    drawn = parents(1, True, 1500)
    assert sum((count - 300) ** 2 / 300 for count in drawn.values()) < 18.5  # chi-square, 4 degrees, p = 0.001
    assert len(drawn) == 5
    assert parents(5, False, 200) == {4: 200}
    assert parents(100, True, 200) == {4: 200}


def test_the_parent_has_the_distribution_of_the_best_of_a_sample() -> None:
    count = 2000
    with_replacement = parents(2, True, count)
    without = parents(2, False, count)
    for rank in range(5):
        expected = ((rank + 1) ** 2 - rank**2) / 25
        assert with_replacement[rank] / count == pytest.approx(expected, abs=0.04)
        assert without[rank] / count == pytest.approx(rank / 10, abs=0.04)


def test_a_share_of_the_population_is_a_sample_and_nobody_dies() -> None:
    searcher = RegularizedEvolution(population=20, sample=0.05, replace=False, dies="nobody", seed=0)
    for number in range(100):
        assert searcher.asked < 20 or len(searcher._drawn()) == max(1, round(0.05 * number))
        tell(searcher, lambda trial: float(trial.number))
    assert len(searcher.population) == 100


# --- mutations


def test_the_mutation_of_nasbench201_draws_the_node_first() -> None:
    space, rng, count = get_space("nasbench201"), random.Random(0), 6000
    parent = space.sample(rng)
    edges: Counter[str] = Counter()
    ops: Counter[tuple[int, ...]] = Counter()
    for _ in range(count):
        child = get_mutation("nasbench201")(space, parent, rng)
        (changed,) = [name for name in parent.picks if parent.picks[name] != child.picks[name]]
        edges[changed] += 1
        if changed == "cell/1<-0":
            ops[child.picks[changed]] += 1
    for name in parent.picks:
        node = int(name.removeprefix("cell/").split("<-")[0])
        assert edges[name] / count == pytest.approx(1 / (3 * node), abs=0.025), name
    assert len(ops) == 4
    assert all(seen / edges["cell/1<-0"] == pytest.approx(0.25, abs=0.04) for seen in ops.values())


def test_the_mutation_of_nasbench101_flips_and_resamples_by_chance() -> None:
    class Anything(NASBench101Space):
        def check(self, genotype: Genotype) -> Genotype:
            return genotype

    rng, count = random.Random(0), 3000
    parent = NASBench101Space().sample(rng)
    changed = Counter(
        name
        for _ in range(count)
        for name, kept in get_mutation("nasbench101")(Anything(), parent, rng).picks.items()
        if kept != parent.picks[name]
    )
    for name in parent.picks:
        expected = 1 / 21 if name.startswith("edges") else 1 / 5
        assert changed[name] / count == pytest.approx(expected, abs=0.03), name
    for _ in range(50):
        NASBench101Space().check(get_mutation("nasbench101")(NASBench101Space(), parent, rng))


def test_operations_that_a_space_never_takes_stay_out_and_inputs_stay_consistent() -> None:
    space, rng = get_space("darts"), random.Random(0)
    flip = EachDecision({"normal/inputs": 0.0, "reduce": 0.5})
    for _ in range(40):
        first, second = space.sample(rng), space.sample(rng)
        assert get_mutation("nasbench201")(space, first, rng) in set(space.neighbors(first))
        child = crossover(space, first, second, rng, tries=1)
        assert child is not None
        for name, kept in space.check(child).picks.items():
            assert kept in (first.picks.get(name), second.picks.get(name))
        assert flip(space, first, rng).picks["normal/inputs/5"] == first.picks["normal/inputs/5"]


def test_unknown_names_and_spaces_without_cells_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown mutation 'two'; known are one, nasbench201, nasbench101"):
        RegularizedEvolution(mutate="two")
    with pytest.raises(ValueError, match="draws a node of a cell"):
        get_mutation("nasbench201")(BITS, BITS.sample(random.Random(0)), random.Random(0))
    with pytest.raises(ValueError, match="has no group"):
        get_mutation("nasbench101")(BITS, BITS.sample(random.Random(0)), random.Random(0))
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        EachDecision({"ops": 1.5})
    for wrong in ({"sample": 2.5}, {"sample": 0}, {"population": 0}, {"dies": "best"}):
        with pytest.raises(ValueError):
            RegularizedEvolution(**wrong)  # type: ignore[arg-type]


# --- large-scale evolution


def test_of_two_the_worse_dies_and_the_better_hands_on_its_weights() -> None:
    searcher = TournamentEvolution(population=6, budget=2.0, seed=5)
    searcher.tell([Result(trial, float(trial.number)) for trial in searcher.ask(6)])
    for number in range(6, 80):
        before = {result.trial.number: result for result in searcher.population}
        (child,) = searcher.ask()
        alive = {result.trial.number for result in searcher.population}
        (dead,) = set(before) - alive
        parent = before[int(child.note["parent"])]
        assert parent.score >= before[dead].score
        assert parent.trial.number in alive
        assert child.continues == parent.trial.number
        assert child.budget == (parent.trial.budget or 0) + 2.0
        assert child.genotype in set(searcher.space.neighbors(parent.trial.genotype))
        searcher.tell([Result(child, float(number % 11))])
        assert len(searcher.population) == 6
    assert searcher.best is not None
    assert searcher.best.score == 10.0


def test_without_inheritance_every_individual_starts_from_scratch() -> None:
    searcher = TournamentEvolution(population=3, budget=2.0, inherit=False)
    trials = [tell(searcher, lambda trial: float(trial.number)) for _ in range(20)]
    assert {(trial.continues, trial.budget) for trial in trials} == {(None, 2.0)}


def test_children_under_way_do_not_shrink_the_population_for_good() -> None:
    searcher, rng = TournamentEvolution(population=10, seed=1), random.Random(0)
    under_way: list[Trial] = []
    for _ in range(200):
        under_way += searcher.ask(7 - len(under_way))
        trial = under_way.pop(rng.randrange(len(under_way)))
        failed = rng.random() < 0.2
        searcher.tell([Result.failed(trial, "no memory") if failed else Result(trial, rng.random())])
        assert len(searcher.population) + len(under_way) <= 10
    searcher.tell([Result(trial, rng.random()) for trial in under_way])
    assert len(searcher.population) >= 8


# --- what holds for every searcher of the family

FAMILY: dict[str, Callable[[], Searcher]] = {
    "aging": lambda: RegularizedEvolution(population=5, sample=2, mutate="nasbench201", seed=3),
    "growing": lambda: RegularizedEvolution(population=5, sample=0.3, dies="nobody", seed=3),
    "tournament": lambda: TournamentEvolution(population=5, budget=1.0, seed=3),
    "local": lambda: LocalSearch(seed=3),
    "local, first": lambda: LocalSearch(initial=3, first=True, seed=3),
    "NSGA-II": lambda: NSGA2(population=6, seed=3),
    "genetic": lambda: GeneticCNN(population=6, seed=3),
    "CGP": lambda: CGP(CGPSpace(3, 6, 2), seed=3),
    "hierarchical": lambda: HierarchicalEvolution(population=5, mutations=20, seed=3),
}
every = pytest.mark.parametrize("make", FAMILY.values(), ids=FAMILY)


def run(searcher: Searcher, steps: int, rng: random.Random, under_way: list[Trial], in_flight: int = 3) -> list[Trial]:
    """Ask and tell with some trials under way, in any order; a tenth fails."""
    asked = []
    for _ in range(steps):
        if len(under_way) < in_flight:
            new = searcher.ask(in_flight - len(under_way))
            asked += new
            under_way += new
        assert under_way, "nothing is pending and nothing is proposed"
        trial = under_way.pop(rng.randrange(len(under_way)))
        metrics = {"params_m": round(rng.random(), 2)}
        failed = rng.random() < 0.1
        score = round(rng.random(), 1)
        searcher.tell([Result.failed(trial, "no") if failed else Result(trial, score, metrics=metrics)])
    return asked


@every
def test_a_searcher_goes_on_where_it_was(make: Callable[[], Searcher]) -> None:
    searcher, under_way = make(), list[Trial]()
    run(searcher, 30, random.Random(1), under_way)
    file = io.BytesIO()
    torch.save(searcher.state_dict(), file)
    file.seek(0)
    resumed = make()
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert resumed.pending == searcher.pending
    first = run(searcher, 30, random.Random(2), list(under_way))
    again = run(resumed, 30, random.Random(2), list(under_way))
    assert len(first) > 15
    assert again == first
    assert searcher.state_dict() == resumed.state_dict()


@every
@pytest.mark.parametrize("in_flight", [1, 13])
def test_a_searcher_never_stops_with_any_number_under_way(make: Callable[[], Searcher], in_flight: int) -> None:
    run(make(), 80, random.Random(4), [], in_flight)


@every
def test_a_searcher_survives_that_everything_fails(make: Callable[[], Searcher]) -> None:
    searcher = make()
    for _ in range(40):
        trials = searcher.ask(2)
        assert trials
        searcher.tell([Result.failed(trial, "no") for trial in trials])
    assert searcher.failures >= 40


def test_searchers_find_the_best_of_a_smooth_table() -> None:
    space = NASBench201Space()

    def score(trial: Trial) -> float:
        return sum(choice for (choice,) in trial.genotype.picks.values())

    made = [
        RegularizedEvolution(space, 20, 10, seed=1),
        TournamentEvolution(space, 20, seed=1),
        LocalSearch(space, seed=1),
    ]
    for searcher in made:
        for _ in range(500):
            tell(searcher, score)
        assert searcher.best is not None
        assert searcher.best.score >= 22, searcher
