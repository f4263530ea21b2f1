"""Convolutions, pooling and batch normalization, lowered per platform."""
