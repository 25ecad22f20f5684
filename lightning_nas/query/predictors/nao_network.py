"""The network of neural architecture optimization: strings to points on spheres, to a score, and back to strings."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["NAONetwork"]


class NAONetwork(nn.Module):
    """An LSTM that reads strings, a score of what it read, and an LSTM with attention that writes them again.

    What was read is a unit vector for each token, ``(n, length, hidden)``; its *summary* is their mean, brought to
    length 1. The score is a perceptron of the summary with a sigmoid at its end. The decoder starts from the summary;
    each of its outputs attends to what was read by scalar products.

    Reference: Luo, Tian, Qin, Chen and Liu, "Neural Architecture Optimization", NeurIPS 2018.

    Args:
        vocabulary: Number of tokens; the token 0 also starts the decoder.
        hidden: Units of both LSTMs.
        embedding: Width of the embeddings.
        layers: Hidden layers of the perceptron.
        width: Their units.
        dropout: Dropout behind each of them.

    Example:
        >>> network = NAONetwork(5, hidden=8, embedding=4, layers=1, width=6).eval()
        >>> read = network.read(torch.tensor([[1, 2, 4]]))
        >>> read.shape, bool(torch.allclose(read.norm(dim=2), torch.ones(1, 3)))
        (torch.Size([1, 3, 8]), True)
        >>> network.score(read).shape, network.write(read).shape
        (torch.Size([1]), torch.Size([1, 3]))
    """

    def __init__(
        self,
        vocabulary: int,
        hidden: int = 96,
        embedding: int = 48,
        layers: int = 3,
        width: int = 200,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, embedding)
        self.reader = nn.LSTM(embedding, hidden, batch_first=True)
        sizes = [hidden, *[width] * layers]
        body = [(nn.Linear(a, b), nn.ReLU(), nn.Dropout(dropout)) for a, b in pairwise(sizes)]
        self.head = nn.Sequential(*(layer for block in body for layer in block), nn.Linear(sizes[-1], 1))
        self.embed_written = nn.Embedding(vocabulary, embedding)
        self.writer = nn.LSTM(embedding, hidden, batch_first=True)
        self.mix = nn.Linear(2 * hidden, hidden)
        self.words = nn.Linear(hidden, vocabulary)

    def read(self, strings: Tensor) -> Tensor:
        """Tokens ``(n, length)`` to unit vectors ``(n, length, hidden)``."""
        outputs, _ = self.reader(self.embed(strings))
        return F.normalize(outputs, dim=2)

    def summary(self, read: Tensor) -> Tensor:
        """The unit vector ``(n, hidden)`` of what was read."""
        return F.normalize(read.mean(dim=1), dim=1)

    def score(self, read: Tensor) -> Tensor:
        """``(n,)`` in (0, 1)."""
        return torch.sigmoid(self.head(self.summary(read))).squeeze(1)

    def move(self, read: Tensor, eta: float) -> Tensor:
        """What was read, `eta` times the gradient of its score further, and of length 1 again."""
        with torch.enable_grad():
            start = read.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.score(start).sum(), start)
        return F.normalize(read.detach() + eta * gradient, dim=2)

    def log_likelihood(self, read: Tensor, strings: Tensor) -> Tensor:
        """Mean log-probability of the tokens of strings, each given those before it; scalar."""
        before = F.pad(strings[:, :-1], (1, 0))
        logits, _ = self._step(read, before, self._start(read))
        return -F.cross_entropy(logits.flatten(0, 1), strings.flatten())

    def write(self, read: Tensor, allowed: Tensor | None = None) -> Tensor:
        """The string ``(n, length)`` whose tokens are, one after the other, the most probable ones.

        Args:
            read: What was read.
            allowed: ``(length, vocabulary)`` booleans: which tokens may stand in each place; ``None`` for all.
        """
        return torch.stack(list(self._greedy(read, allowed)), dim=1)

    def _greedy(self, read: Tensor, allowed: Tensor | None) -> Iterator[Tensor]:
        token, state = torch.zeros(len(read), dtype=torch.long), self._start(read)
        for place in range(read.shape[1]):
            logits, state = self._step(read, token[:, None], state)
            closed = logits[:, 0] if allowed is None else logits[:, 0].masked_fill(~allowed[place], -torch.inf)
            token = closed.argmax(dim=1)
            yield token

    def _start(self, read: Tensor) -> tuple[Tensor, Tensor]:
        summary = self.summary(read)[None]
        return summary, summary

    def _step(self, read: Tensor, before: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The logits of some tokens, ``(n, tokens, vocabulary)``, from those before them, and the state behind them."""
        outputs, state = self.writer(self.embed_written(before), state)
        attention = torch.softmax(outputs @ read.transpose(1, 2), dim=2)
        mixed = torch.tanh(self.mix(torch.cat([attention @ read, outputs], dim=2)))
        return self.words(mixed), state
