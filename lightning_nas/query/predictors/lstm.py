"""A recurrent network that reads an architecture as a string, and an ensemble of them."""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR

from lightning_nas.query.encoders.base import Encoded
from lightning_nas.query.predictors.base import Prediction, Predictor, Scale, features, learned, over_members
from lightning_nas.query.predictors.fitting import Learner, fit_quietly, seeded_torch

__all__ = ["LSTMPredictor", "StringRegressor", "tokens", "unit_scale"]

_CHUNK = 4096  # strings read at once


def tokens(x: Encoded, vocabulary: int, who: object) -> Tensor:
    """Encoded architectures as strings ``(n, length)``.

    Raises:
        ValueError: If they are graphs, not integers, or not of the vocabulary.
    """
    given = features(x, who)
    if given.is_floating_point() or (given.numel() and not 0 <= int(given.min()) <= int(given.max()) < vocabulary):
        raise ValueError(f"{type(who).__name__} works on tokens from 0 to {vocabulary - 1}; give it a TokenEncoder")
    return given


def unit_scale(y: Tensor) -> Scale:
    """The scale on which these scores reach from 0 to 1; equal scores keep their width.

    Raises:
        ValueError: If there are none, or some are not finite.
    """
    width = float(y.max() - y.min()) if Scale.of(y) else 0.0
    return Scale(float(y.min()), width if width > 0 else 1.0)


class StringRegressor(nn.Module):
    """Strings to numbers in (0, 1): an embedding, an LSTM, and a sigmoid of its output at the string's end.

    A string ends before the tokens 0 at its tail, so the tails do not count.

    Args:
        vocabulary: Number of tokens.
        hidden: Units of the LSTM.
        embedding: Width of the embedding.
        mean: What the sigmoid starts at, through the bias.

    Example:
        >>> model = StringRegressor(4, 5, 6, mean=0.25)
        >>> model(torch.tensor([[1, 2, 0], [1, 2, 3]])).shape
        torch.Size([2])
    """

    def __init__(self, vocabulary: int, hidden: int, embedding: int, mean: float = 0.5) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding, hidden, batch_first=True)
        self.out = nn.Linear(hidden, 1)
        nn.init.constant_(self.out.bias, torch.logit(torch.tensor(mean), 0.01).item())

    def forward(self, strings: Tensor) -> Tensor:
        """``(n, length)`` tokens to ``(n,)``."""
        outputs, _ = self.lstm(self.embed(strings))
        places = torch.arange(1, strings.shape[1] + 1) * (strings > 0)
        last = places.max(dim=1).values.clamp_min(1) - 1
        ends = outputs[torch.arange(len(strings)), last]
        return torch.sigmoid(self.out(ends)).squeeze(1)


class _Fit(Learner):
    """L1 loss, Adam with a larger rate for the first half of the passes."""

    def __init__(self, model: StringRegressor, x: Tensor, y: Tensor, lr: tuple[float, float], passes: int) -> None:
        super().__init__()
        self.model, self.x, self.y, self.rates, self.passes = model, x, y, lr, passes

    def loss(self, rows: Tensor) -> Tensor:
        return F.l1_loss(self.model(self.x[rows]), self.y[rows])

    def configure_optimizers(self) -> tuple[list[Adam], list[LambdaLR]]:
        first, then = self.rates
        optimizer = Adam(self.parameters(), lr=first)
        return [optimizer], [LambdaLR(optimizer, lambda step: 1.0 if 2 * step < self.passes else then / first)]


class LSTMPredictor(Predictor):
    """An ensemble of recurrent networks on strings; its mean and its deviation.

    It is the surrogate of PNAS. Scores are brought to [0, 1] for the sigmoid, whose bias starts at their mean. Of `m`
    members each learns from all but one `m`-th of the data, which is another for each; one alone learns from all.
    Published as fine-tuned when data come in, with the smaller rate; here it learns anew, first with the larger, then
    with the smaller rate.

    Reference: Liu et al., "Progressive Neural Architecture Search", ECCV 2018.

    Args:
        vocabulary: Number of tokens, ``len(encoder.vocabulary)`` of a `TokenEncoder`.
        hidden: Units of the LSTM.
        embedding: Width of the embedding.
        members: Networks of the ensemble.
        passes: Passes over the data.
        batch: Architectures of a mini-batch.
        lr: Learning rates of Adam for the first and for the second half of the passes.

    Raises:
        ValueError: If a number is not positive.

    Example:
        >>> x = torch.tensor([[1, 1], [1, 2], [2, 1], [2, 2]])
        >>> fitted = LSTMPredictor(3, hidden=8, embedding=8, members=1).fit(x, torch.tensor([90.0, 91.0, 92.0, 94.0]))
        >>> fitted.predict(x).mean.argsort().tolist()
        [0, 1, 2, 3]
    """

    takes = ("tokens",)

    def __init__(
        self,
        vocabulary: int,
        hidden: int = 100,
        embedding: int = 100,
        members: int = 5,
        passes: int = 60,
        batch: int = 32,
        lr: tuple[float, float] = (0.01, 0.002),
    ) -> None:
        if min(vocabulary, hidden, embedding, members, passes, batch, *lr) <= 0:
            raise ValueError(
                f"vocabulary={vocabulary}, hidden={hidden}, embedding={embedding}, members={members}, passes={passes},"
                f" batch={batch}, lr={lr}: all must be positive"
            )
        self.vocabulary, self.hidden, self.embedding = vocabulary, hidden, embedding
        self.members, self.passes, self.batch, self.lr = members, passes, batch, lr
        self.models: list[StringRegressor] = []
        self.scale = Scale(0.0, 1.0)

    def fit(self, x: Encoded, y: Tensor, seed: int = 0) -> Self:  # noqa: D102
        strings, y = tokens(x, self.vocabulary, self), self.checked_scores(x, y)
        self.scale = unit_scale(y)
        targets = self.scale.to(y).float()
        order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
        self.models = []
        for member in range(self.members):
            kept = self._share(order, member)
            with seeded_torch(seed + member):
                model = StringRegressor(self.vocabulary, self.hidden, self.embedding, float(targets[kept].mean()))
            learner = _Fit(model, strings[kept], targets[kept], self.lr, self.passes)
            self.models.append(fit_quietly(learner, len(kept), self.batch, self.passes, seed + member).model)
        return self

    def _share(self, order: Tensor, member: int) -> Tensor:
        """The rows that a member learns from."""
        kept = order[torch.arange(len(order)) % self.members != member]
        return kept if len(kept) else order

    def predict(self, x: Encoded) -> Prediction:
        """Mean and population deviation over the members; a joint draw is one member."""
        models = learned(self.models or None)
        parts = torch.split(tokens(self.checked_rows(x), self.vocabulary, self), _CHUNK)
        with torch.no_grad():
            found = torch.stack([torch.cat([model(part) for part in parts]) for model in models])
        return over_members(self.scale.back(found.double()))
