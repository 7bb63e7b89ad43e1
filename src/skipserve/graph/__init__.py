"""ONNX graphs: find dominators, cut there, and assemble the pieces."""
