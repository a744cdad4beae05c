"""Digests of arrays: equal digests mean bit-identical states, models or datasets."""

import hashlib
from typing import Any

import jax
import numpy as np

from minmax_jax.data.dataset import Split
from minmax_jax.training.state import TrainState, inference_variables


def digest(tree: Any) -> str:
    """SHA-256 over the names, types and values of a pytree's arrays, in the order of their names."""
    sha = hashlib.sha256()
    leaves = [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
    for name, leaf in sorted(leaves, key=lambda item: item[0]):
        array = np.ascontiguousarray(leaf)
        sha.update(f"{name} {array.dtype} {array.shape}\n".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def state_digest(state: TrainState) -> str:
    """Digest of everything that a checkpoint saves of a state."""
    return digest(jax.tree.map(np.asarray, state.replace(rng=jax.random.key_data(state.rng))))


def model_digest(state: TrainState) -> str:
    """Digest of the parameters and statistics that inference reads, averaged where the state keeps averages."""
    variables = inference_variables(state)
    return digest({name: variables[name] for name in ("params", "batch_stats")})


def split_digest(split: Split) -> str:
    """Digest of the names, classes (and which have no region), labels, sizes and reading of a split, not of pixels."""
    sha = hashlib.sha256(repr((split.names, split.class_names)).encode())
    sha.update(split.labels.tobytes() + split.sizes.tobytes())
    # Defaults add nothing, so that digests of earlier versions stay as they are.
    if not split.reading.is_default:
        sha.update(repr(split.reading).encode())
    if split.background_classes:
        sha.update(repr(split.background_classes).encode())
    return sha.hexdigest()
