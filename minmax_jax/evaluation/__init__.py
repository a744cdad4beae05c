"""A method on a labelled split: predictions, metrics, model selection."""
