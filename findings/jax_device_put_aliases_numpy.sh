#!/bin/bash
# jax 0.10.2, jaxlib 0.10.2, CPU: device_put(x, may_alias=False) of a NumPy array shares the memory of the array.
#
# Guess: it copies, as its documentation says for may_alias=False.
# Seen: where the memory begins at a multiple of 64 bytes, the JAX array follows a later change of the NumPy array, so that
# weights read from a file change with the buffer they came from; one float further, it is a copy. jnp.array copies both.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu venv/bin/python -W error - <<'PY'
import jax
import jax.numpy as jnp
import numpy as np

buffer = np.zeros(256, np.float32)
aligned = (-buffer.ctypes.data // 4) % 16  # floats up to the next multiple of 64 bytes


def first_after_change(start, put):
    values = buffer[start : start + 64]
    values[:] = 0
    found = jax.block_until_ready(put(values))
    values += 1
    return float(found[0])


def put_copy(values):
    return jax.device_put(values, may_alias=False)


found = {
    "device_put, aligned": first_after_change(aligned, put_copy),
    "device_put, one float further": first_after_change(aligned + 1, put_copy),
    "jnp.array, aligned": first_after_change(aligned, jnp.array),
}
print(jax.__version__, "first value after the NumPy array became 1:", found)
assert found == {"device_put, aligned": 1.0, "device_put, one float further": 0.0, "jnp.array, aligned": 0.0}, found
PY
