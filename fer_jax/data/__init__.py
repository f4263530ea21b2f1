"""Data sets: `load(name)` gives splits of uint8 faces, targets and rows."""

from fer_jax.data.datasets.registry import available, load
from fer_jax.data.splits import Dataset, Split

__all__ = ["Dataset", "Split", "available", "load"]
