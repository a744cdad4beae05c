"""The folder of a run: configuration, checkpoints, model card, results."""
