"""A method on a labelled split: predictions, metrics, model selection."""

from minmax_jax.evaluation.evaluators import Evaluator, Metric, Truth, evaluate, measure, score, summarize
from minmax_jax.evaluation.image_predictions import ImagePrediction, NotFiniteError, predict_split

__all__ = [
    "Evaluator",
    "ImagePrediction",
    "Metric",
    "NotFiniteError",
    "Truth",
    "evaluate",
    "measure",
    "predict_split",
    "score",
    "summarize",
]
