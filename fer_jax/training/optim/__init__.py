"""Optimizers, schedules, early stopping, freezing and layer learning rates."""
