#!/bin/bash
# flax 0.12.8: an nnx.Module as an attribute of a Linen module runs, and is neither trained nor saved.
#
# Guess: Linen refuses a module of the other kind, or bridges it.
# Seen: init and apply work; the variables of Linen have nothing of the nnx module, so that gradients, optimizers and
# checkpoints leave it out. Nothing is said; flax.nnx.bridge.to_linen is what one has to call.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet flax==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu venv/bin/python -W error - <<'PY'
import flax.linen as nn
from flax import nnx
import jax
import jax.numpy as jnp


class Net(nn.Module):
    trunk: nn.Module

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, name="head")(self.trunk(x))


x = jnp.ones((1, 3))
plain = Net(nnx.Linear(3, 4, rngs=nnx.Rngs(0)))
variables = plain.init(jax.random.key(0), x)
print("as it is:", jax.tree.map(jnp.shape, variables), "output", plain.apply(variables, x).shape)
assert set(variables["params"]) == {"head"}
bridged = Net(nnx.bridge.to_linen(nnx.Linear, 3, 4))
variables = bridged.init(jax.random.key(0), x)
print("by to_linen:", sorted(variables["params"]))
assert set(variables["params"]) == {"head", "trunk"}
PY
