"""The networks: a trunk, a localizer and a classifier on it, and the two together."""
