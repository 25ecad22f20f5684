"""What people look at: cells as text and pictures, curves, and the files that a run leaves."""

from lightning_nas.reports.artifacts import (
    list_artifacts,
    require_writable,
    write_genotype,
    write_json,
    write_report,
    write_summary,
)
from lightning_nas.reports.cells import draw_figure, draw_text, save_drawing
from lightning_nas.reports.curves import plot_metrics
from lightning_nas.reports.files import run_folder, write_whole
from lightning_nas.reports.regret import plot_regret

__all__ = [
    "draw_figure",
    "draw_text",
    "list_artifacts",
    "plot_metrics",
    "plot_regret",
    "require_writable",
    "run_folder",
    "save_drawing",
    "write_genotype",
    "write_json",
    "write_report",
    "write_summary",
    "write_whole",
]
