"""Selection by what the supernet loses: planted choices, the published rules, the schedule, and a resume."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from planted import Planted, ResumablePairs, signals
from torch import Tensor
from toys import one_line, quiet_trainer

from lightning_nas.arch import Sample
from lightning_nas.callbacks import PerturbationSelection, epochs_needed
from lightning_nas.callbacks.perturbation_selection import groups_of, without
from lightning_nas.callbacks.race import merit
from lightning_nas.methods import AdamTheta, DifferentiableSearch
from lightning_nas.optimizers import SGDCosine
from lightning_nas.spaces import CellSpace, get_space
from lightning_nas.spaces.small import SmallSpace

SPACE = SmallSpace("small_sep")  # 5 edges of {skip_connect, sep_conv_3x3}; node 3 keeps two of three inputs
GAINS = torch.tensor([[0.1, 4.0], [0.1, 3.0], [0.1, 2.0], [0.1, 1.0], [0.1, 5.0]])


def planted(
    gains: Tensor = GAINS, space: CellSpace = SPACE, skip: float = 0.8, **settings: Any
) -> tuple[DifferentiableSearch, Planted]:
    """A search whose theta favours the first choice of each edge, and whose supernet the others."""
    supernet = Planted(space, dict.fromkeys(space.kinds, gains))
    settings = {"theta": AdamTheta(lr=1e-6), "w": SGDCosine(lr=1e-6)} | settings
    search = DifferentiableSearch(space, supernet=supernet, num_classes=2, **settings)
    with torch.no_grad():
        for kind in space.kinds:
            theta = search.relaxation.theta[kind]
            theta.zero_()
            theta[:, 0] = math.log(skip / (1 - skip) * (theta.shape[1] - 1))
    return search, supernet


def fit(search: DifferentiableSearch, *callbacks: L.Callback, epochs: int, batches: int = 1, **more: Any) -> L.Trainer:
    held_out = more.pop("held_out", None) or signals(4, 500)
    ckpt_path = more.pop("ckpt_path", None)
    data = ResumablePairs(batches, held_out, classes=search.num_classes)
    trainer = quiet_trainer(max_epochs=epochs, callbacks=list(callbacks), **more)
    trainer.fit(search, data, ckpt_path=ckpt_path)
    return trainer


@pytest.mark.parametrize("metric", ["acc", "loss"])
def test_it_finds_the_operation_that_counts_where_theta_favours_skips(metric: Any) -> None:
    search, _ = planted()
    favoured = {name for name, picks in search.genotype().picks.items() if "inputs" not in name and picks == (0,)}
    assert len(favoured) == 4  # all edges that magnitude keeps are skips
    selection = PerturbationSelection(0, 1, metric=metric)
    fit(search, selection, epochs=epochs_needed(SPACE, 0, 1))
    genotype = search.genotype()
    ops = {name: picks for name, picks in genotype.picks.items() if "inputs" not in name}
    assert set(ops.values()) == {(1,)}
    assert genotype.picks["normal/inputs/3"] == (0, 2)  # input 1 has the edge of least gain
    assert search.relaxation.support.resolved
    assert torch.equal(search.relaxation.mean()["normal"], torch.tensor([[0.0, 1.0]] * 5))
    assert not any(row in ops for row in ("normal/3<-1",))


def test_a_removal_leaves_the_weights_of_the_others_and_decided_edges_are_one_hot() -> None:
    search, supernet = planted()
    p = search.relaxation.mean()["normal"]
    with pytest.warns(UserWarning, match="needs 6 epochs"):
        fit(search, PerturbationSelection(0, 1, batches=1), epochs=2, limit_val_batches=1)
    tried = [sample for sample in supernet.seen if not torch.equal(sample.weights["normal"], p)]
    first, second = tried[:2]
    changed = (first.weights["normal"] != p).nonzero().tolist()
    ((row, choice),) = changed
    assert choice == 0
    assert first.weights["normal"][row].tolist() == [0.0, p[row, 1].item()]
    assert second.weights["normal"][row].tolist() == [p[row, 0].item(), 0.0]
    for sample in tried[3:]:
        assert sample.weights["normal"][row].tolist() == [0.0, 1.0]
        torch.testing.assert_close(sample.weights["normal"][row].sum(), torch.ones(()))


def test_the_scores_are_those_of_the_whole_validation_data() -> None:
    search, supernet = planted()
    selection = PerturbationSelection(0, 9)
    held_out = signals(3, 200, seed=2)
    before = search.relaxation.mean_sample()
    with pytest.warns(UserWarning, match="needs 46 epochs to decide everything, the fit has 1"):
        fit(search, selection, epochs=1, held_out=held_out)
    (entry,) = selection.history
    row = [d.name for d in SPACE.decisions["normal"]].index(entry["decision"])
    for choice, name in enumerate(("skip_connect", "sep_conv_3x3")):
        right = 0
        for x, y in held_out:
            sample = without(before, search.relaxation.support, "normal", row, choice)
            right += int((supernet(x, sample).argmax(-1) == y).sum())
        assert entry["scores"][name] == pytest.approx(right / 600)
    assert {"epoch": 0, "group": "normal", "fixed": "sep_conv_3x3"}.items() <= entry.items()


def test_of_equal_scores_the_first_operation_is_fixed_and_the_last_input_removed() -> None:
    search, _ = planted(torch.zeros(5, 2))
    fit(search, PerturbationSelection(0, 1), epochs=6)
    picks = search.genotype().picks
    assert picks["normal/inputs/3"] == (0, 1)
    assert all(kept == (0,) for name, kept in picks.items() if "inputs" not in name)


def test_the_darts_space_takes_fourteen_and_three_decisions_and_keeps_two_inputs() -> None:
    space = get_space("darts")
    assert isinstance(space, CellSpace)
    gains = 20 * torch.rand(14, 8, generator=torch.Generator().manual_seed(3)) - 10
    search, _ = planted(gains, space, skip=1 / 8)
    selection = PerturbationSelection(0, 1, metric="loss", batches=1)
    assert epochs_needed(space, 0, 1) == 17
    fit(search, selection, epochs=17, held_out=signals(1, 300), limit_val_batches=1)
    entries = {kind: [e for e in selection.history if e["group"].startswith(kind)] for kind in ("normal", "reduce")}
    for found in entries.values():
        assert [e["epoch"] for e in found if "fixed" in e] == list(range(14))
        assert len({e["decision"] for e in found if "fixed" in e}) == 14
        assert sorted({e["epoch"] for e in found if "removed" in e}) == [14, 15, 16]
        assert sum("removed" in e for e in found) == 1 + 2 + 3
        assert all(e["fixed"] != "none" for e in found if "fixed" in e)
    order = [[e["decision"].split("/")[1] for e in found if "fixed" in e] for found in entries.values()]
    assert order[0] != order[1]  # drawn independently
    support = search.relaxation.support
    assert support.resolved
    assert [len(is_open) for is_open in support.open("normal/inputs")] == [2, 2, 2, 2]
    best = [int(row[1:].argmax()) + 1 for row in gains]  # without `none`
    assert [is_open[0] for is_open in support.open("normal")] == best
    strongest = {
        node: sorted(torch.stack([gains[row, best[row]] for row in space.topology.rows_into(node)]).topk(2).indices)
        for node in range(2, 6)
    }
    assert [list(is_open) for is_open in support.open("reduce/inputs")] == [
        [int(k) for k in strongest[node]] for node in range(2, 6)
    ]
    assert search.genotype().picks["reduce/inputs/5"] == support.open("reduce/inputs")[3]


@pytest.mark.parametrize("relax_inputs", [False, True], ids=["edges", "edges and inputs"])
def test_relaxed_inputs_are_decided_too(relax_inputs: bool) -> None:
    search, supernet = planted(relax_inputs=relax_inputs)
    fit(search, PerturbationSelection(0, 1), epochs=6)
    assert search.genotype().picks["normal/inputs/3"] == (0, 2)
    cut = [s for s in supernet.seen if (s.open("normal") or ((),))[0] == (1,)][-1]
    assert ("normal/inputs" in cut.weights) == relax_inputs


def test_a_real_supernet_and_a_space_of_one_group() -> None:
    search = DifferentiableSearch("nasbench201", channels=4, cells=1)
    selection = PerturbationSelection(0, 1)
    fit(search, selection, epochs=6, held_out=ResumablePairs(1).held_out)
    assert len(selection.history) == 6
    assert search.relaxation.support.resolved
    assert search.genotype() == search.relaxation.support.genotype("nasbench201")
    x = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(
        search(x), search.supernet(x, search.space.vertex(search.genotype())), rtol=1e-4, atol=1e-5
    )


def test_the_supernet_is_evaluated_without_dropout_and_leaves_no_trace() -> None:
    """Global generators, modes and gradients are what they would be without a decision."""
    search = DifferentiableSearch(SPACE, channels=4, cells=3)
    for cell in search.supernet.blocks:  # type: ignore[union-attr]
        cell.skip_dropout = 0.5
    held_out = ResumablePairs(1).held_out
    compared: list[tuple[dict[str, float], dict[str, float]]] = []

    class Around(PerturbationSelection):
        def at_epoch(self, *args: Any) -> None:
            before, state = search.relaxation.mean_sample(), torch.get_rng_state()
            super().at_epoch(*args)
            assert torch.equal(torch.get_rng_state(), state)
            assert all(module.training for module in search.supernet.modules())
            (entry,) = self.history
            row = [d.name for d in SPACE.decisions["normal"]].index(entry["decision"])
            expected = {}
            for choice, name in enumerate(SPACE.decisions["normal"][row].choices):
                sample = without(before, search.relaxation.support, "normal", row, choice)
                ((x, y),) = held_out
                with torch.no_grad():
                    expected[name] = torch.nn.functional.cross_entropy(search.supernet.eval()(x, sample), y).item()
            search.supernet.train()
            compared.append((entry["scores"], expected))

    with pytest.warns(UserWarning, match="needs"):
        fit(search, Around(0, 9, metric="loss"), epochs=1, held_out=held_out)
    ((scores, expected),) = compared
    assert scores == pytest.approx(expected, rel=1e-5)


# --- the race


def harmful(batches: int = 64) -> tuple[DifferentiableSearch, Planted, list[tuple[Tensor, Tensor]]]:
    gains = torch.zeros(14, 8)
    gains[:, 1:] = torch.linspace(-60.0, 60.0, 7)
    space = get_space("darts")
    assert isinstance(space, CellSpace)
    return *planted(gains, space, skip=1 / 8), signals(batches, 50, seed=5)


@pytest.mark.parametrize("metric", ["acc", "loss"])
def test_a_race_makes_the_same_choice_with_fewer_evaluations(metric: Any) -> None:
    found, cost = [], []
    for race in (False, True):
        search, supernet, held_out = harmful()
        selection = PerturbationSelection(0, 99, metric=metric, race=race)
        with pytest.warns(UserWarning, match="needs"):
            fit(search, selection, epochs=1, held_out=held_out)
        found.append([(e["decision"], e["fixed"]) for e in selection.history])
        cost.append(len(supernet.seen) - len(held_out))  # those of the validation itself
    assert found[0] == found[1] == [(name, "dil_conv_5x5") for name, _ in found[0]]
    assert cost[0] == 2 * 7 * 64
    assert cost[1] < 0.7 * cost[0]


def test_a_race_between_equals_reads_all_data_and_ends_as_without() -> None:
    found = []
    for race in (False, True):
        search, _ = planted(torch.zeros(5, 2))
        selection = PerturbationSelection(0, 1, race=race)
        fit(search, selection, epochs=6, held_out=signals(5, 40))
        found.append(selection.history)
    assert found[0] == found[1]


def test_merit_is_accuracy_or_minus_cross_entropy() -> None:
    logits, y = torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 3.0]]]), torch.tensor([1, 1])
    assert merit(logits, y, "acc").tolist() == [[0.0, 1.0], [0.0, 1.0]]
    expected = logits.log_softmax(-1)[..., 1]
    torch.testing.assert_close(merit(logits, y, "loss"), expected)


# --- the schedule


class Rates(L.Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []
        self.theta: list[Tensor] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.theta.append(torch.cat([t.detach().flatten().clone() for t in pl_module.relaxation.theta.values()]))


def cosine(lr: float, low: float, epoch: int, epochs: int) -> float:
    return low + (lr - low) * (1 + math.cos(math.pi * epoch / epochs)) / 2


def test_the_rate_follows_its_cosine_to_the_first_decision_and_then_stays_at_a_tenth() -> None:
    search, rates = planted(w=SGDCosine(lr=0.02, lr_min=0.001))[0], Rates()
    trainer = fit(search, PerturbationSelection(3, 1), rates, epochs=9)
    assert rates.seen == pytest.approx([cosine(0.02, 0.001, e, 3) for e in range(3)] + [0.002] * 6)
    assert trainer.global_step == 9


def test_theta_goes_on_unless_it_is_fixed() -> None:
    for fixed in (False, True):
        search, rates = planted(theta=AdamTheta(lr=1e-3))[0], Rates()
        with pytest.warns(UserWarning, match="needs"):
            fit(search, PerturbationSelection(1, 1, fixed_alpha=fixed), rates, epochs=3)
        assert all(torch.equal(a, rates.theta[0]) for a in rates.theta) == fixed


def test_decisions_come_at_the_first_batch_of_every_nth_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    search, _ = planted()
    selection = PerturbationSelection(2, 3)
    assert epochs_needed(SPACE, 2, 3) == 2 + 5 * 3 + 1
    fit(search, selection, epochs=18, batches=2)
    assert [entry["epoch"] for entry in selection.history] == [2, 5, 8, 11, 14, 17]
    out = capsys.readouterr().out
    for entry in selection.history:
        done, choice = ("fixed", entry["fixed"]) if "fixed" in entry else ("removed", entry["removed"])
        assert f"pt/decision {entry['decision']}: {done} {choice}; acc without" in out


@pytest.mark.parametrize("step", [2, 3, 5], ids=["before a decision", "at the end of an epoch", "after a decision"])
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.filterwarnings("ignore:PerturbationSelection needs")
def test_a_resumed_fit_makes_the_same_decisions(step: int, tmp_path: Path) -> None:
    def parts(seed: int) -> tuple[DifferentiableSearch, PerturbationSelection]:
        torch.manual_seed(seed)
        return DifferentiableSearch("nasbench201", channels=4, cells=1, seed=seed), PerturbationSelection(1, 1)

    saved = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    held_out = ResumablePairs(1).held_out
    whole, first = parts(0)
    fit(whole, first, saved, epochs=4, batches=3, held_out=held_out, enable_checkpointing=True)
    resumed, second = parts(1)
    path = tmp_path / f"step={step}.ckpt"
    fit(resumed, second, epochs=4, batches=3, held_out=held_out, ckpt_path=path)
    assert len(first.history) == 3
    assert first.history == second.history
    for (name, one), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    kept = torch.load(path, weights_only=True)["callbacks"]["PerturbationSelection"]["history"]
    assert kept == first.history[: int(step > 3)]


# --- what it needs


def test_it_needs_validation_data() -> None:
    with pytest.raises(ValueError) as error:
        fit(planted()[0], PerturbationSelection(0, 1), epochs=1, limit_val_batches=0)
    one_line(error.value, "PerturbationSelection", "val_dataloader", "limit_val_batches")


def test_validation_data_is_loaded_even_if_validation_is_rare() -> None:
    search, _ = planted()
    fit(search, PerturbationSelection(0, 1), epochs=6, check_val_every_n_epoch=6)
    assert search.relaxation.support.resolved


def test_groups_are_told_apart() -> None:
    assert groups_of(get_space("darts")) == (["normal", "reduce"], ["normal/inputs", "reduce/inputs"])
    assert groups_of(get_space("nasbench201")) == (["cell"], [])
    ops, inputs = groups_of(get_space("nasbench1shot1_1"))
    assert (ops, sorted(inputs)) == (["ops"], ["inputs", "output"])


def test_without_an_input_that_has_no_weight() -> None:
    support = DifferentiableSearch(SPACE, channels=4, cells=1).relaxation.support
    sample = without(Sample({}), support, "normal/inputs", 1, 1)
    assert sample.active == {"normal/inputs": ((0, 1), (0, 2))}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"start_epoch": -1}, ("start_epoch=-1", "negative")),
        ({"start_epoch": 1, "every_n_epochs": 0}, ("every_n_epochs=0", "positive")),
        ({"start_epoch": 1, "batches": 0}, ("batches=0", "positive")),
        ({"start_epoch": 1, "metric": "f1"}, ("'f1'", "'acc'", "'loss'")),
    ],
)
def test_bad_arguments(settings: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as error:
        PerturbationSelection(**settings)
    one_line(error.value, *words)
