"""Datasets: `load(name)` returns splits of uint8 images and targets."""

from fer_jax.data.datasets.registry import available, load
from fer_jax.data.splits import Dataset, Split

__all__ = ["Dataset", "Split", "available", "load"]
