"""How many channels the candidates of a cell see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Width"]


class Width(nn.Module):
    """The channels ``1/k`` that candidates see, fixed or to be widened.

    To be widened they have the weights for the widest, and run on the first channels of them. The present number is a
    buffer, so that checkpoints carry it; reading it here never waits for a device.

    Args:
        channels: All channels.
        partial: ``k``, at the widest.
        start: ``k`` to begin with; ``None`` for a width that stays, which has no buffer.
        even: Whether the number must be even.
        where: The place, for messages.

    Attributes:
        partial: ``k`` now.
        channels: The channels seen now.
        widest: The channels that there are weights for.

    Raises:
        ValueError: If there is no such ``k``.

    Example:
        >>> width = Width(12, partial=2, start=6)
        >>> width.set(3)
        >>> width.channels, width.widest, int(width.state_dict()["active"])
        (4, 6, 4)
    """

    active: Tensor | None

    def __init__(
        self, channels: int, partial: int = 1, start: int | None = None, even: bool = False, where: str = "the cell"
    ) -> None:
        super().__init__()
        self.all, self.widest, self.even, self.where = channels, channels, even, where
        self.widest = self.of(partial)
        self.partial, self.channels = (partial, self.widest) if start is None else (start, self.of(start))
        self.register_buffer("active", None if start is None else torch.tensor(self.channels))

    def of(self, partial: int) -> int:
        """The channels seen with this ``k``.

        Raises:
            ValueError: If it does not divide all channels, if there are no weights for so many, or if their number must
                be even and is not.
        """
        if partial < 1 or self.all % partial:
            raise ValueError(
                f"partial={partial} does not divide the {self.all} channels of {self.where}; give a divisor"
            )
        channels = self.all // partial
        if channels > self.widest:
            raise ValueError(
                f"partial={partial} takes {channels} channels of {self.where}, which has weights for {self.widest};"
                f" give a divisor of {self.all} from {self.all // self.widest} on"
            )
        if channels % 2 and self.even:
            raise ValueError(
                f"partial={partial} leaves {channels} channels of {self.where} to reductions, which need an even"
                f" number; give another divisor of {self.all}"
            )
        return channels

    def set(self, partial: int) -> None:
        """See ``1/partial`` of the channels from now on; the weights stay as they are.

        Raises:
            ValueError: If the width is fixed, or there is no such ``k``.
        """
        channels = self.of(partial)
        if self.active is None:
            raise ValueError(f"partial={partial}: {self.where} has a fixed width; build it with start_partial")
        self.active.fill_(channels)
        self.partial, self.channels = partial, channels

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        if self.active is not None:
            channels = int(self.active)
            try:
                self.set(self.all // channels if channels > 0 and self.all % channels == 0 else 0)
            except ValueError as error:
                args[-1].append(f"{prefix}active of {channels} channels: {error}")  # collected by load_state_dict
