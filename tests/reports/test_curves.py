"""Curves from the file of Lightning's CSVLogger: which points are drawn, and what is no curve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger
from matplotlib.figure import Figure
from PIL import Image

from lightning_nas.reports import plot_metrics

TABLE = """\
arch/entropy/cell,arch/loss,epoch,lr-SGD,step,train/loss,val/acc,val/loss
,,0,0.1,0,,,
,,0,,9,,0.25,2.25
1.6,2.5,0,,9,2.375,,
,,1,,19,,0.5,1.75
1.5,2.125,1,,19,2.0,,
,,2,,29,,0.75,1.5
1.4,1.875,2,,29,1.5,,
"""


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved."""
    saved: list[Figure] = []
    save = Figure.savefig

    def savefig(figure: Figure, *args: Any, **options: Any) -> None:
        saved.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return saved


def drawn(figure: Figure) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Axis label -> curve -> points."""
    return {
        axes.get_ylabel(): {
            str(line.get_label()): [(float(x), float(y)) for x, y in zip(*line.get_data(), strict=True)]
            for line in axes.get_lines()
        }
        for axes in figure.axes
    }


def table(folder: Path, text: str) -> Path:
    path = folder / "metrics.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_losses_and_accuracies_are_drawn_over_the_epochs(tmp_path: Path, figures: list[Figure]) -> None:
    out = tmp_path / "curves.png"
    assert plot_metrics(table(tmp_path, TABLE), out) == out
    assert drawn(figures[0]) == {
        "loss": {
            "arch/loss": [(0, 2.5), (1, 2.125), (2, 1.875)],
            "train/loss": [(0, 2.375), (1, 2.0), (2, 1.5)],
            "val/loss": [(0, 2.25), (1, 1.75), (2, 1.5)],
        },
        "accuracy": {"val/acc": [(0, 0.25), (1, 0.5), (2, 0.75)]},
    }
    assert {axes.get_xlabel() for axes in figures[0].axes} == {"epoch"}
    for axes in figures[0].axes:
        names = [text.get_text() for text in axes.get_legend().get_texts()]
        assert sorted(names) == sorted(str(line.get_label()) for line in axes.get_lines())
    with Image.open(out) as picture:
        assert picture.format == "PNG"
        assert picture.size == (1350, 480)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "metrics.csv"]


def test_the_file_of_the_logger_itself(tmp_path: Path, figures: list[Figure]) -> None:
    logger = CSVLogger(tmp_path, name="run", version=0)
    for epoch in range(3):
        logger.log_metrics({"epoch": epoch, "val/acc": epoch / 4}, step=10 * epoch)
        logger.log_metrics({"epoch": epoch, "train/loss": 2.0 - epoch}, step=10 * epoch)
    logger.finalize("success")
    assert plot_metrics(Path(logger.log_dir) / "metrics.csv", tmp_path / "curves.png") is not None
    assert drawn(figures[0]) == {
        "loss": {"train/loss": [(0, 2.0), (1, 1.0), (2, 0.0)]},
        "accuracy": {"val/acc": [(0, 0.0), (1, 0.25), (2, 0.5)]},
    }


def test_one_kind_alone_has_one_panel(tmp_path: Path, figures: list[Figure]) -> None:
    assert plot_metrics(table(tmp_path, "epoch,val/acc\n0,0.5\n"), tmp_path / "curves.png")
    assert drawn(figures[0]) == {"accuracy": {"val/acc": [(0, 0.5)]}}


def test_a_single_epoch_is_visible_and_many_have_no_dots(tmp_path: Path, figures: list[Figure]) -> None:
    rows = "".join(f"{epoch},0.5\n" for epoch in range(50))
    plot_metrics(table(tmp_path, "epoch,val/acc\n0,0.5\n"), tmp_path / "a.png")
    plot_metrics(table(tmp_path, "epoch,val/acc\n" + rows), tmp_path / "b.png")
    dots = [figure.axes[0].get_lines()[0].get_marker() for figure in figures]
    assert dots == [".", "None"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "epoch,step,val/acc\n",
        "epoch,lr-SGD,arch/entropy/cell\n0,0.1,1.6\n",
        "step,val/acc\n0,0.5\n",  # no epoch to draw it at
        "epoch,val/accuracy,loss\n0,0.5,1.0\n",
    ],
)
def test_a_file_without_losses_and_accuracies_is_no_curve(tmp_path: Path, text: str) -> None:
    assert plot_metrics(table(tmp_path, text), tmp_path / "curves.png") is None
    assert not (tmp_path / "curves.png").exists()


@pytest.mark.parametrize("name", ["missing.csv", "missing/metrics.csv", "."])
def test_a_missing_file_is_no_curve(tmp_path: Path, name: str) -> None:
    assert plot_metrics(tmp_path / name, tmp_path / "curves.png") is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("last", ["2", "2,", "2,29"])
def test_a_row_that_was_cut_off_is_left_out(tmp_path: Path, figures: list[Figure], last: str) -> None:
    text = "epoch,step,val/acc\n0,9,0.25\n1,19,0.5\n" + last
    assert plot_metrics(table(tmp_path, text), tmp_path / "curves.png")
    assert drawn(figures[0]) == {"accuracy": {"val/acc": [(0, 0.25), (1, 0.5)]}}


def test_an_epoch_that_was_logged_as_a_number_with_a_point(tmp_path: Path, figures: list[Figure]) -> None:
    """As it is after ``self.log("epoch", ...)`` in a module."""
    assert plot_metrics(table(tmp_path, "epoch,val/acc\n0.0,0.25\n1.0,0.5\n"), tmp_path / "curves.png")
    assert drawn(figures[0]) == {"accuracy": {"val/acc": [(0, 0.25), (1, 0.5)]}}


def test_a_loss_that_was_not_finite_is_a_gap(tmp_path: Path, figures: list[Figure]) -> None:
    assert plot_metrics(table(tmp_path, "epoch,val/loss\n0,1.5\n1,nan\n2,inf\n3,1.0\n"), tmp_path / "curves.png")
    points = drawn(figures[0])["loss"]["val/loss"]
    assert [x for x, _ in points] == [0, 1, 2, 3]
    assert [points[0][1], points[3][1]] == [1.5, 1.0]
