"""Augmentation of training images inside the compiled step."""
