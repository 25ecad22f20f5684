"""What selections, regularizers and perturbations promise. A new one is covered by its line in a table."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import HardGumbel, Pairs, quiet_trainer

from lightning_nas.arch import Genotype, Sample, Support
from lightning_nas.methods import AdamTheta, DifferentiableSearch
from lightning_nas.penalties import BetaDecay, DirichletKL, Entropy, ExpectedCost, Regularizer, SquaredSize, ZeroOne
from lightning_nas.perturbations import AdversarialSmoothing, Perturbation, RandomSmoothing
from lightning_nas.relaxations import Dirichlet, Relaxation, Sigmoid, Softmax
from lightning_nas.selection import Magnitude, Selection, SkipRestriction, Threshold
from lightning_nas.spaces import NetworkSize, Space, get_space

SPACES = ["darts", "darts_no_none", "nasbench201"]
everywhere = pytest.mark.parametrize("name", SPACES)


@dataclass(frozen=True)
class Drawn:
    """A selection that draws among the open choices, to show that the protocol carries others."""

    seed: int = 0

    def pick(self, space: Space, relaxation: Relaxation) -> Genotype:
        draw = torch.Generator().manual_seed(self.seed)
        scores = {}
        for group in space.relaxed:
            mask = relaxation.support.mask(group)
            scores[group] = torch.rand(mask.shape, generator=draw).masked_fill(~mask, -torch.inf)
        return space.discretize(scores)


@dataclass(frozen=True)
class Noise:
    """Uniform noise on every weight, as in randomised smoothing."""

    eps: float

    def __call__(self, sample: Sample, loss: Callable[[Sample], Tensor]) -> Sample:
        draw = torch.Generator().manual_seed(0)
        moved = {}
        for group, weights in sample.weights.items():
            moved[group] = weights + self.eps * (2 * torch.rand(weights.shape, generator=draw).to(weights) - 1)
        return sample._replace(weights=moved)


@dataclass(frozen=True)
class Attack:
    """One step of gradient ascent on the training loss, as in adversarial smoothing."""

    eps: float

    def __call__(self, sample: Sample, loss: Callable[[Sample], Tensor]) -> Sample:
        leaves = {group: weights.clone().requires_grad_() for group, weights in sample.weights.items()}
        value = loss(sample._replace(weights=leaves))
        grads = torch.autograd.grad(value, list(leaves.values()))
        moved = {g: w + self.eps * grad.sign() for (g, w), grad in zip(leaves.items(), grads, strict=True)}
        return sample._replace(weights=moved)


SELECTIONS: dict[str, Selection] = {
    "Magnitude": Magnitude(),
    "Threshold": Threshold(0.4),
    "SkipRestriction": SkipRestriction(1),
    "toy: Drawn": Drawn(),
}
REGULARIZERS: dict[str, Regularizer] = {
    "Entropy": Entropy(0.1),
    "DirichletKL": DirichletKL(1e3),
    "BetaDecay": BetaDecay(0.1),
    "ZeroOne": ZeroOne(10.0),
    "ExpectedCost": ExpectedCost("params", 1e-3, "log"),
    "ExpectedCost of a sample": ExpectedCost("params", 1e-3, of="sample", above=1.0),
    "SquaredSize": SquaredSize(1e4),
}
PERTURBATIONS: dict[str, Perturbation] = {
    "RandomSmoothing": RandomSmoothing(0.1),
    "RandomSmoothing, exact": RandomSmoothing(0.1, projection="exact"),
    "AdversarialSmoothing": AdversarialSmoothing(0.1, steps=3),
    "AdversarialSmoothing, exact": AdversarialSmoothing(0.1, steps=3, projection="exact"),
    "toy: Noise": Noise(0.03),
    "toy: Attack": Attack(0.03),
}
RELAXATIONS = {"Softmax": Softmax, "Sigmoid": Sigmoid, "Dirichlet": Dirichlet, "toy: HardGumbel": HardGumbel}
FITTING = {
    f"{name}-{kind}": (regularizer, make)
    for name, regularizer in REGULARIZERS.items()
    for kind, make in RELAXATIONS.items()
    if name != "DirichletKL" or kind == "Dirichlet"
}


def relaxation_of(space: Space, seed: int, make: Callable[..., Relaxation] = Softmax) -> Relaxation:
    return make(space.decisions, space.relaxed, seed=seed, init_std=1.0)


def narrow(support: Support, seed: int) -> None:
    """Close a random part of each row, nodes' inputs included."""
    rng = random.Random(seed)
    for group, row, decision in list(support.rows()):
        is_open = support.open(group)[row]
        support.set_row(group, row, sorted(rng.sample(is_open, rng.randint(decision.keep, len(is_open)))))


# --- selections


@everywhere
@pytest.mark.parametrize("selection", SELECTIONS.values(), ids=SELECTIONS)
def test_a_selection_gives_a_genotype_of_the_space_and_changes_nothing(selection: Selection, name: str) -> None:
    assert isinstance(selection, Selection)
    space = get_space(name)
    for seed in range(5):
        relaxation = relaxation_of(space, seed)
        before = {key: value.clone() for key, value in relaxation.state_dict().items()}
        genotype = selection.pick(space, relaxation)
        assert space.check(genotype) is genotype
        assert selection.pick(space, relaxation) == genotype
        assert all(torch.equal(value, before[key]) for key, value in relaxation.state_dict().items())


