"""A method on a labelled split: predictions, metrics, model selection."""

from minmax_jax.evaluation.evaluators import Evaluator, Truth, evaluate, summarize
from minmax_jax.evaluation.image_predictions import ImagePrediction, NotFiniteError, predict_split

__all__ = ["Evaluator", "ImagePrediction", "NotFiniteError", "Truth", "evaluate", "predict_split", "summarize"]
