"""Text in the terminal of a fit."""

from __future__ import annotations

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar

__all__ = ["print_above_bar"]


def print_above_bar(trainer: L.Trainer, text: str) -> None:
    """Print above the progress bar, if there is one."""
    bar = trainer.progress_bar_callback
    if isinstance(bar, (TQDMProgressBar, RichProgressBar)) and bar.is_enabled:
        bar.print(text)
    else:
        print(text, flush=True)
