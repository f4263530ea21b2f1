"""Convolution, pooling and batch normalization, lowered per platform."""
