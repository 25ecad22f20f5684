"""The first neural architecture search: a genetic algorithm over the connections of small networks.

Reference: Miller, Todd and Hegde, "Designing Neural Networks using Genetic Algorithms", ICGA 1989.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from lightning_nas.reports import require_writable, write_whole

__all__ = ["Constraints", "evolve", "four_quadrants", "next_generation", "outputs", "train"]

_INPUTS = 2
_ROWS_FROM_EITHER, _FLIP = 0.5, 0.02


@dataclass(frozen=True)
class Constraints:
    """What a feed-forward network of two inputs, hidden units in a row and one output may connect.

    A connectivity constraint matrix ``(units, units + 1)`` has a 1 where the unit of the column may feed that of the
    row; the last column is the bias. Units are the inputs, the hidden ones in their order, and the output.

    Args:
        hidden: Number of hidden units.

    Raises:
        ValueError: If it is negative.

    Example:
        >>> Constraints(1).allowed.int().tolist()
        [[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 0, 0, 1], [1, 1, 1, 0, 1]]
    """

    hidden: int = 8

    def __post_init__(self) -> None:
        if self.hidden < 0:
            raise ValueError(f"hidden={self.hidden}: give the number of hidden units, at least 0")

    @property
    def units(self) -> int:
        """Number of units."""
        return _INPUTS + self.hidden + 1

    @property
    def allowed(self) -> Tensor:
        """Boolean ``(units, units + 1)``: what may be 1 in a matrix."""
        allowed = torch.ones(self.units, self.units, dtype=torch.bool).tril(-1)
        allowed = torch.cat([allowed, torch.ones(self.units, 1, dtype=torch.bool)], dim=1)
        allowed[:_INPUTS] = False
        return allowed

    def random(self, count: int, generator: torch.Generator) -> Tensor:
        """Boolean ``(count, units, units + 1)``: matrices with each allowed entry 1 with probability one half."""
        return (torch.rand(count, *self.allowed.shape, generator=generator) < 0.5) & self.allowed


def outputs(weights: Tensor, x: Tensor) -> Tensor:
    """The outputs of many networks for the same inputs.

    Args:
        weights: ``(networks, units, units + 1)``, zero where there is no connection.
        x: ``(points, 2)``.

    Returns:
        ``(networks, points)``, between 0 and 1.

    Example:
        >>> weights = torch.zeros(1, 3, 4)
        >>> weights[0, 2] = torch.tensor([1.0, -1.0, 0.0, 0.5])
        >>> outputs(weights, torch.tensor([[0.5, 1.0]])).item()  # the sigmoid of 0.5 - 1.0 + 0.5
        0.5
    """
    units = weights.shape[1]
    sums = weights[:, None, :, units].expand(-1, len(x), -1)
    for unit in range(units - 1):
        act = x[:, unit].expand(len(weights), -1) if unit < _INPUTS else torch.sigmoid(sums[:, :, unit])
        sums = sums + act[:, :, None] * weights[:, None, :, unit]
    return torch.sigmoid(sums[:, :, -1])


def train(
    matrices: Tensor, x: Tensor, y: Tensor, epochs: int, generator: torch.Generator, lr: float = 4.0
) -> tuple[Tensor, Tensor]:
    """Train many networks from fresh weights by back-propagation with momentum, all as one batch.

    Args:
        matrices: ``(networks, units, units + 1)``: which connections there are.
        x: ``(points, 2)``.
        y: ``(points,)``, in ``[0, 1]``.
        epochs: Steps, each over all points.
        generator: Source of the first weights, which are normal.
        lr: Learning rate for the mean squared error; momentum is 0.9.

    Returns:
        The total squared error of each network, ``(networks,)``, and its weights.
    """
    mask = matrices.to(x.dtype)
    weights = torch.randn(mask.shape, generator=generator, dtype=x.dtype) * mask
    velocity = torch.zeros_like(weights)
    for _ in range(epochs):
        weights.requires_grad_(True)
        loss = (outputs(weights, x) - y).square().mean(dim=1).sum()
        (gradient,) = torch.autograd.grad(loss, weights)
        velocity = 0.9 * velocity - lr * gradient * mask
        weights = weights.detach() + velocity
    return (outputs(weights, x) - y).square().sum(dim=1), weights


def next_generation(matrices: Tensor, errors: Tensor, allowed: Tensor, generator: torch.Generator) -> Tensor:
    """The best as it is, and children: parents by roulette, rows swapped, bits flipped.

    A parent's chance is in proportion to how far its fitness, minus the error, is above the worst. Each row of a child
    comes from either of its parents, and each allowed entry flips with probability 0.02.

    Args:
        matrices: ``(population, units, units + 1)``.
        errors: ``(population,)``.
        allowed: ``(units, units + 1)``.
        generator: Source of randomness.
    """
    size, chances = len(matrices), errors.max() - errors + 1e-9
    drawn = torch.multinomial(chances, 2 * size, replacement=True, generator=generator)
    swapped = torch.rand(size, matrices.shape[1], 1, generator=generator) < _ROWS_FROM_EITHER
    children = torch.where(swapped, matrices[drawn[:size]], matrices[drawn[size:]])
    flips = (torch.rand(children.shape, generator=generator) < _FLIP) & allowed
    children = children ^ flips
    children[0] = matrices[errors.argmin()]
    return children


def evolve(generations: int, population: int, hidden: int, epochs: int, seed: int) -> tuple[dict[str, Any], Tensor]:
    """The evolution of `four_quadrants`.

    Args:
        generations: Generations after the first.
        population: Networks of a generation.
        hidden: Hidden units that a network may use.
        epochs: Epochs of each network.
        seed: Seed of all draws.

    Returns:
        Figures as plain values, and the weights of the evolved network at the best of its trainings.

    Raises:
        ValueError: If a number is not positive.
    """
    if min(generations, population, epochs) < 1:
        raise ValueError(f"generations={generations}, population={population}, epochs={epochs}: give at least 1 each")
    rules, generator = Constraints(hidden), torch.Generator().manual_seed(seed)
    side = torch.linspace(-5 / 6, 5 / 6, 6)
    x = torch.cartesian_prod(side, side)
    y = (x[:, 0] * x[:, 1] > 0).float()
    matrices = rules.random(population, generator)
    best, mean = [], []
    for generation in range(generations + 1):
        errors, _ = train(matrices, x, y, epochs, generator)
        best.append(errors.min().item())
        mean.append(errors.mean().item())
        if generation < generations:
            matrices = next_generation(matrices, errors, rules.allowed, generator)
    again = torch.stack([train(matrices, x, y, epochs, generator)[0] for _ in range(5)]).mean(dim=0)
    evolved = matrices[again.argmin()]
    fresh, weights = train(evolved.expand(population, -1, -1), x, y, epochs, generator)
    rivals, _ = train(rules.random(population, generator), x, y, epochs, generator)
    found: dict[str, Any] = {"best": best, "mean": mean, "evolved_error": fresh.mean().item()}
    found |= {"random_error": rivals.mean().item(), "random_best": rivals.min().item()}
    found["matrix"] = ["".join(map(str, row)) for row in evolved.int().tolist()]
    settings = {"generations": generations, "population": population, "hidden": hidden, "epochs": epochs, "seed": seed}
    return found | {"settings": settings}, weights[fresh.argmin()]


def four_quadrants(
    out: str = "runs/four_quadrants",
    generations: int = 30,
    population: int = 50,
    hidden: int = 8,
    epochs: int = 60,
    seed: int = 0,
) -> dict[str, Any]:
    """Evolve a network that tells the four quadrants of a square apart, as in 1989, and draw it.

    The network learns to say 1 in the quadrants where both coordinates have the same sign, and 0 in the others. Its
    fitness is minus the total squared error on 36 points after a fixed number of epochs. In the end the evolved
    connections and as many random ones are trained anew, from fresh weights, for equally many epochs.

    Args:
        out: Folder for the picture and the figures.
        generations: Generations after the first.
        population: Networks of a generation, trained as one batch.
        hidden: Hidden units that a network may use.
        epochs: Epochs of back-propagation of each network.
        seed: Seed of all draws.

    Returns:
        What is written as JSON.

    Raises:
        ValueError: If a number is not positive.
    """
    require_writable(Path(out))
    found, weights = evolve(generations, population, hidden, epochs, seed)
    _write(Path(out), found, weights)
    return found


def _write(folder: Path, found: dict[str, Any], weights: Tensor) -> None:
    """Picture and figures, with their paths on the terminal."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    square, curve, connections = figure.subplots(1, 3)
    side = torch.linspace(-1, 1, 101)
    surface = outputs(weights[None], torch.cartesian_prod(side, side)).reshape(101, 101).T
    shown = square.imshow(surface, origin="lower", extent=(-1, 1, -1, 1), vmin=0, vmax=1, cmap="RdBu_r")
    figure.colorbar(shown, ax=square)
    square.set_title("what the evolved network computes")
    curve.plot(found["best"], label="best of the generation")
    curve.plot(found["mean"], label="mean of the generation")
    curve.axhline(found["random_error"], color="grey", linestyle="--", label="random networks, mean")
    curve.axhline(found["evolved_error"], color="C2", linestyle=":", label="evolved network, fresh weights, mean")
    curve.set(xlabel="generation", ylabel="total squared error", title="error after training", ylim=(0, None))
    curve.legend(frameon=False, fontsize=8)
    matrix = [[int(bit) for bit in row] for row in found["matrix"]]
    connections.imshow(matrix, cmap="Greys", vmin=0, vmax=1.3)
    units = ["x", "y", *map(str, range(1, len(matrix) - 2)), "out"]
    connections.set_xticks(range(len(units) + 1), [*units, "bias"], fontsize=7)
    connections.set_yticks(range(len(units)), units, fontsize=7)
    connections.set(xlabel="from", ylabel="to", title="connections of the evolved network")
    print(write_whole(folder / "four_quadrants.png", lambda path: figure.savefig(path, dpi=150)))
    text = json.dumps(found, indent=2)
    print(write_whole(folder / "four_quadrants.json", lambda path: path.write_text(text, encoding="utf-8")))
