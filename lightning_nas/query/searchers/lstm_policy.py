"""A recurrent policy over the decisions of any space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lightning_nas.query.searchers.policies import Agenda, Draw, largest

__all__ = ["LSTMPolicy"]


class LSTMPolicy(nn.Module):
    """An LSTM takes the decisions of a space one after another: a softmax for each, fed back as embedding to the next.

    Every decision has its own softmax layer and its own embeddings. One that keeps several choices is an ordered draw
    without replacement, and feeds back the mean of their embeddings; one that does not apply feeds back zeros.

    Reference: Zoph and Le, "Neural Architecture Search with Reinforcement Learning", ICLR 2017.

    Args:
        agenda: The decisions.
        size: Units of a layer.
        layers: Layers of the LSTM.
        init: All parameters start uniformly between ``-init`` and ``init``.
        frozen: Names of decisions that are not the policy's: `draw` is told them, and their log-probability is zero.
        seed: Seed of the start and of all draws.

    Attributes:
        steps: The rows of the agenda that are decided in each step of the LSTM.
        step_of: The step of each row.
        generator: What draws.

    Raises:
        ValueError: If a size is not positive, or a frozen decision is unknown.

    Example:
        >>> from lightning_nas.spaces import get_space
        >>> policy = LSTMPolicy(Agenda(get_space("nasbench201")), size=8)
        >>> log_prob, entropy = policy(policy.draw(3))
        >>> log_prob.shape, bool((log_prob < 0).all())
        (torch.Size([3, 6]), True)
    """

    def __init__(
        self,
        agenda: Agenda,
        size: int = 100,
        layers: int = 1,
        init: float = 0.1,
        frozen: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        names = [row.name for row in agenda.rows]
        if min(size, layers) < 1 or init <= 0 or not set(frozen) <= set(names):
            raise ValueError(
                f"size={size}, layers={layers}, init={init}, frozen={list(frozen)}: sizes and init must be positive,"
                " and frozen names decisions of the space"
            )
        self.agenda, self.frozen = agenda, frozenset(frozen)
        self.generator = torch.Generator().manual_seed(seed)
        self.steps = self.layout()
        self.step_of = torch.tensor([step for step, rows in enumerate(self.steps) for _ in rows])
        with torch.random.fork_rng(devices=[]):  # its own start, which is not used, draws from the global generator
            self.lstm = nn.LSTM(size, size, layers, batch_first=True)
        shape = (len(agenda.rows), agenda.width)
        self.start = nn.Parameter(torch.empty(size))
        self.embed = nn.Parameter(torch.empty(*shape, size))
        self.weight = nn.Parameter(torch.empty(*shape, size))
        self.bias = nn.Parameter(torch.empty(*shape))
        self.extend(size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -init, init, generator=self.generator)

    def layout(self) -> list[list[int]]:
        """The rows that are decided in each step, in the order of the agenda; by default one."""
        return [[row] for row in range(len(self.agenda.rows))]

    def extend(self, size: int) -> None:
        """Make further parameters; they get their start with the others."""

    def scores(self, rows: Sequence[int], outputs: Tensor) -> Tensor:
        """The logits of some rows.

        Args:
            rows: The rows.
            outputs: The LSTM's output in each step, ``(batch, steps, size)``; only those of these rows and of earlier
                ones count.

        Returns:
            ``(batch, rows, choices)``.
        """
        own = outputs[:, self.step_of[rows]].transpose(0, 1)
        return torch.baddbmm(self.bias[rows].unsqueeze(1), own, self.weight[rows].mT).transpose(0, 1)

    @torch.no_grad()
    def draw(self, count: int, fixed: Mapping[str, int] | None = None) -> list[Draw]:
        """Draw all decisions.

        Args:
            count: Number of draws.
            fixed: Frozen decision -> its choice.

        Returns:
            The draws; in a space that is not sequential some may be no genotypes.
        """
        drawn: list[list[tuple[int, ...]]] = [[] for _ in range(count)]
        picks: list[dict[str, tuple[int, ...]]] = [{} for _ in range(count)]
        read, state = self.start.expand(count, 1, -1), None
        outputs = torch.zeros(count, len(self.steps), len(self.start))
        for step, rows in enumerate(self.steps):
            output, state = self.lstm(read, state)
            outputs[:, step] = output[:, 0]
            scores = self.scores(rows, outputs).double()
            noisy = (scores - scores.clone().exponential_(generator=self.generator).log()).tolist()
            for one, known, own in zip(drawn, picks, noisy, strict=True):
                for row, values in zip(rows, own, strict=True):
                    one.append(self._take(row, known, values, fixed or {}))
            read = self._reads([tuple(one[-len(rows) :]) for one in drawn], rows)[:, step : step + 1]
        return [tuple(one) for one in drawn]

    def _take(
        self, row: int, picks: dict[str, tuple[int, ...]], values: list[float], fixed: Mapping[str, int]
    ) -> tuple[int, ...]:
        """The best allowed choices of a row, which are noted among the picks."""
        decision = self.agenda.rows[row]
        if decision.name in fixed:
            taken: tuple[int, ...] = (fixed[decision.name],)
        else:
            taken = largest(values, self.agenda.allowed(decision.name, picks), decision.keep)
        if taken:
            picks[decision.name] = taken
        return taken

    def _reads(self, draws: Sequence[Draw], rows: Sequence[int]) -> Tensor:
        """What each step hands to the next: the mean embedding of what was taken in it.

        Args:
            draws: What was taken in the rows.
            rows: The rows.

        Returns:
            ``(batch, steps, size)``; zeros in the steps of other rows.
        """
        hot = torch.zeros(len(draws), len(rows), self.agenda.width)
        at = [(i, row, choice) for i, draw in enumerate(draws) for row, kept in enumerate(draw) for choice in kept]
        if at:
            hot[tuple(torch.tensor(at).T)] = 1.0
        each = torch.bmm(hot.transpose(0, 1), self.embed[rows]).transpose(0, 1)
        steps, empty = self.step_of[rows], torch.zeros(len(draws), len(self.steps), len(self.start))
        counts = empty[..., 0].index_add(1, steps, hot.sum(2)).clamp(min=1.0)
        return empty.index_add(1, steps, each) / counts.unsqueeze(2)

    def forward(self, draws: Sequence[Draw]) -> tuple[Tensor, Tensor]:
        """Log-probability and entropy of each decision of some draws, ``(batch, rows)`` each.

        Both are zero where nothing was to be decided. The entropy is that of a decision's first choice.
        """
        rows = range(len(self.agenda.rows))
        reads = self._reads(draws, rows)
        outputs, _ = self.lstm(torch.cat([self.start.expand(len(draws), 1, -1), reads[:, :-1]], 1))
        return _ordered_log_prob(self.scores(rows, outputs), self._open(draws), draws)

    def _open(self, draws: Sequence[Draw]) -> Tensor:
        """What was open in each decision, ``(batch, rows, choices)``; nothing in frozen ones."""
        is_open = torch.stack([torch.from_numpy(self.agenda.open(draw)) for draw in draws])
        for index, row in enumerate(self.agenda.rows):
            if row.name in self.frozen:
                is_open[:, index] = False
        return is_open


def _ordered_log_prob(logits: Tensor, left: Tensor, draws: Sequence[Draw]) -> tuple[Tensor, Tensor]:
    """Log-probability of draws without replacement and the entropy of the first of them."""
    decided, barred = left.any(-1), -1e9
    total, entropy = torch.zeros_like(logits[..., 0]), torch.zeros_like(logits[..., 0])
    for step in range(max(len(kept) for draw in draws for kept in draw)):
        picked = torch.tensor([[kept[step] if step < len(kept) else -1 for kept in draw] for draw in draws])
        counts, at = decided & (picked >= 0), picked.clamp(min=0).unsqueeze(-1)
        log_p = logits.masked_fill(~left, barred).log_softmax(-1)
        total = total + torch.where(counts, log_p.gather(-1, at).squeeze(-1), 0.0)
        if step == 0:
            entropy = torch.where(decided, -(log_p.exp() * log_p).sum(-1), 0.0)
        left = left.scatter(-1, at, torch.where(counts.unsqueeze(-1), False, left.gather(-1, at)))
    return total, entropy
