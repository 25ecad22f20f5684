"""What people look at: cells as text and pictures, curves, and the files that a run leaves."""

from lightning_nas.reports.artifacts import list_artifacts, require_writable, write_genotype, write_summary
from lightning_nas.reports.cells import draw_figure, draw_text, save_drawing
from lightning_nas.reports.curves import plot_metrics

__all__ = [
    "draw_figure",
    "draw_text",
    "list_artifacts",
    "plot_metrics",
    "require_writable",
    "save_drawing",
    "write_genotype",
    "write_summary",
]
