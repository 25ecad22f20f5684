"""Embeddings of architectures that are learned without any score."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_nas.arch import Genotype
from lightning_nas.query.encoders.base import Encoder, Graphs
from lightning_nas.query.encoders.graph import GraphEncoder
from lightning_nas.query.encoders.graph_autoencoder import GraphAutoencoder, Reconstruction
from lightning_nas.query.predictors.fitting import fit_quietly, seeded_torch
from lightning_nas.reports.files import write_whole
from lightning_nas.spaces import Space
from lightning_nas.spaces.restricted import RestrictedSpace

__all__ = ["Arch2Vec"]

_CHUNK = 2048
_FORMAT = "arch2vec 1"


class Arch2Vec(Encoder):
    """Embeddings of architectures, learned from random ones without a single score.

    At its first use a `GraphAutoencoder` is trained on random architectures of the space; the embedding is the mean
    over the vertices. The same arguments give the same embedding. With a file, the weights are kept there, and read
    from there the next time.

    Reference: Yan, Zheng, Ao, Zeng and Zhang, "Does Unsupervised Architecture Representation Learning Help Neural
    Architecture Search?", NeurIPS 2020.

    Args:
        space: Name of a search space, or a space.
        number: Random architectures to learn from; a tenth of them is held out for `quality`. They are drawn with
            repetition.
        passes: Passes over them.
        size: Length of the embedding.
        hidden: Units of each layer of the autoencoder.
        hops: Hops of its encoder.
        dropout: Share of the embedding that its decoder does not see in training. The published 0.3 takes many times
            the number of passes to reach the same quality.
        batch: Graphs of a mini-batch.
        seed: Seed of the architectures and of the training.
        file: Where the weights are kept; ``None`` for nowhere.

    Raises:
        ValueError: If a number is not positive, there are too few architectures, or the folder does not exist.

    Example:
        >>> encoder = Arch2Vec("nasbench201", number=50, passes=2, hidden=16)
        >>> encoder([encoder.space.sample(random.Random(0))]).shape
        torch.Size([1, 16])
    """

    def __init__(
        self,
        space: str | Space = "nasbench201",
        number: int = 5000,
        passes: int = 8,
        size: int = 16,
        hidden: int = 128,
        hops: int = 5,
        dropout: float = 0.0,
        batch: int = 32,
        seed: int = 0,
        file: str | Path | None = None,
    ) -> None:
        super().__init__(space)
        if min(passes, size, hidden) < 1 or number < 10 or hops < 2 or batch < 2 or not 0 <= dropout < 1:
            raise ValueError(
                f"number={number}, passes={passes}, size={size}, hidden={hidden}, hops={hops}, batch={batch},"
                f" dropout={dropout}: at least 10 architectures, 2 hops, batches of 2, 1 of all else, dropout in [0, 1)"
            )
        self.file = None if file is None else Path(file)
        if self.file is not None and not self.file.absolute().parent.is_dir():
            raise ValueError(f"file={str(file)!r}: there is no folder {self.file.parent}; make it first")
        self.number, self.passes, self.size, self.hidden, self.hops = number, passes, size, hidden, hops
        self.dropout, self.batch, self.seed = dropout, batch, seed
        self.graphs = GraphEncoder(self.space)
        self._model: GraphAutoencoder | None = None

    def encode(self, genotypes: Sequence[Genotype]) -> Tensor:
        """The embeddings, ``(n, size)``; trains at the first call."""
        model = self.model
        parts = [genotypes[start : start + _CHUNK] for start in range(0, len(genotypes), _CHUNK)]
        return torch.cat([model.embed(self.graphs.encode(part)) for part in parts]).float()

    def quality(self) -> Reconstruction:
        """How well architectures that were not trained on are told from their embeddings; trains if need be.

        They are those held out that equal neither one that was trained on nor each other (`Space.canonical`): some 160
        of 500 in NAS-Bench-201 with the default arguments. `Reconstruction.number` says how many.

        Raises:
            ValueError: If there are none, as the space is too small.
        """
        drawn, held = self._drawn(), self.number // 10
        trained = {self.space.canonical(genotype) for genotype in drawn[held:]}
        apart = {self.space.canonical(genotype): genotype for genotype in drawn[:held]}
        unseen = [genotype for equal, genotype in apart.items() if equal not in trained]
        if not unseen:
            raise ValueError(
                f"all {held} architectures held out equal some of the {self.number - held} trained on, so"
                f" {self.space.name!r} is too small for number={self.number}; give a smaller one"
            )
        return self.model.reconstruction(self.graphs.encode(unseen))

    @property
    def model(self) -> GraphAutoencoder:
        """The trained autoencoder, in double precision, so that an embedding is the same in every batch.

        Raises:
            ValueError: If the file is of other arguments, or no such file.
        """
        if self._model is None:
            known = self.file is not None and self.file.exists()
            self._model = (self._read() if known else self._train()).double()
        return self._model

    def _drawn(self) -> list[Genotype]:
        """Random architectures; the first tenth is held out."""
        rng = random.Random(self.seed)  # noqa: S311
        return [self.space.sample(rng) for _ in range(self.number)]

    def _new(self, graphs: Graphs | None) -> GraphAutoencoder:
        with seeded_torch(self.seed):
            return GraphAutoencoder(
                graphs, len(self.graphs.vocabulary), self.size, self.hidden, self.hops, self.dropout
            )

    def _train(self) -> GraphAutoencoder:
        graphs = self.graphs.encode(self._drawn()[self.number // 10 :])
        model = fit_quietly(self._new(graphs), len(graphs), self.batch, self.passes, self.seed)
        model.graphs = None
        if self.file is not None:
            kept = {"about": self._about(), "weights": model.state_dict()}
            write_whole(self.file, lambda path: torch.save(kept, path))
        return model

    def _about(self) -> dict[str, Any]:
        """What the weights depend on, as plain values."""
        numbers = ("number", "passes", "size", "hidden", "hops", "dropout", "batch", "seed")
        given = {name: getattr(self, name) for name in numbers}
        words, members = list(self.graphs.vocabulary), _members(self.space)
        return {"format": _FORMAT, "space": self.space.name, "members": members, "vocabulary": words, **given}

    def _read(self) -> GraphAutoencoder:
        try:
            kept = torch.load(self.file, weights_only=True)  # type: ignore[arg-type]
            about, weights = dict(kept["about"]), dict(kept["weights"])
        except Exception as error:  # what an unreadable file raises is not documented
            kind = type(error).__name__
            raise ValueError(f"{self.file} holds no weights ({kind}); delete it or give another file") from None
        wrong = [name for name, value in self._about().items() if about.get(name) != value]
        if wrong:
            has, wants = ({name: found.get(name) for name in wrong} for found in (about, self._about()))
            raise ValueError(f"{self.file} was written for {has}, not for {wants}; give another file")
        model = self._new(None)
        model.load_state_dict(weights)
        return model.eval().requires_grad_(False)


def _members(space: Space) -> str | None:
    """What tells the members of a restricted space from those of another, in whatever order; ``None`` for a whole one.

    Files of whole spaces that were written before restricted ones had this are still read.
    """
    if not isinstance(space, RestrictedSpace):
        return None
    texts = sorted(space.format(genotype) for genotype in space.members)
    return f"{len(texts)} with {hashlib.sha256(chr(10).join(texts).encode()).hexdigest()}"
