"""Data sets: `load(name)` gives splits of uint8 faces, targets and rows."""

from fer_jax.data.registry import Dataset, Split, available, load

__all__ = ["Dataset", "Split", "available", "load"]
