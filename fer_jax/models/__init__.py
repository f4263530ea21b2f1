"""Models: `create(name, num_classes, **options)` gives a Flax module."""

from fer_jax.models.registry import available, create

__all__ = ["available", "create"]
