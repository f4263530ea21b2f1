"""Spaces that python -m fer_jax.sweep searches: one file each."""
