"""ONNX graphs: find where everything flows through, cut there, and put the pieces together."""
