"""This package's models in PyTorch, for `peers`.

Written in the style of torchvision (in-place activations, no bias before a
norm). Modules have the names of our parameter tree: `layer1_0/conv1/kernel` is
`layer1_0.conv1.weight`. The models' options are the defaults of our registry.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch_blocks as blocks
from torch import Tensor, nn

from fer_jax.errors import UserError
from fer_jax.models import alexnet, bi_resnet, mobilenet, resnet

Layers = dict[str, nn.Module]

# Names of tensors, ours and those of PyTorch.
_TENSORS = {
  "kernel": "weight",
  "scale": "weight",
  "bias": "bias",
  "mean": "running_mean",
  "var": "running_var",
}


class Mean(nn.Module):
  """The mean of each channel."""

  def forward(self, x: Tensor) -> Tensor:
    """Returns [b c]."""
    return x.mean((2, 3))


class FlattenChannelsLast(nn.Module):
  """Flattens feature maps in the order of Flax, channels last."""

  def forward(self, x: Tensor) -> Tensor:
    """Returns [b h*w*c]."""
    return x.permute(0, 2, 3, 1).flatten(1)


def make(model: str, num_classes: int, image_size: int) -> nn.Module:
  """Creates a model for grayscale images, with random weights.

  Args:
    model: name of the model in our registry.
    num_classes: number of classes.
    image_size: height and width in pixels.

  Raises:
    UserError: the model is not implemented here.
  """
  if model.removeprefix("cbam_") in resnet.DEPTHS:
    layers = _resnet(model)
    layers["fc"] = nn.Linear(_width(layers), num_classes)
  elif model.startswith("bi_resnet_"):
    layers = _bi_resnet(model.removeprefix("bi_resnet_"))
    layers["head"] = blocks.JiangHead(_width(layers), num_classes)
  elif model == "mobilenet":
    layers = _mobilenet()
    layers["drop"] = nn.Dropout(mobilenet.MobileNetV1.dropout)
    layers["fc"] = nn.Linear(_width(layers), num_classes)
  elif model == "mobilenet_v2":
    layers = _mobilenet_v2()
    layers["drop"] = nn.Dropout(mobilenet.MobileNetV2.dropout)
    layers["fc"] = nn.Linear(_width(layers), num_classes)
  elif model == "alexnet":
    layers = _alexnet(image_size)
    layers["fc3"] = nn.Linear(alexnet.DENSE[-1], num_classes)
  elif model == "leaky_cnn":
    layers = _leaky_cnn(image_size)
    layers["fc2"] = nn.Linear(256, num_classes)
  else:
    raise UserError(f"{model} is not implemented in PyTorch")
  module = nn.Sequential()
  for name, layer in layers.items():
    module.add_module(name, layer)
  return module


def load(module: nn.Module, variables: Mapping[str, np.ndarray]) -> None:
  """Loads our weights into a module.

  Args:
    module: a module created by `make`.
    variables: our arrays by path, such as "params/layer1_0/conv1/kernel".

  Raises:
    UserError: names or shapes differ.
  """
  tensors = {}
  for path, array in variables.items():
    *layer, part = path.split("/")[1:]
    if part == "kernel":  # HWIO to OIHW, [inputs outputs] to its transpose
      array = array.transpose((3, 2, 0, 1) if array.ndim == 4 else (1, 0))
    tensors[".".join([*layer, _TENSORS[part]])] = torch.from_numpy(
      np.ascontiguousarray(array)
    )
  try:
    missing, unknown = module.load_state_dict(tensors, strict=False)
  except RuntimeError as e:
    raise UserError(f"shapes differ: {' '.join(str(e).split())}") from e
  missing = [name for name in missing if "num_batches" not in name]
  if missing or unknown:
    raise UserError(f"layers differ: {[*missing, *unknown][:5]}")


def _stem() -> Layers:
  return {
    "conv1": nn.Conv2d(1, 64, 7, 2, 3, bias=False),
    "bn1": nn.BatchNorm2d(64),
    "relu": nn.ReLU(inplace=True),
    "pool": nn.MaxPool2d(3, 2, 1),
  }


def _resnet(model: str) -> Layers:
  attention = model.startswith("cbam_")
  sizes, ours = resnet.DEPTHS[model.removeprefix("cbam_")]
  basic = ours is resnet.BasicBlock
  block = blocks.BasicBlock if basic else blocks.BottleneckBlock
  layers, channels = _stem(), 64
  for stage, repeats in enumerate(sizes):
    features = 64 * 2**stage
    for i in range(repeats):
      stride = 2 if stage > 0 and i == 0 else 1
      layers[f"layer{stage + 1}_{i}"] = block(
        channels, features, stride, attention
      )
      channels = features * ours.expansion
  return layers | {"mean": Mean()}


def _bi_resnet(arrangement: str) -> Layers:
  layers, inputs = _stem(), 64
  for n, (kind, channels, repeats, stride) in enumerate(
    bi_resnet.ARRANGEMENTS[arrangement], start=1
  ):
    for i in range(repeats):
      layers[f"layer{n}_{i}"] = (
        blocks.BottleneckBlock(inputs, channels // 4, stride)
        if kind == "residual"
        else blocks.InvertedBlock(inputs, channels, stride, 6)
      )
      inputs, stride = channels, 1
  # Not in place: the backward pass needs the output of the block's ReLU.
  return layers | {"relu6": nn.ReLU6(), "mean": Mean()}


def _small_stem() -> Layers:
  return {
    "conv1": blocks.conv(1, 32, 3, 2),
    "bn1": nn.BatchNorm2d(32),
    "relu6": nn.ReLU6(inplace=True),
  }


def _mobilenet() -> Layers:
  layers, inputs = _small_stem(), 32
  for n, (channels, stride) in enumerate(mobilenet.V1_BLOCKS, start=1):
    layers[f"block{n}"] = blocks.SeparableBlock(inputs, channels, stride)
    inputs = channels
  return layers | {"mean": Mean()}


def _mobilenet_v2() -> Layers:
  layers, inputs, n = _small_stem(), 32, 0
  for expansion, channels, repeats, stride in mobilenet.V2_STAGES:
    for _ in range(repeats):
      n += 1
      layers[f"block{n}"] = blocks.InvertedBlock(
        inputs, channels, stride, expansion
      )
      inputs, stride = channels, 1
  return layers | {
    "conv_last": blocks.conv(inputs, 1280, 1),
    "bn_last": nn.BatchNorm2d(1280),
    "relu6_last": nn.ReLU6(inplace=True),
    "mean": Mean(),
  }


def _alexnet(image_size: int) -> Layers:
  layers: Layers = {}
  channels, size = 1, image_size
  for i, width in enumerate(alexnet.WIDTHS, start=1):
    layers[f"conv{i}"] = nn.Conv2d(channels, width, 3, padding=1)
    layers[f"relu{i}"] = nn.ReLU(inplace=True)
    if i in alexnet.POOLED:
      layers[f"pool{i}"] = nn.MaxPool2d(2)
      size //= 2
    channels = width
  layers["flat"] = FlattenChannelsLast()
  inputs = size * size * channels
  for i, width in enumerate(alexnet.DENSE, start=1):
    layers[f"fc{i}"] = nn.Linear(inputs, width)
    layers[f"relu_fc{i}"] = nn.ReLU(inplace=True)
    inputs = width
  return layers


def _leaky_cnn(image_size: int) -> Layers:
  layers: Layers = {}
  channels = 1
  for i, width in enumerate((32, 64, 128), start=1):
    layers[f"conv{i}"] = nn.Conv2d(channels, width, 3, padding=1)
    layers[f"act{i}"] = nn.LeakyReLU(0.01, inplace=True)
    layers[f"pool{i}"] = nn.MaxPool2d(2)
    channels = width
  return layers | {
    "flat": FlattenChannelsLast(),
    "fc1": nn.Linear((image_size // 8) ** 2 * channels, 256, bias=False),
    "bn1": nn.BatchNorm1d(256),
    "act": nn.LeakyReLU(0.01, inplace=True),
    "drop": nn.Dropout(0.5),
  }


def _width(layers: Layers) -> int:
  """Returns the channels of the last convolution."""
  convolutions: list[Any] = [
    m
    for layer in layers.values()
    for name, m in layer.named_modules()
    if isinstance(m, nn.Conv2d)
    # The last one of a block may be in its CBAM.
    and "cbam" not in name
  ]
  return int(convolutions[-1].out_channels)
