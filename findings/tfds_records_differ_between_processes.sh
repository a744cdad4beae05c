#!/bin/bash
# tensorflow-datasets 4.9.10 with protobuf 7.36.2: the same example is serialized to other bytes in each process.
#
# Guess: a dataset that is written twice from the same images gives equal files, so that a checksum identifies it.
# Seen: equal within a process, but of six processes hardly two give the same bytes: features are entries of a protobuf
# map, which the C backend (upb) writes in the order of a hash with another seed in each process. All decode to the same,
# and have the same length. SerializeToString(deterministic=True) of the parsed example is equal in all six.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet tensorflow-datasets==4.9.10 protobuf==7.36.2 importlib-resources==7.1.0 numpy==2.4.6
cat > write.py <<'PY'
import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

features = tfds.features.FeaturesDict(
    {name: tfds.features.Scalar(np.int64) for name in ("label", "height", "width", "patient")}
)
serializer = tfds.core.example_serializer.ExampleSerializer(features.get_serialized_info())
example = features.encode_example({"label": 1, "height": 2, "width": 3, "patient": 4})
first, second = (serializer.serialize_example(example) for _ in range(2))
assert first == second
parsed = tf_example_pb2.Example.FromString(first)
print(first.hex(), parsed.SerializeToString(deterministic=True).hex())
PY
for _ in 1 2 3 4 5 6; do venv/bin/python write.py 2> /dev/null; done > written
venv/bin/python - <<'PY'
written, sorted_ones = zip(*(line.split() for line in open("written")))
print(f"{len(set(written))} forms of {len(written)}, {len(set(map(len, written)))} length, sorted: {len(set(sorted_ones))}")
assert len(written) == 6 and len(set(written)) > 1 and len(set(map(len, written))) == len(set(sorted_ones)) == 1
PY
