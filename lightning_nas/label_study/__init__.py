"""Studies of searches with few labels, on tabular benchmarks: who finds the best, and which predictor ranks best."""

from lightning_nas.label_study.race import run_race
from lightning_nas.label_study.scores import write_scores
from lightning_nas.label_study.taus import run_taus

__all__ = ["run_race", "run_taus", "write_scores"]
