"""A trained model as one file for other programs: StableHLO or ONNX, checked against the model before it is kept."""
