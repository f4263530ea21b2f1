"""Reference ImageNet weights, converted to our parameter trees.

`python -m fer_jax.pretrained.convert FILE --model=resnet50 --out=W` reads what
torchvision, timm, Hugging Face or Keras wrote; `load(W)` gives the variables.
"""

from fer_jax.pretrained.conversion import convert_file
from fer_jax.pretrained.converted_weights import load, save

__all__ = ["convert_file", "load", "save"]
