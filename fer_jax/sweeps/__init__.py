"""Sweeps: a space of configurations, searched by trials."""
