#!/bin/bash
# safetensors 0.8.0 writes a transposed NumPy array with its elements in another order; 0.7.0 did not.
#
# Guess: `safetensors.numpy.save` and `load` return the array that was given, whatever its strides.
# Seen: with 0.8.0 the memory behind a transposed array is written under the shape of the array: a kernel that was brought
# into another layout by `.T` is scrambled. No error, no warning. 0.7.0 copies such arrays first. np.asarray(x, order="C")
# before saving is right with both.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
for version in 0.7.0 0.8.0; do
  venv/bin/pip install --quiet safetensors==$version numpy==2.4.6
  venv/bin/python -W error - <<'PY'
import numpy as np
import safetensors
from safetensors import numpy as files

kernel = np.arange(6.0).reshape(2, 3).T
read = files.load(files.save({"kernel": kernel}))["kernel"]
copied = files.load(files.save({"kernel": np.asarray(kernel, order="C")}))["kernel"]
print(safetensors.__version__, "given", kernel.tolist(), "read", read.tolist())
assert np.array_equal(read, kernel) == (safetensors.__version__ == "0.7.0")
assert np.array_equal(copied, kernel)
PY
done
