"""From stage to stage: what was pruned stays pruned in the deeper supernet, which starts anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from toys import Pairs, quiet_trainer

from lightning_nas.callbacks import GenotypeLogger
from lightning_nas.callbacks.progressive import keep_best
from lightning_nas.cli import main
from lightning_nas.methods import PDARTS, DifferentiableSearch
from lightning_nas.methods.stages import grow


def test_the_next_stage_has_the_operations_that_are_left() -> None:
    first, second = (PDARTS("nasbench201", channels=4, cells=cells, warmup=0, seed=cells) for cells in (1, 2))
    quiet_trainer(max_epochs=1, limit_val_batches=0, callbacks=[GenotypeLogger(terminal=False)]).fit(first, Pairs(2))
    keep_best(first, 3)
    theta, weights = second.relaxation.theta["cell"].clone(), second.supernet.classifier.weight.clone()  # type: ignore[union-attr]
    grow(first, second)
    assert {len(row) for row in second.relaxation.support.open("cell")} == {3}
    assert second.relaxation.support.open("cell") == first.relaxation.support.open("cell")
    assert torch.equal(second.relaxation.theta["cell"], theta)
    assert torch.equal(second.supernet.classifier.weight, weights)  # type: ignore[union-attr, arg-type]
    assert second.relaxation().active == {"cell": first.relaxation.support.open("cell")}
    with pytest.raises(ValueError, match="cannot follow one in 'nasbench201'"):
        grow(first, DifferentiableSearch("small_sep", channels=4, cells=3))


def test_stages_of_a_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = Path(__file__).parents[2] / "recipes/search/digits_nasbench201.yaml"
    args = ["search", f"--config={recipe}", "--model=lightning_nas.methods.PDARTS", "--model.warmup=0"]
    args += ["--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1", "--trainer.enable_progress_bar=false"]
    args += ["--trainer.logger.init_args.save_dir=runs", "--trainer.logger.init_args.name=stages", "--estimate=false"]
    stages = "[{channels: 4, cells: 1, epochs: 1, keep: 2}, {channels: 8, cells: 1, epochs: 2}]"
    main([*args, f"--stages={stages}"])
    out = capsys.readouterr().out
    assert "stage 1 of 2" in out
    assert "stage 2 of 2" in out
    summaries = [json.loads(Path(f"runs/stages/version_{n}/summary.json").read_text()) for n in (0, 1)]
    assert [s["metrics"]["support/open"] for s in summaries] == [30, 12]
    with pytest.raises(SystemExit):
        main([*args, "--stages=[{depth: 1}]"])
    assert "stage 0 sets 'depth'; allowed are keep, epochs and " in capsys.readouterr().err
