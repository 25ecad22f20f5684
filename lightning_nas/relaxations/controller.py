"""The recurrent controller of ENAS."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.arch import Decisions, Sample
from lightning_nas.metrics import entropy
from lightning_nas.relaxations import paths
from lightning_nas.relaxations.base import Relaxation

__all__ = ["Controller"]


class Controller(Relaxation):
    r"""An LSTM takes every decision, one after another, knowing those before; what it draws is one path of weight one.

    No gradient goes through the weights: the controller is trained on `log_prob` by `ScoreFunction`. In each step the
    LSTM reads the embedding of the last choice (the mean, where several are kept) and gives the logits `l` of the next
    decision, brought to :math:`c \tanh(l / T)`. Groups with the same candidates share embedding and output layer; a
    row sees the part of it that belongs to its own candidates. The defaults are those of NAS-Bench-201; the released
    code of ENAS has one layer of 64 (cells) or 100 units, no temperature, ``tanh_constant=1.1`` and
    ``op_tanh_reduce=2.5`` for cells, where its inputs are scored by attention.

    `theta` is empty, and the architecture parameters are those of the network. `expected`, without a draw, has the
    probabilities along the greedy path: each step after the most probable choices of the steps before. So the largest
    entries are the greedy genotype.

    Reference: Pham, Guan, Zoph, Le and Dean, "Efficient Neural Architecture Search via Parameter Sharing", ICML 2018.

    Args:
        decisions: The space's decisions, by group.
        groups: The groups that are drawn; ``None`` for all.
        size: Units of a layer.
        layers: Layers of the LSTM.
        tanh_constant: Largest logit; ``None`` for no limit.
        temperature: Divisor of the logits.
        op_tanh_reduce: Divisor of `tanh_constant` for decisions other than those among nodes (numbered choices).
        order: Names of the decisions in the order in which they are taken; ``None`` for group by group.
        seed: Seed of the start and of all draws.

    Attributes:
        entropy: Entropy of the distributions of the last draw, summed over its steps, without a graph.

    Raises:
        ValueError: If a size or factor is not positive, or `order` does not name each decision once.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> controller = Controller(get_space("nasbench201").decisions)
        >>> sample = controller()
        >>> len(sample.active["cell"]), sample.weights["cell"].sum().item(), sample.log_prob.requires_grad
        (6, 6.0, True)
    """

    stochastic = True
    needs_unused_parameters = True
    discrete = True
    exact_mean = False

    def __init__(
        self,
        decisions: Decisions,
        groups: Sequence[str] | None = None,
        *,
        size: int = 32,
        layers: int = 2,
        tanh_constant: float | None = 2.5,
        temperature: float = 5.0,
        op_tanh_reduce: float = 1.0,
        order: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        if min(size, layers, temperature, op_tanh_reduce, 1 if tanh_constant is None else tanh_constant) <= 0:
            raise ValueError(
                f"size={size}, layers={layers}, tanh_constant={tanh_constant}, temperature={temperature},"
                f" op_tanh_reduce={op_tanh_reduce}: all must be positive; give tanh_constant=None for no limit"
            )
        super().__init__(decisions, groups, seed=seed)
        self.theta = nn.ParameterDict()
        self.tanh_constant, self.temperature, self.op_tanh_reduce = tanh_constant, temperature, op_tanh_reduce
        self.steps = self._ordered(order)
        self.names = {group: self._names(group) for group in self.groups}
        kinds = list(dict.fromkeys(self.names.values()))
        self.kind = {group: kinds.index(names) for group, names in self.names.items()}
        choices = [(self.names[group], self.support.decisions[group][row].choices) for group, row in self.steps]
        self.columns = [[names.index(choice) for choice in own] for names, own in choices]
        self.start = nn.Parameter(torch.empty(size))
        with torch.random.fork_rng(devices=[]):  # their own start, which is not used, draws from the global generator
            self.cells = nn.ModuleList(nn.LSTMCell(size, size) for _ in range(layers))
            self.embed = nn.ModuleList(nn.Embedding(len(names), size) for names in kinds)
            self.score = nn.ModuleList(nn.Linear(size, len(names)) for names in kinds)
        for parameter in self.arch_parameters():
            nn.init.uniform_(parameter, -0.1, 0.1, generator=self.generator)
        self.entropy = torch.zeros(())

    def _ordered(self, order: Sequence[str] | None) -> list[tuple[str, int]]:
        """Group and row of each decision, in the order in which they are taken."""
        at = {d.name: (group, row) for group, row, d in self.support.rows() if group in self.groups}
        if order is not None and sorted(order) != sorted(at):
            raise ValueError(f"order names {len(order)} decisions {list(order)[:3]}...; name each of {sorted(at)} once")
        return [at[name] for name in (at if order is None else order)]

    def _names(self, group: str) -> tuple[str, ...]:
        """All candidates of a group, in the order of their first appearance."""
        return tuple(dict.fromkeys(name for row in self.support.decisions[group] for name in row.choices))

    def arch_parameters(self) -> list[nn.Parameter]:
        """The parameters of the network."""
        return list(self.parameters())

    def forward(self) -> Sample:
        """Draw a path."""
        noise = [paths.gumbel((len(self.support.decisions[g][r].choices),), self.generator) for g, r in self.steps]
        logits, choices = self._roll(noise)
        terms = [paths.log_prob(self.support, group, rows, choices[group]).sum() for group, rows in logits.items()]
        rows = {group: rows.detach().softmax(-1) for group, rows in logits.items()}
        self.entropy = torch.stack([entropy(p) * len(p) for p in rows.values()]).sum()
        weights = {group: paths.k_hot(choices[group], rows.detach()) for group, rows in logits.items()}
        active = {group: paths.ascending(taken) for group, taken in choices.items()}
        return Sample(weights, {**(self.support.active() or {}), **active}, torch.stack(terms).sum())

    def expected(self) -> dict[str, Tensor]:
        """The probability of each choice to be drawn, along the greedy path."""
        logits, _ = self._roll([None] * len(self.steps))
        return {group: paths.inclusion(self.support, group, rows) for group, rows in logits.items()}

    def _roll(self, noise: Sequence[Tensor | None]) -> tuple[dict[str, Tensor], dict[str, paths.Choices]]:
        """Take all decisions; the logits of each group ``(rows, choices)``, and what has been chosen."""
        logits: dict[tuple[str, int], Tensor] = {}
        taken: dict[tuple[str, int], tuple[int, ...]] = {}
        read: Tensor = self.start.unsqueeze(0)
        states: list[tuple[Tensor, Tensor] | None] = [None] * len(self.cells)
        with torch.autocast(self.start.device.type, enabled=False):
            for step, columns, moved in zip(self.steps, self.columns, noise, strict=True):
                group, row = step
                decision, is_open = self.support.decisions[group][row], self.support.mask(group)[row : row + 1]
                for layer, cell in enumerate(self.cells):
                    read, memory = cell(read, states[layer])
                    states[layer] = (read, memory)
                own = self._bounded(self.score[self.kind[group]](read[0])[columns], decision.choices)
                scores = own.detach() if moved is None else own.detach() + moved.to(own)
                wide = (0, is_open.shape[1] - len(columns))
                (taken[step],) = paths.best(F.pad(scores, wide).unsqueeze(0), is_open, [decision.keep])
                logits[step] = F.pad(own, wide).masked_fill(~is_open[0], -torch.inf)
                chosen = torch.tensor([columns[k] for k in taken[step]], device=own.device)
                read = self.embed[self.kind[group]](chosen).mean(0, keepdim=True)
        rows = {group: range(len(self.support.decisions[group])) for group in self.groups}
        return (
            {group: torch.stack([logits[group, row] for row in rows[group]]) for group in self.groups},
            {group: tuple(taken[group, row] for row in rows[group]) for group in self.groups},
        )

    def _bounded(self, logits: Tensor, choices: tuple[str, ...]) -> Tensor:
        logits = logits / self.temperature
        if self.tanh_constant is None:
            return logits
        of_nodes = all(name.isdigit() for name in choices)
        return self.tanh_constant / (1.0 if of_nodes else self.op_tanh_reduce) * logits.tanh()
