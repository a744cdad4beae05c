"""A run, from a configuration to its results: training, checkpoints, the workdir."""