@everywhere
@pytest.mark.parametrize("selection", list(SELECTIONS.values())[:3], ids=list(SELECTIONS)[:3])
def test_a_selection_takes_open_choices_only(selection: Selection, name: str) -> None:
    space = get_space(name)
    rows = {d.name: (group, row) for group, decisions in space.decisions.items() for row, d in enumerate(decisions)}
    for seed in range(20):
        relaxation = relaxation_of(space, seed)
        narrow(relaxation.support, seed)
        for decision, kept in selection.pick(space, relaxation).picks.items():
            group, row = rows[decision]
            assert set(kept) <= set(relaxation.support.open(group)[row]), decision


@pytest.mark.parametrize("selection", SELECTIONS.values(), ids=SELECTIONS)
def test_a_search_reads_its_genotype_with_it(selection: Selection) -> None:
    search = DifferentiableSearch("nasbench201", channels=4, cells=1, selection=selection)
    assert search.genotype() == selection.pick(search.space, search.relaxation)


# --- regularizers


@everywhere
@pytest.mark.parametrize(("regularizer", "make"), FITTING.values(), ids=FITTING)
def test_a_regularizer_is_a_finite_scalar_with_a_finite_gradient(
    regularizer: Regularizer, make: Callable[..., Relaxation], name: str
) -> None:
    """Closed choices have weight zero, where logarithms and their slopes are infinite."""
    assert isinstance(regularizer, Regularizer)
    space = get_space(name)
    regularizer = copy.deepcopy(regularizer)
    if isinstance(regularizer, ExpectedCost):
        regularizer.build(space, NetworkSize(4, 2), 8)
    if isinstance(regularizer, SquaredSize):
        regularizer.build(space, NetworkSize(4, 2))
    for seed in range(3):
        relaxation = relaxation_of(space, seed, make)
        if seed:
            narrow(relaxation.support, seed)
        value = regularizer(relaxation, relaxation())
        assert value.shape == ()
        assert bool(value.isfinite())
        grads = torch.autograd.grad(value, list(relaxation.theta.values()))
        for group, grad in zip(relaxation.theta, grads, strict=True):
            assert bool(grad.isfinite().all())
            assert bool((grad[~relaxation.support.mask(group)] == 0).all())


@pytest.mark.parametrize("regularizer", REGULARIZERS.values(), ids=REGULARIZERS)
def test_a_search_adds_a_regularizer_to_the_upper_loss_alone(regularizer: Regularizer) -> None:
    ends = []
    for terms in ((), (regularizer,)):
        torch.manual_seed(0)
        make = Dirichlet if isinstance(regularizer, DirichletKL) else Softmax
        search = DifferentiableSearch("nasbench201", make, channels=4, cells=1, regularizers=terms, order="w_first")
        fit = quiet_trainer(max_steps=1, limit_val_batches=0)
        fit.fit(search, Pairs(1))
        ends.append((search, fit))
    (plain, plain_fit), (more, more_fit) = ends
    assert all(torch.equal(a, b) for a, b in zip(plain.supernet.parameters(), more.supernet.parameters(), strict=True))
    assert not torch.equal(plain.relaxation.theta["cell"], more.relaxation.theta["cell"])
    for key in (
        "train/loss",
        "arch/loss",
    ):  # losses of different methods can be compared: what is logged has no penalty
        assert plain_fit.callback_metrics[key] == more_fit.callback_metrics[key]


# --- perturbations


@pytest.mark.parametrize("perturbation", PERTURBATIONS.values(), ids=PERTURBATIONS)
def test_a_perturbation_reaches_the_weight_step_alone(perturbation: Perturbation) -> None:
    assert isinstance(perturbation, Perturbation)
    ends = []
    for part in (None, perturbation):
        torch.manual_seed(0)
        theta = AdamTheta(lr=0.1)
        search = DifferentiableSearch("nasbench201", channels=4, cells=1, perturbation=part, theta=theta)
        quiet_trainer(max_steps=1, limit_val_batches=0).fit(search, Pairs(1))
        ends.append(search)
    plain, moved = ends
    assert torch.equal(plain.relaxation.theta["cell"], moved.relaxation.theta["cell"])
    assert not torch.equal(plain.supernet.classifier.weight, moved.supernet.classifier.weight)
    assert all(p.grad is None for p in moved.relaxation.parameters())


@pytest.mark.parametrize("name", ["toy: Attack", "AdversarialSmoothing", "AdversarialSmoothing, exact"])
def test_an_attack_raises_the_loss_that_it_is_given(name: str) -> None:
    losses: list[float] = []

    def recorded(sample: Sample, loss: Callable[[Sample], Tensor]) -> Sample:
        moved = PERTURBATIONS[name](sample, loss)
        losses.extend([loss(sample).item(), loss(moved).item()])
        return moved

    search = DifferentiableSearch("nasbench201", channels=4, cells=1, perturbation=recorded)
    fit = quiet_trainer(max_steps=1, limit_val_batches=0)
    fit.fit(search, Pairs(1))
    before, after = losses
    assert after > before
    assert fit.callback_metrics["train/loss"].item() == pytest.approx(after, rel=1e-6)


@pytest.mark.parametrize(
    "part",
    [*SELECTIONS.values(), *REGULARIZERS.values(), *PERTURBATIONS.values()],
    ids=[*SELECTIONS, *REGULARIZERS, *PERTURBATIONS],
)
def test_parts_can_be_copied_and_pickled(part: Any) -> None:
    for copied in (copy.deepcopy(part), pickle.loads(pickle.dumps(part))):
        assert type(copied) is type(part)
        assert facts(copied) == facts(part)


def facts(part: Any) -> dict[str, Any]:
    """The attributes of a part; a generator is known by its state."""
    return {
        name: value.get_state().tolist() if isinstance(value, torch.Generator) else value
        for name, value in vars(part).items()
    }
