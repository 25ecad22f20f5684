"""BOHB: the density against sums by hand, its sampler against the kernel, the split, and a toy it must solve."""

from __future__ import annotations

import itertools
import random
from statistics import fmean

import numpy as np
import pytest
from scipy.stats import chisquare

from lightning_nas.arch import Decision, Genotype
from lightning_nas.query import Result, Searcher, Trial
from lightning_nas.query.searchers.bohb import BOHB, KDESampler
from lightning_nas.query.searchers.hyperband import Hyperband
from lightning_nas.query.searchers.kde import CategoricalKDE, Variables
from lightning_nas.spaces import SPACES, get_space
from lightning_nas.spaces.independent import IndependentSpace


class Bits(IndependentSpace):
    """Binary decisions."""

    def __init__(self, n: int = 12) -> None:
        super().__init__("toy_bits", {"bits": tuple(Decision(f"bits/{k:02}", ("0", "1")) for k in range(n))})

    def canonical(self, genotype: Genotype) -> Genotype:
        return genotype

    def format(self, genotype: Genotype) -> str:
        return "".join(str(bit) for (bit,) in self.check(genotype).picks.values())

    def parse(self, text: str) -> Genotype:
        return self.from_indices([int(bit) for bit in text])

    graphs = None  # type: ignore[assignment]


Bits.__abstractmethods__ = frozenset()


def ones(genotype: Genotype) -> int:
    return sum(bit for (bit,) in genotype.picks.values())


CHOICES = (2, 3, 5)
GRID = np.array(list(itertools.product(*map(range, CHOICES))))


def some_data(n: int = 12, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(c, size=n) for c in CHOICES], axis=1)


def density(point: np.ndarray, data: np.ndarray, bandwidth: np.ndarray) -> float:
    """The definition, term by term."""
    total = 0.0
    for datum in data:
        product = 1.0
        for x, y, h, c in zip(point, datum, bandwidth, CHOICES, strict=True):
            product *= 1 - h if x == y else h / (c - 1)
        total += product
    return total / len(data)


# --- the density


def test_bandwidth_is_the_normal_reference() -> None:
    data = some_data(40)
    expected = [1.06 * np.std(data[:, j]) * 40 ** (-1 / 7) for j in range(3)]
    assert CategoricalKDE(data, CHOICES, bounded=False).bandwidth == pytest.approx(expected)
    assert CategoricalKDE(data, CHOICES, 0.6, bounded=False).bandwidth == pytest.approx(np.maximum(expected, 0.6))
    assert (CategoricalKDE(data, CHOICES).bandwidth <= [1 / 2, 2 / 3, 4 / 5]).all()


@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("n", [4, 12, 300])
def test_density_against_a_sum_by_hand(n: int, bounded: bool) -> None:
    data = some_data(n)
    kde = CategoricalKDE(data, CHOICES, 0.05, bounded)
    assert kde.pdf(GRID) == pytest.approx([density(point, data, kde.bandwidth) for point in GRID], abs=1e-12)
    assert kde.pdf(GRID).sum() == pytest.approx(1.0)


def test_density_of_many_points_is_computed_in_parts() -> None:
    data = some_data(9000)
    kde, points = CategoricalKDE(data, CHOICES), np.tile(GRID, (3, 1))
    assert kde.pdf(points)[[0, 31, 89]] == pytest.approx([kde.pdf(points[[i]])[0] for i in (0, 31, 89)])


def test_bound_keeps_the_density_positive() -> None:
    data = np.array([[k % 2, k % 3, 4 * (k % 2)] for k in range(4)])
    assert (CategoricalKDE(data, CHOICES, bounded=False).pdf(GRID) < 0).any()
    assert (CategoricalKDE(data, CHOICES).pdf(GRID) > 0).all()


def test_a_value_that_was_never_seen_has_a_density() -> None:
    kde = CategoricalKDE(np.zeros((5, 3), dtype=np.int64), CHOICES)
    assert kde.bandwidth == pytest.approx([1e-3] * 3)
    assert kde.pdf(np.array([[1, 2, 4]])) == pytest.approx([1e-3 * 5e-4 * 2.5e-4])


@pytest.mark.parametrize("low", [1e-3, 0.3])
def test_draws_against_the_kernel(low: float) -> None:
    """The released sampler is the kernel of bandwidth h (c - 1) / c around each datum."""
    data = some_data(15, seed=1)
    kde = CategoricalKDE(data, CHOICES, low)
    narrow = kde.bandwidth * (np.array(CHOICES) - 1) / np.array(CHOICES)
    expected = np.array([density(point, data, narrow) for point in GRID])
    drawn = kde.sample(20_000, np.random.default_rng(0))
    cells = np.ravel_multi_index(tuple(drawn.T), CHOICES)
    observed = np.bincount(cells, minlength=len(GRID))
    assert chisquare(observed, 20_000 * expected).pvalue > 1e-3
    wide = np.array([density(point, data, kde.bandwidth) for point in GRID])
    assert chisquare(observed, 20_000 * wide).pvalue < 1e-6  # the test would notice the wrong bandwidth


# --- genotypes as vectors


@pytest.mark.parametrize("name", SPACES)
def test_vectors_of_every_space(name: str) -> None:
    """A genotype comes back from its vector, and any vector comes to a genotype."""
    space, rng = get_space(name), random.Random(0)
    variables = Variables(space)
    for _ in range(5):
        genotype = space.sample(rng)
        codes = variables.codes(genotype, rng)
        assert all(0 <= code < c for code, c in zip(codes, variables.choices, strict=True))
        assert variables.genotype(codes, rng) == genotype
        found = variables.genotype(tuple(rng.randrange(c) for c in variables.choices), rng)
        assert found is None or space.check(found)


