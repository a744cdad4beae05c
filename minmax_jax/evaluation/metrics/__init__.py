"""Metrics of an image, each defined once; averages over a split are taken in `minmax_jax.evaluation.evaluate`."""
