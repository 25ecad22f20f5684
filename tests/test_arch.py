"""The vocabulary: decisions, genotypes, samples, supports."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from lightning_nas.arch import Bilevel, Decision, Genotype, Sample, Support

DECISIONS = {
    "cell": (Decision("a", ("skip", "conv", "pool")), Decision("b", ("skip", "conv"))),
    "inputs": (Decision("c", ("0", "1", "2"), keep=2),),
}


@pytest.mark.parametrize(
    ("choices", "keep", "words"),
    [
        (("a", "a"), 1, "repeats"),
        (("a", "b"), 0, "keeps 0 of 2"),
        (("a", "b"), 3, "keeps 3 of 2"),
        ((), 1, "keeps 1 of 0"),
    ],
)
def test_a_decision_refuses_what_cannot_be_decided(choices: tuple[str, ...], keep: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Decision("x", choices, keep)


def test_genotypes_are_values() -> None:
    one = Genotype("toy", {"b": (2, 0), "a": (1,)})
    same = Genotype("toy", {"a": [1], "b": [0, 2]})  # type: ignore[dict-item]
    assert one == same
    assert hash(one) == hash(same)
    assert len({one, same, Genotype("toy", {"a": (0,), "b": (0, 2)}), Genotype("other", one.picks)}) == 3
    assert one != "toy"


def test_genotypes_travel() -> None:
    genotype = Genotype("toy", {"a": (1,), "b": (0, 2)})
    for copied in (pickle.loads(pickle.dumps(genotype)), copy.deepcopy(genotype), copy.copy(genotype)):
        assert copied == genotype
        assert hash(copied) == hash(genotype)


def test_genotypes_cannot_be_changed() -> None:
    source = {"a": (1,)}
    genotype = Genotype("toy", source)
    source["a"] = (0,)
    assert genotype.picks["a"] == (1,)
    with pytest.raises(TypeError):
        genotype.picks["a"] = (0,)  # type: ignore[index]
    with pytest.raises(AttributeError):
        genotype.space = "other"  # type: ignore[misc]


def test_a_detached_sample_carries_no_gradient_and_the_same_choices() -> None:
    weight, log_prob = torch.rand(2, 3, requires_grad=True), torch.rand((), requires_grad=True)
    sample = Sample({"cell": weight}, {"cell": ((0,), (1, 2))}, log_prob)
    cut = sample.detach()
    assert not cut.weights["cell"].requires_grad
    assert cut.log_prob is not None
    assert not cut.log_prob.requires_grad
    assert torch.equal(cut.weights["cell"], weight)
    assert cut.open("cell") == ((0,), (1, 2))
    assert cut.open("other") is None
    assert Sample({}).open("cell") is None


def test_a_support_begins_open_with_short_rows_padded() -> None:
    support = Support(DECISIONS)
    assert support.mask("cell").tolist() == [[True, True, True], [True, True, False]]
    assert support.open("cell") == ((0, 1, 2), (0, 1))
    assert support.active() is None
    assert not support.resolved
    assert [(g, r, d.name) for g, r, d in support.rows()] == [("cell", 0, "a"), ("cell", 1, "b"), ("inputs", 0, "c")]


def test_dropping_and_fixing_narrow_a_support_to_a_genotype() -> None:
    support = Support(DECISIONS)
    support.drop("cell", 0, 1)
    assert support.active() == {"cell": ((0, 2), (0, 1))}
    with pytest.raises(ValueError, match="3 decisions are still open"):
        support.genotype("toy")
    support.drop("cell", 0, 0)
    support.fix("cell", 1, 0)
    support.fix("inputs", 0, 2, 0)
    assert support.resolved
    assert support.genotype("toy") == Genotype("toy", {"a": (2,), "b": (0,), "c": (0, 2)})
    assert support.mask("inputs").tolist() == [[True, False, True]]


def test_a_support_refuses_to_lose_its_last_choices() -> None:
    support = Support(DECISIONS)
    support.fix("cell", 0, 1)
    for wrong, words in (
        (lambda: support.drop("cell", 0, 0), "is not open"),
        (lambda: support.drop("cell", 1, 2), "is not open"),
        (lambda: support.drop("cell", 0, 1), "left to drop"),
        (lambda: support.fix("cell", 0, 0), "of the open"),
        (lambda: support.fix("inputs", 0, 1), "keeps 2"),
        (lambda: support.fix("inputs", 0, 1, 1), "keeps 2"),
    ):
        with pytest.raises(ValueError, match=words):
            wrong()
    assert support.open("cell") == ((1,), (0, 1))


def test_a_support_returns_from_its_state() -> None:
    narrowed, fresh = Support(DECISIONS), Support(DECISIONS)
    narrowed.drop("cell", 0, 1)
    narrowed.fix("inputs", 0, 1, 2)
    assert fresh.open("cell") == ((0, 1, 2), (0, 1))  # read once, so that a kept value would be seen below
    fresh.load_state_dict(narrowed.state_dict())
    assert fresh.open("cell") == narrowed.open("cell") == ((0, 2), (0, 1))
    assert fresh.active() == narrowed.active()
    copied = copy.deepcopy(fresh)
    copied.drop("cell", 0, 0)
    assert fresh.open("cell")[0] == (0, 2)


def test_a_bilevel_problem_differentiates_both_ways() -> None:
    w, theta = torch.tensor([3.0], requires_grad=True), torch.tensor([2.0], requires_grad=True)

    def val_loss(weights: object) -> torch.Tensor:
        return ((w if weights is None else weights[0]) * theta).sum()  # type: ignore[index]

    problem = Bilevel(lambda _: (w - theta).square().sum(), val_loss, [w], [theta])
    assert torch.autograd.grad(problem.train_loss(None), problem.w)[0].item() == 2.0
    assert torch.autograd.grad(problem.val_loss([torch.tensor([5.0])]), problem.theta)[0].item() == 5.0
