"""Networks: `create(name, num_classes, **options)` returns a Flax module."""

from fer_jax.models.registry import create, list_models, options_of

__all__ = ["create", "list_models", "options_of"]
