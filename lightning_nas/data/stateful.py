"""What Lightning needs to stop and resume a loader at any batch.

All loaders here are functions ``read(epoch, start)`` with two integers of state around them. Lightning stores these
integers in its checkpoints and gives them back, as it does for any iterable with ``state_dict`` and
``load_state_dict``. Three habits of its fit loop decide how they are counted:

- It calls ``iter`` more often than it reads (once to see whether it can, once before a checkpoint's epoch is known), so
  an epoch begins with the first batch that is asked for, not with ``iter``.
- It does not restore loaders from a checkpoint that ends an epoch, but it announces the number of every epoch to
  ``loader.sampler.set_epoch``, and a new loader starts from there. After such a checkpoint of a run with ``max_steps``,
  announced numbers are one too high; a restored count, or the trainer's ``current_epoch``, is not led astray.
- After an interrupt within a step it repeats the unfinished batch, so that batch must not be part of the state.

The last two need the trainer, so data modules let their loaders `StatefulLoader.follow` it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Generic, Self, TypeVar

import lightning.pytorch as pl

__all__ = ["StatefulLoader"]

Batch = TypeVar("Batch")


class StatefulLoader(ABC, Generic[Batch]):
    """An iterable over batches whose place is two integers: the epoch, and the batches of it that were handed out.

    Each iteration is one epoch, the next one after the last begun; after `load_state_dict` the first iteration goes on
    in the middle (or, if the saved epoch was complete, with the next). A subclass says only what an epoch holds.
    """

    batch_sampler: None = None
    """Lightning looks here for a sampler as well; there is none."""

    def __init__(self) -> None:
        self._epoch = 0
        self._position = 0
        self._begun = False
        self._loaded = False  # the place was restored and not yet read from
        self._restored = False  # the place was restored at some time
        self._announced: int | None = None
        self._turn = object()
        self._trainer: pl.Trainer | None = None

    @abstractmethod
    def __len__(self) -> int:
        """Batches of an epoch."""

    @abstractmethod
    def read(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from number `start` on; always the same ones, whatever was read before.

        Args:
            epoch: Number of the epoch, from 0.
            start: Batches to leave out at the beginning.

        Returns:
            An iterator over ``len(self) - start`` batches.
        """

    def __iter__(self) -> Iterator[Batch]:
        """One epoch, which begins when its first batch is asked for."""
        self._begin()
        turn = self._turn = object()
        for batch in self.read(self._epoch, self._position):
            if turn is self._turn:  # an iterator that was overtaken by another no longer counts
                self._position += 1
            yield batch

    @property
    def sampler(self) -> Self:
        """This loader: where Lightning looks for ``set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Announce the number of the epoch that the next iteration reads.

        Args:
            epoch: Number of the epoch, from 0.
        """
        self._announced = epoch

    def follow(self, trainer: pl.Trainer | None) -> Self:
        """Take the number of the epoch from `trainer`, and count a batch only when its step is finished.

        Args:
            trainer: The trainer that reads this loader; None counts epochs begun and batches handed out.

        Returns:
            This loader.
        """
        self._trainer = trainer
        return self

    def state_dict(self) -> dict[str, int]:
        """The place as plain integers, ``epoch`` and ``position``."""
        return {"epoch": self._epoch, "position": self._position - self._in_flight()}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Let the next iteration go on where `state_dict` was taken.

        Args:
            state_dict: What `state_dict` returned, for the same data and batch size.

        Raises:
            ValueError: If it is not such a state or does not fit the length of this loader.
        """
        epoch, position = state_dict.get("epoch"), state_dict.get("position")
        if not (isinstance(epoch, int) and isinstance(position, int) and epoch >= 0 and position >= 0):
            raise ValueError(f"a loader state is {{'epoch': int, 'position': int}}, both at least 0, not {state_dict}")
        if position > len(self):
            raise ValueError(
                f"the saved place is batch {position}, but an epoch has {len(self)} batches;"
                " resume with the data and batch size of the saved run"
            )
        self._epoch, self._position = epoch, position
        self._begun = self._loaded = self._restored = True
        self._announced = None

    def close(self) -> None:
        """Let go of worker processes and open iterators; the next iteration opens them again."""

    def _begin(self) -> None:
        """Enter the epoch to be read next."""
        loaded, self._loaded = self._loaded, False
        epoch = self._wanted()
        if epoch is None:
            finished = self._position >= len(self) if loaded else self._begun
            epoch = self._epoch + finished
        if not (loaded and epoch == self._epoch):
            self._epoch, self._position = epoch, 0
        self._begun = True

    def _wanted(self) -> int | None:
        """The epoch that a trainer asks for, None where there is none to ask."""
        announced, self._announced = self._announced, None
        if self._trainer is not None and self._trainer.training:
            return self._trainer.current_epoch
        if announced is not None and self._restored:
            return min(announced, self._epoch + 1)
        return announced

    def _in_flight(self) -> bool:
        """Whether the last batch handed out has not been through its step."""
        if self._trainer is None or self._loaded or not self._trainer.training:
            return False
        finished: int = self._trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
        return self._position == finished + 1
