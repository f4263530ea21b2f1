"""Conversion of JAX programs to ONNX: convolutional networks in inference."""
