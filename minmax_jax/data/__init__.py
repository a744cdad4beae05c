"""Datasets, and the way from their images to batches."""
