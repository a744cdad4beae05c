#!/usr/bin/env bash
# jax 0.10.2, jaxlib 0.10.2, CPU.
# Guess: two equal computations in one jitted function are computed once, whatever they are written as.
# Seen: equal code is merged, equal loops are not. A convolution over two mirror images, asked for twice: in straight code
# the compiled program has it once for both views (one batch), as two `lax.map` it has two loops, each with the
# convolution. So test-time augmentation in a loop computes a network once for each caller that asks for its features.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import jax
import jax.numpy as jnp
from jax import lax

kernel = jnp.ones((3, 3, 4, 4))
images = jnp.ones((2, 8, 16, 16, 4))  # two views of eight images


def network(views):
    return lax.conv_general_dilated(views, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def straight(images):
    return network(images.reshape(16, 16, 16, 4))


def loop(images):
    return lax.map(network, images)


def count(features):
    """Convolutions in the compiled program of two callers: one needs the mean of the features, one their maximum."""
    text = jax.jit(lambda images: (features(images).mean(), features(images).max())).lower(images).compile().as_text()
    return sum(" convolution(" in line for line in text.splitlines())


found = {"straight": count(straight), "loop": count(loop)}
print(jax.__version__, "convolutions in the compiled program:", found)
assert found == {"straight": 1, "loop": 2}, found
PYTHON
