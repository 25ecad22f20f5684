"""Predictors: models of the score of an architecture, learned from few labels."""

from lightning_nas.query.predictors.base import Prediction, Predictor, Scale
from lightning_nas.query.predictors.neighbor import NearestNeighbor

__all__ = ["NearestNeighbor", "Prediction", "Predictor", "Scale"]
