"""Few-shot supernets: one supernet for each choice of a decision."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_nas.arch import Decisions, Sample

__all__ = ["FewShotSupernet"]


class FewShotSupernet(nn.Module):
    """A supernet that splits into one part for each choice of a decision; a sample runs in the part that owns it.

    Before the split the first part serves all samples; `split` gives every part its weights. All parts are there from
    the start, so optimisers and checkpoints stay valid. Since it is called as any supernet, paths train the part they
    belong to, and whatever evaluates genotypes in a supernet asks the right part.

    Reference: Zhao, Wang, Tian, Fonseca and Guo, "Few-shot Neural Architecture Search", ICML 2021.

    Args:
        supernet: The one-shot supernet; it becomes the first part.
        decisions: The decisions of its space.
        group: The group of the decision that is split.
        row: Its row.

    Attributes:
        parts: One supernet for each choice.
        is_split: Whether the parts have their own weights.

    Raises:
        ValueError: If there is no such decision.

    Example:
        >>> import random
        >>> from lightning_nas.spaces import get_space
        >>> from lightning_nas.supernet import build_supernet
        >>> space = get_space("nasbench201")
        >>> supernet = FewShotSupernet(build_supernet(space, channels=4, cells=1), space.decisions, "cell", 0)
        >>> len(supernet.parts), supernet(torch.zeros(2, 3, 8, 8), space.vertex(space.sample(random.Random(0)))).shape
        (5, torch.Size([2, 10]))
    """

    split_flag: Tensor

    def __init__(self, supernet: nn.Module, decisions: Decisions, group: str, row: int) -> None:
        super().__init__()
        if group not in decisions or not 0 <= row < len(decisions[group]):
            sizes = {name: len(rows) for name, rows in decisions.items()}
            raise ValueError(f"there is no row {row} of group {group!r}; the groups have so many rows: {sizes}")
        self.group, self.row, self.rows = group, row, decisions[group]
        self.decision = self.rows[row]
        self.reductions = getattr(supernet, "reductions", 0)
        others = [copy.deepcopy(supernet) for _ in self.decision.choices[1:]]
        self.parts = nn.ModuleList([supernet, *others])
        self.register_buffer("split_flag", torch.tensor(False))
        self._is_split: bool | None = None

    @property
    def is_split(self) -> bool:
        """Whether the parts have their own weights (kept, so that reading it never waits for a device)."""
        if self._is_split is None:
            self._is_split = bool(self.split_flag)
        return self._is_split

    def forward(self, x: Tensor, sample: Sample) -> Tensor:
        """Pictures ``(N, C, H, W)`` -> logits ``(N, classes)``, from the part that owns the sample.

        Of a mixture over the decision that is split, the logits of the parts are mixed in its place.
        """
        choices = self.parts_of(sample)
        if len(choices) == 1:
            logits: Tensor = self.parts[choices[0]](x, sample)
            return logits
        weights = sample.weights[self.group][self.row]
        return torch.stack([weights[k] * self.parts[k](x, self._fixed(sample, k)) for k in choices]).sum(dim=0)

    def parts_of(self, sample: Sample) -> tuple[int, ...]:
        """The parts in which a sample runs: one, unless it mixes the choices that the supernet is split on."""
        if not self.is_split:
            return (0,)
        active = sample.open(self.group)
        choices = active[self.row] if active is not None else tuple(range(len(self.decision.choices)))
        if len(choices) > 1 and self.group not in sample.weights:
            raise ValueError(f"the sample gives no weights for the choices {choices} of {self.decision.name!r}")
        return choices or (0,)  # an edge that is not kept: any part would do

    def _fixed(self, sample: Sample, choice: int) -> Sample:
        """The sample with the decision that is split taken."""
        weights = sample.weights[self.group].clone()
        weights[self.row] = 0.0
        weights[self.row, choice] = 1.0
        rows = sample.open(self.group) or tuple(tuple(range(len(row.choices))) for row in self.rows)
        rows = tuple((choice,) if index == self.row else row for index, row in enumerate(rows))
        return sample._replace(
            weights={**sample.weights, self.group: weights}, active={**(sample.active or {}), self.group: rows}
        )

    @torch.no_grad()
    def split(self, optimizer: Optimizer | None = None) -> None:
        """Give every part the weights of the first, and the optimiser's momentum of them.

        Args:
            optimizer: The optimiser of all parts' weights.
        """
        if self.is_split:
            return
        first = dict(self.parts[0].named_parameters())
        for part in self.parts[1:]:
            part.load_state_dict(self.parts[0].state_dict())
            for name, weight in part.named_parameters():
                state = {} if optimizer is None else optimizer.state.get(first[name], {})
                if optimizer is not None and state:
                    optimizer.state[weight] = {
                        key: value.clone() if isinstance(value, Tensor) else value for key, value in state.items()
                    }
        self.split_flag.fill_(True)
        self._is_split = True

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._is_split = None
