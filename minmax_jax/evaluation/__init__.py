"""A method on a labelled split: predictions, metrics, model selection."""

from minmax_jax.evaluation.evaluators import Evaluator, Truth, evaluate, summarize
from minmax_jax.evaluation.image_predictions import ImagePrediction, predict_split

__all__ = ["Evaluator", "ImagePrediction", "Truth", "evaluate", "predict_split", "summarize"]
