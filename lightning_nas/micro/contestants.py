"""The methods that are compared on a micro-benchmark, each at its published settings on a short schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from lightning.pytorch.callbacks import Callback

from lightning_nas import methods
from lightning_nas.callbacks import PerturbationRegularization, PerturbationSelection, epochs_needed
from lightning_nas.methods import AdamTheta, DifferentiableSearch, ExponentiatedGradient
from lightning_nas.micro.setting import MicroSetting

__all__ = ["CONTESTANTS", "Contestant", "Schedule"]

_BATCHES_OF_CIFAR = 25_000 / 64


@dataclass(frozen=True)
class Schedule:
    """The one rule by which published settings become those of a short search.

    Epochs that a method counts (warm-ups, intervals) shrink as the number of epochs does. Schedules that are linear
    in the progress of the search keep their ends. The learning rate of `theta` grows as the number of architecture
    steps shrinks, so that `theta` can go as far; that of the weights stays.

    Args:
        epochs: Epochs of the short search.
        batches: Batches of an epoch.

    Example:
        >>> short = Schedule(epochs=20, batches=62)
        >>> short.span(15, of=50), round(short.adam(AdamTheta(lr=3e-4), of=50).lr, 4)
        (6, 0.0047)
    """

    epochs: int
    batches: int

    def span(self, published: int, of: int) -> int:
        """So many epochs of the published number, shortened."""
        return max(round(published * self.epochs / of), 1)

    def stretch(self, of: int) -> float:
        """How many times fewer architecture steps there are than in so many published epochs."""
        return of * _BATCHES_OF_CIFAR / (self.epochs * self.batches)

    def adam(self, published: AdamTheta, of: int) -> AdamTheta:
        """The optimiser of `theta` with its rate adapted."""
        return replace(published, lr=published.lr * self.stretch(of))


@dataclass(frozen=True)
class Contestant:
    """A method in a study.

    Args:
        make: Function from the common arguments of a search and the schedule to the search.
        callbacks: Function from the schedule to callbacks of its own for the Trainer.
        tuning: Whether a selection follows after the epochs of the search.
    """

    make: Callable[[dict[str, Any], Schedule], DifferentiableSearch]
    callbacks: Callable[[Schedule], list[Callback]] = lambda schedule: []
    tuning: bool = False

    def epochs(self, schedule: Schedule, setting: MicroSetting) -> int:
        """Epochs of the whole fit."""
        if not self.tuning:
            return schedule.epochs
        return epochs_needed(setting.network_space, schedule.epochs, schedule.span(5, of=50))


def _pt(schedule: Schedule) -> Callback:
    return PerturbationSelection(schedule.epochs, schedule.span(5, of=50))


def _darts(**more: Any) -> Callable[[dict[str, Any], Schedule], DifferentiableSearch]:
    return lambda a, s: methods.DARTS(**a, **more, theta=s.adam(AdamTheta(), of=50))


def _sdarts(kind: Any) -> Callable[[dict[str, Any], Schedule], DifferentiableSearch]:
    return lambda a, s: methods.SDARTS(**a, kind=kind, theta=s.adam(AdamTheta(), of=50))


CONTESTANTS: dict[str, Contestant] = {
    "DARTS": Contestant(_darts()),
    "DARTS 2nd": Contestant(_darts(gradient="second")),
    "SNAS": Contestant(lambda a, s: methods.SNAS(**a, theta=s.adam(AdamTheta(clip=10.0), of=150))),
    "GDAS": Contestant(lambda a, s: methods.GDAS(**a, theta=s.adam(AdamTheta(), of=250))),
    "DSNAS": Contestant(lambda a, s: methods.DSNAS(**a, theta=s.adam(AdamTheta(lr=1e-3, weight_decay=0.0), of=80))),
    "DrNAS": Contestant(lambda a, s: methods.DrNAS(**a, theta=s.adam(AdamTheta(lr=6e-4), of=50))),
    "NASP": Contestant(lambda a, s: methods.NASP(**a, theta=s.adam(AdamTheta(), of=50))),
    "PC-DARTS": Contestant(
        lambda a, s: methods.PCDARTS(**a, warmup=s.span(15, of=50), theta=s.adam(AdamTheta(lr=6e-4), of=50))
    ),
    "SDARTS-RS": Contestant(_sdarts("random")),
    "SDARTS-ADV": Contestant(_sdarts("adversarial")),
    "DARTS+PT": Contestant(_darts(), lambda s: [_pt(s)], tuning=True),
    "PT, alpha fixed": Contestant(
        lambda a, s: methods.DARTSPT(**a, start_epoch=s.epochs, every_n_epochs=s.span(5, of=50), fixed_alpha=True),
        tuning=True,
    ),
    "SDARTS-RS+PT": Contestant(
        _darts(), lambda s: [PerturbationRegularization("random", epochs=s.epochs), _pt(s)], tuning=True
    ),
    "ProxylessNAS": Contestant(
        lambda a, s: methods.ProxylessNAS(
            **a,
            warmup=s.span(40, of=160),
            theta_every=1,
            theta=AdamTheta(lr=1e-3 * s.stretch(of=24), betas=(0.0, 0.999), weight_decay=0.0),
        )
    ),
    "ENAS": Contestant(lambda a, s: methods.ENAS(**a, draws=100)),
    "few-shot": Contestant(lambda a, s: methods.FewShotNAS(**a, split_epoch=s.epochs // 2, samples=100, batches=2)),
    "random search, shared weights": Contestant(lambda a, s: methods.RandomSearchWS(**a, samples=100, batches=2)),
    "GAEA": Contestant(lambda a, s: methods.GAEA(**a, theta=ExponentiatedGradient(0.1 * s.stretch(of=50)))),
    "DARTS-": Contestant(lambda a, s: methods.DARTSMinus(**a, theta=s.adam(AdamTheta(), of=50))),
    "beta-DARTS": Contestant(lambda a, s: methods.BetaDARTS(**a, theta=s.adam(AdamTheta(), of=50))),
}
"""Name -> contestant. Plain random search trains cells from scratch and is read off the table."""
