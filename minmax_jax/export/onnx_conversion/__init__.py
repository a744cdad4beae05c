"""From a traced JAX function to ONNX: one table of primitives, and nothing that knows this library's networks."""
