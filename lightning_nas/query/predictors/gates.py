"""GATES: operations as gates on the flow of information."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_nas.query.encoders.base import Graphs
from lightning_nas.query.predictors.graph_network import GraphNetwork, Lookup
from lightning_nas.query.predictors.pairwise import Loss
from lightning_nas.query.predictors.ranker import Ranker

__all__ = ["GATES", "GateNetwork"]


class GateNetwork(GraphNetwork):
    r"""Information flows along the edges; the operation of a vertex lets some of what reaches it pass.

    A layer is :math:`X' = \sigma(E W_a) \odot (A^\top X W) + X W + b`, with a ReLU between layers; `E` are the
    embeddings of the vertices' labels. At the start an input holds the embedding of its label, every other vertex the
    same learned one, first zero. The output of each cell is read.

    Reference: Ning et al., "A Generic Graph-based Neural Architecture Encoding Scheme for Predictor-based NAS",
    ECCV 2020.

    Args:
        kinds: Number of labels of the vertices.
        output: The label of outputs; those below are inputs, as in `lightning_nas.spaces.vocabulary`.
        cells: Outputs of a graph; their features are put side by side in the order of the vertices.
        embedding: Length of the embeddings, of operations as of the start.
        hidden: Length that the start is brought to.
        width: Features of a vertex in each layer.
        layers: Number of layers.
        dropout: Share of the features dropped between layers.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> graph = Graphs(torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]), torch.tensor([[0, 1]]), kinds=3)
        >>> GateNetwork(kinds=3)(graph).shape
        torch.Size([1, 128])
    """

    def __init__(
        self,
        kinds: int,
        output: int = 1,
        cells: int = 1,
        embedding: int = 48,
        hidden: int = 96,
        width: int = 128,
        layers: int = 5,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if min(cells, embedding, hidden, width, layers) < 1 or not 0 < output < kinds or not 0 <= dropout < 1:
            raise ValueError(
                f"kinds={kinds}, output={output}, cells={cells}, embedding={embedding}, hidden={hidden}, width={width},"
                f" layers={layers}, dropout={dropout}: sizes from 1, 0 < output < kinds, dropout in [0, 1)"
            )
        self.width, self.output, self.cells = cells * width, output, cells
        self.operations = Lookup(kinds, embedding)
        self.starts = nn.Parameter(torch.zeros(output + 1, embedding))
        nn.init.xavier_uniform_(self.starts[:output])
        self.enter = nn.Linear(embedding, hidden)
        self.flows = nn.ModuleList(nn.Linear(width if k else hidden, width, bias=False) for k in range(layers))
        self.biases = nn.Parameter(torch.zeros(layers, width))
        self.gates = nn.Linear(embedding, layers * width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, graphs: Graphs) -> Tensor:
        """Vectors ``(n, cells * width)``.

        Raises:
            ValueError: If a graph does not have `cells` outputs.
        """
        outputs = graphs.labels == self.output
        if not bool((outputs.sum(dim=1) == self.cells).all()):
            raise ValueError(f"some graphs do not have {self.cells} vertices of label {self.output}; give output=")
        table = self.gates(self.operations.weight).sigmoid()  # few labels, many vertices
        gates = nn.functional.embedding(graphs.labels.remainder(len(table)), table).chunk(len(self.flows), dim=-1)
        inward = graphs.adjacency.mT
        starts = graphs.labels.clamp_max(self.output).remainder(self.output + 1)
        x: Tensor = nn.functional.embedding(starts, self.enter(self.starts))
        for k, (flow, gate, bias) in enumerate(zip(self.flows, gates, self.biases, strict=True)):
            x = flow(x if k == 0 else self.dropout(x.relu()))
            x = gate * (inward @ x) + x + bias
        return x[outputs].reshape(len(graphs), -1)


class GATES(Ranker):
    """The order of architectures by `GateNetwork` and a hinge loss on pairs.

    With 100 labels the published 50 passes in batches of 128 are 50 steps only; give a smaller `batch`.

    Reference: Ning et al., "A Generic Graph-based Neural Architecture Encoding Scheme for Predictor-based NAS",
    ECCV 2020.

    Args:
        output: The label of outputs; those below are inputs. One for spaces whose cells have one input.
        embedding: Length of the embeddings.
        units: Length that the start of a vertex is brought to.
        width: Features of a vertex in each layer.
        layers: Number of layers.
        hidden: Units of the layers between a vector and its score.
        dropout: Share of the features that is dropped.
        loss: As in `Ranker`.
        margin: Margin of the hinge loss.
        lr: Learning rate of Adam.
        batch: Most architectures of a mini-batch.
        passes: Passes over the labels.
        ratio: Most pairs of a mini-batch, as multiple of its size.
        members: Rankers of an ensemble.

    Raises:
        ValueError: As of `Ranker`; from `fit` if vertices of the label `output` have edges out, or there are none.

    Example:
        >>> chain = torch.tensor([[0.0, 1, 0], [0, 0, 1], [0, 0, 0]]).expand(4, 3, 3)
        >>> graphs = Graphs(chain, torch.tensor([[0, 2, 1], [0, 3, 1], [0, 2, 1], [0, 3, 1]]), kinds=4)
        >>> ranker = GATES(width=16, hidden=(16,)).fit(graphs, torch.tensor([1.0, 2.0, 1.0, 2.0]))
        >>> ranker.predict(graphs).mean.argmin().item()
        0
    """

    def __init__(
        self,
        output: int = 1,
        embedding: int = 48,
        units: int = 96,
        width: int = 128,
        layers: int = 5,
        hidden: tuple[int, ...] = (300,) * 5,
        dropout: float = 0.1,
        loss: Loss = "hinge",
        margin: float = 0.1,
        lr: float = 1e-3,
        batch: int = 128,
        passes: int = 50,
        ratio: float | None = 4.0,
        members: int = 1,
    ) -> None:
        super().__init__(
            loss=loss,
            margin=margin,
            hidden=hidden,
            dropout=dropout,
            lr=lr,
            weight_decay=0.0,
            cosine=False,
            batch=batch,
            passes=passes,
            ratio=ratio,
            members=members,
        )
        self.output, self.embedding, self.units, self.width, self.layers = output, embedding, units, width, layers

    def build(self, x: Graphs) -> GraphNetwork:
        """A network that reads as many outputs as each of the graphs has."""
        cells = int((x.labels == self.output).sum(dim=1).max())
        if bool(x.adjacency[x.labels == self.output].any()) or not cells:
            raise ValueError(f"output={self.output} is no label of outputs; give encoder.vocabulary.index('output')")
        sizes = self.embedding, self.units, self.width, self.layers, self.dropout
        return GateNetwork(x.kinds, self.output, cells, *sizes)