def test_dependent_decisions_are_repaired_near_the_vector() -> None:
    space, rng = get_space("darts"), random.Random(0)
    variables = Variables(space)
    assert len(variables.choices) == 34  # two nodes have only two inputs to keep
    genotype = space.sample(rng)
    codes = list(variables.codes(genotype, rng))
    names = [row.name for rows in space.decisions.values() for row in rows if len(row.choices) != row.keep]
    at = names.index("normal/inputs/5")
    codes[at] = (codes[at] + 1) % variables.choices[at]
    moved = variables.genotype(tuple(codes), rng)
    assert moved is not None
    assert moved.picks["normal/inputs/5"] != genotype.picks["normal/inputs/5"]
    changed = {n for n in set(moved.picks) | set(genotype.picks) if moved.picks.get(n) != genotype.picks.get(n)}
    assert all(n.startswith(("normal/inputs/5", "normal/5<-")) for n in changed)


# --- the sampler


def taught(results: list[tuple[tuple[int, ...], float, float]], n: int = 2, **settings: float) -> KDESampler:
    """A sampler that has learned (bits, budget, score)."""
    space = Bits(n)
    sampler = KDESampler(space, **{"random_fraction": 0.0, **settings})  # type: ignore[arg-type]
    for number, (bits, budget, score) in enumerate(results):
        sampler.learn(Trial(number, space.from_indices(bits), budget), score)
    return sampler


def test_split_of_good_and_bad() -> None:
    rng = random.Random(0)
    results = [(tuple(rng.randrange(2) for _ in range(5)), 3.0, rng.random()) for _ in range(100)]
    model = taught(results, 5).model()
    assert model is not None
    ranked = [list(bits) for bits, _, _ in sorted(results, key=lambda r: -r[2])]
    assert model[0].data.tolist() == ranked[:15]
    assert model[1].data.tolist() == ranked[15:100]
    few = taught(results[:13], 5).model()
    assert few is not None
    assert [len(part.data) for part in few] == [6, 7]  # at least d + 1 good ones; the bad ones are what is left
    assert taught(results[:11], 5).model() is None


def test_model_is_of_the_largest_budget_with_enough() -> None:
    low = [((0, 0), 1.0, float(k)) for k in range(20)]
    high = [((1, 1), 9.0, float(k)) for k in range(6)]
    few = taught(low + high[:5]).model()
    full = taught(low + high).model()
    assert few is not None
    assert full is not None
    assert (few[0].data == 0).all()
    assert (full[0].data == 1).all()


def test_failures_are_the_worst() -> None:
    results = [((1, 1), 1.0, -np.inf), *[((0, k % 2), 1.0, float(k)) for k in range(5)]]
    model = taught(results).model()
    assert model is not None
    assert [1, 1] not in model[0].data.tolist()
    assert model[1].data.tolist()[-1] == [1, 1]


def test_proposes_the_largest_ratio() -> None:
    """Of so many draws that every point is among them."""
    rng = random.Random(5)
    results = [(tuple(rng.randrange(2) for _ in range(3)), 1.0, rng.random()) for _ in range(30)]
    sampler = taught(results, 3, samples=500)
    model = sampler.model()
    assert model is not None
    grid = np.array(list(itertools.product((0, 1), repeat=3)))
    best = grid[(model[0].pdf(grid) / model[1].pdf(grid)).argmax()]
    for seed in range(5):
        assert [bit for (bit,) in sampler(random.Random(seed)).picks.values()] == best.tolist()


def test_random_fraction() -> None:
    """With the model certain of one point, other points are uniform draws."""
    results = [((1, 1), 1.0, 1.0)] * 3 + [((0, 0), 1.0, 0.0)] * 3
    sampler, rng = taught(results, random_fraction=1 / 3), random.Random(0)
    share = fmean(ones(sampler(rng)) < 2 for _ in range(3000))
    assert share == pytest.approx(1 / 3 * 3 / 4, abs=0.03)


@pytest.mark.parametrize(
    "wrong", [{"samples": 0}, {"random_fraction": 1.5}, {"top": 1.0}, {"min_bandwidth": 0.0}, {"min_bandwidth": 1.0}]
)
def test_wrong_settings_of_bohb(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="give at least one sample"):
        BOHB("nasbench201", 1, 9, **wrong)  # type: ignore[arg-type]


def search(searcher: Searcher, trials: int) -> tuple[float, float]:
    """Ones of the best genotype, and the mean over the new ones of the second half."""
    new = []
    for number in range(trials):
        (trial,) = searcher.ask()
        if trial.continues is None and number >= trials // 2:
            new.append(ones(trial.genotype))
        searcher.tell([Result(trial, float(ones(trial.genotype)))])
    return float(ones(searcher.genotype())), fmean(new)


@pytest.mark.parametrize("settings", [{}, {"samples": 4, "random_fraction": 0.0, "min_bandwidth": 0.3}])
def test_bohb_beats_random_draws(settings: dict[str, float]) -> None:
    """Twelve bits, as many ones as possible: better by half a one in the best and 1.5 ones in what is proposed."""
    space = Bits()
    found = [search(BOHB(space, 1, 9, seed=seed, **settings), 250) for seed in range(10)]  # type: ignore[arg-type]
    plain = [search(Hyperband(space, 1, 9, rule="hpbandster", seed=seed), 250) for seed in range(10)]
    assert fmean(best for best, _ in found) >= fmean(best for best, _ in plain) + 0.5
    assert fmean(mean for _, mean in found) >= fmean(mean for _, mean in plain) + 1.5
