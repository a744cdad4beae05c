#!/bin/bash
# onnxconverter-common 1.16.0: a constant that two operations share, one of them kept in float32, becomes an invalid file.
#
# Guess: float16.convert_float_to_float16 gives a file that loads, whatever valid graph it is given.
# Seen: Max is on the converter's own list of operations that stay in float32. Where its constant is shared with Mul, the
# constant stays float32 for both, and no cast is put before Mul: onnxruntime refuses the file, as Mul gets two types. With
# a constant for each operation the same graph converts and runs. Writers of ONNX should not share constants.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet onnx==1.20.0 onnxruntime==1.24.1 onnxconverter-common==1.16.0 numpy==2.4.6
venv/bin/python -W ignore - <<'PY'
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
import onnxruntime
from onnxconverter_common import float16


def converted(names):
    """max(x * c, c), with one constant or two."""
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    nodes = [
        helper.make_node("Mul", ["x", names[0]], ["product"], name="mul"),
        helper.make_node("Max", ["product", names[1]], ["y"], name="max"),
    ]
    constants = [numpy_helper.from_array(np.float32([2, 3]), name) for name in dict.fromkeys(names)]
    graph = helper.make_graph(nodes, "graph", sides[:1], sides[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.checker.check_model(model, full_check=True)
    onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return float16.convert_float_to_float16(model)


for names in (["a", "b"], ["a", "a"]):
    try:
        session = onnxruntime.InferenceSession(converted(names).SerializeToString(), providers=["CPUExecutionProvider"])
        outcome = session.run(None, {"x": np.float16([1, -1])})[0].tolist()
    except Exception as error:
        outcome = f"{type(error).__name__}: {str(error)[:150]}"
    print("a constant each:" if names[0] != names[1] else "one constant:   ", outcome)
    assert (outcome == [2, 3]) == (names[0] != names[1])
PY
