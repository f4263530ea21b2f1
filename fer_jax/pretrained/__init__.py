"""Pretrained weights: reference ImageNet weights as parameter trees of ours.

`fer-jax convert FILE --model=resnet50 --out=W` converts a file of torchvision,
timm, Hugging Face or Keras; `load(W)` returns the variables.
"""

from fer_jax.pretrained.conversion import convert_file
from fer_jax.pretrained.converted_weights import load, save

__all__ = ["convert_file", "load", "save"]
