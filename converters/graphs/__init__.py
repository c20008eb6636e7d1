"""ONNX graphs: read, tidied, rewritten, measured."""
