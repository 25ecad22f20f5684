"""A split supernet: each sample runs in the part that owns it, and starts from the one-shot weights."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import Pairs, quiet_trainer

from lightning_nas.arch import Sample
from lightning_nas.callbacks import FewShotSplit
from lightning_nas.methods import DifferentiableSearch, FewShotNAS
from lightning_nas.relaxations import Softmax, UniformPath
from lightning_nas.spaces import get_space
from lightning_nas.supernet import FewShotSupernet, build_supernet

SPACE = get_space("nasbench201")


def few_shot(group: str = "cell", row: int = 0) -> FewShotSupernet:
    torch.manual_seed(0)
    return FewShotSupernet(build_supernet(SPACE, channels=4, cells=1), SPACE.decisions, group, row)


def vertices() -> list[Sample]:
    rng = random.Random(0)
    return [SPACE.vertex(SPACE.sample(rng)) for _ in range(12)]


def pictures() -> Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_before_the_split_all_samples_run_in_the_first_part() -> None:
    supernet = few_shot()
    for sample in vertices():
        assert torch.equal(supernet(pictures(), sample), supernet.parts[0](pictures(), sample))


def test_a_split_changes_no_output_and_then_every_part_learns_alone() -> None:
    supernet, x = few_shot(), pictures()
    before = [supernet(x, sample) for sample in vertices()]
    supernet.split()
    for sample, logits in zip(vertices(), before, strict=True):
        assert torch.equal(supernet(x, sample), logits)
    sample = vertices()[0]
    (owner,) = supernet.parts_of(sample)
    supernet(x, sample).sum().backward()
    reached = [any(p.grad is not None for p in part.parameters()) for part in supernet.parts]
    assert reached == [index == owner for index in range(5)]
    with torch.no_grad():
        nn.utils.vector_to_parameters(
            torch.zeros(sum(p.numel() for p in supernet.parts[owner].parameters())),
            supernet.parts[owner].parameters(),
        )
    for other, logits in zip(vertices(), before, strict=True):
        assert torch.equal(supernet(x, other), logits) == (supernet.parts_of(other) != (owner,))


def test_a_split_copies_momentum_and_is_kept_in_the_state() -> None:
    supernet = few_shot()
    optimizer = torch.optim.SGD(supernet.parameters(), 0.1, momentum=0.9)
    supernet(pictures(), vertices()[0]).sum().backward()
    optimizer.step()
    supernet.split(optimizer)
    for (name, weight), other in zip(supernet.parts[0].named_parameters(), supernet.parts[3].parameters(), strict=True):
        own, copied = optimizer.state[weight].get("momentum_buffer"), optimizer.state[other].get("momentum_buffer")
        assert (own is None) == (copied is None), name
        assert own is None or (torch.equal(own, copied) and own.data_ptr() != copied.data_ptr())
    again = few_shot()
    again.load_state_dict(supernet.state_dict())
    assert again.is_split


def test_a_mixture_over_the_split_decision_mixes_the_logits_of_the_parts() -> None:
    supernet, relaxation = few_shot(), Softmax(SPACE.decisions, SPACE.relaxed, init_std=1.0)
    supernet.split()
    for number, part in enumerate(supernet.parts):  # make the parts differ
        with torch.no_grad():
            part.classifier.bias.fill_(float(number))
    sample = relaxation()
    total = torch.zeros(4, 10)
    for choice, part in enumerate(supernet.parts):
        alone = copy.deepcopy(relaxation)
        alone.support.fix("cell", 0, choice)
        total = total + sample.weights["cell"][0, choice] * part(pictures(), alone())
    torch.testing.assert_close(supernet(pictures(), sample), total, rtol=1e-5, atol=1e-6)
    (grad,) = torch.autograd.grad(supernet(pictures(), sample).square().sum(), list(relaxation.theta.values()))
    assert bool((grad.abs().sum(dim=1) > 0).all())
    relaxation.support.fix("cell", 0, 3)
    assert torch.equal(supernet(pictures(), relaxation()), supernet.parts[3](pictures(), relaxation()))


@pytest.mark.parametrize(("group", "row"), [("cell", 6), ("cell", -1), ("other", 0)])
def test_a_decision_that_is_not_there_is_refused(group: str, row: int) -> None:
    with pytest.raises(ValueError, match="there is no row"):
        few_shot(group, row)


def test_the_callback_splits_at_its_epoch() -> None:
    seen: list[tuple[int, bool]] = []

    class Look(FewShotSplit):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
            seen.append((trainer.current_epoch, pl_module.supernet.is_split))

    search = DifferentiableSearch(SPACE, relaxation=UniformPath, hypergradient=None, supernet=few_shot())
    quiet_trainer(max_epochs=3, limit_val_batches=0, callbacks=[Look(epoch=2)]).fit(search, Pairs(2))
    assert seen == [(0, False), (0, False), (1, False), (1, False), (2, True), (2, True)]
    with pytest.raises(ValueError, match="must not be negative"):
        FewShotSplit(epoch=-1)
    with pytest.raises(ValueError, match="use FewShotNAS"):
        quiet_trainer(max_epochs=1, callbacks=[FewShotSplit(0)]).fit(DifferentiableSearch(SPACE, channels=4), Pairs(1))


def test_the_search_knows_the_size_of_its_supernet() -> None:
    """Costs are those of networks of this size."""
    search = FewShotNAS(SPACE, channels=4, cells=1)
    assert (search.hparams["channels"], search.hparams["cells"]) == (4, 1)
