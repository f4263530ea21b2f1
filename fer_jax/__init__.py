"""Facial expression recognition in JAX and Flax, at full throughput."""

__version__ = "0.1.0"
